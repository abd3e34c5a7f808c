//! Waiting for a container: for an answer at its port, and for its end.
//!
//! Nothing here polls the engine: `wait` and the event stream tell when something happened.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::query_parameters::WaitContainerOptionsBuilder;
use futures_util::{Stream, StreamExt};
use hyper::{Method, Request};
use serde_json::Value;

use super::fault::is_missing;
use super::observe::{self, encoded};
use super::reply::Inspected;
use super::{Engine, logs, wire};
use crate::backend::BackendError;
use crate::event::{Event, Events};
use crate::probe;
use crate::state::{ProbeKind, Publisher, Readiness};

/// How many lines of output go into an error.
const KEPT: u64 = 20;

/// For requests that may stay open as long as the container lives.
const UNLIMITED: Duration = Duration::from_hours(24 * 365);

/// Waits until the container answers as its readiness says, in the run that goes on afterwards.
pub(super) async fn answers(
    engine: &Engine,
    id: &str,
    name: &str,
    readiness: &Readiness,
    events: &Events,
) -> Result<(), BackendError> {
    let limit = Duration::from_millis(readiness.timeout_ms);
    let begun = Instant::now();
    let mut run = alive(engine, id, name).await?;
    loop {
        let (asked, told) = addresses(engine, &run, name, readiness).await?;
        let left = limit.saturating_sub(begun.elapsed());
        let probed = tokio::select! {
            probed = probe::until_answered(&readiness.probe, asked, left) => probed,
            code = ended(engine, id) => {
                let code = code.map_err(|error| engine.refused(format!("wait for {name}"), error))?;
                return Err(match code {
                    Some(code) => exited_early(engine, id, name, code).await,
                    None => removed(name),
                });
            }
        };
        let now = alive(engine, id, name).await?;
        match probed {
            // The answer may be the last word of a run that has ended since.
            Ok(_) if now.state.started_at != run.state.started_at => run = now,
            Ok(answer) => {
                events.send(Event::Ready {
                    name: name.to_owned(),
                    url: probe::url(&readiness.probe, told),
                    address: told,
                    how: answer.what,
                    took: age(&now.state.started_at).unwrap_or_else(|| begun.elapsed()),
                });
                return Ok(());
            }
            Err(miss) => {
                return Err(BackendError::NotReady {
                    name: name.to_owned(),
                    seconds: limit.as_secs(),
                    last: miss.to_string(),
                    last_lines: last_lines(engine, id).await,
                });
            }
        }
    }
}

/// Where to ask, and which address to tell people.
async fn addresses(
    engine: &Engine,
    container: &Inspected,
    name: &str,
    readiness: &Readiness,
) -> Result<(SocketAddr, SocketAddr), BackendError> {
    let own = own_address(container, readiness.target);
    let published = published(container, readiness);
    // The engine's proxy accepts connections before the server does, so a connection to a published
    // port proves nothing; a connection to the container's own address does.
    let must_be_own = published.is_none() || readiness.probe == ProbeKind::Tcp;
    let own = match own {
        Some(own) if must_be_own && (own.ip().is_loopback() || engine.is_direct().await) => {
            Some(own)
        }
        _ => None,
    };
    match (own, published) {
        (Some(own), published) => Ok((own, published.unwrap_or(own))),
        (None, Some(published)) => Ok((published, published)),
        (None, None) => Err(BackendError::Unsupported(format!(
            "{name}: port {} is not published, and containers of this engine cannot be reached \
             directly",
            readiness.target
        ))),
    }
}

/// Where the host publishes the port to be probed.
fn published(container: &Inspected, readiness: &Readiness) -> Option<SocketAddr> {
    if readiness.address.port() != 0 {
        return Some(readiness.address);
    }
    let publishers: Vec<Publisher> = observe::publishers(&container.network_settings.ports);
    publishers
        .iter()
        .find(|port| port.target == readiness.target && port.published != 0)
        .map(observe::concrete)
}

/// The container's own address; the host's for a container in the host's network.
fn own_address(container: &Inspected, port: u16) -> Option<SocketAddr> {
    let networks = &container.network_settings.networks;
    if networks.contains_key("host") {
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    networks
        .values()
        .find_map(|network| network.ip.parse().ok())
        .map(|ip| SocketAddr::new(ip, port))
}

/// Waits until the container ended with code 0.
pub(super) async fn completed(engine: &Engine, id: &str, name: &str) -> Result<(), BackendError> {
    match ended(engine, id).await {
        Ok(Some(0)) => Ok(()),
        Ok(Some(code)) => Err(exited_early(engine, id, name, code).await),
        Ok(None) => Err(removed(name)),
        Err(error) => Err(engine.refused(format!("wait for {name}"), error)),
    }
}

/// Nobody knows how it ended.
pub(super) fn removed(name: &str) -> BackendError {
    BackendError::Unsupported(format!("cannot wait for {name}: it was removed"))
}

/// Waits until the container ended for good (its restart policy starts it no more); its exit code. `None`: it was
/// removed before it could be asked for.
pub(super) async fn ended(engine: &Engine, id: &str) -> Result<Option<i32>, Error> {
    loop {
        let Some(code) = next_end(engine, id).await? else {
            return Ok(None);
        };
        match observe::inspect(engine, id).await? {
            Some(container) if container.state.running || container.state.restarting => {}
            Some(container) => return Ok(Some(observe::exit_code(&container.state))),
            None => return Ok(Some(code)),
        }
    }
}

/// Waits until the container does not run; its exit code. `None`: it was removed before it could be asked for.
pub(super) async fn next_end(engine: &Engine, id: &str) -> Result<Option<i32>, Error> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("not-running")
        .build();
    let docker = engine.docker.clone().with_timeout(UNLIMITED);
    let mut waiting = std::pin::pin!(docker.wait_container(id, Some(options)));
    let code = match waiting.next().await {
        Some(Ok(reply)) => reply.status_code,
        Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) if is_missing(&error) => return Ok(None),
        Some(Err(error)) => return Err(error),
        None => 0,
    };
    Ok(Some(i32::try_from(code).unwrap_or(i32::MAX)))
}

/// The engine's events of these kinds about these containers, from now on.
pub(super) async fn changes(
    engine: &Engine,
    ids: &[&str],
    kinds: &[&str],
) -> Result<impl Stream<Item = Result<Value, Error>> + Send + use<>, Error> {
    let filters = serde_json::json!({ "type": ["container"], "container": ids, "event": kinds });
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("/events?filters={}", encoded(&filters.to_string())))
        .body(bollard::body_full(Vec::new().into()))?;
    let response = engine.wire.checked(request).await?;
    Ok(wire::json_lines(response.into_body()))
}

/// The exit code of the run that began at a time, where the container has been started again since: its state
/// knows that code no more.
pub(super) async fn end_since(
    engine: &Engine,
    id: &str,
    started_at: &str,
) -> Result<Option<i32>, Error> {
    let Ok(started) = started_at.parse::<jiff::Timestamp>() else {
        return Ok(None);
    };
    let moment =
        |time: jiff::Timestamp| format!("{}.{:09}", time.as_second(), time.subsec_nanosecond());
    let filters = serde_json::json!({ "type": ["container"], "container": [id], "event": ["die"] });
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!(
            "/events?since={}&until={}&filters={}",
            moment(started),
            moment(jiff::Timestamp::now()),
            encoded(&filters.to_string())
        ))
        .body(bollard::body_full(Vec::new().into()))?;
    let response = engine.wire.checked(request).await?;
    let mut told = std::pin::pin!(wire::json_lines(response.into_body()));
    let first = told.next().await.transpose()?;
    let code = first
        .as_ref()
        .and_then(|event| event.pointer("/Actor/Attributes/exitCode"));
    Ok(code
        .and_then(Value::as_str)
        .and_then(|code| code.parse().ok()))
}

/// The container, if it runs or is about to run again.
pub(super) async fn alive(
    engine: &Engine,
    id: &str,
    name: &str,
) -> Result<Inspected, BackendError> {
    let inspected = observe::inspect(engine, id)
        .await
        .map_err(|error| engine.refused(format!("inspect {name}"), error))?;
    match inspected {
        Some(container) if observe::status(&container.state).is_alive() => Ok(container),
        Some(container) => {
            let code = observe::exit_code(&container.state);
            Err(exited_early(engine, id, name, code).await)
        }
        None => Err(removed(name)),
    }
}

async fn exited_early(engine: &Engine, id: &str, name: &str, code: i32) -> BackendError {
    BackendError::ExitedEarly {
        name: name.to_owned(),
        code,
        last_lines: last_lines(engine, id).await,
    }
}

/// For an error that is reported anyway: without the lines if they cannot be had.
pub(super) async fn last_lines(engine: &Engine, id: &str) -> Vec<String> {
    logs::last_lines(engine, id, KEPT).await.unwrap_or_default()
}

/// Time since an engine's timestamp.
fn age(started_at: &str) -> Option<Duration> {
    let started: jiff::Timestamp = started_at.parse().ok()?;
    Duration::try_from(jiff::Timestamp::now().duration_since(started)).ok()
}
