//! Runs a program in a new process that borrows our memory until then ([`clone`](super::clone), which is how
//! `posix_spawn(3)` does it) instead of copying it: of a copy nothing would be used but a few system calls, and
//! making, faulting in and dropping it costs more than all the rest of a start.
//!
//! What runs on the borrowed memory allocates nothing, takes no lock and only makes system calls; we stand still
//! meanwhile. The process has descriptors, signal dispositions and a current directory of its own.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::iter;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::clone::on_our_memory;

/// Where programs are looked for when `PATH` does not say.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// What runs what has no first line that says so, as execvp(3) has it.
const SHELL: &CStr = c"/bin/sh";

/// Words as `execve(2)` takes them: one piece of memory, since what a fork leaves as it is costs it least.
#[derive(Debug)]
struct Words {
    /// What is pointed to.
    _text: Vec<u8>,
    pointers: Vec<*const c_char>,
}

impl Words {
    fn new<'a>(words: impl Iterator<Item = [&'a str; 3]> + Clone) -> io::Result<Self> {
        let long = |word: [&str; 3]| word.iter().map(|part| part.len()).sum::<usize>() + 1;
        let mut text = Vec::with_capacity(words.clone().map(long).sum());
        let mut begins = Vec::with_capacity(words.clone().count());
        for word in words {
            let begin = text.len();
            for part in word {
                text.extend_from_slice(part.as_bytes());
            }
            if text[begin..].contains(&0) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            text.push(0);
            begins.push(begin);
        }
        let at = |begin: usize| text[begin..].as_ptr().cast();
        let pointers = begins.into_iter().map(at).chain(iter::once(ptr::null()));
        Ok(Self {
            pointers: pointers.collect(),
            _text: text,
        })
    }
}

/// A program and how it is called; all of it made before the new process is.
#[derive(Debug)]
pub(super) struct Program {
    /// Where it may be, in order.
    places: Vec<CString>,
    arguments: Words,
    /// The same for the shell, with the place in `places` left open as its second word.
    by_shell: Vec<*const c_char>,
    environment: Words,
    directory: CString,
}

impl Program {
    /// `file` is looked up in `path` if it has no slash.
    ///
    /// # Errors
    /// A word with a NUL in it.
    pub(super) fn new<'a>(
        file: &Path,
        path: Option<&str>,
        arguments: &[String],
        environment: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        directory: &Path,
    ) -> io::Result<Self> {
        let name = file.as_os_str().as_bytes();
        let places = if name.contains(&b'/') {
            vec![CString::new(name)?]
        } else {
            path.unwrap_or(USUAL_PATH)
                .split(':')
                .map(|directory| {
                    Ok(CString::new(
                        Path::new(directory).join(file).as_os_str().as_bytes(),
                    )?)
                })
                .collect::<io::Result<_>>()?
        };
        let arguments = Words::new(arguments.iter().map(|word| [word.as_str(), "", ""]))?;
        let rest = arguments.pointers.iter().skip(1).copied();
        let by_shell = [SHELL.as_ptr(), ptr::null()].into_iter().chain(rest);
        Ok(Self {
            places,
            by_shell: by_shell.collect(),
            arguments,
            environment: Words::new(environment.map(|(name, value)| [name, "=", value]))?,
            directory: CString::new(directory.as_os_str().as_bytes())?,
        })
    }

    /// Starts it with these standard streams, in this control group if it can be made there; `within` is called in the
    /// new process, in its directory, with whether it was. Returns its pid once it runs, or why it does not.
    ///
    /// # Errors
    /// What the system said.
    #[expect(
        unsafe_code,
        reason = "a process on borrowed memory has no safe interface"
    )]
    pub(super) fn start(
        &mut self,
        ends: [OwnedFd; 3],
        group: Option<BorrowedFd<'_>>,
        within: &dyn Fn(bool) -> io::Result<()>,
    ) -> io::Result<u32> {
        // One of them must not be overwritten by another before it is in its place.
        let ends = ends.map(|end| {
            if end.as_raw_fd() > 2 {
                Ok(end)
            } else {
                fcntl_dupfd_cloexec(&end, 3)
            }
        });
        let [stdin, stdout, stderr] = ends;
        let ends = [stdin?, stdout?, stderr?];
        let cause = AtomicI32::new(0);
        let signals = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let mut child = |is_in_group: bool| {
            let error = self.run(&ends, &|| within(is_in_group));
            cause.store(
                error.raw_os_error().unwrap_or(Errno::EIO as i32),
                Ordering::Relaxed,
            );
            127
        };
        // SAFETY: the closure keeps to what the module says. No handler of ours runs in it, since all signals are
        // blocked until its dispositions are the default ones.
        let started = unsafe { on_our_memory(group, &mut child) };
        signals.thread_set_mask()?;
        let pid = started?;
        match cause.into_inner() {
            0 => Ok(pid),
            error => {
                let ended = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or_default());
                let _ = nix::sys::wait::waitpid(ended, None);
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }

    /// In the new process: runs the program, or returns why not.
    fn run(&mut self, ends: &[OwnedFd; 3], within: &dyn Fn() -> io::Result<()>) -> io::Error {
        let [stdin, stdout, stderr] = ends;
        let prepared = dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr))
            .and_then(|()| rustix::process::chdir(self.directory.as_c_str()))
            .map_err(io::Error::from)
            .and_then(|()| within());
        match prepared {
            Ok(()) => self.execute().into(),
            Err(error) => error,
        }
    }

    /// As execvp(3) goes through the places.
    fn execute(&mut self) -> Errno {
        let mut last = Errno::ENOENT;
        let mut refused = false;
        for place in &self.places {
            last = execve(place, &self.arguments.pointers, &self.environment.pointers);
            if last == Errno::ENOEXEC {
                if !is_text(place) {
                    return last;
                }
                if let Some(script) = self.by_shell.get_mut(1) {
                    *script = place.as_ptr();
                }
                return execve(SHELL, &self.by_shell, &self.environment.pointers);
            }
            refused |= last == Errno::EACCES;
            if !may_be_elsewhere(last) {
                return last;
            }
        }
        if refused { Errno::EACCES } else { last }
    }
}

/// Whether a file may be a script without a first line that says so. As shells have it: a NUL before the first line
/// ends is the mark of a program, which is one for another machine. An empty file is a script.
fn is_text(place: &CStr) -> bool {
    let mut head = [0; 128];
    let read = rustix::fs::open(place, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut head));
    // One that may be run and not read is the shell's to refuse.
    let Ok(count) = read else {
        return true;
    };
    let mut line = head.iter().take(count).take_while(|byte| **byte != b'\n');
    line.all(|byte| *byte != 0)
}

/// Whether the next place is tried.
fn may_be_elsewhere(error: Errno) -> bool {
    matches!(
        error,
        Errno::EACCES
            | Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ESTALE
            | Errno::ENODEV
            | Errno::ETIMEDOUT
    )
}

/// Returns only with the reason why not.
#[expect(unsafe_code, reason = "the safe interface allocates")]
fn execve(place: &CStr, arguments: &[*const c_char], environment: &[*const c_char]) -> Errno {
    // SAFETY: both arrays end with a null pointer, and what they point to is owned by the program.
    unsafe { nix::libc::execve(place.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(file: &str, path: Option<&str>, arguments: &[&str]) -> Program {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let environment = [("A", "b c")];
        Program::new(
            Path::new(file),
            path,
            &arguments,
            environment.into_iter(),
            Path::new("/"),
        )
        .unwrap()
    }

    /// What it writes, and its code.
    fn run(
        mut program: Program,
        within: &dyn Fn(bool) -> io::Result<()>,
    ) -> io::Result<(String, i32)> {
        let (mut read, write) = io::pipe()?;
        let null: OwnedFd = File::open("/dev/null")?.into();
        let ends = [null.try_clone()?, write.into(), null];
        let pid = program.start(ends, None, within)?;
        let mut text = String::new();
        read.read_to_string(&mut text)?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        let ended = nix::sys::wait::waitpid(pid, None)?;
        let nix::sys::wait::WaitStatus::Exited(_, code) = ended else {
            panic!("{ended:?}");
        };
        Ok((text, code))
    }

    #[test]
    fn it_has_its_words_its_environment_and_its_directory() {
        let sh = program(
            "sh",
            Some("/nowhere:/bin"),
            &["me", "-c", "echo $0 \"$A\" $PWD $1; exit 3", "x", "y"],
        );
        let (text, code) = run(sh, &|_| Ok(())).unwrap();
        assert_eq!((text.as_str(), code), ("x b c / y\n", 3));
    }

    #[test]
    fn why_it_cannot_be_run_is_told_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tool");
        fs::write(&path, "echo by the shell $1\n").unwrap();
        let directory = root.path().display().to_string();
        let tool = || {
            program(
                "tool",
                Some(&format!("/nowhere:{directory}")),
                &["tool", "it"],
            )
        };
        let error = |program: Program| run(program, &|_| Ok(())).unwrap_err().raw_os_error();
        assert_eq!(
            error(program("no-such-tool", Some("/bin"), &["x"])),
            Some(Errno::ENOENT as i32)
        );
        assert_eq!(error(tool()), Some(Errno::EACCES as i32));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(run(tool(), &|_| Ok(())).unwrap().0, "by the shell it\n");
        let refused = |_| Err(io::Error::from_raw_os_error(Errno::EPERM as i32));
        assert_eq!(
            run(tool(), &refused).unwrap_err().raw_os_error(),
            Some(Errno::EPERM as i32)
        );
        let none = rustix::process::waitid(
            rustix::process::WaitId::All,
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
        );
        // Tests of this program may have children of their own; none of them has ended unseen.
        assert!(matches!(none, Err(rustix::io::Errno::CHILD) | Ok(None)));
    }

    #[test]
    fn what_is_set_within_stays_within() {
        let here = || fs::read_link("/proc/self/cwd").unwrap();
        let before = here();
        let sh = program("/bin/sh", None, &["sh", "-c", "ulimit -n; echo up >&0"]);
        let limit = rustix::process::Rlimit {
            current: Some(77),
            maximum: Some(77),
        };
        let within = |_| {
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
            Ok(())
        };
        assert_eq!(run(sh, &within).unwrap().0, "77\n");
        assert_eq!(here(), before);
        assert_ne!(
            rustix::process::getrlimit(rustix::process::Resource::Nofile),
            limit
        );
    }

    #[test]
    fn a_program_for_another_machine_is_not_read_as_a_script() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, text: &[u8]| {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let foreign = make("foreign", b"\x7fELF\x02\x01\x01\0\0\0\0\0\necho it ran");
        let error = run(program(&foreign, None, &["foreign"]), &|_| Ok(())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOEXEC as i32));
        let script = make("script", b"echo it ran");
        let ran = run(program(&script, None, &["script"]), &|_| Ok(())).unwrap();
        assert_eq!(ran, ("it ran\n".to_owned(), 0));
    }
}
