//! Root among another user's files, where `sudo -E` or `su -m` has left it with that user's home: what it makes there is
//! closed to the user, and a supervisor of its own would start the user's services as root. So it may look, stop and
//! end, and makes nothing.
//!
//! Looks; changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use rustix::io::Errno;

use super::refusal::Refusal;
use crate::backend::BackendError;
use crate::project::Env;
use crate::users;

/// Whether a directory is there and ours.
pub(super) fn is_ours(path: &Path) -> bool {
    let is_of = |uid: u32| rustix::process::geteuid().as_raw() == uid;
    fs::metadata(path).is_ok_and(|facts| facts.is_dir() && is_of(facts.uid()))
}

/// Whether wharf's own directories, as far as they are there, are somebody else's. `root` is the directory of a project,
/// two below the state's.
pub(super) fn is_of_another(root: &Path) -> bool {
    let mut own = root.ancestors().take(3);
    own.any(|path| path.is_dir() && !is_ours(path))
}

/// Who has the nearest of a path and the directories above it that is there.
fn nearest_owner(path: &Path) -> Option<u32> {
    let mut all = path.ancestors();
    all.find_map(|path| fs::metadata(path).ok().map(|facts| facts.uid()))
}

/// Where root keeps its state instead, if there is none at `state` and that would be in the home of whoever has called
/// sudo(8). In a container the home of root may well be somebody else's.
pub(super) fn home_of_root(env: &Env, state: &Path) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() || state.exists() {
        return None;
    }
    let caller: u32 = env.get("SUDO_UID")?.parse().ok()?;
    (caller != 0 && nearest_owner(state) == Some(caller)).then(|| {
        let root = users::user_with_id(Uid::from_raw(0));
        root.map_or_else(|| PathBuf::from("/root"), |root| root.dir)
    })
}

/// Whether root is among the files of somebody else, and whose; `root` as for [`is_of_another`].
pub(super) fn owner(root: &Path) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut own = root.ancestors().take(3);
    let found = own.find_map(|path| fs::metadata(path).ok().map(|facts| facts.uid()));
    found.filter(|uid| *uid != 0)
}

/// That nobody else is kept out of what is made in the directory of a project, to do what `action` says.
///
/// # Errors
/// Somebody would be.
pub(super) fn check(root: &Path, action: &str) -> Result<(), BackendError> {
    let Some(uid) = owner(root) else {
        return Ok(());
    };
    let user = users::user_with_id(Uid::from_raw(uid));
    let user = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
    Err(BackendError::State {
        action: format!("cannot {action} as root"),
        source: Refusal {
            errno: Some(Errno::PERM.raw_os_error()),
            message: format!(
                "{} belongs to {user}, who could not use what root makes there",
                root.display()
            ),
            hint: format!(
                "leave sudo out, as {user}; for services of root's own: sudo -H, or su -"
            ),
        }
        .into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn root_makes_nothing_among_the_files_of_another_user() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("wharf");
        let project = state.join("projects/p");
        let env = |uid: &str| Env {
            variables: [("SUDO_UID".to_owned(), uid.to_owned())].into(),
            current_dir: PathBuf::from("/"),
        };
        assert!(is_ours(home.path()) && !is_ours(&state));
        chown(home.path(), Some(70_001), None).unwrap();
        assert!(!is_ours(home.path()));
        // There is none yet: sudo's caller keeps his home to himself; in a container it may be root's all the same.
        assert!(home_of_root(&env("70001"), &state).is_some());
        assert!(home_of_root(&env("70002"), &state).is_none());
        assert!(check(&project, "x").is_ok());
        fs::create_dir_all(&project).unwrap();
        assert!(home_of_root(&env("70001"), &state).is_none());
        assert!(check(&project, "x").is_ok());
        chown(&state, Some(70_001), None).unwrap();
        assert!(check(&project, "x").is_ok(), "made by root before");
        chown(&project, Some(70_001), None).unwrap();
        assert!(check(&project, "x").is_err());
        assert!(
            check(&state.join("projects/q"), "x").is_ok(),
            "made by root before"
        );
        chown(state.join("projects"), Some(70_001), None).unwrap();
        assert!(check(&state.join("projects/q"), "x").is_err());
    }
}
