//! Waiting for the names of a stack of which nothing had to be done.

use crate::backend::router::Backends;
use crate::cli::settle::Settled;
use crate::error::Result;
use crate::naming::Role;
use crate::plan::step::Action;
use crate::state::{BackendKind, Instance};

/// Returns when containers reach the local services that were left as they are: their relays or the forwarder may
/// have been killed a moment ago, which none of them shows.
pub(super) async fn await_names(
    backends: &Backends,
    settled: &Settled,
    kept: &[Instance],
    project: &str,
) -> Result<()> {
    let is_awaited = |service: &String| {
        let mut steps = settled.plan.steps.iter();
        steps.any(|step| matches!(&step.action, Action::AwaitReachable { service: other, .. } if other == service))
    };
    let relays = settled.observed.own.iter();
    let reachable: Vec<String> = relays
        .filter(|instance| instance.role() == Some(Role::Relay) && !settled.plan.changes(instance))
        .map(|relay| relay.service.clone())
        .filter(|service| {
            let is_it = |instance: &Instance| {
                instance.service == *service && instance.backend == BackendKind::Process
            };
            kept.iter().any(is_it) && !is_awaited(service)
        })
        .collect();
    if reachable.is_empty() {
        return Ok(());
    }
    Ok(backends.await_reachable(project, &reachable).await?)
}
