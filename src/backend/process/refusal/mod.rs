//! Why a program could not be started, in words, and what to do about it. The system says one number for a
//! missing file, a missing interpreter of a script and a missing loader of a program; a look at the file tells
//! which. Looks at files after a start has failed, or before one; starts nothing.

mod file;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use file::{Way, forbidden, interpreter, missing, missing_directory, unfit};
use rustix::io::Errno;

use super::access;
use super::child::Part;
use super::ledger::Account;
use crate::project::shell;

/// How much of a command an error shows, in characters.
const SHOWN: usize = 200;

/// The longest word that `execve(2)` takes, in bytes, with its NUL.
const LONGEST_WORD: usize = 128 * 1024;

/// See the module. Travels as the inside of an [`io::Error`] of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `errno(3)`.
    pub errno: Option<i32>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = refusal.errno.map_or(io::ErrorKind::Other, |raw| {
            Self::from_raw_os_error(raw).kind()
        });
        Self::new(kind, refusal)
    }
}

impl Refusal {
    /// In these words.
    pub fn new(errno: Option<i32>, message: &str, hint: &str) -> Self {
        Self {
            errno,
            message: message.to_owned(),
            hint: hint.to_owned(),
        }
    }

    /// What an error has inside, if it is one.
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// What was to be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// argv.
    pub(crate) command: &'a [String],
    /// The file to run instead of looking the first word up.
    pub(crate) program: Option<&'a Path>,
    /// Where.
    pub(crate) working_dir: &'a Path,
    /// `PATH` of its environment.
    pub(crate) path: Option<&'a str>,
    /// The bytes of its environment.
    pub(crate) environment: usize,
    /// Whom it was to run as, if somebody else: what may be entered is then not ours to try.
    pub(crate) user: Option<&'a Account>,
}

/// A command as an error shows it.
pub(crate) fn shown(command: &[String]) -> String {
    let whole = command.join(" ");
    match whole.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

impl Attempt<'_> {
    /// The error that tells why.
    pub(crate) fn explain(&self, error: &io::Error) -> io::Error {
        let raw = error.raw_os_error();
        if let Some((part, errno)) = raw.and_then(Part::of) {
            return within(part, errno).into();
        }
        let (message, hint) = match raw.map(Errno::from_raw_os_error) {
            None if !self.working_dir.is_dir() => missing_directory(self.working_dir),
            None => {
                let message = if error.kind() == io::ErrorKind::InvalidInput {
                    "a word of its command or of its environment has a NUL in it".to_owned()
                } else {
                    error.to_string()
                };
                (
                    message,
                    "correct `command` or `environment` of the service".to_owned(),
                )
            }
            Some(errno) => self.of_file(errno),
        };
        let errno = raw
            .or((error.kind() == io::ErrorKind::NotADirectory)
                .then_some(Errno::NOTDIR.raw_os_error()));
        Refusal {
            errno,
            message,
            hint,
        }
        .into()
    }

    /// Why it could not be run now, as far as a look at its files tells; what only the system knows shows later.
    pub(crate) fn foresee(&self) -> Option<io::Error> {
        if !self.working_dir.is_dir() {
            return Some(self.explain(&io::ErrorKind::NotADirectory.into()));
        }
        let because = |errno: Errno| Some(self.explain(&errno.into()));
        if self.barred(self.working_dir).is_some() {
            return because(Errno::ACCESS);
        }
        let first = self.command.first().map_or("", String::as_str);
        let Some(file) = self.file(first).filter(|file| missing(file).is_none()) else {
            return because(Errno::NOENT);
        };
        let is_named = self.program.is_some() || first.contains('/');
        let may_run = || {
            let way = file.parent().and_then(|directory| self.barred(directory));
            way.is_none() && access::runs(self.user, &file)
        };
        // Where PATH is gone through, another place may have it, too.
        if is_named && !may_run() {
            return because(Errno::ACCESS);
        }
        let names_nobody = |name: String| !self.working_dir.join(name).exists();
        if is_named && interpreter(&file).is_some_and(names_nobody) {
            return because(Errno::NOENT);
        }
        None
    }

    fn of_file(&self, errno: Errno) -> (String, String) {
        let says = io::Error::from(errno).to_string();
        let says = says
            .split_once(" (os error")
            .map_or(says.as_str(), |(words, _)| words);
        if errno == Errno::TOOBIG {
            return self.too_long(says);
        }
        if let Some(barred) = self.barred(self.working_dir) {
            return (
                format!(
                    "its directory may not be entered{}: {}",
                    self.whom(),
                    barred.display()
                ),
                format!("ls -ld {}", shell::word(&barred)),
            );
        }
        let first = self.command.first().map_or("", String::as_str);
        if first.is_empty() && self.program.is_none() {
            return (
                "its first word is empty".to_owned(),
                "name a program in `command`".to_owned(),
            );
        }
        match errno {
            Errno::NAMETOOLONG => {
                return (
                    format!(
                        "{says}: its first word, of {} bytes, is no path",
                        first.len()
                    ),
                    "write `command` as a list of words, or as `[sh, -c, \"…\"]`".to_owned(),
                );
            }
            Errno::AGAIN => {
                return (
                    format!(
                        "{says}: its user, or its container, has as many processes as it may have"
                    ),
                    "raise `ulimits.nproc` of the service, or what the system allows: \
                     ulimit -u; cat /sys/fs/cgroup/pids.max"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let Some(file) = self.file(first) else {
            return (
                says.to_owned(),
                match self.path {
                    Some("") => {
                        "`PATH` of the service is empty: take it out of `environment`".to_owned()
                    }
                    path => format!(
                        "check that `{first}` is installed and on PATH, which for this service is {}",
                        path.unwrap_or("not set")
                    ),
                },
            );
        };
        let (shown, word) = (file.display(), shell::word(&file));
        if errno == Errno::ACCESS
            && let Some(barred) = file.parent().and_then(|directory| self.barred(directory))
        {
            return (
                format!(
                    "{says}: the directory {} may not be entered{}",
                    barred.display(),
                    self.whom()
                ),
                format!("ls -ld {}", shell::word(&barred)),
            );
        }
        if let Some(found) = missing(&file) {
            return match found {
                Way::File(file) => (
                    format!("{} is a file and no directory", file.display()),
                    format!("ls -l {}", shell::word(&file)),
                ),
                Way::Nothing(place) => (
                    format!("{says}: {} is not there", place.display()),
                    format!("check `command` and `working_dir` of the service: ls -l {word}"),
                ),
            };
        }
        match errno {
            Errno::ACCESS => forbidden(&file, says),
            Errno::NOENT | Errno::NOEXEC | Errno::NOTDIR => unfit(&file, says),
            Errno::TXTBSY => (
                format!("{says}: something is still writing {shown}"),
                format!("fuser -v {word}"),
            ),
            _ => (says.to_owned(), format!("ls -l {word}")),
        }
    }

    /// The first of these directories, from the root on, that whoever was to run it may not enter.
    fn barred(&self, directory: &Path) -> Option<PathBuf> {
        access::barred(self.user, directory)
    }

    /// To whom something is closed, where it is not ourselves.
    fn whom(&self) -> String {
        match self.user {
            Some(user) => format!(" by its user (uid {})", user.uid),
            None => String::new(),
        }
    }

    fn too_long(&self, says: &str) -> (String, String) {
        let words: usize = self.command.iter().map(|word| word.len() + 1).sum();
        let longest = self.command.iter().map(String::len).max().unwrap_or(0);
        let which = if longest >= LONGEST_WORD {
            format!("a word of its command has {longest} bytes, of {LONGEST_WORD} at most")
        } else {
            format!(
                "its command has {words} bytes and its environment {}; a single word or variable may have {LONGEST_WORD}",
                self.environment
            )
        };
        (
            format!("{says}: {which}"),
            "hand long values over in a file: `configs` or `secrets` of the service".to_owned(),
        )
    }

    /// The file that was to be run; `None` where no directory of `PATH` has it.
    fn file(&self, first: &str) -> Option<PathBuf> {
        if let Some(program) = self.program {
            return Some(program.to_owned());
        }
        if first.contains('/') {
            // As it is said, without `/./`.
            return Some(self.working_dir.join(first).components().collect());
        }
        let path = self.path.unwrap_or("/bin:/usr/bin");
        let places = path
            .split(':')
            .map(|place| self.working_dir.join(place).join(first));
        let mut found = places.filter(|place| fs::symlink_metadata(place).is_ok());
        found.next()
    }
}

/// Why it never came to the program.
fn within(part: Part, errno: i32) -> Refusal {
    let says = io::Error::from_raw_os_error(errno).to_string();
    let says = says
        .split_once(" (os error")
        .map_or(says.as_str(), |(words, _)| words);
    let (what, hint) = match part {
        Part::Session => (
            "cannot begin a session".to_owned(),
            "ps -o sid,args".to_owned(),
        ),
        Part::Terminal => (
            "cannot have its terminal".to_owned(),
            "leave `tty` of the service out".to_owned(),
        ),
        Part::Group => (
            "cannot enter its control group".to_owned(),
            "leave the limits of the service out (`cpus`, `mem_limit`, `pids_limit`)".to_owned(),
        ),
        Part::Score => (
            "cannot have its oom_score_adj".to_owned(),
            "a value below that of the shell needs CAP_SYS_RESOURCE: cat /proc/$$/oom_score_adj"
                .to_owned(),
        ),
        Part::Limit(name) if errno == Errno::INVAL.raw_os_error() => (
            format!("cannot have its `ulimits.{name}`"),
            "its soft limit may not be above its hard one".to_owned(),
        ),
        Part::Limit("nofile") => (
            "cannot have its `ulimits.nofile`".to_owned(),
            "no more than fs.nr_open, and above the hard limit only with CAP_SYS_RESOURCE: \
             sysctl fs.nr_open; cat /proc/$$/limits"
                .to_owned(),
        ),
        Part::Limit(name) => (
            format!("cannot have its `ulimits.{name}`"),
            "a value above the hard limit needs CAP_SYS_RESOURCE: cat /proc/$$/limits".to_owned(),
        ),
        Part::Names => (
            "cannot have an /etc/hosts of its own".to_owned(),
            "wharf doctor".to_owned(),
        ),
        Part::User => (
            "cannot become its user".to_owned(),
            "leave `user` of the service out, or run wharf as root".to_owned(),
        ),
    };
    Refusal {
        errno: Some(errno),
        message: format!("{what}: {says}"),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn explained(command: &[&str], directory: &Path, errno: Errno) -> (String, String) {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let attempt = Attempt {
            command: &command,
            program: None,
            working_dir: directory,
            path: Some("/nowhere"),
            environment: 10,
            user: None,
        };
        let error = attempt.explain(&errno.into());
        let refusal = Refusal::within(&error).unwrap();
        assert_eq!(refusal.errno, Some(errno.raw_os_error()));
        assert_eq!(error.kind(), io::Error::from(errno).kind());
        (refusal.message.clone(), refusal.hint.clone())
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_obstacle_is_told_from_the_others() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        write(&at.join("script"), "#! /no/such/thing -x\n", 0o755);
        write(&at.join("dos"), "#!/bin/sh\r\necho\r\n", 0o755);
        write(&at.join("plain"), "hello", 0o644);
        write(&at.join("garbage"), "\x7fELF", 0o755);
        std::os::unix::fs::symlink("/gone/away", at.join("link")).unwrap();
        let long = "x".repeat(LONGEST_WORD);
        for (command, errno, message, hint) in [
            (
                "./script",
                Errno::NOENT,
                "/no/such/thing, which",
                "first line",
            ),
            ("./dos", Errno::NOENT, "carriage return", "sed -i"),
            ("./garbage", Errno::NOENT, "what loads it", "file "),
            ("./link", Errno::NOENT, "/gone/away is not there", "ls -l"),
            ("./none/x", Errno::NOENT, "none is not there", "ls -l"),
            (
                "./plain/x",
                Errno::NOTDIR,
                "plain is a file and no directory",
                "ls -l",
            ),
            ("./plain", Errno::ACCESS, "is not executable", "chmod +x"),
            (".//", Errno::ACCESS, "is a directory", "name a program"),
            (
                "none",
                Errno::NOENT,
                "No such file",
                "on PATH, which for this service is /nowhere",
            ),
            ("", Errno::NOENT, "first word is empty", "name a program"),
            (long.as_str(), Errno::TOOBIG, "131072 bytes", "configs"),
        ] {
            let (said, advice) = explained(&[command], at, errno);
            assert!(said.contains(message), "{command:.20}: {said}");
            assert!(advice.contains(hint), "{command:.20}: {advice}");
            assert!(said.len() + advice.len() < 1000);
        }
    }

    #[test]
    fn a_part_of_the_way_is_named() {
        let raw = Part::Limit("nofile").mark(Errno::PERM.into());
        let attempt = Attempt {
            command: &[],
            program: None,
            working_dir: Path::new("/"),
            path: None,
            environment: 0,
            user: None,
        };
        let error = attempt.explain(&raw);
        assert_eq!(
            error.to_string(),
            "cannot have its `ulimits.nofile`: Operation not permitted"
        );
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_long_command_is_shown_in_part() {
        let shown = shown(&["echo".to_owned(), "é".repeat(1000)]);
        assert_eq!(shown.chars().count(), SHOWN + 1);
    }
}
