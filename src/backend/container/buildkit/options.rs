//! From a service's `build:` to what `BuildKit` is asked for. Pure, but for the Dockerfile, which must be
//! there.
//!
//! The names of the attributes are those of the Dockerfile frontend (moby/buildkit,
//! `frontend/dockerui/config.go`). What an engine would ignore without a word is refused or said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::proto::{CacheEntry, CacheOptions, SolveRequest};
use super::session::Source;
use crate::backend::container::build::tidied;
use crate::project::model::{Build, BuildContext, NamedContext, Service};
use crate::project::reference::Reference;

/// The cache that is in the image itself.
const INLINE: &str = "inline";

/// What an engine's builder can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    /// Named contexts, `shm_size` and `ulimits`: `BuildKit` of Docker Engine 23 and newer.
    pub modern: bool,
    /// Several platforms and attestations: the containerd image store.
    pub store: bool,
}

/// A build as the builder takes it.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The request; its name and its session are not in it yet.
    pub solve: SolveRequest,
    /// The files it may ask for.
    pub sources: BTreeMap<String, Source>,
    /// What the same build has in common with the next one.
    pub place: String,
    /// What will not be as the file says.
    pub warnings: Vec<String>,
}

/// Puts an order together; an error is a message.
pub(super) fn order(
    service: &Service,
    build: &Build,
    image: &str,
    labels: BTreeMap<String, String>,
    default_platform: Option<&str>,
    abilities: Abilities,
) -> Result<Order, String> {
    let mut order = Order::default();
    let mut attrs: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: String| drop(attrs.insert(key.to_owned(), value));
    for (key, value) in files(build, &mut order)? {
        set(key, value);
    }
    if let Some(target) = &build.target {
        set("target", target.clone());
    }
    for (key, value) in &build.args {
        if let Some(value) = value {
            set(&format!("build-arg:{key}"), value.clone());
        }
    }
    for (key, value) in labels {
        set(&format!("label:{key}"), value);
    }
    if build.no_cache {
        set("no-cache", String::new());
    } else if !build.no_cache_filter.is_empty() {
        set("no-cache", build.no_cache_filter.join(","));
    }
    if build.pull {
        set("image-resolve-mode", "pull".to_owned());
    }
    if let Some(platform) = platforms(service, build, default_platform, abilities)? {
        set("platform", platform);
    }
    match build.network.as_deref() {
        None | Some("default") => {}
        Some(mode @ ("host" | "none")) => {
            set("force-network-mode", mode.to_owned());
            if mode == "host" {
                order.solve.entitlements.push("network.host".to_owned());
            }
        }
        Some(other) => {
            return Err(format!(
                "`build.network: {other}` is not known to BuildKit: it has default, host and none"
            ));
        }
    }
    if !build.extra_hosts.is_empty() {
        set("add-hosts", build.extra_hosts.join(","));
    }
    let limits: Vec<String> = build
        .ulimits
        .iter()
        .map(|(name, limit)| format!("{name}={}:{}", limit.soft, limit.hard))
        .collect();
    for (key, value) in [
        ("shm-size", build.shm_size.map(|bytes| bytes.to_string())),
        ("ulimit", (!limits.is_empty()).then(|| limits.join(","))),
    ] {
        let Some(value) = value else {
            continue;
        };
        if abilities.modern {
            set(key, value);
        } else {
            order.warnings.push(format!(
                "`build.{}` has no effect on the BuildKit of this engine: it needs Docker Engine 23",
                key.replace('-', "_").replace("ulimit", "ulimits")
            ));
        }
    }
    if build.memory.is_some() {
        order
            .warnings
            .push("--memory has no effect with BuildKit".to_owned());
    }
    if let Some(isolation) = &build.isolation {
        order.warnings.push(format!(
            "`build.isolation: {isolation}` has no effect with BuildKit"
        ));
    }
    if build.privileged {
        order
            .solve
            .entitlements
            .push("security.insecure".to_owned());
    }
    order
        .solve
        .entitlements
        .extend(build.entitlements.iter().cloned());
    for (key, value) in named(build, &mut order, abilities)? {
        set(&key, value);
    }
    for (key, value) in [("provenance", &build.provenance), ("sbom", &build.sbom)] {
        if let Some(value) = attestation(key, value.as_deref(), abilities)? {
            set(&format!("attest:{key}"), value);
        }
    }
    let imports = caches(&build.cache_from)?;
    if !imports.is_empty() {
        let refs: Vec<&str> = imports
            .iter()
            .filter_map(|entry| entry.attrs.get("ref").map(String::as_str))
            .collect();
        set("cache-from", refs.join(","));
        let all: Vec<_> = imports
            .iter()
            .map(|entry| json!({"Type": entry.kind, "Attrs": entry.attrs}))
            .collect();
        set("cache-imports", json!(all).to_string());
    }
    let mut names = vec![image.to_owned()];
    names.extend(build.tags.iter().cloned());
    order.solve.exporter = "moby".into();
    order.solve.exporter_attrs = BTreeMap::from([("name".to_owned(), names.join(","))]);
    order.solve.cache = Some(CacheOptions {
        exports: exported(build)?,
        imports,
    });
    order.solve.frontend = "dockerfile.v0".into();
    order.solve.frontend_attrs = attrs;
    Ok(order)
}

/// The context and the Dockerfile.
fn files(build: &Build, order: &mut Order) -> Result<Vec<(&'static str, String)>, String> {
    let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    let root = match &build.context {
        BuildContext::Directory(root) => root,
        BuildContext::Remote(url) => {
            if build.dockerfile_inline.is_some() {
                return Err(format!(
                    "`dockerfile_inline` needs a context on this machine, not {url}"
                ));
            }
            order.place.clone_from(url);
            return Ok(vec![
                ("context", url.clone()),
                ("filename", dockerfile.to_owned()),
            ]);
        }
    };
    order.place = root.display().to_string();
    if !root.is_dir() {
        return Err(format!("there is no directory {}", root.display()));
    }
    order
        .sources
        .insert("context".to_owned(), Source::Directory(root.clone()));
    let (source, name) = if let Some(text) = &build.dockerfile_inline {
        let name = "Dockerfile".to_owned();
        (Source::Text(name.clone(), text.clone()), name)
    } else {
        let path = tidied(&root.join(dockerfile));
        if !path.is_file() {
            return Err(format!("there is no {}", path.display()));
        }
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (Source::Directory(directory), name.into_owned())
    };
    order.sources.insert("dockerfile".to_owned(), source);
    Ok(vec![("filename", name)])
}

/// The platforms to build for; `None`: the engine's own.
fn platforms(
    service: &Service,
    build: &Build,
    default: Option<&str>,
    abilities: Abilities,
) -> Result<Option<String>, String> {
    if let Some(platform) = &service.platform {
        return Ok(Some(platform.clone()));
    }
    if build.platforms.len() > 1 && !abilities.store {
        if let Some(default) = default.filter(|name| build.platforms.iter().any(|one| one == name))
        {
            return Ok(Some(default.to_owned()));
        }
        return Err(format!(
            "`build.platforms` names {}, and this engine's image store holds one: set `platform:` or \
             DOCKER_DEFAULT_PLATFORM, or use an engine with the containerd image store",
            build.platforms.join(", ")
        ));
    }
    if build.platforms.is_empty() {
        return Ok(default.map(str::to_owned));
    }
    Ok(Some(build.platforms.join(",")))
}

/// Contexts beside the main one.
fn named(
    build: &Build,
    order: &mut Order,
    abilities: Abilities,
) -> Result<Vec<(String, String)>, String> {
    if build.additional_contexts.is_empty() {
        return Ok(Vec::new());
    }
    if !abilities.modern {
        return Err(
            "`build.additional_contexts` needs the BuildKit of Docker Engine 23 or newer"
                .to_owned(),
        );
    }
    // A frontend that does not know them must say so.
    let mut attrs = vec![(
        "frontend.caps".to_owned(),
        "moby.buildkit.frontend.contexts+forward".to_owned(),
    )];
    for (name, context) in &build.additional_contexts {
        let value = match context {
            NamedContext::Directory(path) => {
                if !path.is_dir() {
                    return Err(format!("there is no directory {}", path.display()));
                }
                let local = if matches!(name.as_str(), "context" | "dockerfile") {
                    format!("_{name}")
                } else {
                    name.clone()
                };
                let source = Source::Directory(PathBuf::from(path));
                order.sources.insert(local.clone(), source);
                format!("local:{local}")
            }
            NamedContext::Service { image, .. } => {
                let image = Reference::parse(image).map_err(|error| format!("{image}: {error}"))?;
                format!("docker-image://{}", image.settled())
            }
            NamedContext::Other(text) => text.clone(),
        };
        attrs.push((format!("context:{name}"), value));
    }
    Ok(attrs)
}

/// `true`, `false` or parameters, as `BuildKit` takes them.
fn attestation(
    key: &str,
    value: Option<&str>,
    abilities: Abilities,
) -> Result<Option<String>, String> {
    let value = match value {
        None | Some("false" | "disabled=true") => return Ok(None),
        Some("true") => "",
        Some(parameters) => parameters,
    };
    if !abilities.store {
        return Err(format!(
            "`build.{key}` needs an engine with the containerd image store: others keep no attestations"
        ));
    }
    Ok(Some(match (key, value) {
        ("provenance", "") => "mode=min".to_owned(),
        _ => value.to_owned(),
    }))
}

/// `type=registry,ref=…`, or the name of an image.
/// Where the cache goes: where the file says, and into the image where the build argument says so that `docker build`
/// knows for it.
fn exported(build: &Build) -> Result<Vec<CacheEntry>, String> {
    let mut exports = caches(&build.cache_to)?;
    let asked = build.args.get("BUILDKIT_INLINE_CACHE").cloned().flatten();
    // As Go reads a boolean.
    let is_asked = asked
        .is_some_and(|word| matches!(word.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
    if is_asked && !exports.iter().any(|entry| entry.kind == INLINE) {
        exports.push(CacheEntry {
            kind: INLINE.to_owned(),
            attrs: BTreeMap::new(),
        });
    }
    Ok(exports)
}

fn caches(texts: &[String]) -> Result<Vec<CacheEntry>, String> {
    texts
        .iter()
        .map(|text| {
            let mut attrs = BTreeMap::new();
            if text.contains('=') {
                for field in text.split(',') {
                    let (key, value) = field.split_once('=').ok_or_else(|| {
                        format!("the cache `{text}` is not written as KEY=VALUE,…")
                    })?;
                    attrs.insert(key.trim().to_owned(), value.to_owned());
                }
            } else {
                attrs.insert("ref".to_owned(), text.clone());
            }
            let kind = attrs
                .remove("type")
                .unwrap_or_else(|| "registry".to_owned());
            if kind == "local" {
                return Err(format!(
                    "the cache `{text}` is a directory, which only `docker buildx build` can use"
                ));
            }
            Ok(CacheEntry { kind, attrs })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Abilities = Abilities {
        modern: false,
        store: false,
    };
    const NEW: Abilities = Abilities {
        modern: true,
        store: false,
    };

    fn ordered(build: &Build, abilities: Abilities) -> Result<Order, String> {
        let service = Service::default();
        order(&service, build, "p-web", BTreeMap::new(), None, abilities)
    }

    fn inline() -> Build {
        Build {
            context: BuildContext::Directory(std::env::temp_dir()),
            dockerfile_inline: Some("FROM scratch".to_owned()),
            ..Build::default()
        }
    }

    #[test]
    fn every_attribute_reaches_the_frontend() {
        let mut build = inline();
        build.target = Some("last".to_owned());
        build.args = BTreeMap::from([
            ("A".to_owned(), Some("1".to_owned())),
            ("UNSET".to_owned(), None),
        ]);
        build.no_cache_filter = vec!["first".to_owned(), "last".to_owned()];
        build.network = Some("host".to_owned());
        build.extra_hosts = vec!["db=10.0.0.1".to_owned()];
        build.shm_size = Some(1 << 20);
        build.tags = vec!["other:1".to_owned()];
        build.cache_from = vec!["base:1".to_owned(), "type=registry,ref=x:2".to_owned()];
        build.cache_to = vec!["type=inline".to_owned()];
        build.privileged = true;
        build.additional_contexts = BTreeMap::from([
            (
                "base".to_owned(),
                NamedContext::Service {
                    name: "base".to_owned(),
                    image: "p-base".to_owned(),
                },
            ),
            (
                "more".to_owned(),
                NamedContext::Directory(std::env::temp_dir()),
            ),
        ]);
        let order = ordered(&build, NEW).unwrap();
        let attrs: Vec<String> = order
            .solve
            .frontend_attrs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            attrs,
            [
                "add-hosts=db=10.0.0.1",
                "build-arg:A=1",
                "cache-from=base:1,x:2",
                "cache-imports=[{\"Type\":\"registry\",\"Attrs\":{\"ref\":\"base:1\"}},{\"Type\":\"registry\",\"Attrs\":{\"ref\":\"x:2\"}}]",
                "context:base=docker-image://docker.io/library/p-base:latest",
                "context:more=local:more",
                "filename=Dockerfile",
                "force-network-mode=host",
                "frontend.caps=moby.buildkit.frontend.contexts+forward",
                "no-cache=first,last",
                "shm-size=1048576",
                "target=last",
            ]
        );
        assert_eq!(order.solve.exporter_attrs["name"], "p-web,other:1");
        assert_eq!(
            order.solve.entitlements,
            ["network.host", "security.insecure"]
        );
        assert!(order.sources.contains_key("more"));
    }

    #[test]
    fn the_cache_goes_into_the_image_once() {
        let kinds = |build: &Build| -> Vec<String> {
            let cache = ordered(build, OLD).unwrap().solve.cache.unwrap();
            cache.exports.into_iter().map(|entry| entry.kind).collect()
        };
        let mut build = inline();
        assert!(kinds(&build).is_empty());
        let name = || "BUILDKIT_INLINE_CACHE".to_owned();
        build.args = BTreeMap::from([(name(), Some("1".to_owned()))]);
        assert_eq!(kinds(&build), ["inline"]);
        build.cache_to = vec!["type=inline".to_owned()];
        assert_eq!(kinds(&build), ["inline"]);
        build.cache_to.clear();
        build.args = BTreeMap::from([(name(), Some("0".to_owned()))]);
        assert!(kinds(&build).is_empty());
    }

    #[test]
    fn what_would_be_ignored_is_said() {
        let mut build = inline();
        build.shm_size = Some(1);
        let warned = ordered(&build, OLD).unwrap().warnings;
        assert!(warned[0].contains("build.shm_size"), "{warned:?}");
        build.additional_contexts = BTreeMap::from([(
            "x".to_owned(),
            NamedContext::Other("docker-image://y".into()),
        )]);
        assert!(
            ordered(&build, OLD)
                .unwrap_err()
                .contains("Docker Engine 23")
        );
        let mut build = inline();
        build.provenance = Some("true".to_owned());
        assert!(
            ordered(&build, NEW)
                .unwrap_err()
                .contains("build.provenance")
        );
        build.provenance = Some("false".to_owned());
        assert!(ordered(&build, NEW).is_ok());
        build.platforms = vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()];
        assert!(ordered(&build, NEW).unwrap_err().contains("linux/arm64"));
        let mut build = inline();
        build.cache_to = vec!["type=local,dest=/x".to_owned()];
        assert!(ordered(&build, NEW).unwrap_err().contains("buildx"));
    }
}
