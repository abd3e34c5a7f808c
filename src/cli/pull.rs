//! `wharf pull`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::backend::container::{Containers, Names};
use crate::backend::{BackendError, in_one_line};
use crate::cli::context::Context;
use crate::cli::shown::{shown, tell};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::project::model::{Project, PullPolicy, Service};
use crate::project::reference::Reference;
use crate::ui::Ui;

/// Pull the images of the services
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services whose images to pull [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Pull images of what the services depend on too
    #[arg(long)]
    include_deps: bool,
    /// Leave images out that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Pull what can be pulled and succeed
    #[arg(long)]
    ignore_pull_failures: bool,
    /// In place of what the services say: `always`, or `missing` for those that are not here
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing"])]
    policy: Option<String>,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Accepted as by Compose, where images are pulled at the same time anyway
    #[arg(long, hide = true)]
    parallel: bool,
    /// Accepted as by Compose
    #[arg(long, hide = true)]
    no_parallel: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.load(&args.services, !args.include_deps)?;
    let mut ui = context.ui;
    ui.quiet |= args.quiet;
    let containers = Containers::new(&context.env);
    let wanted = choose(ui, args, &project, &containers).await?;
    if context.global.dry_run {
        for (_, image) in &wanted {
            ui.data(format!("image {image}: pull"));
        }
        return Ok(());
    }
    let outcome = shown(ui, async |events| {
        pull(&containers, &wanted, args.ignore_pull_failures, &events).await
    });
    let outcome = outcome.await?;
    let to_build: Vec<&str> = outcome
        .failed
        .iter()
        .filter(|(service, _)| service.build.is_some())
        .map(|(service, _)| service.name.as_str())
        .collect();
    if !to_build.is_empty() {
        ui.warn(format!(
            "these have no image to pull and must be built: wharf build {}",
            to_build.join(" ")
        ));
    }
    if args.ignore_pull_failures {
        for (_, error) in &outcome.failed {
            ui.warn(in_one_line(error));
        }
        return Ok(());
    }
    let mut failed = outcome.failed.into_iter();
    let Some((_, first)) = failed.next() else {
        return Ok(());
    };
    let mut error = Error::from(first);
    for (_, other) in failed {
        error.details.push(format!("also: {}", in_one_line(&other)));
    }
    Err(error)
}

type Wanted = Vec<(Arc<Service>, String)>;

/// The images to pull, each once; what is left out is said.
async fn choose(ui: Ui, args: &Args, project: &Project, containers: &Containers) -> Result<Wanted> {
    let given = args.policy.as_deref().map(|word| match word {
        "always" => PullPolicy::Always,
        _ => PullPolicy::Missing,
    });
    let policy = |service: &Service| given.clone().or_else(|| service.pull_policy.clone());
    let only_missing: BTreeSet<String> = project
        .services
        .values()
        .filter(|service| policy(service) == Some(PullPolicy::Missing))
        .flat_map(|service| service.image.iter().chain(before(service)).cloned())
        .collect();
    let here = if only_missing.is_empty() {
        BTreeMap::new()
    } else {
        let names = Names {
            images: only_missing,
            ..Names::default()
        };
        containers.resources(&project.name, &names).await?.images
    };
    let mut wanted: Wanted = Vec::new();
    for service in project.services.values() {
        let skip = |why: &str| ui.status(format!("   {}: not pulled, {why}", service.name));
        let Some(image) = &service.image else {
            skip("it has no image of its own");
            continue;
        };
        match policy(service) {
            Some(PullPolicy::Never) if service.build.is_none() => {
                skip("its pull policy is never");
                continue;
            }
            Some(PullPolicy::Never | PullPolicy::Build) => {
                skip("its image is built");
                continue;
            }
            Some(PullPolicy::Missing) if here.contains_key(image) && !floats(image) => {
                skip("its image is here");
                continue;
            }
            Some(PullPolicy::Missing | PullPolicy::Always | PullPolicy::Every(_)) | None => {}
        }
        if args.ignore_buildable && service.build.is_some() {
            skip("its image can be built");
            continue;
        }
        if let Some((other, _)) = wanted.iter().find(|(_, known)| known == image) {
            skip(&format!("{} has the same image", other.name));
            continue;
        }
        wanted.push((Arc::clone(service), image.clone()));
    }
    let built: BTreeSet<String> = project
        .services
        .values()
        .filter(|service| service.build.is_some())
        .map(|service| service.image_name(&project.name))
        .collect();
    for service in project.services.values() {
        let is_due = |image: &&String| match policy(service) {
            Some(PullPolicy::Never | PullPolicy::Build) => false,
            Some(PullPolicy::Missing) => !here.contains_key(*image) || floats(image),
            Some(PullPolicy::Always | PullPolicy::Every(_)) | None => true,
        };
        for image in before(service).filter(is_due) {
            let is_known = wanted.iter().any(|(_, known)| known == image);
            if !is_known && !built.contains(image) {
                wanted.push((Arc::clone(service), image.clone()));
            }
        }
    }
    Ok(wanted)
}

/// The images of what is to run before a service.
fn before(service: &Service) -> impl Iterator<Item = &String> {
    let all = service.pre_start.iter();
    all.filter_map(|hook| hook.image.as_ref())
}

/// Whether the name stands for something else every day.
fn floats(image: &str) -> bool {
    Reference::parse(image).is_ok_and(|image| image.settled().tag.as_deref() == Some("latest"))
}

/// What could not be pulled, in the order of its failing.
struct Outcome {
    failed: Vec<(Arc<Service>, BackendError)>,
}

/// Pulls all at the same time. The first image that can be neither pulled nor built ends it, unless
/// failures do not matter.
async fn pull(
    containers: &Containers,
    wanted: &Wanted,
    ignore_failures: bool,
    events: &Events,
) -> Outcome {
    let mut pulling: FuturesUnordered<_> = wanted
        .iter()
        .map(|(service, image)| async move {
            let began = Instant::now();
            let pulled = containers.pull(service, image, events).await;
            let text = format!("image {image}: pull");
            tell(events, text, pulled.is_ok(), began.elapsed());
            (service, pulled)
        })
        .collect();
    let mut failed = Vec::new();
    while let Some((service, pulled)) = pulling.next().await {
        if let Err(error) = pulled {
            failed.push((Arc::clone(service), error));
            if !ignore_failures && service.build.is_none() {
                break;
            }
        }
    }
    Outcome { failed }
}
