//! What to do where wharf's own directories cannot be used: a hint for each failure that is for good.

use std::io;

use super::refusal::Refusal;

/// What to do where the state cannot be kept.
pub(super) const ELSEWHERE: &str =
    "export XDG_STATE_HOME=DIR   # an absolute path, to a directory that can be written to";

/// What to do where the sockets cannot be in their usual place.
pub(super) const WITHOUT_RUNTIME: &str =
    "unset XDG_RUNTIME_DIR   # the sockets are then kept beside the state";

/// A failure to make the state directory, with what to do about it, where it is for good.
pub(super) fn elsewhere(error: io::Error) -> io::Error {
    otherwise(error, ELSEWHERE)
}

pub(super) fn otherwise(error: io::Error, hint: &str) -> io::Error {
    let is_for_good = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
    );
    if !is_for_good {
        return error;
    }
    let message = error.to_string();
    let message = message
        .split_once(" (os error")
        .map_or(&*message, |(words, _)| words);
    Refusal {
        errno: error.raw_os_error(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
    .into()
}
