//! `wharf config`

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::backend::container::Containers;
use crate::cli::context::Context;
use crate::cli::{effective, wait_for};
use crate::error::{Error, Result};
use crate::project::config::{Format, Request, Show, show};
use crate::project::diagnostic::{Diagnostic, Severity};
use crate::project::reference::Reference;
use crate::project::{Disk, LoadError};
use crate::ui::report;

/// Check the compose files and show them resolved, in canonical form
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// Services to show, with what they depend on [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// How to write the project: `yaml` or `json`; `json` also writes mistakes as JSON
    #[arg(long, value_name = "FORMAT", value_parser = [PossibleValue::new("yaml").alias(""), PossibleValue::new("json")])]
    format: Option<String>,
    /// The names of the services alone
    #[arg(long = "services")]
    only_services: bool,
    /// The keys of the volumes alone
    #[arg(long)]
    volumes: bool,
    /// The keys of the networks alone
    #[arg(long)]
    networks: bool,
    /// The names of the images alone
    #[arg(long)]
    images: bool,
    /// All profiles, enabled or not
    #[arg(long)]
    profiles: bool,
    /// The models alone
    #[arg(long)]
    models: bool,
    /// The configuration hashes of services, separated by commas; `*` for all
    #[arg(long, value_name = "SERVICES")]
    hash: Option<String>,
    /// The variables that the files use, with their defaults
    #[arg(long)]
    variables: bool,
    /// The variables that interpolation sees
    #[arg(long)]
    environment: bool,
    /// One service as it runs: where, by which command, with which environment, how it finds other services
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["only_services", "volumes", "networks", "images", "profiles", "models", "hash", "variables", "environment"])]
    effective: Option<String>,
    /// Check only, do not print the project
    #[arg(short, long)]
    quiet: bool,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave variables as they are written
    #[arg(long)]
    no_interpolate: bool,
    /// Leave out what is implied
    #[arg(long)]
    no_normalize: bool,
    /// Leave relative paths as they are
    #[arg(long)]
    no_path_resolution: bool,
    /// Do not check services against each other
    #[arg(long)]
    no_consistency: bool,
    /// Accepted as by Compose 2.40, where it changes nothing that is shown
    #[arg(long)]
    no_env_resolution: bool,
    /// Pin every image by the digest that its registry has for it now
    #[arg(long)]
    resolve_image_digests: bool,
    /// An override file that pins the images by their digests
    #[arg(long)]
    lock_image_digests: bool,
}

impl ConfigArgs {
    /// What is shown: where several are asked for, the first in Docker Compose's order.
    fn show(&self) -> Show {
        let hash = self.hash.clone().map(Show::Hash);
        let choices = [
            self.only_services.then_some(Show::Services),
            self.volumes.then_some(Show::Volumes),
            self.networks.then_some(Show::Networks),
            self.models.then_some(Show::Models),
            hash,
            self.profiles.then_some(Show::Profiles),
            self.images.then_some(Show::Images),
            self.variables.then_some(Show::Variables),
            self.environment.then_some(Show::Environment),
            self.lock_image_digests.then_some(Show::LockedImages),
        ];
        choices
            .into_iter()
            .flatten()
            .next()
            .unwrap_or(Show::Project)
    }

    /// Whether nothing is printed: lists are, as in Docker Compose.
    fn is_silent(&self) -> bool {
        let is_whole = matches!(
            self.show(),
            Show::Project | Show::LockedImages | Show::Environment
        );
        self.quiet && is_whole
    }
}

pub(super) fn run(context: &Context, args: &ConfigArgs) -> Result<()> {
    let json = args.format.as_deref() == Some("json");
    if let Some(service) = &args.effective {
        return wait_for(effective::run(context, service, json));
    }
    let mut request = Request {
        load: context.load_options(&args.services, false),
        show: args.show(),
        format: if json { Format::Json } else { Format::Yaml },
        no_interpolate: args.no_interpolate,
        no_normalize: args.no_normalize,
        no_path_resolution: args.no_path_resolution,
        no_consistency: args.no_consistency,
        pins: BTreeMap::new(),
    };
    let load = |request: &Request| match show(request, &context.env, &Disk) {
        Err(error) if json => Err(as_json(&error)),
        other => other.map_err(Error::from),
    };
    let mut shown = load(&request)?;
    let resolves = args.resolve_image_digests || args.lock_image_digests;
    if resolves && !shown.images.is_empty() {
        request.pins = wait_for(pins(context, &shown.images))?;
        shown = load(&request)?;
    }
    for warning in &shown.warnings {
        if json {
            eprint_line(&diagnostic_json(warning).to_string());
        } else {
            report::diagnostic(warning);
        }
    }
    if args.is_silent() {
        return Ok(());
    }
    if let Some(path) = &args.output {
        return std::fs::write(path, &shown.text)
            .map_err(|error| Error::failed(error).detail(format!("writing {}", path.display())));
    }
    // A reader that went away (`| head`) is its own affair.
    context
        .ui
        .wrote(std::io::stdout().write_all(shown.text.as_bytes()));
    Ok(())
}

/// How many registries are asked at once.
const WIDTH: usize = 8;

/// Every image with its digest: as it is written where it has one, else as its registry knows it now.
/// The engine is asked only if there is something to ask.
async fn pins(context: &Context, images: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
    let mut pins = BTreeMap::new();
    let mut open = Vec::new();
    for image in images {
        let reference = Reference::parse(image)
            .map_err(|error| Error::failed(error).detail(format!("image: {image}")))?
            .settled();
        if reference.digest.is_some() {
            pins.insert(image.clone(), reference.to_string());
        } else {
            open.push((image, reference));
        }
    }
    let containers = &Containers::new(&context.env);
    let found: Vec<(String, String)> = stream::iter(open)
        .map(|(image, reference)| async move {
            let digest = Some(containers.digest(&reference).await?);
            let pinned = Reference {
                digest,
                ..reference
            };
            Ok::<_, Error>((image.clone(), pinned.to_string()))
        })
        .buffer_unordered(WIDTH)
        .try_collect()
        .await?;
    pins.extend(found);
    Ok(pins)
}

/// Mistakes as JSON on standard error, one array; the exit code is the usual one.
fn as_json(error: &LoadError) -> Error {
    let findings: Vec<serde_json::Value> = error.diagnostics.iter().map(diagnostic_json).collect();
    eprint_line(&serde_json::Value::Array(findings).to_string());
    // Everything is said: only the exit code is left.
    let code = Error::from(LoadError {
        diagnostics: Vec::new(),
        kind: error.kind,
    });
    Error::service(i32::from(code.kind.code()))
}

fn diagnostic_json(finding: &Diagnostic) -> serde_json::Value {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let (line, column) = match &finding.place {
        Some(place) => {
            let (line, column) = place.line_and_column();
            (json!(line), json!(column))
        }
        None => (json!(null), json!(null)),
    };
    json!({
        "severity": severity,
        "message": finding.message,
        "key": finding.key,
        "file": finding.place.as_ref().map(|place| place.source.path.display().to_string()),
        "line": line,
        "column": column,
        "label": finding.label,
        "notes": finding.notes,
        "hint": finding.hint,
    })
}

fn eprint_line(line: &str) {
    // A reader that went away is its own affair.
    drop(writeln!(std::io::stderr(), "{line}"));
}
