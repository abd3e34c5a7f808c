//! `wharf wait`

use std::pin::pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::cli::context::Context;
use crate::cli::down;
use crate::cli::signals::Signals;
use crate::error::{Error, Result};
use crate::state::{BackendKind, Instance};

/// Wait until the running instances of services have ended, and return the exit code of the last one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// Then stop and remove the whole project
    #[arg(long)]
    down_project: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let sight = named.sight(context.ui, &backends, &args.services).await?;
    let (instances, rest) = sight.parts();
    named.check_services(&args.services, &instances)?;
    let waited: Vec<&Instance> = instances
        .iter()
        .filter(|instance| instance.status.is_alive() && args.services.contains(&instance.service))
        .collect();
    if waited.is_empty() {
        let message = format!(
            "nothing to wait for: no instance of {} runs in project {}",
            args.services.join(", "),
            named.name()
        );
        return Err(Error::failed(message).hint("wharf ps --all"));
    }
    let names: Vec<&str> = waited
        .iter()
        .map(|instance| instance.name.as_str())
        .collect();
    let ends: FuturesUnordered<_> = waited
        .iter()
        .map(|instance| async { (*instance, backends.ended(instance).await) })
        .collect();
    let mut ends = pin!(ends.peekable());
    // No end of a local service is missed from here on.
    let _ = futures_util::poll!(ends.as_mut().peek());
    context
        .ui
        .status(format!("waiting for {}", names.join(", ")));
    let mut signals = Signals::new()?;
    let mut last = 0;
    loop {
        let (instance, code) = tokio::select! {
            ended = ends.next() => match ended {
                Some(ended) => ended,
                None => break,
            },
            () = signals.next() => return Err(Error::interrupted()),
        };
        last = code?;
        let name = match instance.backend {
            BackendKind::Container => &instance.id.0,
            BackendKind::Process => &instance.name,
        };
        context.ui.data(format!(
            "{} {name:?} exited with status code {last}",
            instance.backend
        ));
    }
    if args.down_project {
        down::run(context, &down::Args::with_orphans()).await?;
    }
    if last == 0 {
        rest.done()
    } else {
        Err(Error::service(last))
    }
}
