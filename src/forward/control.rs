//! The forwarder's socket, at which commands wait until it has caught up. Knows lines, not what they mean.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::backend::process::{
    LONGEST_LINE, NAMES_PROTOCOL, NamesReply, NamesRequest, NamesWanted, socket::reach,
};

/// After trouble with accepting: descriptors may be short, and come back.
const BREATH: Duration = Duration::from_millis(100);

/// What somebody waits for.
#[derive(Debug)]
pub(super) struct Asked {
    /// What has to be in effect.
    pub(super) wanted: NamesWanted,
    /// Where they wait.
    pub(super) answer: oneshot::Sender<NamesReply>,
}

/// Listens at `path`. Whoever listened there before is gone: a project has one forwarder.
pub(super) fn listen(path: &Path) -> io::Result<mpsc::UnboundedReceiver<Asked>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = reach(path, std::os::unix::net::UnixListener::bind)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (asks, asked) = mpsc::unbounded_channel();
    tokio::spawn(attend(listener, asks));
    Ok(asked)
}

async fn attend(listener: UnixListener, asks: mpsc::UnboundedSender<Asked>) {
    let me = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().map(|peer| peer.uid());
                if peer.is_ok_and(|uid| uid == me || uid == 0) {
                    tokio::spawn(converse(stream, asks.clone()));
                }
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
}

/// Until the other side has gone, or says something that nobody understands.
async fn converse(mut stream: UnixStream, asks: mpsc::UnboundedSender<Asked>) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', &mut line).await;
        if read.is_err() || line.last() != Some(&b'\n') {
            return;
        }
        let reply = answer(&line, &asks).await;
        let Ok(mut text) = serde_json::to_vec(&reply) else {
            return;
        };
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn answer(line: &[u8], asks: &mpsc::UnboundedSender<Asked>) -> NamesReply {
    let request: NamesRequest = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return NamesReply::Error(format!("not a request: {error}")),
    };
    if request.version != NAMES_PROTOCOL {
        return NamesReply::other_version(request.version);
    }
    let (answer, answered) = oneshot::channel();
    let wanted = request.sync;
    drop(asks.send(Asked { wanted, answer }));
    let ended = || NamesReply::Error("the forwarder is ending".to_owned());
    answered.await.unwrap_or_else(|_| ended())
}
