//! A process that was forked from another and goes on by itself: how it is made, and how it lets go of what its parent
//! has open, of its session and of its title. Knows nothing of what it is for.

use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::ForkResult;

/// A new process that is a child of this one.
#[expect(unsafe_code, reason = "forking has no safe interface")]
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the supervisor has one thread, and so has its keeper. So no lock is held by another one at the moment of
    // the fork, and the child may do whatever the parent may.
    unsafe { nix::unistd::fork() }
}

/// A new process that is no child of this one but of our parent, or of whoever adopts its orphans: its pid, and
/// `None` in it.
#[expect(unsafe_code, reason = "forking has no safe interface")]
pub(super) fn fork_beside() -> io::Result<Option<u32>> {
    let flags = nix::libc::CLONE_PARENT | nix::libc::SIGCHLD;
    // SAFETY: as for a fork: this process has one thread. Without a stack of its own, the new process goes on with its
    // copy of ours. Of what the C library does around its own fork, only its note of our thread's number is missing,
    // which nothing here asks for.
    let pid = unsafe { nix::libc::syscall(nix::libc::SYS_clone, flags, 0, 0, 0, 0) };
    let pid = nix::errno::Errno::result(pid)?;
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Becomes a process of its own: nothing of the supervisor's stays open, above all not its lock. Its standard streams
/// do: nothing, nothing and its log.
pub(super) fn settle_in(title: &str, kept: Vec<i32>) -> io::Result<()> {
    close_all_but(kept)?;
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let _ = rustix::thread::set_name(c"keeper");
    // It goes when its run has gone; whoever wants to end the run stops the instance.
    let _ = ignore(Signal::SIGTERM);
    // Only what `ps` shows of it depends on this.
    retitle(title);
    Ok(())
}

/// Closes everything but the standard streams and these. One by one, as kernels before 5.9 need it, the
/// supervisor's descriptors of many services would cost more than the start itself.
#[expect(
    unsafe_code,
    reason = "the descriptors belong to objects of the supervisor's, which are never used again here"
)]
pub(super) fn close_all_but(mut kept: Vec<i32>) -> io::Result<()> {
    kept.retain(|fd| *fd > 2);
    kept.sort_unstable();
    let close = |from: i32, to: i32| {
        // SAFETY: takes numbers only, and nothing that owns one of them is used or dropped any more.
        from > to || unsafe { nix::libc::syscall(nix::libc::SYS_close_range, from, to, 0) } == 0
    };
    let mut from = 3;
    let is_closed = kept.iter().all(|fd| {
        let begin = std::mem::replace(&mut from, fd + 1);
        close(begin, fd - 1)
    });
    if is_closed && close(from, i32::MAX) {
        return Ok(());
    }
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open {
        if fd > 2 && kept.binary_search(&fd).is_err() {
            let _ = nix::unistd::close(fd);
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "signal dispositions have no safe interface")]
fn ignore(which: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed; SIG_IGN runs no code.
    unsafe { signal(which, SigHandler::SigIgn) }.map(drop)
}

/// Where the words are that this process was started with: from, and how many bytes (`proc_pid_stat(5)`,
/// fields 48 and 49).
pub(super) fn words() -> Option<(u64, usize)> {
    static WORDS: OnceLock<Option<(u64, usize)>> = OnceLock::new();
    *WORDS.get_or_init(|| {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(45);
        let mut place = || fields.next()?.parse::<u64>().ok();
        let (begin, end) = (place()?, place()?);
        Some((begin, usize::try_from(end.saturating_sub(begin)).ok()?))
    })
}

/// Writes over the words that this process was started with.
#[expect(unsafe_code, reason = "they belong to no object of ours")]
fn retitle(text: &str) {
    let Some((begin, length)) = words() else {
        return;
    };
    let Ok(begin) = usize::try_from(begin) else {
        return;
    };
    // The last byte stays NUL.
    let title = text.as_bytes();
    let title = &title[..title.len().min(length.saturating_sub(1))];
    let words = std::ptr::with_exposed_provenance_mut::<u8>(begin);
    // SAFETY: the kernel has put them there, on the stack, for this process to read and write. The standard library
    // keeps pointers to them for `std::env::args`, which nobody asks for here, and there stay strings.
    unsafe {
        words.write_bytes(0, length);
        words.copy_from_nonoverlapping(title.as_ptr(), title.len());
    }
}
