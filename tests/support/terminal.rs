//! A program on a terminal of its own: for questions, and for what is printed only to people.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::pty::{Winsize, openpty};

use super::running::{Finished, Stable, written};
use super::{LIMIT, Process};

/// A program on a terminal of 120 columns. Dropping it kills the program.
#[derive(Debug)]
pub(crate) struct Terminal {
    command: String,
    child: Child,
    process: Process,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    stable: Stable,
}

impl Terminal {
    /// Starts it as the leader of a session whose controlling terminal is a new one.
    pub(super) fn start(command: &Command, stable: Stable) -> Self {
        let size = Winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).unwrap();
        // setsid(1) makes the terminal the controlling one and then becomes the program: the pid
        // stays.
        let mut leader = Command::new("setsid");
        leader
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        leader
            .current_dir(command.get_current_dir().unwrap())
            .env_clear();
        leader
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("TERM", "xterm-256color");
        let slave = |descriptor: &OwnedFd| descriptor.try_clone().unwrap();
        leader
            .stdin(slave(&pair.slave))
            .stdout(slave(&pair.slave))
            .stderr(slave(&pair.slave));

        let text = written(command);
        let child = leader
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{text}`: {error}"));
        let process = Process::open(child.id()).unwrap();
        // The test's own copies of the terminal's far side; with them open there would be no end of
        // output.
        drop(leader);
        drop(pair.slave);

        let keyboard = File::from(pair.master);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how a terminal says that nobody has it open any more (tty_ioctl(4)).
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            command: text,
            child,
            process,
            keyboard,
            output,
            bytes: Vec::new(),
            stable,
        }
    }

    /// The process itself.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until `text` was written, and returns all that was written so far, without colours and
    /// cursor movements.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            match self
                .output
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(more) => self.bytes.extend(more),
                Err(why) => panic!(
                    "no `{text}` from `{}` ({why})\n--- screen\n{screen}\n---",
                    self.command
                ),
            }
        }
    }

    /// Gives the terminal another size, as a window manager does.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// Types text; `\n` is the return key, `\x03` Ctrl-C.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.keyboard
            .write_all(text.replace('\n', "\r").as_bytes())
            .unwrap();
    }

    /// Waits for its end. All it wrote is in `stdout`.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        self.process.wait_end();
        let status = self.child.wait().unwrap();
        let deadline = Instant::now() + LIMIT;
        while let Ok(more) = self
            .output
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.bytes.extend(more);
        }
        Finished {
            command: self.command.clone(),
            status,
            stdout: self.screen(),
            stderr: String::new(),
            stable: self.stable.clone(),
        }
    }

    fn screen(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).replace("\r\n", "\n");
        anstream::adapter::strip_str(&text).to_string()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails only where it was waited for already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
