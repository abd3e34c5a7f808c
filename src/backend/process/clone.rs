//! A new process that borrows our memory until it runs a program, made in the control group that it is to be in.
//!
//! Moving a process into a group later waits for everybody who forks or ends meanwhile, on the whole machine
//! (`cgroup_threadgroup_rwsem` of the kernel): some ten milliseconds, where the rest of a start takes one.
//! `clone3(2)` with `CLONE_INTO_CGROUP` (Linux 5.7) has it there from its beginning. The C library has no wrapper for
//! it, so this is done where the few instructions that it takes are written down; elsewhere, and where the kernel
//! refuses, the process is told to go there itself.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, clone};
use nix::sys::signal::Signal;

/// What the new process has to stand on before it runs its program, in bytes.
const STACK: usize = 32 * 1024;

/// Runs `child` in a new process while we stand still, and returns its pid when it has run a program or ended. It is
/// told whether it is in the group already; what it returns is its exit code.
///
/// # Safety
/// `child` runs on our memory: it allocates nothing, takes no lock and does not unwind. All signals are blocked.
#[expect(
    unsafe_code,
    reason = "a process on borrowed memory has no safe interface"
)]
pub(super) unsafe fn on_our_memory(
    group: Option<BorrowedFd<'_>>,
    child: &mut dyn FnMut(bool) -> i32,
) -> io::Result<u32> {
    if let Some(group) = group {
        let mut inside = || child(true);
        // Not cleared before: that would fetch pages of which most are never used.
        let mut stack = Vec::<u8>::with_capacity(STACK);
        let stack = stack.spare_capacity_mut();
        // SAFETY: as promised to us; the stack lives until the process has left it, when this call returns.
        if let Some(pid) = unsafe { direct::into_group(group, stack, &mut inside) } {
            return Ok(pid);
        }
    }
    let mut stack = vec![0_u8; STACK];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    let outside = Box::new(|| child(false) as isize);
    // SAFETY: the same.
    let pid = unsafe { clone(outside, &mut stack, flags, Some(Signal::SIGCHLD as i32)) }?;
    Ok(u32::try_from(pid.as_raw()).unwrap_or_default())
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod direct {
    use std::arch::asm;
    use std::ffi::c_void;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd as _, BorrowedFd};

    use nix::libc;

    /// `CLONE_INTO_CGROUP` of `linux/sched.h`.
    const INTO_CGROUP: u64 = 1 << 33;

    /// What the new process runs.
    struct Call<'a>(&'a mut dyn FnMut() -> i32);

    /// The pid; `None` where the kernel does not do it.
    ///
    /// # Safety
    /// As for [`super::on_our_memory`].
    #[expect(unsafe_code, reason = "the system call has no wrapper")]
    pub(super) unsafe fn into_group(
        group: BorrowedFd<'_>,
        stack: &mut [MaybeUninit<u8>],
        child: &mut dyn FnMut() -> i32,
    ) -> Option<u32> {
        let mut call = Call(child);
        let call: *mut Call<'_> = &raw mut call;
        // The kernel has the stack begin at the sum of both, which the calling convention wants at a multiple of 16.
        let begin = stack.as_mut_ptr() as u64;
        let end = (begin + stack.len() as u64) & !15;
        // SAFETY: a structure of numbers, of which zero means that nothing is asked for.
        let mut asked: libc::clone_args = unsafe { std::mem::zeroed() };
        asked.flags = (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | INTO_CGROUP;
        asked.exit_signal = libc::SIGCHLD as u64;
        asked.stack = begin;
        asked.stack_size = end - begin;
        asked.cgroup = u64::try_from(group.as_raw_fd()).ok()?;
        let mut result = libc::SYS_clone3;
        // SAFETY: we go on below, with our own stack and registers, when the new process has run its program or
        // ended. That one has a stack of its own, calls `begin_there` on it and never returns from there. The call
        // clobbers what a system call does; what the new process changes in its registers is its own.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r13",
                "call r12",
                "ud2",
                "2:",
                inlateout("rax") result,
                in("rdi") &raw const asked,
                in("rsi") size_of::<libc::clone_args>(),
                in("r12") begin_there as unsafe extern "C" fn(*mut c_void) -> !,
                in("r13") call,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        u32::try_from(result).ok()
    }

    /// The new process begins here.
    ///
    /// # Safety
    /// `call` points to a [`Call`] of whoever stands still for us.
    #[expect(unsafe_code, reason = "a pointer is all that comes along")]
    unsafe extern "C" fn begin_there(call: *mut c_void) -> ! {
        // SAFETY: as promised; nobody else uses it meanwhile.
        let Call(child) = unsafe { &mut *call.cast::<Call<'_>>() };
        let code = child();
        // SAFETY: ends the process and runs nothing of what is registered for our own end.
        unsafe { libc::_exit(code) }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
mod direct {
    use std::mem::MaybeUninit;
    use std::os::fd::BorrowedFd;

    /// Not on this processor.
    ///
    /// # Safety
    /// Nothing to keep to.
    #[expect(unsafe_code, reason = "the same call as elsewhere")]
    pub(super) unsafe fn into_group(
        _: BorrowedFd<'_>,
        _: &mut [MaybeUninit<u8>],
        _: &mut dyn FnMut() -> i32,
    ) -> Option<u32> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "what is tested is unsafe")]
    fn it_runs_on_our_memory_and_has_a_code_of_its_own() {
        let seen = AtomicU32::new(0);
        let mut child = |is_inside: bool| {
            seen.store(
                if is_inside { 0 } else { std::process::id() },
                Ordering::Relaxed,
            );
            42
        };
        // SAFETY: it makes one system call and writes a number.
        let pid = unsafe { on_our_memory(None, &mut child) }.unwrap();
        assert_eq!(seen.into_inner(), pid);
        let ended = waitpid(Pid::from_raw(i32::try_from(pid).unwrap()), None);
        assert!(matches!(ended, Ok(WaitStatus::Exited(_, 42))), "{ended:?}");
    }

    #[test]
    #[expect(unsafe_code, reason = "what is tested is unsafe")]
    fn what_is_no_group_is_left_to_the_process() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let told = AtomicU32::new(2);
        let mut child = |is_inside: bool| {
            told.store(u32::from(is_inside), Ordering::Relaxed);
            0
        };
        // SAFETY: it writes a number.
        let pid = unsafe { on_our_memory(Some(null.as_fd()), &mut child) }.unwrap();
        assert_eq!(told.into_inner(), 0);
        waitpid(Pid::from_raw(i32::try_from(pid).unwrap()), None).unwrap();
    }
}
