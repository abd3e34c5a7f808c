//! Who may enter a directory or run a file, as `path_resolution(7)` and `execve(2)` have it. Seen from outside: for another
//! user the system cannot be asked, so the modes are read. What they do not tell is taken to be allowed.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, getxattr};
use rustix::io::Errno;

use super::ledger::Account;

/// The first of these directories, from the root on, that `user` may not enter; `None` as a user stands for ourselves.
pub(super) fn barred(user: Option<&Account>, directory: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = directory.ancestors().collect();
    above.reverse();
    let closed = |part: &&Path| match user {
        Some(user) => {
            fs::metadata(part).is_ok_and(|facts| facts.is_dir() && is_closed(user, part, &facts))
        }
        None => access(*part, Access::EXEC_OK) == Err(Errno::ACCESS),
    };
    above.into_iter().find(closed).map(Path::to_owned)
}

/// Whether `user` may run what is there, once it has come so far.
pub(super) fn runs(user: Option<&Account>, file: &Path) -> bool {
    let may = |facts: &Metadata| match user {
        Some(user) => !is_closed(user, file, facts),
        None => access(file, Access::EXEC_OK) != Err(Errno::ACCESS),
    };
    fs::metadata(file).is_ok_and(|facts| !facts.is_dir() && may(&facts))
}

/// Whether the mode keeps a user out. What has an access control list (`acl(5)`) is left to the system.
fn is_closed(user: &Account, path: &Path, facts: &Metadata) -> bool {
    let is_of_group = user.gid == facts.gid() || user.groups.contains(&facts.gid());
    let bits = match (user.uid, facts.is_dir()) {
        // The superuser enters everything, and runs what anybody may run.
        (0, true) => return false,
        (0, false) => 0o111,
        (uid, _) if uid == facts.uid() => 0o100,
        _ if is_of_group => 0o010,
        _ => 0o001,
    };
    let has_list = || getxattr(path, c"system.posix_acl_access", &mut [0_u8; 0]).is_ok();
    facts.mode() & bits == 0 && !has_list()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn owner_group_and_others_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let (inner, file) = (root.path().join("inner"), root.path().join("inner/tool"));
        let set = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        set(root.path(), 0o755);
        let facts = fs::metadata(&file).unwrap();
        let account = |uid: u32, gid: u32, groups: &[u32]| Account {
            uid,
            gid,
            groups: groups.to_vec(),
        };
        // Nobody of the machine's, whatever the tests run as.
        let (uid, gid) = (facts.uid() + 70_001, facts.gid() + 70_001);
        for (mode, who, is_open) in [
            (0o700, account(uid, gid, &[]), false),
            (0o701, account(uid, gid, &[]), true),
            (0o701, account(uid, facts.gid(), &[]), false),
            (0o710, account(uid, gid, &[facts.gid()]), true),
            (0o000, account(0, 0, &[]), true),
        ] {
            set(&inner, mode);
            let found = barred(Some(&who), &inner);
            assert_eq!(found, (!is_open).then(|| inner.clone()), "{mode:o} {who:?}");
        }
        set(&inner, 0o755);
        for (mode, who, may) in [
            (0o700, account(uid, gid, &[]), false),
            (0o705, account(uid, gid, &[]), true),
            (0o644, account(0, 0, &[]), false),
            (0o645, account(0, 0, &[]), true),
        ] {
            set(&file, mode);
            assert_eq!(runs(Some(&who), &file), may, "{mode:o} {who:?}");
        }
        assert!(!runs(None, &inner));
    }
}
