//! `--wait`: returns when everything that was started runs, and is healthy where something tells.

use std::time::Duration;

use crate::backend::router::Backends;
use crate::cli::carry_out::carry_out;
use crate::cli::context::{Context, Named};
use crate::error::{Error, Result};
use crate::plan::launch::{self, Launching};
use crate::state::{Instance, Observed, Status};

/// Waits for the instances of services (none named: all that take part).
///
/// # Errors
/// The first instance that has ended or is unhealthy; or when `timeout` is over.
pub(super) async fn await_up(
    context: &Context,
    backends: &Backends,
    named: &Named,
    launching: &Launching,
    timeout: Option<Duration>,
) -> Result<()> {
    let waited = waited(context, backends, named, launching);
    let Some(limit) = timeout else {
        return waited.await;
    };
    tokio::time::timeout(limit, waited).await.map_err(|_| {
        let seconds = limit.as_secs();
        Error::failed(format!("not everything is healthy after {seconds} s")).hint("wharf ps --all")
    })?
}

async fn waited(
    context: &Context,
    backends: &Backends,
    named: &Named,
    launching: &Launching,
) -> Result<()> {
    let observed = Observed {
        instances: named.instances(context.ui, backends).await?,
        ..Observed::default()
    };
    let ended = |instance: &&&Instance| {
        !instance.status.is_alive() && !launch::is_done(instance, &observed)
    };
    if let Some(instance) = launching.instances(&observed).iter().find(ended) {
        let how = if let Status::Exited { code } = instance.status {
            format!("exited with code {code}")
        } else {
            format!("is {}", instance.status.word())
        };
        return Err(Error::failed(format!("{} {how}", instance.name))
            .hint(format!("wharf logs {}", instance.service)));
    }
    let plan = launch::await_healthy(&observed, launching);
    carry_out(context, backends, &plan).await.map(drop)
}
