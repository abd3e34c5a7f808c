//! The supervisor's side of the control socket: who is connected, what they asked, what they are still to
//! be told. Knows lines, not what they mean for an instance.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::backend::process::protocol::{Greeting, LONGEST, PROTOCOL, Reply, Request};
use crate::backend::process::socket;

/// Names a connection for as long as the supervisor lives.
pub(super) type ClientId = u64;

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The socket and its connections.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    clients: BTreeMap<ClientId, Client>,
    next: ClientId,
}

impl Control {
    /// Listens at `path`. Whoever listened there before is gone: the caller has the supervisor's lock.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = socket::reach(path, UnixListener::bind)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            clients: BTreeMap::new(),
            next: 0,
        })
    }

    /// Those who want to connect from now on find nobody.
    pub(super) fn hide(&self) {
        drop(std::fs::remove_file(&self.path));
    }

    /// Whether nobody is connected.
    pub(super) fn is_idle(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether this one is.
    pub(super) fn is_connected(&self, id: ClientId) -> bool {
        self.clients.contains_key(&id)
    }

    /// Whether somebody ever was.
    pub(super) fn was_used(&self) -> bool {
        self.next > 0
    }

    /// Readable when somebody wants to connect.
    pub(super) fn door(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The connections to wait on, and whether each has something left to be told.
    pub(super) fn connections(&self) -> impl Iterator<Item = (ClientId, BorrowedFd<'_>, bool)> {
        self.clients
            .iter()
            .map(|(id, client)| (*id, client.stream.as_fd(), !client.output.is_empty()))
    }

    /// Lets in who is waiting, if it is this user (or root).
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let us = rustix::process::geteuid();
            let allowed = rustix::net::sockopt::socket_peercred(&stream)
                .is_ok_and(|peer| peer.uid == us || peer.uid.is_root());
            if !allowed || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let id = self.next;
            self.next += 1;
            self.clients.insert(
                id,
                Client {
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                },
            );
            self.tell(
                id,
                &Greeting {
                    protocol: PROTOCOL,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                },
            );
        }
    }

    /// Takes in what a client sent; the complete requests. A line that is no request is `Err` with the
    /// reason.
    pub(super) fn hear(&mut self, id: ClientId) -> Vec<Result<Request, String>> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Vec::new();
        };
        let mut gone = false;
        let mut buffer = [0; 4096];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => {
                    gone = true;
                    break;
                }
                Ok(count) => {
                    client.input.extend_from_slice(&buffer[..count]);
                    if client.input.len() > LONGEST {
                        gone = true;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        let mut requests = Vec::new();
        while let Some(end) = client.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = client.input.drain(..=end).collect();
            requests.push(serde_json::from_slice(&line).map_err(|error| error.to_string()));
        }
        if gone {
            self.clients.remove(&id);
        }
        requests
    }

    /// Answers a client, if it is still there.
    pub(super) fn answer(&mut self, id: ClientId, reply: &Reply) {
        self.tell(id, reply);
    }

    /// Lets go of a client, which is to ask another supervisor.
    pub(super) fn dismiss(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    /// Sends what a client could not take in before.
    pub(super) fn flush(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        while !client.output.is_empty() {
            match client.stream.write(&client.output) {
                Ok(count) if count > 0 => {
                    client.output.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.clients.remove(&id);
                    return;
                }
            }
        }
    }

    fn tell(&mut self, id: ClientId, message: &impl Serialize) {
        let (Some(client), Ok(text)) = (self.clients.get_mut(&id), serde_json::to_vec(message))
        else {
            return;
        };
        client.output.extend(text);
        client.output.push(b'\n');
        self.flush(id);
    }
}
