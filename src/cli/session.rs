//! A conversation between the user's terminal and a program elsewhere, until one of them leaves.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::backend::process::Foreground;
use crate::backend::router::Backends;
use crate::backend::streams::{Input, Output, Program, Size, Streams};
use crate::error::{Error, Result};
use crate::ui::Ui;
use crate::ui::detach::DetachKeys;
use crate::ui::terminal::{self, RawMode, Screen};

/// How often a program that is just being started is told its terminal's size, and how long after each
/// other.
const TOLD: (u32, Duration) = (10, Duration::from_millis(20));

/// How many requests to end are passed on before the program is killed.
const PATIENCE: u32 = 3;

/// How long after its end the output of a program is waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often is looked what is waited for meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// The code of a program that died of SIGPIPE, as a shell says it.
const BROKEN_PIPE: i32 = 141;

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The program's output has ended.
    Output,
    /// The user typed the keys that detach.
    Detached,
    /// Nobody reads what the program writes.
    Broken,
}

/// What becomes of signals to this command.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnSignal<'a> {
    /// They end the conversation, not the program.
    Leave,
    /// They are the program's.
    PassOn(&'a Backends, &'a Recipient),
}

/// Who gets the signals.
#[derive(Clone, Debug)]
pub(super) enum Recipient {
    /// The main program of a container.
    Container {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A process of this machine.
    Process(crate::backend::process::run::ProcessId),
    /// An instance of the process backend.
    Instance {
        /// The project.
        project: String,
        /// Its name.
        name: String,
    },
}

/// What a conversation needs to know.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) streams: Streams,
    /// Whose terminal it is; `None`: it has none.
    pub(super) terminal: Option<Program>,
    /// Whether what is typed is sent.
    pub(super) stdin: bool,
    /// The keys that detach; `None`: what is typed goes through as it is.
    pub(super) keys: Option<DetachKeys>,
    pub(super) on_signal: OnSignal<'a>,
}

/// The size of the user's terminal.
pub(super) fn size() -> Option<Size> {
    terminal::size().map(|(rows, columns)| Size { rows, columns })
}

/// The keys that detach, by the option or the Docker configuration.
pub(super) fn keys(text: Option<&str>) -> Result<DetachKeys> {
    DetachKeys::parse(text).map_err(|word| {
        Error::usage(format!("`{word}` is not a key that detaches"))
            .hint("--detach-keys ctrl-p,ctrl-q")
    })
}

/// Carries on until the program or the user ends it. Raw mode lasts no longer than this.
///
/// # Errors
/// A broken connection; [`Error::interrupted`] where a signal ends it.
pub(super) async fn carry_on(backends: &Backends, session: Session<'_>) -> Result<End> {
    carry_on_until(backends, session, std::future::pending()).await
}

/// As [`carry_on`], and no longer than until the program `ended`, but for what it wrote before.
pub(super) async fn carry_on_until(
    backends: &Backends,
    session: Session<'_>,
    ended: impl Future<Output = ()>,
) -> Result<End> {
    let Session {
        streams: Streams { input, output },
        terminal,
        stdin,
        keys,
        on_signal,
    } = session;
    let screen = Screen::open().map_err(Error::failed)?;
    let keyboard = if stdin {
        Some(terminal::keyboard().map_err(Error::failed)?)
    } else {
        None
    };
    let raw = if stdin && terminal.is_some() {
        RawMode::enter().map_err(|error| {
            Error::failed("cannot switch the terminal to raw mode").detail(error.to_string())
        })?
    } else {
        None
    };
    let keys = keys.filter(|_| terminal.is_some());
    let end = {
        let listening = Cell::new(false);
        let mut shown = pin!(show(output, &screen, &listening));
        let mut sent = pin!(send(keyboard, input, keys));
        let mut sized = pin!(resize(backends, terminal.as_ref()));
        let mut heard = pin!(listen(on_signal));
        tokio::select! {
            end = &mut shown => end,
            end = &mut sent => Ok(end),
            error = &mut sized => Err(error),
            error = &mut heard => Err(error),
            () = ended => rest(shown.as_mut(), &listening).await,
        }
    };
    let end = match end {
        // Whoever interrupts does not want to wait for a slow reader.
        Err(error) => Err(error),
        Ok(end) => match closed(screen).await? {
            Ok(()) => Ok(end),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(End::Broken),
            Err(error) => Err(Error::failed("cannot write the output").detail(error.to_string())),
        },
    };
    drop(raw);
    if let Ok(End::Detached) = end {
        // The Docker client's words.
        Ui::default().status("read escape sequence");
    }
    end
}

/// Waits for a program of this machine in the foreground; its exit code.
///
/// # Errors
/// As [`carry_on`].
pub(super) async fn foreground(backends: &Backends, mut program: Foreground) -> Result<i32> {
    let recipient = Recipient::Process(program.id());
    let on_signal = OnSignal::PassOn(backends, &recipient);
    if let Some(streams) = program.streams.take() {
        let session = Session {
            streams,
            terminal: program.terminal.take().map(Program::Pty),
            stdin: program.is_typed,
            keys: None,
            on_signal,
        };
        let mut code = None;
        let ended = async {
            code = Some(program.wait().await);
        };
        let end = carry_on_until(backends, session, ended).await?;
        if end == End::Broken {
            return Err(broken());
        }
        match code {
            Some(code) => code.map_err(Error::failed),
            None => program.wait().await.map_err(Error::failed),
        }
    } else {
        tokio::select! {
            code = program.wait() => code.map_err(Error::failed),
            error = listen(on_signal) => Err(error),
        }
    }
}

/// Waits until all is written, or until a signal says that nobody wants it any more.
async fn closed(screen: Screen) -> Result<io::Result<()>> {
    let mut signals = All::new().map_err(Error::failed)?;
    let mut closing = pin!(screen.close());
    tokio::select! {
        biased;
        closed = &mut closing => Ok(closed),
        // It may have been meant for the program, which has just ended: only what nobody reads is given up.
        _ = signals.next() => tokio::time::timeout(LAST_WORDS, closing)
            .await
            .map_err(|_| Error::interrupted()),
    }
}

/// What nobody reading means for this command: what a broken pipe means for any other.
pub(super) fn broken() -> Error {
    Error::service(BROKEN_PIPE)
}

/// The program's code as this command's result.
pub(super) fn result(code: i32) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::service(code))
    }
}

/// The last that a program wrote which has ended. What it left behind may keep its output open for ever, and
/// write, too; a screen that is slow is waited for.
async fn rest(
    mut shown: Pin<&mut impl Future<Output = Result<End>>>,
    listening: &Cell<bool>,
) -> Result<End> {
    let mut signals = All::new().map_err(Error::failed)?;
    let mut waited = Duration::ZERO;
    while waited < LAST_WORDS {
        tokio::select! {
            biased;
            end = &mut shown => return end,
            // It may have been meant for the program.
            _ = signals.next() => {
                let rest = tokio::time::timeout(LAST_WORDS, shown).await;
                return rest.unwrap_or_else(|_| Err(Error::interrupted()));
            }
            () = tokio::time::sleep(GLANCE) => {
                if listening.get() {
                    waited += GLANCE;
                }
            }
        }
    }
    Ok(End::Output)
}

/// Shows what comes. `listening`: whether it waits for the program, not for the screen.
async fn show(mut output: Output, screen: &Screen, listening: &Cell<bool>) -> Result<End> {
    loop {
        listening.set(true);
        let next = output.next().await;
        listening.set(false);
        match next {
            Ok(Some((stream, bytes))) => {
                if !screen.write(stream, bytes).await {
                    return Ok(End::Broken);
                }
            }
            Ok(None) => return Ok(End::Output),
            Err(error) => {
                return Err(
                    Error::failed("the connection to the program broke").detail(error.to_string())
                );
            }
        }
    }
}

/// Sends what is typed; returns only when the user detaches.
async fn send(
    keyboard: Option<mpsc::Receiver<Vec<u8>>>,
    mut input: Input,
    mut keys: Option<DetachKeys>,
) -> End {
    if let Some(mut keyboard) = keyboard {
        while let Some(typed) = keyboard.recv().await {
            let (onward, detached) = match &mut keys {
                Some(keys) => keys.filter(&typed),
                None => (typed, false),
            };
            // A program that no longer reads may still write: the end of its output is what counts.
            if !onward.is_empty() && input.write(&onward).await.is_err() {
                break;
            }
            if detached {
                return End::Detached;
            }
        }
        if let Some(keys) = &keys
            && !keys.rest().is_empty()
        {
            drop(input.write(keys.rest()).await);
        }
        drop(input.close().await);
    }
    std::future::pending().await
}

/// Tells the program the size of the user's terminal, now and whenever it changes. Never returns but with
/// an error.
async fn resize(backends: &Backends, terminal: Option<&Program>) -> Error {
    let Some(program) = terminal else {
        return std::future::pending().await;
    };
    let mut changed = match signal(SignalKind::window_change()) {
        Ok(changed) => changed,
        Err(error) => return Error::failed(error),
    };
    loop {
        if let Some(size) = size() {
            let (times, pause) = TOLD;
            for _ in 0..times {
                if backends.resize(program, size).await.is_ok() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
        changed.recv().await;
    }
}

/// Returns when a signal ends the conversation.
async fn listen(on_signal: OnSignal<'_>) -> Error {
    let mut signals = match All::new() {
        Ok(signals) => signals,
        Err(error) => return Error::failed(error),
    };
    let mut asked = 0;
    loop {
        let name = signals.next().await;
        let OnSignal::PassOn(backends, recipient) = on_signal else {
            return Error::interrupted();
        };
        if matches!(name, "SIGINT" | "SIGTERM") {
            asked += 1;
        }
        let name = if asked >= PATIENCE { "SIGKILL" } else { name };
        if let Err(error) = pass_on(backends, recipient, name).await {
            return error;
        }
    }
}

async fn pass_on(backends: &Backends, to: &Recipient, name: &str) -> Result<()> {
    let number = || {
        name.parse::<nix::sys::signal::Signal>()
            .map_or(libc_term(), |signal| signal as i32)
    };
    match to {
        Recipient::Container { id, name: called } => {
            backends.containers.signal(id, called, name).await?;
        }
        Recipient::Instance {
            project,
            name: called,
        } => backends.processes.kill(project, called, number()).await?,
        Recipient::Process(process) => {
            if let Some(signal) = rustix::process::Signal::from_named_raw(number()) {
                process.signal(signal).map_err(Error::failed)?;
            }
        }
    }
    Ok(())
}

/// SIGTERM: what an unknown name stands for.
fn libc_term() -> i32 {
    nix::sys::signal::Signal::SIGTERM as i32
}

/// The signals that a person, a shell or a service manager sends.
struct All(Vec<(&'static str, Signal)>);

impl All {
    fn new() -> io::Result<Self> {
        let kinds = [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGHUP", SignalKind::hangup()),
            ("SIGQUIT", SignalKind::quit()),
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
        ];
        kinds
            .into_iter()
            .map(|(name, kind)| Ok((name, signal(kind)?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            for (name, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
