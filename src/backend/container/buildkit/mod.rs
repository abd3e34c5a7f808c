//! Building an image with the engine's `BuildKit`, spoken to directly: the build is one gRPC call over
//! `POST /grpc`, its reports are a second one, and what it needs from this machine it asks for through a
//! session (`POST /session`).

mod agent;
mod check;
mod files;
mod grpc;
mod options;
mod progress;
mod proto;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error;
use hyper::Request;
use sha2::{Digest, Sha256};

use self::agent::Agent;
use self::grpc::{Caller, Status};
use self::options::{Abilities, Order, order};
use self::progress::Steps;
use self::proto::{SolveResponse, StatusRequest, StatusResponse};
use self::session::Offer;
use super::build::{Output, Site};
use super::connect::hex;
use super::wire::ApiVersion;
use super::{Engine, labels};
use crate::backend::BackendError;
use crate::event::Event;
use crate::project::model::Build;

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const STATUS: &str = "/moby.buildkit.v1.Control/Status";

/// How long the last reports may take after the build's end.
const REPORTS: Duration = Duration::from_secs(5);

/// Opens a connection to the engine's `BuildKit`; `None`: it has none.
pub(super) async fn reach(engine: &Engine) -> Result<Option<Builder>, BackendError> {
    let refused = |error| engine.refused("reach its BuildKit", error);
    match engine
        .wire
        .hijack(Request::builder().uri("/grpc"), "h2c")
        .await
    {
        Ok(connection) => {
            let caller = Caller::new(connection).await;
            let caller = caller.map_err(|status| BackendError::Engine {
                action: "speak with its BuildKit".to_owned(),
                source: Box::new(status),
            })?;
            Ok(Some(Builder { caller }))
        }
        Err(Error::DockerResponseServerError { .. }) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

/// A connection to `BuildKit`.
#[derive(Debug)]
pub(super) struct Builder {
    caller: Caller,
}

impl Builder {
    /// Builds a service's image.
    pub(super) async fn build(
        &self,
        engine: &Engine,
        site: &Site<'_>,
        build: &Build,
    ) -> Result<(), BackendError> {
        let mut output = Output::new(site.image, &site.service.name, site.events);
        let mut build = build.clone();
        gateway(engine, &mut build).await;
        let labels = labels::of_image(site.project, site.service);
        let abilities = Abilities {
            modern: engine.api >= ApiVersion::V1_42,
            store: !attests(&build) || engine.has_containerd_store().await,
        };
        let Order {
            mut solve,
            sources,
            place,
            warnings,
        } = order(
            site.service,
            &build,
            site.image,
            labels,
            engine.platform.as_deref(),
            abilities,
        )
        .map_err(|why| output.failure(&why))?;
        for warning in warnings {
            let warning = format!("{}: {warning}", site.service.name);
            site.events.send(Event::Warning(warning));
        }
        let (agents, started) = agents(engine, &build)
            .await
            .map_err(|why| output.failure(&why))?;
        let offer = Offer {
            id: unique("session"),
            shared_key: hex(&Sha256::digest(place)),
            sources,
            agents,
            secrets: build.secrets,
        };
        solve.build = unique("build");
        solve.session.clone_from(&offer.id);
        let session = session::open(engine, offer)
            .await
            .map_err(|error| engine.refused("open a session for the build", error))?;
        if build.check {
            let found = check::findings(&self.caller, &solve).await;
            drop(session);
            drop(started);
            return checked(found, &mut output);
        }
        let mut steps = Steps::default();
        let outcome = self.run(&solve, &mut steps, &mut output).await;
        engine.credentials.tell(site.events);
        drop(session);
        drop(started);
        outcome.map_err(|status| output.failure(&status.message))
    }

    async fn run(
        &self,
        solve: &proto::SolveRequest,
        steps: &mut Steps,
        output: &mut Output<'_>,
    ) -> Result<(), Status> {
        let solving = async {
            let mut answers = self.caller.call(SOLVE, solve).await?;
            while answers.next::<SolveResponse>().await?.is_some() {}
            Ok::<(), Status>(())
        };
        let asked = StatusRequest {
            build: solve.build.clone(),
        };
        let reporting = async {
            let mut reports = self.caller.call(STATUS, &asked).await?;
            while let Some(report) = reports.next::<StatusResponse>().await? {
                steps.take(report, output);
            }
            Ok::<(), Status>(())
        };
        let mut reporting = std::pin::pin!(reporting);
        let mut solving = std::pin::pin!(solving);
        tokio::select! {
            outcome = &mut solving => {
                // What the reports fail with is said by the outcome too.
                drop(tokio::time::timeout(REPORTS, reporting).await);
                outcome
            }
            _ = &mut reporting => solving.await,
        }
    }
}

/// Tells what the checks found; findings are a failure.
fn checked(
    found: Result<Option<check::Findings>, Status>,
    output: &mut Output<'_>,
) -> Result<(), BackendError> {
    let found = found
        .map_err(|status| output.failure(&status.message))?
        .ok_or_else(|| {
            let why = "the BuildKit of this engine has no checks: --check needs Docker Engine 27, \
                       or `# syntax=docker/dockerfile:1` in the Dockerfile";
            output.failure(why)
        })?;
    for line in found.text.lines() {
        output.line(line.trim_end());
    }
    if found.any {
        return Err(output.failure("the checks found what is said above"));
    }
    output.line("check complete, no warnings found");
    Ok(())
}

/// Whether a build asks for what only the containerd image store keeps.
fn attests(build: &Build) -> bool {
    build.platforms.len() > 1 || build.provenance.is_some() || build.sbom.is_some()
}

/// Puts the address of the default bridge in the place of `host-gateway`.
async fn gateway(engine: &Engine, build: &mut Build) {
    const WORD: &str = "host-gateway";
    if !build.extra_hosts.iter().any(|host| host.ends_with(WORD)) {
        return;
    }
    let bridge: Result<serde_json::Value, Error> = engine.get("/networks/bridge").await;
    let Some(address) = bridge.ok().and_then(|bridge| {
        let address = bridge["IPAM"]["Config"][0]["Gateway"].as_str()?;
        Some(address.to_owned())
    }) else {
        // The builder's own error names the word.
        return;
    };
    for host in &mut build.extra_hosts {
        if let Some(name) = host.strip_suffix(WORD) {
            *host = format!("{name}{address}");
        }
    }
}

/// The ssh agents that a build may use: sockets by id, and the agents that were started for it.
async fn agents(
    engine: &Engine,
    build: &Build,
) -> Result<(BTreeMap<String, PathBuf>, Vec<Agent>), String> {
    use std::os::unix::fs::FileTypeExt as _;
    let (mut sockets, mut started) = (BTreeMap::new(), Vec::new());
    for (id, path) in &build.ssh {
        let path = match path.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => engine.ssh_agent.clone().ok_or_else(|| {
                format!("`build.ssh: {id}` needs an ssh agent, and SSH_AUTH_SOCK names none")
            })?,
        };
        let kind = std::fs::metadata(&path)
            .map_err(|error| format!("`build.ssh: {id}`: {}: {error}", path.display()))?
            .file_type();
        if kind.is_socket() {
            sockets.insert(id.clone(), path);
            continue;
        }
        let agent = Agent::with_key(&path, &unique("agent"))
            .await
            .map_err(|error| format!("`build.ssh: {id}`: {error}"))?;
        sockets.insert(id.clone(), agent.socket());
        started.push(agent);
    }
    Ok((sockets, started))
}

/// A name that no other build has, on this machine or another one at the same engine.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let text = format!(
        "{what} {} {} {now} {:?}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed),
        // Random per process: the seeds of the standard library's hash tables.
        std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), now)
    );
    let digest = hex(&Sha256::digest(text));
    digest.get(..25).unwrap_or(&digest).to_owned()
}
