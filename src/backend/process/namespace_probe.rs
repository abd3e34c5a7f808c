//! Whether a process of ours can have files of its own in place of the system's, `/etc/hosts` above all: tried in
//! a forked child, because no setting predicts it. Changes nothing outside that child.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// A way to a private view of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A user namespace and a mount namespace in it (`user_namespaces(7)`): no privilege needed.
    Namespace,
    /// A mount namespace alone, by a process that has `CAP_SYS_ADMIN`.
    AsRoot,
}

/// What was found for each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// [`Way::Namespace`].
    pub namespace: Result<(), Refusal>,
    /// [`Way::AsRoot`].
    pub as_root: Result<(), Refusal>,
}

impl Ways {
    /// The way that services take: root needs no user namespace.
    pub fn best(&self) -> Option<Way> {
        if self.as_root.is_ok() {
            Some(Way::AsRoot)
        } else if self.namespace.is_ok() {
            Some(Way::Namespace)
        } else {
            None
        }
    }
}

/// Where the system said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// At what.
    pub stage: Stage,
    /// With what (`errno(3)`); 0 where nothing was refused and the result is not as it should be.
    pub errno: i32,
}

impl Refusal {
    /// Whether there is no `/etc/hosts` to mount anything over.
    pub fn is_without_target(self) -> bool {
        self.stage == Stage::Bind && self.errno == nix::libc::ENOENT
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stage, self.errno) {
            (stage, 0) => write!(f, "{stage} had no effect"),
            (stage, errno) => {
                write!(f, "{stage} failed: {}", Errno::from_raw(errno).desc())
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// The steps to a private file, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `unshare(2)`.
    Unshare,
    /// Writing `setgroups`, `uid_map` and `gid_map`.
    Map,
    /// Keeping mounts from going back to where we came from.
    Propagation,
    /// Mounting a file over `/etc/hosts`.
    Bind,
    /// Looking whether it is there.
    Look,
}

impl Stage {
    /// All of them, by the number that goes through the pipe.
    #[cfg(target_os = "linux")]
    const ALL: [Self; 5] = [
        Self::Unshare,
        Self::Map,
        Self::Propagation,
        Self::Bind,
        Self::Look,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unshare => "unshare",
            Self::Map => "writing uid_map",
            Self::Propagation => "making / a slave mount",
            Self::Bind => "the bind mount",
            Self::Look => "the bind mount, although accepted,",
        })
    }
}

/// Tries both ways, each in a child of its own; takes milliseconds, and two seconds for each at most.
///
/// # Errors
/// No child could be made, or it did not say how it went.
#[cfg(target_os = "linux")]
pub fn can_mount_privately() -> io::Result<Ways> {
    Ok(Ways {
        namespace: linux::attempt(Way::Namespace)?,
        as_root: linux::attempt(Way::AsRoot)?,
    })
}

/// Whether local services can have hosts files of their own: tries the one way that they would take.
#[cfg(target_os = "linux")]
pub fn is_possible() -> bool {
    let way = if nix::unistd::geteuid().is_root() {
        Way::AsRoot
    } else {
        Way::Namespace
    };
    matches!(linux::attempt(way), Ok(Ok(())))
}

/// Only Linux has mount namespaces.
#[cfg(not(target_os = "linux"))]
pub fn is_possible() -> bool {
    false
}

/// Only Linux has mount namespaces.
#[cfg(not(target_os = "linux"))]
pub fn can_mount_privately() -> io::Result<Ways> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::CStr;
    use std::io::{self, Read as _};
    use std::os::fd::{AsFd as _, OwnedFd};

    use nix::errno::Errno;
    use nix::mount::{MsFlags, mount};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, Pid, getegid, geteuid};
    use rustix::fs::{Mode, OFlags};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::{Refusal, Stage, Way};

    /// How long a child may take, in milliseconds.
    const PATIENCE: u16 = 2000;

    /// Always there, readable by everybody, and no file that `/etc/hosts` could be by itself.
    const SOURCE: &CStr = c"/dev/null";
    const TARGET: &CStr = c"/etc/hosts";

    /// What a child says: the stage's number from 1 and the `errno`, or zeros.
    const REPORT: usize = 5;

    /// The texts that the child writes: it must not allocate.
    struct Maps {
        uid: String,
        gid: String,
    }

    pub(super) fn attempt(way: Way) -> io::Result<Result<(), Refusal>> {
        let maps = Maps {
            uid: format!("{0} {0} 1", geteuid()),
            gid: format!("{0} {0} 1", getegid()),
        };
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        match fork()? {
            ForkResult::Child => {
                let report = match steps(way, &maps) {
                    Ok(()) => [0; REPORT],
                    Err((stage, errno)) => {
                        let [a, b, c, d] = (errno as i32).to_le_bytes();
                        [stage as u8 + 1, a, b, c, d]
                    }
                };
                // Who reads it has gone, or reads it: there is nobody to tell.
                let _ = rustix::io::write(&write, &report);
                exit_now()
            }
            ForkResult::Parent { child } => {
                drop(write);
                let report = receive(read);
                if report.is_err() {
                    // It hangs in a system call: nothing of it is needed any more.
                    let _ = kill(child, Signal::SIGKILL);
                }
                reap(child);
                report.map(read_report)
            }
        }
    }

    /// What happens in the child: system calls and nothing else.
    fn steps(way: Way, maps: &Maps) -> Result<(), (Stage, Errno)> {
        let none: Option<&CStr> = None;
        let at = |stage: Stage| move |errno: Errno| (stage, errno);
        let flags = match way {
            Way::Namespace => CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS,
            Way::AsRoot => CloneFlags::CLONE_NEWNS,
        };
        unshare(flags).map_err(at(Stage::Unshare))?;
        if way == Way::Namespace {
            // Kernels before 3.19 have no such file and do not ask for it.
            match put(c"/proc/self/setgroups", "deny") {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err((Stage::Map, errno)),
            }
            put(c"/proc/self/uid_map", &maps.uid).map_err(at(Stage::Map))?;
            put(c"/proc/self/gid_map", &maps.gid).map_err(at(Stage::Map))?;
        }
        mount(none, c"/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
            .map_err(at(Stage::Propagation))?;
        mount(Some(SOURCE), TARGET, none, MsFlags::MS_BIND, none).map_err(at(Stage::Bind))?;
        let look =
            |path: &CStr| rustix::fs::stat(path).map_err(|errno| at(Stage::Look)(old(errno)));
        let (source, target) = (look(SOURCE)?, look(TARGET)?);
        if (source.st_dev, source.st_ino) == (target.st_dev, target.st_ino) {
            Ok(())
        } else {
            Err((Stage::Look, Errno::from_raw(0)))
        }
    }

    fn put(path: &CStr, text: &str) -> Result<(), Errno> {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = file.and_then(|file| rustix::io::write(&file, text.as_bytes()));
        written.map(drop).map_err(old)
    }

    fn old(errno: rustix::io::Errno) -> Errno {
        Errno::from_raw(errno.raw_os_error())
    }

    fn receive(read: OwnedFd) -> io::Result<[u8; REPORT]> {
        let mut ready = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        while let Err(error) = poll(&mut ready, PollTimeout::from(PATIENCE)).and_then(|count| {
            if count == 0 {
                Err(Errno::ETIMEDOUT)
            } else {
                Ok(())
            }
        }) {
            if error != Errno::EINTR {
                return Err(error.into());
            }
        }
        let mut report = [0; REPORT];
        std::fs::File::from(read).read_exact(&mut report)?;
        Ok(report)
    }

    fn read_report([stage, a, b, c, d]: [u8; REPORT]) -> Result<(), Refusal> {
        let number = usize::from(stage).checked_sub(1);
        match number.and_then(|number| Stage::ALL.get(number)) {
            None => Ok(()),
            Some(stage) => Err(Refusal {
                stage: *stage,
                errno: i32::from_le_bytes([a, b, c, d]),
            }),
        }
    }

    /// Until it is gone; its exit code says nothing.
    fn reap(child: Pid) {
        while waitpid(child, None) == Err(Errno::EINTR) {}
    }

    #[expect(unsafe_code, reason = "forking has no safe interface")]
    fn fork() -> nix::Result<ForkResult> {
        // SAFETY: the child makes system calls on memory that was there before, and ends by `_exit`; it
        // neither allocates nor takes a lock that another thread could have held.
        unsafe { nix::unistd::fork() }
    }

    #[expect(
        unsafe_code,
        reason = "the child must end without running what the parent registered for its own end"
    )]
    fn exit_now() -> ! {
        // SAFETY: ends the process at once.
        unsafe { nix::libc::_exit(0) }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_report_survives_the_pipe() {
            assert_eq!(read_report([0; REPORT]), Ok(()));
            for (number, stage) in (1..).zip(Stage::ALL) {
                let errno = 13;
                assert_eq!(stage as u8 + 1, number);
                let report = read_report([number, 13, 0, 0, 0]);
                assert_eq!(report, Err(Refusal { stage, errno }));
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_a_child_of_ours_meets_and_leaves_everything_as_it_was() {
        let before = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let ways = can_mount_privately().unwrap();
        let after = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        assert_eq!(before, after);
        // The same question put to the system's own tool, where there is one.
        let script =
            "mount --make-rslave / && mount --bind /dev/null /etc/hosts && ! test -s /etc/hosts";
        let tool = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .output();
        if let Ok(output) = tool {
            assert_eq!(
                ways.namespace.is_ok(),
                output.status.success(),
                "{ways:?} {output:?}"
            );
        }
        if ways.namespace.is_ok() {
            let is_root = ways.as_root.is_ok();
            let best = if is_root { Way::AsRoot } else { Way::Namespace };
            assert_eq!(ways.best(), Some(best));
        }
    }

    #[test]
    fn a_refusal_says_where_and_why() {
        let refusal = Refusal {
            stage: Stage::Bind,
            errno: nix::libc::EACCES,
        };
        assert!(
            refusal
                .to_string()
                .starts_with("the bind mount failed: Permission denied")
        );
        let nothing = Refusal {
            stage: Stage::Look,
            errno: 0,
        };
        assert!(nothing.to_string().ends_with("had no effect"));
        let ways = Ways {
            namespace: Err(refusal),
            as_root: Ok(()),
        };
        assert_eq!(ways.best(), Some(Way::AsRoot));
    }
}
