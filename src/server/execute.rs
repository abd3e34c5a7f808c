//! `execute`: one command, its output as it comes, its end.
//!
//! Never through a shell; the program was judged before it gets here. Output is read only as fast as the
//! client takes it, so a flood of it fills the pipe and stops the command, not this process.

use std::io;
use std::num::NonZeroU64;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::group::Group;
use super::rpc::notification;
use super::session::Outbox;

/// The largest piece of output in one notification, in bytes.
const PIECE: usize = 16 * 1024;

/// How long to read on after the group is gone. What it wrote is in the pipe already; only a process that
/// left the group can still hold the other end.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// The parameters, by name or by position in this order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) command: String,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) timeout_ms: Option<NonZeroU64>,
    #[serde(default)]
    pub(super) cwd: Option<PathBuf>,
}

/// The result.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Outcome {
    /// 128 + signal number for a death by signal.
    exit_code: i32,
    signal: Option<i32>,
    timed_out: bool,
    duration_ms: u64,
}

/// Where output goes: to the client, under the id of its request. A notification gets none.
pub(super) struct Output<'a> {
    pub(super) outbox: &'a Outbox,
    pub(super) id: Option<serde_json::Value>,
}

/// Runs `program` and returns when it and everything in its group have ended and all output is sent:
/// because it ended, because its time was over, or because the session did.
///
/// # Errors
/// When it cannot be started or watched.
pub(super) async fn run(
    program: &Path,
    params: &Params,
    grace: Duration,
    output: Output<'_>,
) -> io::Result<Outcome> {
    let mut command = Command::new(program);
    command
        .arg0(&params.command)
        .args(&params.args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(directory) = &params.cwd {
        command.current_dir(directory);
    }
    let began = Instant::now();
    let mut group = Group::start(&mut command)?;
    let (stdout, stderr) = group.outputs();
    let (gone, is_gone) = watch::channel(false);
    let life = async {
        let timed_out = tokio::select! {
            biased;
            () = output.outbox.session_left() => Ok(false),
            ended = group.leader_ended() => ended.map(|()| false),
            () = elapsed(params.timeout_ms) => Ok(true),
        };
        let status = group.end(grace).await;
        gone.send_replace(true);
        Ok::<_, io::Error>((status?, timed_out?))
    };
    let ((), (), life) = tokio::join!(
        pump("stdout", stdout, &output, is_gone.clone()),
        pump("stderr", stderr, &output, is_gone.clone()),
        life,
    );
    let (status, timed_out) = life?;
    Ok(Outcome {
        exit_code: exit_code(status),
        signal: status.signal(),
        timed_out,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}

async fn elapsed(limit: Option<NonZeroU64>) {
    match limit {
        Some(limit) => tokio::time::sleep(Duration::from_millis(limit.get())).await,
        None => std::future::pending().await,
    }
}

async fn ended(is_gone: &mut watch::Receiver<bool>) {
    // A dropped sender means the same as its word.
    drop(is_gone.wait_for(|gone| *gone).await);
}

/// Sends what comes out of one pipe until its end.
async fn pump(
    stream: &str,
    pipe: Option<impl AsyncRead + Unpin>,
    output: &Output<'_>,
    mut is_gone: watch::Receiver<bool>,
) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; PIECE];
    loop {
        let count = tokio::select! {
            biased;
            read = pipe.read(&mut buffer) => read,
            () = ended(&mut is_gone) => {
                match timeout(LAST_WORDS, pipe.read(&mut buffer)).await {
                    Ok(read) => read,
                    Err(_) => break,
                }
            }
        };
        let Ok(count @ 1..) = count else {
            break;
        };
        let text = decoder.decode(buffer.get(..count).unwrap_or_default());
        send(stream, text, output).await;
    }
    send(stream, decoder.finish(), output).await;
}

async fn send(stream: &str, data: String, output: &Output<'_>) {
    let Some(id) = output.id.as_ref().filter(|_| !data.is_empty()) else {
        return;
    };
    let params = json!({"id": id, "stream": stream, "data": data});
    // Without a client the pipe is emptied all the same: the command must be able to end.
    output
        .outbox
        .send(notification("execute.output", &params))
        .await;
}

/// Bytes to text across pieces: a character may be cut in two. What is no UTF-8 becomes U+FFFD.
#[derive(Default)]
struct Decoder {
    kept: Vec<u8>,
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.kept.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.kept.len());
        let mut cut = Vec::new();
        let mut chunks = self.kept.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let is_last = chunks.peek().is_none();
            // No error length: more bytes could still complete it.
            if is_last && str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) {
                cut = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.kept = cut;
        text
    }

    fn finish(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_survives_being_cut() {
        let text = "grün ☃ 🦀";
        for size in 1..6 {
            let mut decoder = Decoder::default();
            let mut decoded: String = text
                .as_bytes()
                .chunks(size)
                .map(|piece| decoder.decode(piece))
                .collect();
            decoded.push_str(&decoder.finish());
            assert_eq!(decoded, text, "in pieces of {size}");
        }
    }

    #[test]
    fn other_bytes_are_replaced() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(b"a\xffb\xe2\x98"), "a\u{fffd}b");
        assert_eq!(decoder.decode(b"c"), "\u{fffd}c");
        assert_eq!(decoder.decode(b"\xf0\x9f"), "");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }

    #[test]
    fn parameters_are_strict() {
        let read = |text: &str| serde_json::from_str::<Params>(text);
        let full = read(r#"{"command":"a","args":["b"],"timeout_ms":5,"cwd":"/"}"#).unwrap();
        assert_eq!(full.timeout_ms.map(NonZeroU64::get), Some(5));
        assert_eq!(read(r#"["a",["b"]]"#).unwrap().args, ["b"]);
        for wrong in [
            "{}",
            r#"{"command":1}"#,
            r#"{"command":"a","args":"b"}"#,
            r#"{"command":"a","timeout_ms":0}"#,
            r#"{"command":"a","timeout_ms":-1}"#,
            r#"{"command":"a","shell":true}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn death_by_signal_has_the_shell_s_code() {
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
    }
}
