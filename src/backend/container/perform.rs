//! One arm per action. Each does what its step says and decides nothing; what is done already (stopped,
//! removed, there) counts as done.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::convert::whole_seconds;
use super::fault::{has_status, is_missing, told_apart};
use super::observe;
use super::{
    Containers, Engine, RelayImage, build, control, create, health, hooks, labels, pre_start, pull,
    ready, relays, resources, secrets, start,
};
use crate::backend::{BackendError, Made};
use crate::event::{Event, Events};
use crate::plan::step::{Action, Step, Target, Which};
use crate::state::InstanceId;

/// The engine's grace period where a container does not name one.
const DEFAULT_GRACE: i64 = 10;

/// What the engine may need beyond a grace period to kill and clean up.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// Performs a step; returns the container it made or started.
pub(super) async fn step(
    containers: &Containers,
    step: &Step,
    made: &Made,
    events: &Events,
) -> Result<Option<InstanceId>, BackendError> {
    let done = act(containers, step, made, events).await;
    let needs_what_was_there = matches!(
        step.action,
        Action::Create(_)
            | Action::WriteStores { .. }
            | Action::PreStart { .. }
            | Action::Start { .. }
    );
    if needs_what_was_there {
        done.map_err(told_apart)
    } else {
        done
    }
}

async fn act(
    containers: &Containers,
    step: &Step,
    made: &Made,
    events: &Events,
) -> Result<Option<InstanceId>, BackendError> {
    let engine = containers.engine().await?;
    match &step.action {
        Action::Build {
            service,
            image,
            pull_first,
            project,
        } => {
            let site = build::Site {
                service,
                image,
                project,
                events,
            };
            if *pull_first && pulled(engine, &site).await {
                made.say(step.id, format!("image {image}: pull"));
            } else {
                build::image(engine, site).await?;
            }
        }
        Action::Pull { service, image } => {
            let platform = service.platform.as_deref();
            pull::image(engine, &service.name, image, platform, events).await?;
        }
        Action::CreateNetwork { network, project } => {
            resources::create_network(engine, network, project).await?;
        }
        Action::UniteNetwork { name, project } => {
            resources::unite_network(engine, name, project).await?;
        }
        Action::CreateVolume { volume, project } => {
            resources::create_volume(engine, volume, project).await?;
        }
        Action::Create(spec) => return create::container(containers, spec, events).await.map(Some),
        Action::WriteStores { instance, stores } => {
            let id = resolve(instance, made)?;
            let wanted = secrets::Wanted::existing(&instance.name, stores);
            let placed = secrets::of(engine, wanted).await?;
            secrets::write(engine, &id.0, &instance.name, &placed.files).await?;
        }
        Action::PreStart {
            instance,
            preparation,
        } => {
            let id = resolve(instance, made)?;
            let site = pre_start::Site {
                containers,
                engine,
                name: &instance.name,
                events,
            };
            let runs = |own| made.put(step.id, own);
            site.run(&id.0, preparation, runs).await?;
        }
        Action::Start { instance } => {
            let id = resolve(instance, made)?;
            begin(containers, engine, &id.0, &instance.name, events).await?;
            return Ok(Some(id));
        }
        Action::AwaitReady {
            instance,
            readiness,
        } => {
            let id = resolve(instance, made)?;
            ready::answers(engine, &id.0, &instance.name, readiness, events).await?;
        }
        Action::AwaitHealthy { instance } => {
            let id = resolve(instance, made)?;
            health::healthy(engine, &id.0, &instance.name).await?;
        }
        Action::AwaitCompleted { instance } => {
            let id = resolve(instance, made)?;
            ready::completed(engine, &id.0, &instance.name).await?;
        }
        Action::Stop { instance, grace } => {
            let id = resolve(instance, made)?;
            end(containers, engine, &id.0, &instance.name, *grace, events).await?;
        }
        Action::Kill { instance, signal } => {
            let id = resolve(instance, made)?;
            control::kill(engine, &id.0, &instance.name, signal).await?;
        }
        Action::Pause { instance } => {
            let id = resolve(instance, made)?;
            control::pause(engine, &id.0, &instance.name).await?;
        }
        Action::Unpause { instance } => {
            let id = resolve(instance, made)?;
            control::unpause(engine, &id.0, &instance.name).await?;
        }
        Action::Remove { instance, volumes } => {
            let id = resolve(instance, made)?;
            remove(containers, engine, &id.0, &instance.name, *volumes).await?;
        }
        Action::RemoveNetwork { name, project } => {
            if !resources::remove_network(engine, name, project).await? {
                made.say(step.id, format!("network {name}: kept, it is still in use"));
            }
        }
        Action::RemoveVolume { name } => {
            if !resources::remove_volume(engine, name).await? {
                made.say(step.id, format!("volume {name}: kept, it is still in use"));
            }
        }
        Action::RemoveImage { name } => {
            if !control::remove_image(engine, name).await? {
                made.say(step.id, format!("image {name}: kept, it is still in use"));
            }
        }
        // The engine takes the ports of a container itself, and says so if it cannot.
        Action::AwaitListening { .. } => {}
        Action::LoadRelay { .. } => {
            let image = RelayImage::own().map_err(relays::unreadable)?;
            containers.load_relay_image(&image).await?;
        }
        Action::FreePort { .. }
        | Action::MovePort { .. }
        | Action::Provide { .. }
        | Action::PrepareRelay { .. }
        | Action::AwaitReachable { .. } => {
            return Err(BackendError::Unsupported(
                "the step is not one of the container backend".to_owned(),
            ));
        }
    }
    Ok(None)
}

/// Whether an image that could be built could be pulled too; why not is said.
async fn pulled(engine: &Engine, site: &build::Site<'_>) -> bool {
    let platform = site.service.platform.as_deref();
    match pull::image(
        engine,
        &site.service.name,
        site.image,
        platform,
        site.events,
    )
    .await
    {
        Ok(()) => true,
        Err(error) => {
            let why = std::error::Error::source(&error).map(ToString::to_string);
            site.events.send(Event::Note(format!(
                "{error}, so it is built ({})",
                why.unwrap_or_default()
            )));
            false
        }
    }
}

/// The container that a target stands for.
fn resolve(target: &Target, made: &Made) -> Result<InstanceId, BackendError> {
    match &target.which {
        Which::Existing(id) => Ok(id.clone()),
        Which::MadeBy(step) => made
            .get(*step)
            .ok_or_else(|| BackendError::Unsupported(format!("{} has not been made", target.name))),
    }
}

/// Starts a container and runs its `post_start` hooks, unless it runs already.
async fn begin(
    containers: &Containers,
    engine: &Engine,
    id: &str,
    name: &str,
    events: &Events,
) -> Result<(), BackendError> {
    let before = observe::inspect(engine, id)
        .await
        .map_err(|error| engine.refused(format!("inspect {name}"), error))?;
    if let Err(error) = start::container(engine, id, name).await {
        let never_ran = before.is_some_and(|container| container.state.status == "created");
        return Err(if never_ran && start::is_stuck(&error, id) {
            create::remove(engine, id).await;
            start::removed(name, error)
        } else {
            error
        });
    }
    match before {
        Some(container) if !container.state.running => {
            let labels = &container.config.labels;
            hooks::run(
                containers,
                engine,
                id,
                name,
                labels::POST_START,
                labels,
                events,
            )
            .await
        }
        Some(_) | None => Ok(()),
    }
}

/// Runs the `pre_stop` hooks of a container and stops it. A hook that fails does not keep it running,
/// and one that is to be killed at once gets none.
async fn end(
    containers: &Containers,
    engine: &Engine,
    id: &str,
    name: &str,
    grace: Option<Duration>,
    events: &Events,
) -> Result<(), BackendError> {
    let container = observe::inspect(engine, id)
        .await
        .map_err(|error| engine.refused(format!("inspect {name}"), error))?;
    let Some(container) = container else {
        return Ok(());
    };
    if container.state.running && grace != Some(Duration::ZERO) {
        let labels = &container.config.labels;
        let hooked = hooks::run(
            containers,
            engine,
            id,
            name,
            labels::PRE_STOP,
            labels,
            events,
        )
        .await;
        if let Err(error) = hooked {
            events.send(Event::Warning(error.to_string()));
        }
    }
    stop(engine, id, name, grace).await
}

/// Stops a container by its stop signal, its own grace period or `grace`, and SIGKILL.
pub(super) async fn stop(
    engine: &Engine,
    id: &str,
    name: &str,
    grace: Option<Duration>,
) -> Result<(), BackendError> {
    let refused = |error| engine.refused(format!("stop {name}"), error);
    let seconds = match grace {
        Some(grace) => whole_seconds(grace),
        // Only to know how long the answer may take.
        None => match observe::inspect(engine, id).await.map_err(refused)? {
            Some(container) => container.config.stop_timeout.unwrap_or(DEFAULT_GRACE),
            None => return Ok(()),
        },
    };
    let mut options = StopContainerOptionsBuilder::new();
    if grace.is_some() {
        options = options.t(i32::try_from(seconds).unwrap_or(i32::MAX));
    }
    let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX / 2)) + AFTERWARDS;
    let docker = engine.docker.clone().with_timeout(patience);
    match docker.stop_container(id, Some(options.build())).await {
        Ok(()) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

async fn remove(
    containers: &Containers,
    engine: &Engine,
    id: &str,
    name: &str,
    volumes: bool,
) -> Result<(), BackendError> {
    let refused = |error| engine.refused(format!("remove {name}"), error);
    let replaced = &containers.shared.replaced;
    if !volumes && let Some(container) = observe::inspect(engine, id).await.map_err(refused)? {
        replaced.remember_volumes(&container);
    }
    let options = RemoveContainerOptionsBuilder::new().v(volumes).build();
    for is_last in [false, true] {
        let options = Some(options.clone());
        match engine.docker.remove_container(id, options).await {
            Ok(()) => break,
            Err(error) if is_missing(&error) => break,
            // Somebody else is removing it.
            Err(error) if has_status(&error, 409) && says(&error, "already in progress") => {
                gone(engine, id).await.map_err(refused)?;
                break;
            }
            // A command that was cut off had asked the engine to start it, and that has come about since we
            // looked.
            Err(error) if !is_last && has_status(&error, 409) && is_running(&error) => {
                stop(engine, id, name, None).await?;
            }
            Err(error) => return Err(refused(error)),
        }
    }
    match replaced.take_heir(id) {
        Some(heir) if heir.waits => create::rename(engine, &heir).await,
        Some(_) | None => Ok(()),
    }
}

/// Whether a removal was refused because the container runs; in the words of Docker before and since 28, and of
/// Podman.
fn is_running(error: &Error) -> bool {
    [
        "a running container",
        "is running",
        "a restarting container",
    ]
    .iter()
    .any(|words| says(error, words))
}

/// Waits until a container that is being removed does not exist any more.
async fn gone(engine: &Engine, id: &str) -> Result<(), Error> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("removed")
        .build();
    let mut waiting = std::pin::pin!(engine.docker.wait_container(id, Some(options)));
    match waiting.next().await {
        // Its exit code is of no interest here.
        Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) | None => Ok(()),
        Some(Err(error)) if is_missing(&error) => Ok(()),
        Some(Err(error)) => Err(error),
    }
}

pub(super) fn says(error: &Error, words: &str) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. } if message.contains(words))
}
