//! Where control groups of ours may be made: the tree is somebody else's unless a part of it was delegated
//! to us. Looks at the tree; changes nothing.
//!
//! *Delegated* is a directory that belongs to this user, that the service manager has marked as handed over,
//! or, for root, any on a machine without such a manager. Only our own group and those above it are looked
//! at: to move a process, the kernel wants write access to the nearest common ancestor of both groups.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::Access;

/// What systemd sets on a directory that it hands over (`systemd.resource-control(5)`, `Delegate=`).
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// A delegated directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory, of a cgroup v2 hierarchy.
    pub dir: PathBuf,
    /// Those of the wanted controllers that groups below it can have.
    pub controllers: BTreeSet<&'static str>,
    /// Why it has no more of them.
    pub lacks: Option<String>,
}

/// Who is looking, and at what.
#[derive(Clone, Debug)]
pub struct View {
    /// `/proc/self/mountinfo`.
    pub mounts: String,
    /// `/proc/self/cgroup`.
    pub own: String,
    /// Our user id.
    pub uid: u32,
    /// Whether systemd manages the tree (`sd_booted(3)`).
    pub is_managed: bool,
}

impl View {
    /// Of this process.
    pub fn new() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            mounts: read("/proc/self/mountinfo"),
            own: read("/proc/self/cgroup"),
            uid: rustix::process::geteuid().as_raw(),
            is_managed: Path::new("/run/systemd/system").is_dir(),
        }
    }

    /// Of another process, as far as it sees the tree as we do; `None` when it has gone.
    pub(in crate::backend::process) fn of(pid: u32) -> Option<Self> {
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(Self { own, ..Self::new() })
    }

    /// Of this process at the first call: a supervisor that starts many services looks once.
    pub(in crate::backend::process) fn once() -> &'static Self {
        static VIEW: OnceLock<View> = OnceLock::new();
        VIEW.get_or_init(Self::new)
    }

    /// As [`find`](Self::find), for this process as at the first call. One that is to have no controllers is looked for
    /// once, too: a group that cannot be made there is done without.
    pub fn find_once(wanted: &BTreeSet<&'static str>) -> Option<Place> {
        static PLAIN: OnceLock<Option<Place>> = OnceLock::new();
        if wanted.is_empty() {
            PLAIN.get_or_init(|| Self::once().find(wanted)).clone()
        } else {
            Self::once().find(wanted)
        }
    }

    /// All delegated directories from our own group upwards.
    pub fn delegated(&self) -> Vec<PathBuf> {
        let Some((mount, own)) = self.own_dir() else {
            return Vec::new();
        };
        let all = own.ancestors().take_while(|dir| dir.starts_with(&mount));
        all.filter(|dir| self.is_delegated(dir))
            .map(Path::to_owned)
            .collect()
    }

    /// The delegated directory that has the most of these controllers; the nearest one of several.
    pub fn find(&self, wanted: &BTreeSet<&'static str>) -> Option<Place> {
        let (mount, own) = self.own_dir()?;
        let mut best: Option<Place> = None;
        for dir in own.ancestors().take_while(|dir| dir.starts_with(&mount)) {
            if !self.is_delegated(dir) {
                continue;
            }
            let place = survey(dir, wanted);
            let is_better = best
                .as_ref()
                .is_none_or(|best| place.controllers.len() > best.controllers.len());
            if is_better {
                let has_all = place.lacks.is_none();
                best = Some(place);
                if has_all {
                    break;
                }
            }
        }
        best
    }

    /// The mount of the v2 hierarchy and our own directory in it.
    pub(super) fn own_dir(&self) -> Option<(PathBuf, PathBuf)> {
        let path = self.own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let (root, mount) = self.mounts.lines().find_map(mount)?;
        // Outside of what the mount shows, a path begins with `/..`.
        let below = Path::new(path).strip_prefix(root).ok()?;
        let is_plain = below
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        is_plain.then(|| {
            let own = mount.join(below);
            (mount, own)
        })
    }

    fn is_delegated(&self, dir: &Path) -> bool {
        let writable = Access::WRITE_OK | Access::EXEC_OK;
        let may = |path: &Path, access| rustix::fs::access(path, access).is_ok();
        if !may(dir, writable) || !may(&dir.join("cgroup.procs"), Access::WRITE_OK) {
            return false;
        }
        let is_ours = fs::metadata(dir).is_ok_and(|found| found.uid() == self.uid);
        let is_marked = || {
            MARKS.iter().any(|mark| {
                let mut value = [0_u8; 8];
                let length = rustix::fs::getxattr(dir, *mark, &mut value);
                length.is_ok_and(|length| value.starts_with(b"1") && length >= 1)
            })
        };
        if self.uid == 0 {
            !self.is_managed || is_marked()
        } else {
            is_ours || is_marked()
        }
    }
}

impl Default for View {
    fn default() -> Self {
        Self::new()
    }
}

/// What groups below `dir` can have.
fn survey(dir: &Path, wanted: &BTreeSet<&'static str>) -> Place {
    // Most services want none: each start would read the pids of all that is in our own group.
    if wanted.is_empty() {
        return Place {
            dir: dir.to_owned(),
            controllers: BTreeSet::new(),
            lacks: None,
        };
    }
    let words = |file: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let (enabled, available) = (words("cgroup.subtree_control"), words("cgroup.controllers"));
    // A group with processes of its own cannot hand controllers on, the root excepted.
    let is_root = !dir.join("cgroup.type").exists();
    let is_free = is_root || words("cgroup.procs").is_empty();
    let (controllers, missing): (BTreeSet<_>, BTreeSet<_>) =
        wanted.iter().copied().partition(|controller| {
            enabled.contains(*controller) || is_free && available.contains(*controller)
        });
    let (withheld, unavailable): (Vec<&str>, Vec<&str>) = missing
        .iter()
        .copied()
        .partition(|controller| available.contains(*controller));
    let mut why = Vec::new();
    if !unavailable.is_empty() {
        why.push(format!("has no controller {}", unavailable.join(", ")));
    }
    if !withheld.is_empty() {
        let withheld = withheld.join(", ");
        why.push(format!(
            "has processes of its own and cannot hand {withheld} on"
        ));
    }
    let lacks = (!why.is_empty()).then(|| format!("{} {}", dir.display(), why.join(", and ")));
    Place {
        dir: dir.to_owned(),
        controllers,
        lacks,
    }
}

/// The root and the mount point of a line of `proc_pid_mountinfo(5)` about a v2 hierarchy.
fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut fields = place.split(' ').skip(3);
    let root = unescaped(fields.next()?);
    let point = unescaped(fields.next()?);
    (kind.split(' ').next() == Some("cgroup2")).then_some((root, point))
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => plain.push_str(part),
        }
    }
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as the kernel shows it: directories, each with its controllers, those that are handed on, and
    /// its processes.
    fn tree(dirs: &[(&str, &str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, controllers, handed_on, processes) in dirs {
            let dir = root.path().join(path);
            fs::create_dir_all(&dir).unwrap();
            for (file, text) in [
                ("cgroup.controllers", *controllers),
                ("cgroup.subtree_control", *handed_on),
                ("cgroup.procs", *processes),
            ] {
                fs::write(dir.join(file), text).unwrap();
            }
            if !path.is_empty() {
                fs::write(dir.join("cgroup.type"), "domain\n").unwrap();
            }
        }
        root
    }

    fn view(root: &tempfile::TempDir, own: &str) -> View {
        View {
            mounts: format!(
                "30 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 31 1 0:28 / {} rw,relatime shared:9 - cgroup2 cgroup2 rw\n",
                root.path().display()
            ),
            own: format!("1:cpu:/else\n0::{own}\n"),
            uid: rustix::process::geteuid().as_raw(),
            is_managed: false,
        }
    }

    fn all() -> BTreeSet<&'static str> {
        BTreeSet::from(["cpu", "memory", "pids"])
    }

    #[test]
    fn an_ancestor_that_can_hand_controllers_on_is_better_than_our_own_group() {
        let root = tree(&[
            ("", "cpu memory pids", "cpu memory pids", ""),
            ("user", "cpu memory pids", "memory pids", ""),
            ("user/app", "memory pids", "", "7\n"),
        ]);
        let view = view(&root, "/user/app");
        assert_eq!(
            view.find(&BTreeSet::new()).unwrap().dir,
            root.path().join("user/app")
        );
        let place = view.find(&BTreeSet::from(["pids"])).unwrap();
        assert_eq!(place.dir, root.path().join("user"));
        assert_eq!(place.lacks, None);
    }

    #[test]
    fn a_group_with_processes_hands_nothing_on_unless_it_does_already() {
        let root = tree(&[
            ("", "", "", ""),
            ("own", "cpu memory pids", "memory", "7\n"),
        ]);
        let place = view(&root, "/own").find(&all()).unwrap();
        assert_eq!(place.controllers, BTreeSet::from(["memory"]));
        let lacks = place.lacks.unwrap();
        assert!(
            lacks.ends_with("/own has processes of its own and cannot hand cpu, pids on"),
            "{lacks}"
        );
    }

    #[test]
    fn each_controller_that_is_missing_has_its_reason() {
        let root = tree(&[("", "", "", ""), ("own", "cpu memory", "", "7\n")]);
        let wanted = BTreeSet::from(["cpu", "cpuset", "memory"]);
        let lacks = view(&root, "/own").find(&wanted).unwrap().lacks.unwrap();
        assert!(
            lacks.ends_with(
                "/own has no controller cpuset, and has processes of its own and cannot hand cpu, memory on"
            ),
            "{lacks}"
        );
    }

    #[test]
    fn a_tree_without_controllers_still_ends_what_is_in_it() {
        let root = tree(&[("", "", "", "7\n")]);
        let place = view(&root, "/").find(&all()).unwrap();
        assert!(place.controllers.is_empty());
        let lacks = place.lacks.unwrap();
        assert!(
            lacks.ends_with("has no controller cpu, memory, pids"),
            "{lacks}"
        );
    }

    #[test]
    fn the_root_may_have_both_processes_and_controllers() {
        let root = tree(&[("", "cpu memory pids", "", "1\n7\n")]);
        assert_eq!(view(&root, "/").find(&all()).unwrap().controllers, all());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_left_alone() {
        let root = tree(&[("", "cpu", "cpu", ""), ("own", "cpu", "", "")]);
        let mut stranger = view(&root, "/own");
        stranger.uid = if stranger.uid == 0 { 12_345 } else { 0 };
        stranger.is_managed = true;
        assert_eq!(stranger.find(&BTreeSet::new()), None);
    }

    #[test]
    fn a_group_outside_of_the_mount_is_none_of_ours() {
        let root = tree(&[("", "cpu", "", "")]);
        assert_eq!(view(&root, "/../other").find(&all()), None);
        let mut no_tree = view(&root, "/");
        no_tree.mounts = "30 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n".into();
        assert_eq!(no_tree.find(&all()), None);
    }

    #[test]
    fn a_mount_may_show_a_part_of_the_tree_and_have_blanks_in_its_name() {
        let line = r"31 1 0:28 /part /a\040b rw - cgroup2 none rw";
        let expected = (PathBuf::from("/part"), PathBuf::from("/a b"));
        assert_eq!(mount(line), Some(expected));
    }
}
