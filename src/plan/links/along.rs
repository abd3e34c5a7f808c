//! Relays and the forwarder in the plans that work without a compose file: they end after the services and begin
//! before them.

use std::collections::BTreeSet;

use crate::naming::Role;
use crate::plan::Plan;
use crate::plan::spec::existing;
use crate::plan::step::{Action, Cause, StepId};
use crate::state::{BackendKind, Instance, Observed, Status};

/// What becomes of relays and forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum End {
    /// They stop.
    Stop,
    /// They stop and are removed.
    Down,
    /// Those that have ended are removed.
    Sweep,
}

/// Ends the relays of these services (none: all), and the forwarder with the last of them; after `needs`.
pub(in crate::plan) fn end(
    plan: &mut Plan,
    observed: &Observed,
    services: &BTreeSet<String>,
    (end, why): (End, &'static str),
    needs: &[StepId],
) -> Vec<StepId> {
    let goes = |instance: &&Instance| match instance.role() {
        Some(Role::Relay) => services.is_empty() || services.contains(&instance.service),
        Some(Role::Forwarder) => services.is_empty(),
        None => false,
    };
    let mut last = Vec::new();
    for instance in observed.own.iter().filter(goes) {
        let mut after = needs.to_vec();
        let alive = instance.status.is_alive();
        if alive && end != End::Sweep {
            let stop = Action::Stop {
                instance: existing(instance),
                grace: None,
            };
            after = vec![plan.add(stop, Cause::Requested(why), after)];
        }
        let removes = match end {
            End::Stop => false,
            End::Down => true,
            End::Sweep => !alive,
        };
        if removes && instance.status != Status::Removing {
            let remove = Action::Remove {
                instance: existing(instance),
                volumes: false,
            };
            after = vec![plan.add(remove, Cause::Requested(why), after)];
        }
        if after != needs {
            last.extend(after);
        }
    }
    last
}

/// Starts what the processes among these instances need to be found by name, and to find others; what their own
/// starts must wait for.
pub(in crate::plan) fn begin(
    plan: &mut Plan,
    observed: &Observed,
    starting: &[&Instance],
    why: &'static str,
) -> Vec<StepId> {
    let services: BTreeSet<&str> = starting
        .iter()
        .filter(|instance| instance.backend == BackendKind::Process)
        .map(|instance| instance.service.as_str())
        .collect();
    if services.is_empty() {
        return Vec::new();
    }
    let due = |instance: &&Instance| match instance.role() {
        Some(Role::Relay) => services.contains(instance.service.as_str()),
        Some(Role::Forwarder) => true,
        None => false,
    };
    let mut steps = Vec::new();
    for instance in observed.own.iter().filter(due) {
        if instance.status.is_alive() {
            continue;
        }
        let start = Action::Start {
            instance: existing(instance),
        };
        let step = plan.add(start, Cause::Requested(why), Vec::new());
        if instance.role() == Some(Role::Forwarder) {
            steps.push(step);
        }
    }
    steps
}
