//! `pre_start`, `post_start` and `pre_stop`: commands in the environment and directory of a process. The command that
//! starts or stops the service runs them, as for containers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use super::attributes::HookCommand;
use super::child::{Extras, Launch, Way};
use super::ledger::{Account, Record};
use super::owned;
use super::refusal::shown;
use super::run::wall_clock;
use crate::backend::BackendError;
use crate::event::{Event, Events, Stream};

/// How many lines of output go into an error.
const KEPT: usize = 20;

/// How long the output of one that has ended is waited for: as long as an engine does where something has it that the
/// command has left behind.
const LINGERING: Duration = Duration::from_secs(2);

/// Runs hooks one after the other; the first failure ends it. `what` is the attribute's name.
pub(super) async fn run(
    record: &Record,
    what: &str,
    hooks: &[HookCommand],
    events: &Events,
) -> Result<(), BackendError> {
    for hook in hooks {
        let cannot = |source| BackendError::HookCommand {
            name: record.spec.name.clone(),
            what: what.to_owned(),
            command: shown(&hook.command),
            source,
        };
        let (code, last_lines) = execute(record, hook, events).await.map_err(cannot)?;
        if code != 0 {
            return Err(BackendError::Hook {
                name: record.spec.name.clone(),
                what: what.to_owned(),
                service: Some(record.spec.service.clone()),
                command: hook.command.join(" "),
                code,
                last_lines,
            });
        }
    }
    Ok(())
}

/// Its output is the instance's; its exit code and last lines.
async fn execute(
    record: &Record,
    hook: &HookCommand,
    events: &Events,
) -> std::io::Result<(i32, Vec<String>)> {
    let spec = &record.spec;
    let environment = spec.environment.with(hook.environment.clone());
    let user = hook.user.as_ref().or(spec.user.as_ref());
    let (out, stdout) = pipe(user)?;
    let (err, stderr) = pipe(user)?;
    let program = (hook.command.first().map(String::as_str) == Some("wharf"))
        .then_some(spec.program.as_deref())
        .flatten();
    let launch = Launch {
        command: &hook.command,
        program: program.map(Path::new),
        working_dir: &hook.working_dir,
        environment: &environment,
        run_id: record.id(),
        user,
        descriptors: None,
        hosts: spec.names.hosts.as_deref(),
    };
    let ends = [Stdio::null(), stdout, stderr];
    let child = launch.spawn_under(ends, Way::Apart, &Extras::beside(record));
    let mut child = child.map_err(|error| launch.attempt().explain(&error))?;
    let mut unless_ended = Abandoned(Some(Pid::from_child(&child)));
    // On a thread of its own, which leaves it its pid.
    let pid = Pid::from_child(&child);
    let (sender, mut ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("hook".to_owned())
        .spawn(move || {
            let ended = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            );
            let _ = sender.send(ended);
        })?;
    let mut last_lines = Vec::new();
    let mut tell = |stream, line: Vec<u8>| {
        if last_lines.len() == KEPT {
            last_lines.remove(0);
        }
        last_lines.push(String::from_utf8_lossy(&line).into_owned());
        events.send(Event::Log {
            name: spec.name.clone(),
            stream,
            time: wall_clock(),
            line,
        });
    };
    let (mut out, mut err) = (Output::of(out), Output::of(err));
    let mut until = None;
    while out.is_open || err.is_open {
        tokio::select! {
            biased;
            // What it has left behind has its output, too, and may write without an end.
            () = at(until) => break,
            told = &mut ended, if until.is_none() => {
                told.map_err(std::io::Error::other)??;
                until = Some(Instant::now() + LINGERING);
            }
            line = out.line(), if out.is_open => {
                line?.into_iter().for_each(|line| tell(Stream::Stdout, line));
            }
            line = err.line(), if err.is_open => {
                line?.into_iter().for_each(|line| tell(Stream::Stderr, line));
            }
        }
    }
    for (stream, output) in [(Stream::Stdout, out), (Stream::Stderr, err)] {
        if !output.begun.is_empty() {
            tell(stream, output.begun);
        }
    }
    if until.is_none() {
        ended.await.map_err(std::io::Error::other)??;
    }
    unless_ended.0 = None;
    let status = child.wait()?;
    let by_signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status
        .code()
        .unwrap_or_else(|| 128 + by_signal.unwrap_or_default());
    Ok((code, last_lines))
}

/// A command that nobody waits for any more is ended, with all that it started in its session's first group.
struct Abandoned(Option<Pid>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It has not been waited for, so the pid is still its own. What is gone needs no signal.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn pipe(user: Option<&Account>) -> std::io::Result<(Receiver, Stdio)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    owned::give(&write, user);
    Ok((Receiver::from_owned_fd(read)?, Stdio::from(write)))
}

/// One of its outputs.
struct Output {
    from: BufReader<Receiver>,
    /// What has come of a line that is not there as a whole.
    begun: Vec<u8>,
    is_open: bool,
}

impl Output {
    fn of(from: Receiver) -> Self {
        Self {
            from: BufReader::new(from),
            begun: Vec::new(),
            is_open: true,
        }
    }

    /// The next line without its end; `None` at the end of all. Nothing is lost where this is given up on the way.
    async fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let count = self.from.read_until(b'\n', &mut self.begun).await?;
        if count == 0 {
            self.is_open = false;
        }
        let mut line = std::mem::take(&mut self.begun);
        if line.pop_if(|byte| *byte == b'\n').is_none() && line.is_empty() {
            return Ok(None);
        }
        Ok(Some(line))
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
