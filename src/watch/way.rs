//! The way to a path: which names decide where it leads.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// So many links the kernel follows (`path_resolution(7)`).
const LINKS: usize = 40;

/// Every symbolic link on the way to a path, by a name without links before it, and where the way ends: at what the path
/// stands for, or at the first name that is not there. Where there is no link, that end is all.
pub(super) fn way(path: &Path) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    let mut links = 0;
    let mut at = PathBuf::from("/");
    let mut open = parts(path);
    while let Some(part) = open.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        if let Ok(target) = fs::read_link(&next) {
            links += 1;
            names.insert(next);
            if links > LINKS {
                return names;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            open.extend(parts(&target));
        } else {
            let is_there = fs::symlink_metadata(&next).is_ok();
            at = next;
            if !is_there {
                break;
            }
        }
    }
    names.insert(at);
    names
}

/// The names of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    names
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_and_the_end_are_on_the_way() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |names: &[&str]| -> BTreeSet<PathBuf> {
            names.iter().map(|name| root.join(name)).collect()
        };
        fs::create_dir_all(root.join("rel/1")).unwrap();
        symlink("latest", root.join("current")).unwrap();
        symlink("rel/../rel/1", root.join("latest")).unwrap();
        symlink(root.join("rel/2/x"), root.join("broken")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, names) in [
            ("rel/1", &["rel/1"][..]),
            ("current", &["current", "latest", "rel/1"]),
            ("current/conf", &["current", "latest", "rel/1/conf"]),
            ("broken/y", &["broken", "rel/2"]),
            ("none/of/it", &["none"]),
            ("loop/x", &["loop"]),
        ] {
            assert_eq!(way(&root.join(path)), at(names), "{path}");
        }
    }
}
