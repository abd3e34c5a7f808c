//! Whether two descriptors of two processes are one open file: `kcmp(2)`.
//!
//! A socket is one open file however many descriptors and processes have it, so this tells its holders
//! without reading a link for each descriptor. Needs the same permission as `/proc/PID/fd`.

use rustix::io::Errno;

/// A process and one of its descriptors.
type Descriptor = (u32, u32);

/// Whether the kernel has the call, lets us use it, tells how many files a process has open (Linux 6.2), and
/// means by a pid what `/proc` means by it.
pub(crate) fn works() -> bool {
    let own = std::process::id();
    let listed = std::fs::read_link("/proc/self").ok();
    if listed.is_none_or(|listed| listed.as_os_str() != own.to_string().as_str()) {
        return false;
    }
    let Ok(directory) = std::fs::File::open("/proc/self/fd") else {
        return false;
    };
    let counts = directory.metadata().is_ok_and(|found| found.len() > 0);
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&directory).unsigned_abs();
    counts && is_same_file((own, descriptor), (own, descriptor)) == Ok(true)
}

/// `BADF` if one of the two is not open, `SRCH` if there is no such process, `PERM` if we may not look into it.
#[cfg(target_os = "linux")]
pub(crate) fn is_same_file(one: Descriptor, other: Descriptor) -> Result<bool, Errno> {
    match kcmp(one, other) {
        0 => Ok(true),
        1.. => Ok(false),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "kcmp has no safe interface")]
fn kcmp(one: Descriptor, other: Descriptor) -> i64 {
    /// `KCMP_FILE` of `linux/kcmp.h`.
    const FILE: i32 = 0;
    // SAFETY: numbers go in and a number comes out; no memory is touched.
    unsafe {
        nix::libc::syscall(
            nix::libc::SYS_kcmp,
            one.0,
            other.0,
            FILE,
            u64::from(one.1),
            u64::from(other.1),
        )
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_same_file(_one: Descriptor, _other: Descriptor) -> Result<bool, Errno> {
    Err(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_duplicate_is_the_same_file_and_another_opening_is_not() {
        if !works() {
            println!("skipped: this kernel does not compare files");
            return;
        }
        let own = std::process::id();
        let at = |file: &File| (own, file.as_raw_fd().unsigned_abs());
        let (one, other) = (
            File::open("/dev/null").unwrap(),
            File::open("/dev/null").unwrap(),
        );
        let duplicate = one.try_clone().unwrap();
        assert_eq!(is_same_file(at(&one), at(&duplicate)), Ok(true));
        assert_eq!(is_same_file(at(&one), at(&other)), Ok(false));
        assert_eq!(is_same_file(at(&one), (own, 999_999)), Err(Errno::BADF));
    }
}
