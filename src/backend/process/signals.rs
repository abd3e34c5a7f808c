//! Which signals a new process has at their default disposition: all. Those that are ignored would be ignored by its
//! program, too (`execve(2)`).

use std::sync::OnceLock;

use nix::libc;

/// Signals, each a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signals(u64);

/// What `rt_sigaction(2)` reads or writes: the handler, of which zero is the default, is its first word.
type Disposition = [u64; 8];

/// The bytes of the kernel's set of signals.
const SET: usize = size_of::<u64>();

impl Signals {
    /// All that there are.
    pub(super) const ALL: Self = Self(u64::MAX);

    /// Those that this process has set, looked up once, and SIGTERM, which a keeper ignores: to reset all 64 takes
    /// longer than the rest of a start up to `execve(2)`. For processes that change none any more.
    pub(super) fn altered() -> Self {
        static ALTERED: OnceLock<Signals> = OnceLock::new();
        *ALTERED.get_or_init(|| {
            let is_set = |number: &i32| disposition(*number).is_none_or(|handler| handler != 0);
            let set = (1..=64).filter(is_set).chain([libc::SIGTERM]);
            Self(set.fold(0, |all, number| all | bit(number)))
        })
    }

    /// Sets these to their defaults. One system call for each, and nothing else: it may run between fork and exec.
    #[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
    pub(super) fn reset(self) {
        let default: Disposition = [0; 8];
        for number in (1..=64).filter(|number| self.0 & bit(*number) != 0) {
            // SAFETY: the kernel reads no more than that, and nothing but zeros is the default disposition, which
            // runs no code. SIGKILL and SIGSTOP refuse with EINVAL and are default anyway. The C library would refuse
            // those that it may use itself, and its `posix_spawn(3)` leaves them ignored.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    number,
                    default.as_ptr(),
                    std::ptr::null::<u64>(),
                    SET,
                )
            };
        }
    }
}

/// Signals count from 1.
const fn bit(number: i32) -> u64 {
    1 << (number - 1)
}

/// The handler of a signal as a number; `None` where it is not told.
#[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
fn disposition(number: i32) -> Option<u64> {
    let mut now: Disposition = [0; 8];
    // SAFETY: the kernel writes at most four words, and changes nothing.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            std::ptr::null::<u64>(),
            now.as_mut_ptr(),
            SET,
        )
    };
    (outcome == 0).then_some(now[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_found() {
        // The standard library does so when a program begins.
        assert_eq!(disposition(libc::SIGPIPE), Some(libc::SIG_IGN as u64));
        let altered = Signals::altered();
        assert_ne!(altered.0 & bit(libc::SIGPIPE), 0);
        assert_ne!(altered.0 & bit(libc::SIGTERM), 0);
        assert_eq!(altered.0 & bit(libc::SIGUSR2), 0);
        assert_eq!(Signals::ALL.0 & bit(64), 1 << 63);
    }
}
