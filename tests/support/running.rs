//! A program that runs beside the test, and what it left when it ended.
//!
//! Threads read its output as it comes, so no pipe fills up and every wait is for a line, not for
//! time.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::process::Signal;

use super::{LIMIT, Process};

/// Text that changes from run to run and what stands for it in comparisons, in the order of
/// replacing.
pub(super) type Stable = Vec<(String, &'static str)>;

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// What was run, for messages.
    pub(crate) command: String,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All it wrote to descriptor 1. On a terminal, all that it wrote.
    pub(crate) stdout: String,
    /// All it wrote to descriptor 2.
    pub(crate) stderr: String,
    pub(super) stable: Stable,
}

impl Finished {
    /// The exit code, 128 + signal for a death by signal, as a shell says it.
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit code of {self}");
        self
    }

    /// Checks everything. What changes from run to run is written as `[DIR]` (the sandbox's project
    /// directory), `[PROJECT]` (the project's name) and `[WHARF]` (the binary).
    #[track_caller]
    pub(crate) fn expect_exactly(self, code: i32, stdout: &str, stderr: &str) -> Self {
        let found = (
            self.code(),
            self.stable(&self.stdout),
            self.stable(&self.stderr),
        );
        assert_eq!(
            found,
            (code, stdout.to_owned(), stderr.to_owned()),
            "{self}"
        );
        self
    }

    /// Checks that a piece of text is in what it wrote, on either descriptor.
    #[track_caller]
    pub(crate) fn expect_text(self, text: &str) -> Self {
        let found =
            self.stable(&self.stdout).contains(text) || self.stable(&self.stderr).contains(text);
        assert!(found, "no `{text}` from {self}");
        self
    }

    /// Every line of descriptor 1 as JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{error} in `{line}` of {self}"))
            })
            .collect()
    }

    /// The text with what changes from run to run replaced, see [`Finished::expect_exactly`].
    pub(crate) fn stable(&self, text: &str) -> String {
        self.stable
            .iter()
            .fold(text.to_owned(), |text, (found, name)| {
                text.replace(found, name)
            })
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            stdout,
            stderr,
            ..
        } = self;
        write!(
            f,
            "`{command}`, code {}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---",
            self.code()
        )
    }
}

/// A program that runs. Dropping it kills it, and it alone: one that has children is told to end.
#[derive(Debug)]
pub(crate) struct Running {
    command: String,
    child: Child,
    process: Process,
    output: Arc<Output>,
    stable: Stable,
}

impl Running {
    /// Starts it without input, its output piped to the test.
    pub(super) fn start(mut command: Command, stable: Stable) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let text = written(&command);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{text}`: {error}"));
        let process = Process::open(child.id()).unwrap();
        let output = Output::read(child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self {
            command: text,
            child,
            process,
            output,
            stable,
        }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process itself.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for a line, on either descriptor, that contains `text`, and returns it. A line from
    /// before the call counts.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        let mut state = self.output.lock();
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(line) = state.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let waited = deadline.saturating_duration_since(Instant::now());
            assert!(
                state.open > 0 && !waited.is_zero(),
                "no line with `{text}` from `{}`\n--- stdout\n{}\n--- stderr\n{}\n---",
                self.command,
                state.stdout,
                state.stderr
            );
            state = self.output.wait(state, waited);
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end and for the end of its output.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        self.process.wait_end();
        let status = self.child.wait().unwrap();
        let mut state = self.output.lock();
        let deadline = Instant::now() + LIMIT;
        while state.open > 0 {
            let waited = deadline.saturating_duration_since(Instant::now());
            assert!(
                !waited.is_zero(),
                "`{}` ended, but something it started keeps its output open",
                self.command
            );
            state = self.output.wait(state, waited);
        }
        Finished {
            command: self.command.clone(),
            status,
            stdout: std::mem::take(&mut state.stdout),
            stderr: std::mem::take(&mut state.stderr),
            stable: self.stable.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only where it was waited for already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command as it would be typed.
pub(super) fn written(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    shell_words::join(words.map(|word| word.to_string_lossy()))
}

/// What came so far, and a bell for what comes.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<Text>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    stdout: String,
    stderr: String,
    /// How many of the two are not at their end.
    open: u8,
}

impl Text {
    /// Whole lines only: the last one may still grow.
    fn lines(&self) -> impl Iterator<Item = &str> {
        [&self.stdout, &self.stderr].into_iter().flat_map(|text| {
            text.split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
        })
    }
}

impl Output {
    fn read(stdout: ChildStdout, stderr: ChildStderr) -> Arc<Self> {
        let output = Arc::new(Self {
            state: Mutex::new(Text {
                open: 2,
                ..Text::default()
            }),
            ..Self::default()
        });
        output.collect(stdout, |text| &mut text.stdout);
        output.collect(stderr, |text| &mut text.stderr);
        output
    }

    fn collect(
        self: &Arc<Self>,
        from: impl Read + Send + 'static,
        to: fn(&mut Text) -> &mut String,
    ) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                to(&mut output.lock()).push_str(&String::from_utf8_lossy(&line));
                output.changed.notify_all();
                line.clear();
            }
            output.lock().open -= 1;
            output.changed.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Text> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, Text>,
        limit: std::time::Duration,
    ) -> MutexGuard<'a, Text> {
        self.changed
            .wait_timeout(state, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}
