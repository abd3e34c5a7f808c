//! What a build may ask of us while it runs: files, credentials, secrets, ssh agents. Offered through a
//! session (`POST /session`), over which the engine calls back.
//!
//! Answers what it was given and nothing else: no name that the engine sends becomes a path outside
//! the directories, secrets and sockets of the build.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::errors::Error;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::files;
use super::grpc::{self, Call, Status};
use super::proto::{Content, Credentials, Health, Name, Nothing};
use crate::backend::container::Engine;
use crate::project::model::StoreSource;

/// The largest secret that a build takes, in bytes (`BuildKit`'s own limit).
const LARGEST_SECRET: usize = 500 * 1024;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// Files that the builder may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A directory.
    Directory(PathBuf),
    /// One file that is on no disk: its name and text.
    Text(String, String),
}

/// What a session offers.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Names the session.
    pub id: String,
    /// The same for each build of the same context, so that the builder finds its copy again.
    pub shared_key: String,
    /// Files by the name the builder knows.
    pub sources: BTreeMap<String, Source>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, StoreSource>,
    /// Sockets of ssh agents by id.
    pub agents: BTreeMap<String, PathBuf>,
}

/// An open session; dropping it ends it.
#[derive(Debug)]
pub(super) struct Session(JoinHandle<()>);

impl Drop for Session {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens a session on the engine and answers in it.
pub(super) async fn open(engine: &Engine, offer: Offer) -> Result<Session, Error> {
    let mut request = Request::builder()
        .uri("/session")
        .header("X-Docker-Expose-Session-Uuid", &offer.id)
        .header("X-Docker-Expose-Session-Name", "wharf")
        .header("X-Docker-Expose-Session-Sharedkey", &offer.shared_key);
    for method in [
        HEALTH,
        FILES,
        CREDENTIALS,
        SECRET,
        CHECK_AGENT,
        FORWARD_AGENT,
    ] {
        request = request.header("X-Docker-Expose-Session-Grpc-Method", method);
    }
    let connection = engine.wire.hijack(request, "h2c").await?;
    let offer = Arc::new(offer);
    let credentials = Arc::clone(&engine.credentials);
    Ok(Session(tokio::spawn(grpc::serve(
        connection,
        move |call| answer(call, Arc::clone(&offer), Arc::clone(&credentials)),
    ))))
}

async fn answer(
    mut call: Call,
    offer: Arc<Offer>,
    credentials: Arc<crate::backend::container::credentials::Credentials>,
) -> Result<(), Status> {
    match call.method.as_str() {
        HEALTH => call.answers.send(&Health { status: 1 }).await,
        FILES => files::send(call, &offer.sources).await,
        CREDENTIALS => {
            let host = name(&mut call).await?;
            let (username, secret) = credentials.pair(&host).await;
            call.answers.send(&Credentials { username, secret }).await
        }
        SECRET => {
            let id = name(&mut call).await?;
            let source = offer.secrets.get(&id);
            let source =
                source.ok_or_else(|| Status::not_found(format!("secret {id}: not found")))?;
            let data = secret(&id, source)?;
            call.answers.send(&Content { data }).await
        }
        CHECK_AGENT => {
            let id = name(&mut call).await?;
            agent(&offer, &id)?;
            call.answers.send(&Nothing {}).await
        }
        FORWARD_AGENT => {
            let id = call.metadata.get("buildkit.ssh.id");
            let id = id.and_then(|id| id.to_str().ok()).unwrap_or("default");
            let socket = agent(&offer, id)?.clone();
            forward(call, socket).await
        }
        _ => Err(Status::unimplemented()),
    }
}

async fn name(call: &mut Call) -> Result<String, Status> {
    Ok(call.messages.next::<Name>().await?.unwrap_or_default().name)
}

fn secret(id: &str, source: &StoreSource) -> Result<Vec<u8>, Status> {
    let data = match source {
        StoreSource::File(path) => beginning(path).map_err(|error| {
            Status::not_found(format!("secret {id}: {}: {error}", path.display()))
        })?,
        StoreSource::Environment(_, Some(value)) | StoreSource::Content(value) => {
            value.clone().into_bytes()
        }
        StoreSource::Environment(variable, None) => {
            return Err(Status::not_found(format!(
                "secret {id}: {variable} is not set"
            )));
        }
        StoreSource::External => {
            return Err(Status::not_found(format!("secret {id} is external")));
        }
    };
    if data.len() > LARGEST_SECRET {
        return Err(Status::internal(format!(
            "secret {id} is larger than {} KiB",
            LARGEST_SECRET / 1024
        )));
    }
    Ok(data)
}

/// As much of a file as is needed to know whether it is too large.
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let limit = u64::try_from(LARGEST_SECRET + 1).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_end(&mut data)?;
    Ok(data)
}

fn agent<'a>(offer: &'a Offer, id: &str) -> Result<&'a PathBuf, Status> {
    let id = if id.is_empty() { "default" } else { id };
    let socket = offer.agents.get(id);
    socket.ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
}

/// Carries bytes between a step of the build and the agent, until either has enough.
async fn forward(mut call: Call, socket: PathBuf) -> Result<(), Status> {
    let agent = UnixStream::connect(&socket)
        .await
        .map_err(|error| Status::internal(format!("{}: {error}", socket.display())))?;
    let (mut from_agent, mut to_agent) = agent.into_split();
    let up = async {
        while let Some(Content { data }) = call.messages.next::<Content>().await? {
            to_agent.write_all(&data).await.map_err(Status::internal)?;
        }
        to_agent.shutdown().await.map_err(Status::internal)
    };
    let answers = &call.answers;
    let down = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let count = from_agent
                .read(&mut buffer)
                .await
                .map_err(Status::internal)?;
            if count == 0 {
                return Ok::<(), Status>(());
            }
            let data = buffer.get(..count).unwrap_or_default().to_vec();
            answers.send(&Content { data }).await?;
        }
    };
    tokio::select! {
        done = down => done,
        failed = async {
            match up.await {
                // The agent may still have something to say.
                Ok(()) => std::future::pending().await,
                Err(failed) => failed,
            }
        } => Err(failed),
    }
}
