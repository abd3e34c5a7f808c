//! A command's side of the forwarder's socket: waits until names are what they should be. The words that are
//! spoken there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::observe::status;
use super::protocol::Request;
use super::{Processes, socket};
use crate::backend::BackendError;

/// The version of the protocol: JSON, one message a line; each request has one answer.
pub const NAMES_PROTOCOL: u32 = 1;

/// The longest line either side accepts, in bytes.
pub const LONGEST_LINE: u64 = 64 * 1024;

/// How long a forwarder may take to come (back): the supervisor starts it.
const COMING: Duration = Duration::from_secs(5);

/// How long it may take to answer. It gives up by itself before.
const ANSWERING: Duration = Duration::from_secs(15);

/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(20);

/// What a command asks the forwarder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesRequest {
    /// [`NAMES_PROTOCOL`].
    pub version: u32,
    /// Answer when all is in effect that ledger and engine know now.
    pub sync: NamesWanted,
}

/// What has to be in effect besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesWanted {
    /// Services whose relay is connected and listens.
    #[serde(default)]
    pub reachable: Vec<String>,
    /// Instances that are about to start: they see their names, and nothing is in the way of their ports. Empty
    /// where all see theirs.
    #[serde(default)]
    pub instances: Vec<String>,
}

/// What the forwarder answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamesReply {
    /// It is as it was asked for.
    Ok(bool),
    /// It is not, and why.
    Error(String),
}

impl Processes {
    /// Returns when the project's forwarder has caught up with all that ledger and engine know now: hosts files
    /// are written, ports are listened on, and what is `wanted` besides.
    ///
    /// Fails when there is no forwarder for some seconds, or with what it says keeps it.
    pub async fn sync_names(&self, project: &str, wanted: NamesWanted) -> Result<(), BackendError> {
        let cannot = |source| BackendError::State {
            action: format!("the services of project {project} do not have all their names"),
            source,
        };
        let path = self.dirs().project(project)?.names_socket();
        let request = NamesRequest {
            version: NAMES_PROTOCOL,
            sync: wanted,
        };
        let deadline = Instant::now() + COMING;
        loop {
            let asked = tokio::time::timeout(ANSWERING, ask(&path, &request));
            let error = match asked.await {
                Ok(Ok(NamesReply::Ok(_))) => return Ok(()),
                Ok(Ok(NamesReply::Error(text))) => return Err(cannot(std::io::Error::other(text))),
                // Not there, or killed meanwhile: the next one is on its way.
                Ok(Err(error)) => error,
                Err(_) => {
                    let text = "the forwarder does not answer";
                    return Err(cannot(std::io::Error::new(
                        std::io::ErrorKind::TimedOut,
                        text,
                    )));
                }
            };
            if Instant::now() >= deadline {
                let text = format!(
                    "the forwarder cannot be reached at {}: {error}",
                    path.display()
                );
                return Err(cannot(std::io::Error::new(error.kind(), text)));
            }
            self.revive_forwarder(project).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts the forwarder again if it has ended: because nobody needed it a moment ago, or because a command
    /// that was to remove it did not come to that.
    async fn revive_forwarder(&self, project: &str) {
        let name = crate::naming::forwarder_name(project);
        let Ok(record) = self.record(project, &name) else {
            return;
        };
        if status(&record).is_alive() && record.wanted {
            return;
        }
        let request = Request::Start {
            instance: name,
            before: Some(record.id().to_owned()),
        };
        // While the last one is still ending this is refused, and tried again.
        drop(self.client.ask(project, &request).await);
    }
}

async fn ask(path: &std::path::Path, request: &NamesRequest) -> std::io::Result<NamesReply> {
    let stream = socket::reach(path, |path| {
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })?;
    let mut stream = BufReader::new(UnixStream::from_std(stream)?);
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut line = String::new();
    stream.take(LONGEST_LINE).read_line(&mut line).await?;
    if !line.ends_with('\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_these() {
        let request: NamesRequest =
            serde_json::from_str(r#"{"version":1,"sync":{"reachable":["api"]}}"#).unwrap();
        assert_eq!(request.sync.reachable, ["api"]);
        assert!(request.sync.instances.is_empty());
        let words = |reply: &NamesReply| serde_json::to_string(reply).unwrap();
        assert_eq!(words(&NamesReply::Ok(true)), r#"{"ok":true}"#);
        assert_eq!(words(&NamesReply::Error("no".into())), r#"{"error":"no"}"#);
    }
}
