//! `wharf push`

use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::backend::container::Containers;
use crate::backend::{BackendError, in_one_line};
use crate::cli::context::Context;
use crate::cli::shown::{shown, tell};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::project::model::{Project, Service};
use crate::ui::Ui;

/// Push the images that the project builds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services whose images to push [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Push images of what the services depend on too
    #[arg(long)]
    include_deps: bool,
    /// Push what can be pushed and succeed
    #[arg(long)]
    ignore_push_failures: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.load(&args.services, !args.include_deps)?;
    let mut ui = context.ui;
    ui.quiet |= args.quiet;
    let images = images(&project, |service, why| {
        ui.status(format!("   {}: not pushed, {why}", service.name));
    });
    if context.global.dry_run {
        for (_, image) in &images {
            ui.data(format!("image {image}: push"));
        }
        return Ok(());
    }
    let containers = Containers::new(&context.env);
    push(ui, &containers, &images, args.ignore_push_failures).await
}

/// The names under which images that are built go to registries: service and name.
pub(super) fn images(project: &Project, skip: impl Fn(&Service, &str)) -> Vec<(String, String)> {
    let mut images = Vec::new();
    for service in project.services.values() {
        let (Some(image), Some(build)) = (&service.image, &service.build) else {
            let why = if service.build.is_none() {
                "its image is not built here"
            } else {
                "its image has no name for a registry"
            };
            skip(service, why);
            continue;
        };
        for name in std::iter::once(image).chain(&build.tags) {
            if !images.iter().any(|(_, known)| known == name) {
                images.push((service.name.clone(), name.clone()));
            }
        }
    }
    images
}

/// Pushes all at the same time; the first failure ends it, unless failures do not matter.
pub(super) async fn push(
    ui: Ui,
    containers: &Containers,
    images: &[(String, String)],
    ignore_failures: bool,
) -> Result<()> {
    let failed = shown(ui, async |events| {
        pushing(containers, images, ignore_failures, &events).await
    });
    let mut failed = failed.await?.into_iter();
    if ignore_failures {
        for error in failed {
            ui.warn(in_one_line(&error));
        }
        return Ok(());
    }
    failed
        .next()
        .map_or(Ok(()), |error| Err(Error::from(error)))
}

async fn pushing(
    containers: &Containers,
    images: &[(String, String)],
    ignore_failures: bool,
    events: &Events,
) -> Vec<BackendError> {
    let mut pushing: FuturesUnordered<_> = images
        .iter()
        .map(|(service, image)| async move {
            let began = Instant::now();
            let pushed = containers.push(service, image, events).await;
            let text = format!("image {image}: push");
            tell(events, text, pushed.is_ok(), began.elapsed());
            pushed
        })
        .collect();
    let mut failed = Vec::new();
    while let Some(pushed) = pushing.next().await {
        if let Err(error) = pushed {
            failed.push(error);
            if !ignore_failures {
                break;
            }
        }
    }
    failed
}
