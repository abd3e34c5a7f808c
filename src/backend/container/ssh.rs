//! The connection to an engine of another machine: `docker system dial-stdio` there, run by ssh, whose
//! standard input and output are the connection.
//!
//! Everything about how to get there (keys, proxies, known hosts) is the ssh configuration's.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::connect::SshHost;

/// How long ssh may take to say why it ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How much of it is kept, in bytes.
const KEPT: usize = 4096;

/// A running ssh; dropping it ends it.
#[derive(Debug)]
pub(super) struct Stream {
    _child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

/// What ssh writes to its standard error.
#[derive(Debug)]
pub(super) struct LastWords(JoinHandle<String>);

/// Starts ssh; that it could connect shows in the first answer.
pub(super) fn connect(host: &SshHost, path: Option<&str>) -> io::Result<(Stream, LastWords)> {
    let mut command = Command::new("ssh");
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command
        .args(arguments(host))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for wharf, which may still have to ask the engine something.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run `ssh`: {error}")))?;
    let (Some(input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let stream = Stream {
        _child: child,
        input,
        output,
    };
    Ok((stream, LastWords(tokio::spawn(listen(errors)))))
}

/// The command line after `ssh`.
fn arguments(host: &SshHost) -> Vec<String> {
    let mut arguments: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).into();
    if let Some(user) = &host.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = host.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["--".to_owned(), host.host.clone(), "docker".to_owned()]);
    if let Some(socket) = &host.socket {
        // The shell there takes the line apart again.
        let option = format!("--host=unix://{socket}");
        arguments.push(shell_words::quote(&option).into_owned());
    }
    arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    arguments
}

async fn listen(mut errors: ChildStderr) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        if text.len() < KEPT {
            text.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

impl LastWords {
    /// Why the connection broke off, in ssh's words where it has some.
    pub(super) async fn explain(self, error: impl Into<BoxedError>) -> io::Error {
        match tokio::time::timeout(LAST_WORDS, self.0).await {
            Ok(Ok(words)) if !words.is_empty() => io::Error::other(words),
            _ => io::Error::other(error),
        }
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_that_of_the_docker_client() {
        let mut host = SshHost {
            user: None,
            host: "build".to_owned(),
            port: None,
            socket: None,
        };
        assert_eq!(
            arguments(&host).join(" "),
            "-o ConnectTimeout=30 -T -- build docker system dial-stdio"
        );
        host.user = Some("me".to_owned());
        host.port = Some(22);
        host.socket = Some("/run/my docker.sock".to_owned());
        assert_eq!(
            arguments(&host).join(" "),
            "-o ConnectTimeout=30 -T -l me -p 22 -- build docker '--host=unix:///run/my docker.sock' \
             system dial-stdio"
        );
    }
}
