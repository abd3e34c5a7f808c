//! The streams of a process that the supervisor's keeper holds: its output as it is recorded, byte for byte
//! and from now on, and its standard input where the service has one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::pipe;

use super::dirs::{InstanceDir, failed};
use super::watch::Watch;
use super::{Processes, UNKNOWN_CODE};
use crate::backend::BackendError;
use crate::backend::streams::{Streams, header};
use crate::event::Stream;
use crate::state::Status;

/// How much is read and may wait.
const PORTION: usize = 32 << 10;

/// A connection to a process.
#[derive(Debug)]
pub struct Attachment {
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Whether it has a standard input.
    pub stdin: bool,
    /// Its input and output.
    pub streams: Streams,
    /// Its terminal, to resize it by; `None` where it has none, or where it cannot be reached.
    pub terminal: Option<Arc<OwnedFd>>,
}

/// What moves the output from the log to the attachment.
#[derive(Debug)]
pub struct Feed<'a> {
    dir: InstanceDir,
    run: String,
    watch: Watch<'a>,
    tails: Vec<Tail>,
    in_pieces: bool,
    to: DuplexStream,
}

impl Processes {
    /// Connects to the present run of an instance.
    ///
    /// # Errors
    /// It does not run, or its files cannot be read.
    pub fn attach(
        &self,
        project: &str,
        name: &str,
    ) -> Result<(Attachment, Feed<'_>), BackendError> {
        let dir = self.dirs().project(project)?.instance(name)?;
        let record = self.record(project, name)?;
        let Some(run) = record.run.as_ref().filter(|run| run.finished.is_none()) else {
            return Err(BackendError::Unsupported(format!("{name} does not run")));
        };
        let attributes = &record.spec.attributes;
        let (tty, stdin) = (attributes.tty, attributes.stdin_open);
        let watch = Watch::new(&self.client, project, std::slice::from_ref(&dir), true)?;
        let streams: &[Stream] = if tty {
            &[Stream::Stdout]
        } else {
            &[Stream::Stdout, Stream::Stderr]
        };
        let tails = streams
            .iter()
            .map(|stream| Tail::new(&dir, *stream))
            .collect::<io::Result<_>>()
            .map_err(|error| failed("read the output in", dir.path(), error))?;
        let (to, from) = tokio::io::duplex(PORTION);
        let streams = if stdin {
            let path = dir.stdin();
            let input = pipe::OpenOptions::new().open_sender(&path);
            let input = input.map_err(|error| failed("open", &path, error))?;
            Streams::new(from, input, !tty)
        } else {
            Streams::new(from, tokio::io::sink(), !tty)
        };
        let terminal = run.process.filter(|_| tty).and_then(|process| {
            // The keeper has the near side; the far side is the process's own standard output.
            let file = File::open(format!("/proc/{}/fd/1", process.pid)).ok()?;
            let reached = process.is_alive() && rustix::termios::isatty(&file);
            reached.then(|| Arc::new(file.into()))
        });
        let feed = Feed {
            run: run.id.clone(),
            dir,
            watch,
            tails,
            in_pieces: !tty,
            to,
        };
        let attachment = Attachment {
            tty,
            stdin,
            streams,
            terminal,
        };
        Ok((attachment, feed))
    }
}

impl Feed<'_> {
    /// Carries the output until the run ends; its exit code.
    ///
    /// # Errors
    /// The ledger or the log cannot be read.
    pub async fn carry(mut self) -> Result<i32, BackendError> {
        loop {
            // The entry first: once it says that a run has ended, the log of that run is complete.
            let record = self.watch.read(&self.dir)?;
            let run = record.as_ref().and_then(|record| record.run.as_ref());
            let code = match (&record, run) {
                (Some(record), Some(run)) if run.id == self.run => {
                    let ended = run.finished.is_some() && record.status != Status::Running;
                    ended.then(|| run.code.unwrap_or(UNKNOWN_CODE))
                }
                // Another run has begun, or the instance is gone.
                _ => Some(UNKNOWN_CODE),
            };
            self.deliver().await?;
            if let Some(code) = code {
                return Ok(code);
            }
            self.watch.changed(true).await?;
        }
    }

    async fn deliver(&mut self) -> Result<(), BackendError> {
        let unreadable = |dir: &InstanceDir, error| failed("read the output in", dir.path(), error);
        for tail in &mut self.tails {
            loop {
                let bytes = tail
                    .read(&self.dir)
                    .map_err(|error| unreadable(&self.dir, error))?;
                if bytes.is_empty() {
                    break;
                }
                let header = header(tail.stream, bytes.len());
                // Nobody reads any more: the conversation is over, and this is dropped with it.
                if self.in_pieces {
                    drop(self.to.write_all(&header).await);
                }
                drop(self.to.write_all(&bytes).await);
            }
        }
        Ok(())
    }
}

/// The end of one stream's log.
#[derive(Debug)]
struct Tail {
    stream: Stream,
    segment: u64,
    file: Option<File>,
}

impl Tail {
    /// Behind what is there now.
    fn new(dir: &InstanceDir, stream: Stream) -> io::Result<Self> {
        let segment = dir.segments()?.last().copied().unwrap_or(0);
        let mut tail = Self {
            stream,
            segment,
            file: None,
        };
        if let Some(file) = tail.open(dir)? {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(tail)
    }

    /// What has been added, not more than a portion; empty when there is nothing.
    fn read(&mut self, dir: &InstanceDir) -> io::Result<Vec<u8>> {
        loop {
            // Asked before the file is read: what follows the end of a segment is in a later one.
            let next = dir
                .segments()?
                .into_iter()
                .find(|segment| *segment > self.segment);
            let mut bytes = Vec::new();
            if let Some(file) = self.open(dir)? {
                file.take(PORTION as u64).read_to_end(&mut bytes)?;
            }
            match next {
                Some(next) if bytes.is_empty() => {
                    self.segment = next;
                    self.file = None;
                }
                Some(_) | None => return Ok(bytes),
            }
        }
    }

    fn open(&mut self, dir: &InstanceDir) -> io::Result<Option<&mut File>> {
        if self.file.is_none() {
            self.file = match File::open(dir.log(self.stream, self.segment)) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
        Ok(self.file.as_mut())
    }
}
