//! `wharf up`

mod flags;

use std::time::Duration;

use tokio::task::yield_now;

use crate::backend::process::ProjectLock;
use crate::backend::router::Backends;
use crate::cli::again::{Rounds, once_more};
use crate::cli::await_up::await_up;
use crate::cli::carry_out::{Quiet, carry_out, carry_out_part};
use crate::cli::context::{Context, Named, with_choices};
use crate::cli::hasten;
use crate::cli::provide::provide;
use crate::cli::settle::{Settled, settle};
use crate::cli::watch::Triggers;
use crate::error::{Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::down::Ending;
use crate::plan::placement::{Placement, Selection, Wishes};
use crate::plan::policy::Policy;
use crate::plan::step::{Action, Cause, Step};
use crate::probe;
use crate::project;
use crate::project::model::Project;
use crate::state::{BackendKind, Instance, Status};
use crate::ui::progress::already;
use crate::ui::{GOOD, NAME, Steps, WARN};

pub(super) use flags::{Args, OnConflict, placed_name};
use flags::{foreground, policy};

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    args.check(context)?;
    let mut context = context.clone();
    context.ui.unattended |= args.yes;
    let context = &context;
    let project = context.load(&args.services, args.no_deps)?;
    let collisions = project::check_ports(&project);
    if !collisions.is_empty() {
        let heading = "two services need the same port";
        return Err(Error {
            diagnostics: collisions,
            ..Error::new(Kind::Invalid, heading)
        });
    }
    if project.services.is_empty() && !context.global.all_resources {
        return Err(Error::failed("no service selected").hint("wharf config --profiles"));
    }
    args.check_placed(context, &project)?;
    let mut policy = policy(context, args, &project)?;
    let options = foreground(context, args, &project)?;
    let backends = context.backends()?;
    let wishes = Wishes::of(&args.local, &args.container);
    let ((placement, triggers), alone) = tokio::try_join!(
        Box::pin(placed(context, args, &project, &wishes, &backends)),
        Box::pin(async {
            // The engine answers its greeting while the lock is taken: one turn to connect, one to send.
            yield_now().await;
            yield_now().await;
            locked(context, args, &project, &backends).await
        })
    )?;
    if !context.global.dry_run {
        remember(&backends, &project, &wishes)?;
    }
    let quiet = args.quiet();
    let project = provide(context, &backends, project, &placement, &mut policy, quiet).await?;
    let rounds = Rounds {
        context,
        backends: &backends,
        project: &project,
        placement: &placement,
        policy: once_more(&policy),
        quiet,
    };
    let ((), settled) = tokio::join!(
        async {
            // The supervisor comes up while the plan is made.
            let is_local = placement.services(BackendKind::Process).next().is_some();
            if is_local && !context.global.dry_run && !args.no_start {
                backends.processes.anticipate(&project.name).await;
            }
        },
        with_images(context, &backends, &project, &placement, policy, quiet)
    );
    let settled = settled?;
    context.note_all(&settled.plan);
    let kept = kept(&settled.plan, &settled.observed.instances, &project);
    if context.ui.steps == Steps::Json {
        for instance in &kept {
            let subject = format!("{} {}", instance.backend, instance.name);
            context.ui.object(&already(&subject));
        }
    }
    let lines = kept.iter().filter(|_| context.ui.steps == Steps::Lines);
    context.ui.statuses(lines.map(|instance| {
        let (backend, name) = (instance.backend, &instance.name);
        if instance.status == Status::Restarting {
            return format!(
                " {WARN}!{WARN:#} {backend} {name} ended, and waits to be started again"
            );
        }
        let answers = answers_at(instance);
        format!(" {GOOD}✔{GOOD:#} {backend} {name} is up to date{answers}")
    }));
    if context.global.dry_run {
        if settled.plan.steps.is_empty() {
            context.ui.status("nothing to do: everything is up to date");
        }
        return carry_out(context, &backends, &settled.plan).await.map(drop);
    }
    if args.detaches() || args.no_start {
        let started = async {
            Box::pin(rounds.detached(&settled.plan)).await?;
            let services = &settled.plan.reachable;
            Box::pin(backends.await_reachable(&project.name, services)).await?;
            if args.wait && !args.no_start {
                wait(context, &backends, &project).await?;
            }
            Ok(())
        };
        return Box::pin(within(args.wait_timeout.filter(|_| args.wait), started)).await;
    }
    Box::pin(rounds.in_front(settled, &options, &triggers, alone)).await
}

/// The project's lock. What another command is stopping meanwhile gets no more time than is given here.
async fn locked(
    context: &Context,
    args: &Args,
    project: &Project,
    backends: &Backends,
) -> Result<ProjectLock> {
    let locking = async {
        if args.is_for_some() {
            context.lock_soon(backends, &project.name).await
        } else {
            context.lock(backends, &project.name).await
        }
    };
    if args.timeout.is_none() {
        return locking.await;
    }
    let named = Named::Project(Box::new(project.clone()));
    let ending = Ending {
        timeout: args.timeout,
        ..context.ending(&named, &args.services)
    };
    let locking = hasten::meanwhile(context, backends, &named, &ending, locking);
    locking.await.map(|(lock, _)| lock)
}

/// Where every service is to run, and what is to be watched for.
async fn placed(
    context: &Context,
    args: &Args,
    project: &Project,
    wishes: &Wishes,
    backends: &Backends,
) -> Result<(Placement, Triggers)> {
    let placement = context.place(project, wishes, backends).await?;
    let triggers = match Triggers::read(context, project, &placement, &args.services) {
        Ok(triggers) => triggers,
        Err(error) if args.watch => return Err(error),
        Err(_) => Triggers::default(),
    };
    if args.watch {
        triggers.some()?;
    }
    Ok((placement, triggers))
}

/// Observes and plans; where images are to be built or pulled anew, does that first: whether an instance is
/// out of date is known only when the images are there.
pub(super) async fn with_images(
    context: &Context,
    backends: &Backends,
    project: &Project,
    placement: &Placement,
    mut policy: Policy,
    quiet: Quiet,
) -> Result<Settled> {
    let pending = backends.pending(&project.name);
    policy.given.extend(pending.names().cloned());
    let may_come = pending.is_making()
        && (placement.needs_engine() || backends.containers.answers_soon().await);
    if may_come && !context.global.dry_run {
        backends.await_made(&project.name).await?;
    }
    let mut settled = settle(context, backends, project, placement, &mut policy).await?;
    let diverged = &settled.plan.diverged_volumes;
    if !diverged.is_empty() && !context.global.dry_run && context.ui.can_ask() {
        let names = diverged.join(", ");
        let what = format!(
            "volume {names} was made from another configuration. Make it anew and lose its data?"
        );
        if context.ui.confirm(&what) {
            policy.renew_diverged = true;
            settled = settle(context, backends, project, placement, &mut policy).await?;
        }
    }
    let is_image = |action: &Action| matches!(action, Action::Build { .. } | Action::Pull { .. });
    let renews = |step: &Step| is_image(&step.action) && step.cause != Cause::Missing;
    let due = policy.build || policy.pull || settled.plan.steps.iter().any(renews);
    if context.global.dry_run || !due {
        return Ok(settled);
    }
    let images = settled.plan.only(is_image);
    carry_out_part(context, backends, &images, &settled.plan, quiet).await?;
    policy.images_done = true;
    settle(context, backends, project, placement, &mut policy).await
}

/// How long a container without a healthcheck is looked at: one that ends sooner did not come up.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// `--wait`
async fn wait(context: &Context, backends: &Backends, project: &Project) -> Result<()> {
    tokio::time::sleep(FIRST_LOOK).await;
    let named = Named::Project(Box::new(project.clone()));
    let launching = context.launching(&named, &[]);
    await_up(context, backends, &named, &launching, None).await
}

/// Gives up after so long.
async fn within(limit: Option<Duration>, work: impl Future<Output = Result<()>>) -> Result<()> {
    let Some(limit) = limit else {
        return work.await;
    };
    let seconds = limit.as_secs();
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(
            Error::failed(format!("not everything is ready after {seconds} s"))
                .detail("what was started goes on")
                .hint("wharf ps"),
        )
    })
}

/// Keeps what the command line says of where services run, for the commands to come.
fn remember(backends: &Backends, project: &Project, wishes: &Wishes) -> Result<()> {
    if wishes.local == Selection::Nobody && wishes.container == Selection::Nobody {
        return Ok(());
    }
    let wishes = with_choices(project, wishes, backends)?;
    let choices = wishes.choices(project);
    if choices != wishes.remembered {
        backends.processes.choose(&project.name, &choices)?;
    }
    Ok(())
}

/// Instances that the plan leaves as they are: they run, or will again when their pause is over.
pub(super) fn kept(plan: &Plan, instances: &[Instance], project: &Project) -> Vec<Instance> {
    let running = |instance: &&Instance| {
        matches!(instance.status, Status::Running | Status::Restarting)
            && !instance.one_off
            && project.services.contains_key(&instance.service)
    };
    instances
        .iter()
        .filter(running)
        .filter(|instance| !plan.changes(instance))
        .cloned()
        .collect()
}

fn answers_at(instance: &Instance) -> String {
    instance
        .readiness
        .as_ref()
        .filter(|readiness| readiness.address.port() != 0)
        .map(|readiness| {
            format!(
                ": {NAME}{}{NAME:#}",
                probe::url(&readiness.probe, readiness.address)
            )
        })
        .unwrap_or_default()
}
