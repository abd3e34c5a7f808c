//! Waiting for one's turn with a grace period in hand: what another command is stopping at that moment gets no more
//! time than this one would give it. Nothing else is touched before the turn has come.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::backend::{Backend as _, Made};
use crate::cli::context::{Context, Named};
use crate::error::Result;
use crate::event::Events;
use crate::plan::down::{self, Ending};
use crate::state::{BackendKind, InstanceId, Observed, Status};

/// Between two looks: a stop goes from dependents to dependencies.
const PAUSE: Duration = Duration::from_millis(200);

/// As [`Context::lock_soon`], for a command that ends what `ending` takes.
/// Says what it has shortened, by name.
///
/// # Errors
/// The project's lock cannot be had.
pub(super) async fn lock(
    context: &Context,
    backends: &Backends,
    named: &Named,
    ending: &Ending,
) -> Result<(ProjectLock, BTreeSet<String>)> {
    let locking = context.lock_soon(backends, named.name());
    meanwhile(context, backends, named, ending, locking).await
}

/// The same for whoever waits for its turn in another way.
///
/// # Errors
/// The project's lock cannot be had.
pub(super) async fn meanwhile(
    context: &Context,
    backends: &Backends,
    named: &Named,
    ending: &Ending,
    locking: impl Future<Output = Result<ProjectLock>>,
) -> Result<(ProjectLock, BTreeSet<String>)> {
    let mut locking = std::pin::pin!(locking);
    if ending.timeout.is_none() || context.global.dry_run {
        return Ok((locking.await?, BTreeSet::new()));
    }
    let mut told = BTreeSet::new();
    let names = RefCell::new(BTreeSet::new());
    loop {
        tokio::select! {
            biased;
            lock = &mut locking => return Ok((lock?, names.take())),
            () = look(context, backends, named, ending, &mut told, &names) => {}
        }
    }
}

/// Shortens what is being stopped and was not told so before, and adds its names. Whatever fails here is tried again
/// in turn.
async fn look(
    context: &Context,
    backends: &Backends,
    named: &Named,
    ending: &Ending,
    told: &mut BTreeSet<InstanceId>,
    names: &RefCell<BTreeSet<String>>,
) {
    let mut instances = match named.instances(context.ui, backends).await {
        Ok(instances) => instances,
        Err(_) => backends
            .processes
            .observe(named.name())
            .await
            .unwrap_or_default(),
    };
    if instances
        .iter()
        .any(|each| each.backend == BackendKind::Container)
    {
        let about = backends.containers.about_to_end(named.name()).await;
        let about = about.unwrap_or_default();
        for instance in &mut instances {
            instance.ending |=
                instance.status == Status::Running && about.contains(instance.id.0.as_str());
        }
    }
    instances.retain(|instance| instance.ending && told.insert(instance.id.clone()));
    let observed = Observed {
        instances,
        ..Observed::default()
    };
    let plan = down::hasten(&observed, ending);
    let targets = plan.steps.iter().filter_map(|step| step.action.changes());
    // Before it is done: the lock may come first.
    names
        .borrow_mut()
        .extend(targets.map(|target| target.name.clone()));
    // What there is to say, the command itself says.
    let (events, _) = Events::channel();
    let made = Made::default();
    let steps = plan.steps.iter();
    join_all(steps.map(|step| backends.perform(step, &made, &events))).await;
    tokio::time::sleep(PAUSE).await;
}
