//! What `config` shows of a project: the whole of it, or one list.
//!
//! Runs the stages of `load` as far as each needs, and returns text; printing is the caller's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::diagnostic::Diagnostic;
use super::interpolate::{self, Variable};
use super::tree::{Map, Node};
use super::{
    Env, Files, LoadError, LoadErrorKind, LoadOptions, Resolved, Stages, finish, merged, render,
    resolve, select, yaml,
};

/// How a project is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// YAML.
    #[default]
    Yaml,
    /// JSON, indented by two.
    Json,
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// The whole project.
    #[default]
    Project,
    /// The images of its services only, in the shape of an override file.
    LockedImages,
    /// The names of its services.
    Services,
    /// The keys of its volumes.
    Volumes,
    /// The keys of its networks.
    Networks,
    /// The names of its images.
    Images,
    /// All profiles, on or off.
    Profiles,
    /// Its models.
    Models,
    /// The hashes of these services, `*` for all.
    Hash(String),
    /// The variables that its files use.
    Variables,
    /// The variables for interpolation.
    Environment,
}

/// A request.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one switch per stage, as the command line has them"
)]
pub struct Request {
    /// What to load.
    pub load: LoadOptions,
    /// What to show.
    pub show: Show,
    /// How to write it.
    pub format: Format,
    /// Leave variables as they are written.
    pub no_interpolate: bool,
    /// Leave out what is implied.
    pub no_normalize: bool,
    /// Leave relative paths as they are.
    pub no_path_resolution: bool,
    /// Do not check services against each other.
    pub no_consistency: bool,
    /// Images to write under another name, where a project or its images are shown: the name as the
    /// files have it, and the one to write.
    pub pins: BTreeMap<String, String>,
}

/// The text, and what was odd.
#[derive(Debug)]
pub struct Shown {
    /// The text; ends with a line feed unless it is empty.
    pub text: String,
    /// Warnings, in reading order.
    pub warnings: Vec<Diagnostic>,
    /// The images that its services name, as the files have them; only where a project or its images
    /// are shown.
    pub images: BTreeSet<String>,
}

/// Loads a project and writes what was asked for.
///
/// # Errors
/// As [`load`](super::load).
pub fn show(request: &Request, env: &Env, files: &dyn Files) -> Result<Shown, LoadError> {
    let stages = Stages {
        interpolate: !request.no_interpolate,
        normalise: !request.no_normalize,
        paths: !request.no_path_resolution,
        consistency: !request.no_consistency,
        // Compose reads env files, and looks at what only containers need, where it shows the whole
        // project; its lists and hashes are of the files as they are written.
        environment: matches!(
            request.show,
            Show::Project | Show::LockedImages | Show::Environment
        ),
        container_names: matches!(request.show, Show::Project | Show::LockedImages),
        label_files: false,
    };
    if request.show == Show::Variables {
        return variables(request, env, files);
    }
    if request.no_interpolate && matches!(request.show, Show::Project | Show::LockedImages) {
        return raw(request, env, files, stages);
    }
    let mut resolved = resolve(&request.load, env, files, stages)?;
    let images = if matches!(request.show, Show::Project | Show::LockedImages) {
        pinned(&mut resolved.top, &request.pins)
    } else {
        BTreeSet::new()
    };
    let text = match &request.show {
        Show::Project => whole(std::mem::take(&mut resolved.top), request.format),
        Show::LockedImages => {
            let mut top = images_only(&resolved.top);
            if request.format == Format::Json {
                // Compose writes what its types cannot leave out.
                top.insert("name".to_owned(), Node::new(String::new()));
            }
            whole(top, request.format)
        }
        Show::Services => lines(services(&resolved).map(|(name, _)| name.clone())),
        Show::Volumes => lines(keys(&resolved.top, "volumes")),
        Show::Networks => lines(keys(&resolved.top, "networks")),
        Show::Images => lines(services(&resolved).filter_map(|(name, service)| {
            if service.get("provider").is_some() {
                return None;
            }
            let image = service.text("image").filter(|image| !image.is_empty());
            Some(image.map_or_else(|| format!("{}-{name}", resolved.name), str::to_owned))
        })),
        Show::Profiles => {
            let all = services(&resolved).chain(&resolved.disabled);
            let profiles: BTreeSet<String> = all
                .flat_map(|(_, service)| select::profiles(service))
                .map(str::to_owned)
                .collect();
            lines(profiles.into_iter())
        }
        Show::Models => lines(
            resolved
                .top
                .get("models")
                .and_then(Node::as_map)
                .into_iter()
                .flatten()
                .filter_map(|(_, model)| model.text("model").map(str::to_owned)),
        ),
        Show::Hash(names) => hashes(&resolved, names)?,
        Show::Environment => lines(
            resolved
                .variables
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        ),
        Show::Variables => String::new(),
    };
    let warnings = finish(resolved.report, LoadErrorKind::Invalid)?;
    Ok(Shown {
        text,
        warnings,
        images,
    })
}

/// Writes pinned names over the images of a project's services; returns the names as they were.
fn pinned(top: &mut Map, pins: &BTreeMap<String, String>) -> BTreeSet<String> {
    let services = top.get_mut("services").and_then(Node::as_map_mut);
    let mut images = BTreeSet::new();
    for service in services.into_iter().flat_map(BTreeMap::values_mut) {
        let Some(image) = service
            .as_map_mut()
            .and_then(|service| service.get_mut("image"))
        else {
            continue;
        };
        let Some(name) = image.as_text().map(str::to_owned) else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        if let Some(pin) = pins.get(&name) {
            *image = image.with(pin.clone());
        }
        images.insert(name);
    }
    images
}

/// The services with their images and nothing else.
fn images_only(top: &Map) -> Map {
    let services = top.get("services").and_then(Node::as_map);
    let services: Map = services
        .into_iter()
        .flatten()
        .map(|(name, service)| {
            let image = service.get("image").cloned();
            let only: Map = image
                .map(|image| ("image".to_owned(), image))
                .into_iter()
                .collect();
            (name.clone(), Node::new(only))
        })
        .collect();
    Map::from([("services".to_owned(), Node::new(services))])
}

fn lines(items: impl Iterator<Item = String>) -> String {
    items.map(|item| item + "\n").collect()
}

fn services(resolved: &Resolved) -> impl Iterator<Item = (&String, &Node)> {
    resolved
        .top
        .get("services")
        .and_then(Node::as_map)
        .into_iter()
        .flatten()
}

fn keys<'a>(top: &'a Map, section: &str) -> impl Iterator<Item = String> + use<'a> {
    top.get(section)
        .and_then(Node::as_map)
        .into_iter()
        .flat_map(|map| map.keys().cloned())
}

/// A whole project; `$` is doubled, so that the text can be loaded again.
fn whole(top: Map, format: Format) -> String {
    let text = match format {
        Format::Yaml => yaml::to_yaml(&render::yaml(top)),
        Format::Json => pretty(&render::json(top)),
    };
    if text.contains('$') {
        text.replace('$', "$$")
    } else {
        text
    }
}

/// JSON, indented by two.
fn pretty(value: &Json) -> String {
    format!("{value:#}\n")
}

/// The merged files with their variables in them.
fn raw(
    request: &Request,
    env: &Env,
    files: &dyn Files,
    stages: Stages,
) -> Result<Shown, LoadError> {
    let (mut tree, _, name, report) = merged(&request.load, env, files, stages)?;
    if let Some(top) = tree.as_map_mut() {
        top.insert("name".to_owned(), Node::new(name));
    }
    let images = tree
        .as_map_mut()
        .map_or_else(BTreeSet::new, |top| pinned(top, &request.pins));
    if request.show == Show::LockedImages
        && let Some(top) = tree.as_map()
    {
        tree = Node::new(images_only(top));
    }
    let text = match request.format {
        Format::Yaml => yaml::to_yaml(&render::raw_yaml(&tree)),
        Format::Json => pretty(&render::raw_json(&tree)),
    };
    let warnings = finish(report, LoadErrorKind::Invalid)?;
    Ok(Shown {
        text,
        warnings,
        images,
    })
}

fn hashes(resolved: &Resolved, names: &str) -> Result<String, LoadError> {
    let wanted: BTreeSet<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    let all = wanted.is_empty() || wanted.contains("*");
    if !all {
        for name in &wanted {
            if !services(resolved).any(|(service, _)| service == name) {
                return Err(LoadError {
                    diagnostics: vec![Diagnostic::error(format!("no such service: {name}"))],
                    kind: LoadErrorKind::Usage,
                });
            }
        }
    }
    Ok(lines(
        services(resolved)
            .filter(|(name, _)| all || wanted.contains(name.as_str()))
            .map(|(name, service)| format!("{name} {}", render::hash(service))),
    ))
}

/// The variables that the files use, with what they fall back to.
fn variables(request: &Request, env: &Env, files: &dyn Files) -> Result<Shown, LoadError> {
    let stages = Stages {
        interpolate: false,
        ..Stages::ALL
    };
    let (tree, _, _, report) = merged(&request.load, env, files, stages)?;
    let mut found: BTreeMap<String, Variable> = BTreeMap::new();
    interpolate::variables(&tree, &mut found);
    let text = if request.format == Format::Json {
        let map: serde_json::Map<String, Json> = found
            .into_iter()
            .map(|(name, variable)| {
                let entry = json!({
                    "Name": name,
                    "DefaultValue": variable.default,
                    "PresenceValue": variable.alternate,
                    "Required": variable.required,
                });
                (name, entry)
            })
            .collect();
        pretty(&Json::Object(map))
    } else {
        table(&found)
    };
    let warnings = finish(report, LoadErrorKind::Invalid)?;
    Ok(Shown {
        text,
        warnings,
        images: BTreeSet::new(),
    })
}

/// As Compose lays it out: columns of 20 characters, wider where a value needs it, three apart.
fn table(found: &BTreeMap<String, Variable>) -> String {
    let heading = ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"].map(str::to_owned);
    let mut rows = vec![heading];
    rows.extend(found.iter().map(|(name, variable)| {
        let required = variable.required.to_string();
        let (default, alternate) = (variable.default.clone(), variable.alternate.clone());
        [name.clone(), required, default, alternate]
    }));
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count() + 3).max();
        longest.unwrap_or(0).max(20)
    };
    let (first, second, third) = (width(0), width(1), width(2));
    lines(rows.iter().map(|[name, required, default, alternate]| {
        format!("{name:<first$}{required:<second$}{default:<third$}{alternate}")
    }))
}
