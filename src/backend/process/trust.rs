//! Whom to believe: whether a directory can be changed by somebody else, and who answers at a socket.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;

use super::refusal::Refusal;

/// Whether this user's files, and those of root, are believed; for root also those of the owner of `ours`, who may do
/// with the ledger there what he likes.
fn is_trusted(uid: u32, ours: &Path) -> bool {
    let me = rustix::process::geteuid();
    let owns = || fs::metadata(ours).is_ok_and(|found| found.uid() == uid);
    uid == me.as_raw() || uid == 0 || (me.is_root() && owns())
}

/// Whether nobody else can change what is in a directory; neither can he who has made a link to it.
///
/// # Errors
/// Somebody else can, or it cannot be looked at. `otherwise` is what to do where it is not ours.
pub(super) fn check_directory(path: &Path, ours: &Path, otherwise: &str) -> io::Result<()> {
    let refuse = |message: String, hint: String| -> io::Result<()> {
        Err(Refusal {
            errno: Some(Errno::PERM.raw_os_error()),
            message,
            hint,
        }
        .into())
    };
    let itself = fs::symlink_metadata(path)?;
    let is_link = itself.is_symlink();
    for found in [itself, fs::metadata(path)?] {
        let uid = found.uid();
        if !is_trusted(uid, ours) {
            let message = format!("it belongs to another user (uid {uid})");
            return refuse(message, otherwise.to_owned());
        }
        if found.is_dir() && found.mode() & 0o022 != 0 {
            let place = path.to_string_lossy();
            let message = format!(
                "others can write to it (mode {:04o})",
                found.mode() & 0o7777
            );
            let closed = format!("chmod go-w {}", shell_words::quote(&place));
            // What a link leads to may well be meant for others.
            return refuse(
                message,
                if is_link {
                    otherwise.to_owned()
                } else {
                    closed
                },
            );
        }
    }
    Ok(())
}

/// Whether whoever listens at the other end is to be believed (`SO_PEERCRED`, socket(7)).
///
/// # Errors
/// He is somebody else, or cannot be told.
pub(super) fn check_peer(stream: impl AsFd, ours: &Path) -> io::Result<()> {
    let uid = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
    if is_trusted(uid, ours) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("another user (uid {uid}) listens there"),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("wharf");
        let check = || check_directory(&path, root.path(), "elsewhere");
        fs::create_dir(&path).unwrap();
        for (mode, is_ours) in [
            (0o700, true),
            (0o755, true),
            (0o770, false),
            (0o1777, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check().is_ok(), is_ours, "{mode:o}");
        }
        let refused = check().unwrap_err();
        let hint = &Refusal::within(&refused).unwrap().hint;
        assert!(hint.starts_with("chmod go-w /"), "{hint}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            let refused = check().unwrap_err();
            assert_eq!(Refusal::within(&refused).unwrap().hint, "elsewhere");
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        fs::rename(&path, root.path().join("there")).unwrap();
        symlink("there", &path).unwrap();
        assert!(check().is_ok());
        fs::remove_file(&path).unwrap();
        symlink("/tmp", &path).unwrap();
        let refused = check().unwrap_err();
        assert_eq!(Refusal::within(&refused).unwrap().hint, "elsewhere");
    }

    #[test]
    fn who_answers_is_told_by_the_system() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        assert!(check_peer(&stream, root.path()).is_ok());
    }
}
