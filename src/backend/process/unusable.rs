//! What to do where wharf's own directories cannot be used: a hint for each failure that is for good.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit};

use super::refusal::Refusal;

/// What to do where the state cannot be kept.
pub(super) const ELSEWHERE: &str =
    "export XDG_STATE_HOME=DIR   # an absolute path, to a directory that can be written to";

/// What to do where the sockets cannot be in their usual place.
pub(super) const WITHOUT_RUNTIME: &str =
    "unset XDG_RUNTIME_DIR   # the sockets are then kept beside the state";

/// A failure to make a named pipe, which not every file system has.
pub fn without_pipes(error: io::Error) -> io::Error {
    let errno = error.raw_os_error();
    let is_refusal = errno.map(Errno::from_raw_os_error).is_some_and(|errno| {
        matches!(
            errno,
            Errno::PERM | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP
        )
    });
    if !is_refusal {
        return error;
    }
    Refusal::new(errno, "no named pipe can be made there", ELSEWHERE).into()
}

/// A failure to make a process of our own, with what to do where there are too many, or where it has no `/proc` to be
/// found in.
pub fn unmade(error: io::Error) -> io::Error {
    let errno = error.raw_os_error();
    let (message, hint) = match errno.map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => (
            "this user, or its container, has as many processes as it may have",
            "ulimit -u; cat /sys/fs/cgroup/pids.max   # what may be",
        ),
        // Docker before 20.10.10 does not know clone3(2), which the C library begins a program with.
        Some(Errno::PERM) => (
            "a sandbox permits no new process",
            "docker run --security-opt seccomp=unconfined …   # if this is a container: its engine is old",
        ),
        Some(Errno::NOENT) if !Path::new("/proc/self").exists() => {
            ("/proc is not mounted", "mount -t proc proc /proc")
        }
        _ => return error,
    };
    Refusal::new(errno, message, hint).into()
}

/// What to do where the files that may be open are: the command's own limit, or that of the supervisor, which has it from
/// the shell that started it.
pub fn more_files() -> &'static str {
    const FEW: u64 = 4096;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match (current, maximum) {
        (Some(current), _) if current >= FEW => {
            "wharf down   # its supervisor has the limit of the shell that started it (ulimit -n): then again"
        }
        (Some(current), maximum) if maximum.is_none_or(|maximum| current < maximum) => {
            "ulimit -n \"$(ulimit -Hn)\"   # then wharf down, and again"
        }
        (Some(_), _) => "sudo prlimit --nofile=65536 --pid $$   # then wharf down, and again",
        (None, _) => "sysctl fs.file-max",
    }
}

/// A failure to make the state directory, with what to do about it, where it is for good.
pub(super) fn elsewhere(error: io::Error) -> io::Error {
    otherwise(error, ELSEWHERE)
}

/// Whether a place has not what is needed, such as locks (NFS without its daemon).
pub(super) fn is_unfit(error: &io::Error) -> bool {
    let no_locks = error.raw_os_error() == Some(Errno::NOLCK.raw_os_error());
    no_locks || error.kind() == io::ErrorKind::Unsupported
}

pub(super) fn otherwise(error: io::Error, hint: &str) -> io::Error {
    let is_for_good = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
    ) || is_unfit(&error);
    if !is_for_good {
        return error;
    }
    let message = error.to_string();
    let message = message
        .split_once(" (os error")
        .map_or(&*message, |(words, _)| words);
    Refusal::new(error.raw_os_error(), message, hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_helped_has_a_hint_and_the_rest_stays_as_it_is() {
        let hint = |error: io::Error| Refusal::within(&error).map(|refusal| refusal.hint.clone());
        for (errno, words) in [
            (Errno::AGAIN, Some("ulimit -u")),
            (Errno::PERM, Some("seccomp=unconfined")),
            (Errno::NOENT, None),
            (Errno::MFILE, None),
        ] {
            let hint = hint(unmade(errno.into()));
            assert_eq!(
                hint.as_deref()
                    .map(|hint| words.is_some_and(|it| hint.contains(it))),
                words.map(|_| true),
                "{errno}: {hint:?}"
            );
        }
        for errno in [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOTDIR] {
            assert_eq!(hint(elsewhere(errno.into())).as_deref(), Some(ELSEWHERE));
        }
        for errno in [Errno::NOSPC, Errno::INTR] {
            assert_eq!(hint(elsewhere(errno.into())), None);
        }
    }
}
