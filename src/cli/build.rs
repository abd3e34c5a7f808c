//! `wharf build`

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::cli::carry_out::carry_out;
use crate::cli::context::Context;
use crate::cli::push;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::images::builds;
use crate::plan::step::Action;
use crate::project::model::{Build, BuildContext, NamedContext, Project, StoreSource};
use crate::ui::{Steps, Ui};

/// Build the images of the services
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one switch for each option of the command line"
)]
pub(super) struct Args {
    /// Services whose images to build [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// An `ARG` of the Dockerfile: KEY=VALUE, or KEY with the environment's value
    #[arg(long, value_name = "KEY=VALUE")]
    build_arg: Vec<String>,
    /// Build images of what the services depend on too
    #[arg(long)]
    with_dependencies: bool,
    /// Use no cache
    #[arg(long)]
    no_cache: bool,
    /// Pull newer base images
    #[arg(long)]
    pull: bool,
    /// Push the images afterwards
    #[arg(long)]
    push: bool,
    /// Let `RUN --mount=type=ssh` use the ssh agent: `default`, or ID=SOCKET
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "default")]
    ssh: Vec<String>,
    /// Memory of the build (classic builder only), e.g. 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Attest how the images were made
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "true")]
    provenance: Option<String>,
    /// Attest what is in the images
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "true")]
    sbom: Option<String>,
    /// A builder of buildx; accepted, images are built by the engine's own
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// Print the builds as a file for `docker buildx bake`, and build nothing
    #[arg(long)]
    print: bool,
    /// Show what the builder finds wrong with the Dockerfile, and build nothing; 1 if there is anything
    #[arg(long)]
    check: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// How to show progress: `quiet`, `json`, or anything else for lines; as the option before the command
    #[arg(long, value_name = "HOW", value_parser = ["auto", "tty", "plain", "json", "quiet"])]
    progress: Option<String>,
    /// Accepted as by Compose
    #[arg(long, hide = true)]
    parallel: bool,
    /// Accepted as by Compose
    #[arg(long, hide = true)]
    compress: bool,
    /// Accepted as by Compose
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Accepted as by Compose
    #[arg(long, hide = true)]
    no_rm: bool,
}

impl Args {
    /// How things are told, with what this command's own options say.
    pub(super) fn ui(&self, mut ui: Ui) -> Ui {
        match self.progress.as_deref() {
            Some("json") => ui.steps = Steps::Json,
            Some("quiet") => ui.quiet = true,
            Some(_) => ui.steps = Steps::Lines,
            None => {}
        }
        ui.quiet |= self.quiet;
        ui
    }
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let mut project = load(context, args)?;
    for service in project.services.values_mut() {
        if let Some(build) = &mut Arc::make_mut(service).build {
            apply(args, context, build)?;
        }
    }
    let plan = builds(&project, &args.services);
    if args.print {
        context.ui.data(format!("{:#}", bake(&plan)));
        return Ok(());
    }
    let ui = context.ui;
    if let Some(builder) = args.builder.as_deref().filter(|name| *name != "default") {
        ui.note(format!(
            "--builder {builder}: images are built by the engine's own builder"
        ));
    }
    if plan.steps.is_empty() {
        ui.status("nothing to build");
        return Ok(());
    }
    let backends = context.backends()?;
    carry_out(context, &backends, &plan).await?;
    if args.push && !context.global.dry_run {
        let built: Vec<&str> = plan
            .steps
            .iter()
            .filter_map(|step| {
                let Action::Build { service, .. } = &step.action else {
                    return None;
                };
                Some(service.name.as_str())
            })
            .collect();
        project
            .services
            .retain(|name, _| built.contains(&name.as_str()));
        let images = push::images(&project, |service, why| {
            ui.status(format!("   {}: not pushed, {why}", service.name));
        });
        push::push(ui, &backends.containers, &images, false).await?;
    }
    Ok(())
}

/// The project with the services to build, and those that their images start from.
fn load(context: &Context, args: &Args) -> Result<Project> {
    if args.services.is_empty() || args.with_dependencies {
        return context.load(&args.services, false);
    }
    // A service that is a build context of another one need not depend on it.
    let project = context.load(&[], false)?;
    if args
        .services
        .iter()
        .all(|name| project.services.contains_key(name))
    {
        return Ok(project);
    }
    context.load(&args.services, true)
}

/// Puts the command line on top of what the file says.
fn apply(args: &Args, context: &Context, build: &mut Build) -> Result<()> {
    for given in &args.build_arg {
        let (key, value) = match given.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (given.as_str(), context.env.get(given).map(str::to_owned)),
        };
        build.args.insert(key.to_owned(), value);
    }
    build.no_cache |= args.no_cache;
    build.pull |= args.pull;
    for given in args.ssh.iter().flat_map(|given| given.split_whitespace()) {
        let (id, path) = match given.split_once('=') {
            Some((id, path)) => (id, Some(path)),
            None => (given, None),
        };
        let path = path.map(|path| context.env.current_dir.join(path).display().to_string());
        build.ssh.insert(id.to_owned(), path);
    }
    if let Some(memory) = &args.memory {
        build.memory = Some(bytes(memory).ok_or_else(|| {
            Error::usage(format!("--memory {memory}: not a number of bytes")).hint("--memory 512m")
        })?);
    }
    if args.provenance.is_some() {
        build.provenance.clone_from(&args.provenance);
    }
    if args.sbom.is_some() {
        build.sbom.clone_from(&args.sbom);
    }
    if args.check {
        build.check = true;
    }
    Ok(())
}

/// Reads `512m`: bytes, or binary multiples of them.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.strip_prefix(number)? {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// The builds as `docker buildx bake` reads them, in the shape and order of Compose.
fn bake(plan: &Plan) -> Value {
    let mut targets = Map::new();
    let mut names = Vec::new();
    for step in &plan.steps {
        if let Action::Build {
            service,
            image,
            project,
            ..
        } = &step.action
            && let Some(build) = &service.build
        {
            let mut labels = build.labels.clone();
            for (key, value) in [
                ("project", project.name.as_str()),
                ("service", &service.name),
                ("version", env!("CARGO_PKG_VERSION")),
            ] {
                labels.insert(format!("com.docker.compose.{key}"), value.to_owned());
            }
            let name = service.name.replace('.', "_");
            targets.insert(
                name.clone(),
                target(build, image, &labels, service.platform.as_deref()),
            );
            names.push(name);
        }
    }
    names.sort();
    targets.sort_keys();
    json!({"group": {"default": {"targets": names}}, "target": targets})
}

fn target(
    build: &Build,
    image: &str,
    labels: &BTreeMap<String, String>,
    platform: Option<&str>,
) -> Value {
    let mut all = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
        };
        if !empty {
            all.insert(key.to_owned(), value);
        }
    };
    let mut dockerfile = build.dockerfile.clone();
    match &build.context {
        BuildContext::Directory(root) => {
            dockerfile = dockerfile.map(|name| root.join(name).display().to_string());
            set("context", json!(root));
        }
        BuildContext::Remote(url) => set("context", json!(url)),
    }
    let contexts: BTreeMap<&String, String> = build
        .additional_contexts
        .iter()
        .map(|(name, context)| {
            let context = match context {
                NamedContext::Directory(path) => path.display().to_string(),
                NamedContext::Service { name, .. } => format!("target:{}", name.replace('.', "_")),
                NamedContext::Other(text) => text.clone(),
            };
            (name, context)
        })
        .collect();
    set("contexts", json!(contexts));
    set("dockerfile", json!(dockerfile));
    set("dockerfile-inline", json!(build.dockerfile_inline));
    let args: BTreeMap<&String, &String> = build
        .args
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect();
    set("args", json!(args));
    set("labels", json!(labels));
    let tags: Vec<&str> = std::iter::once(image)
        .chain(build.tags.iter().map(String::as_str))
        .collect();
    set("tags", json!(tags));
    set("cache-from", json!(build.cache_from));
    set("cache-to", json!(build.cache_to));
    set("target", json!(build.target));
    let secrets: Vec<String> = build
        .secrets
        .iter()
        .filter_map(|(id, source)| match source {
            StoreSource::File(path) => Some(format!("id={id},type=file,src={}", path.display())),
            StoreSource::Environment(variable, _) => {
                Some(format!("id={id},type=env,env={variable}"))
            }
            StoreSource::Content(_) | StoreSource::External => None,
        })
        .collect();
    set("secret", json!(secrets));
    let ssh: Vec<String> = build
        .ssh
        .iter()
        .map(|(id, path)| match path {
            Some(path) => format!("{id}={path}"),
            None => id.clone(),
        })
        .collect();
    set("ssh", json!(ssh));
    let platforms: Vec<&str> = match platform {
        Some(platform) => vec![platform],
        None => build.platforms.iter().map(String::as_str).collect(),
    };
    set("platforms", json!(platforms));
    set("pull", json!(build.pull));
    set("no-cache", json!(build.no_cache));
    set("no-cache-filter", json!(build.no_cache_filter));
    set("network", json!(build.network));
    set(
        "shm-size",
        json!(build.shm_size.map(|bytes| bytes.to_string())),
    );
    let limits: Vec<String> = build
        .ulimits
        .iter()
        .map(|(name, limit)| format!("{name}={}:{}", limit.soft, limit.hard))
        .collect();
    set("ulimits", json!(limits));
    set("entitlements", json!(build.entitlements));
    let hosts: BTreeMap<&str, &str> = build
        .extra_hosts
        .iter()
        .filter_map(|host| host.split_once('='))
        .collect();
    set("extra-hosts", json!(hosts));
    set("output", json!(["type=docker"]));
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_read() {
        assert_eq!(bytes("512m"), Some(512 << 20));
        assert_eq!(bytes("1GiB"), Some(1 << 30));
        assert_eq!(bytes("77"), Some(77));
        assert_eq!(bytes("m"), None);
        assert_eq!(bytes("1x"), None);
        assert_eq!(bytes("9999999999999g"), None);
    }
}
