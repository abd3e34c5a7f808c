//! From a cgroup to who it belongs to: a container, a systemd unit, or a person's session.
//!
//! The kernel reports a socket's cgroup to everybody, so this names an owner where `/proc/PID/fd` is
//! closed to us. Reads the cgroup v2 tree; decides nothing about stopping.

use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::port::{proc_file, refused};

/// Who a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tenant {
    /// A container: its full id.
    Container(String),
    /// A systemd service, or a `.socket` unit: its name.
    Service {
        /// For example `nginx.service` or `ssh.socket`.
        name: String,
        /// Whether it belongs to a user's service manager.
        of_user: bool,
    },
    /// The cgroup of systemd itself, which listens for `.socket` units.
    ServiceManager,
    /// None of these: a login session, an application's scope, the root.
    Other,
}

/// The part of a cgroup path that is another machine's, with an init of its own: systemd-nspawn, LXC, libvirt. Its
/// units are none of ours, however they are called.
pub(crate) fn machine(path: &str) -> Option<&str> {
    let mut end = 0;
    let mut before = "";
    for component in path.split('/') {
        let begin = end;
        end += component.len();
        let is_machine = ["systemd-nspawn@", "lxc.payload.", "lxc.monitor."]
            .iter()
            .any(|begin| component.starts_with(begin))
            || (component.starts_with("machine-") && component.strip_suffix(".scope").is_some())
            // Before LXC 4: one directory for all, in which each has its own.
            || (matches!(before, "lxc" | "lxc.payload" | "lxc.monitor") && !component.is_empty());
        if is_machine {
            return path.get(..end);
        }
        // systemd-nspawn puts what it runs there, whatever the unit in which it was called (`--keep-unit`).
        let in_unit = [".scope", ".service"]
            .iter()
            .any(|kind| before.ends_with(kind));
        if component == "payload" && in_unit {
            return path.get(..begin.saturating_sub(1));
        }
        before = component;
        end += 1;
    }
    None
}

/// As [`machine`], where that is not the one that this command runs in.
pub(crate) fn foreign_machine(path: &str) -> Option<&str> {
    static OWN: OnceLock<Vec<String>> = OnceLock::new();
    let machine = machine(path)?;
    let own = OWN.get_or_init(|| paths_of(std::process::id()));
    let is_ours = own.iter().any(|own| self::machine(own) == Some(machine));
    (!is_ours).then_some(machine)
}

/// Reads a cgroup path, the innermost meaning first.
pub(crate) fn tenant(path: &str) -> Tenant {
    if foreign_machine(path).is_some() {
        return Tenant::Other;
    }
    for component in path.rsplit('/') {
        if let Some(id) = container_id(component) {
            return Tenant::Container(id.to_owned());
        }
    }
    let of_user = path
        .split('/')
        .any(|component| component.starts_with("user@") && service(component).is_some());
    for component in path.rsplit('/') {
        if component == "init.scope" {
            return Tenant::ServiceManager;
        }
        // systemd makes the sockets of a `.socket` unit in a cgroup of its own, in which nothing runs.
        if component.strip_suffix(".socket").is_some() {
            return Tenant::Service {
                name: component.to_owned(),
                of_user,
            };
        }
        if component.strip_suffix(".scope").is_some() || component.starts_with("user@") {
            return Tenant::Other;
        }
        if let Some(name) = service(component) {
            if refused::hosts_sessions(name) {
                return Tenant::Other;
            }
            return Tenant::Service {
                name: component.to_owned(),
                of_user,
            };
        }
    }
    Tenant::Other
}

/// The name of a service without its suffix.
fn service(component: &str) -> Option<&str> {
    component.strip_suffix(".service")
}

/// The id in names such as `docker-ID.scope`, `libpod-ID.scope`, `cri-containerd-ID.scope` or plain `ID`
/// (64 hexadecimal digits). `libpod-conmon-ID.scope` is the container's keeper, not the container.
fn container_id(component: &str) -> Option<&str> {
    if component.contains("conmon") {
        return None;
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

/// The cgroups of a process: the v2 path first, then v1 paths (a container engine on a hybrid system may
/// use those alone).
pub(crate) fn paths_of(pid: u32) -> Vec<String> {
    let text = proc_file::read_text(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut paths: Vec<(bool, String)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let hierarchy = fields.next()?;
            let path = fields.nth(1)?;
            Some((hierarchy != "0", path.to_owned()))
        })
        .collect();
    paths.sort_by_key(|(legacy, _)| *legacy);
    paths.into_iter().map(|(_, path)| path).collect()
}

/// Who a process belongs to.
pub(crate) fn tenant_of(pid: u32) -> Tenant {
    paths_of(pid)
        .iter()
        .map(|path| tenant(path))
        .find(|tenant| *tenant != Tenant::Other)
        .unwrap_or(Tenant::Other)
}

/// The cgroup v2 tree, mounted somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    mount: PathBuf,
}

impl Tree {
    /// Finds the mount (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1).
    pub(crate) fn find() -> Option<Self> {
        // Only version 2 has this file; the table of mounts is long where there are containers.
        let usual = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let is_v2 = |mount: &&str| Path::new(mount).join("cgroup.controllers").exists();
        if let Some(mount) = usual.into_iter().find(is_v2) {
            let mount = mount.into();
            return Some(Self { mount });
        }
        let mounts = proc_file::read_text("/proc/self/mountinfo").ok()?;
        mounts
            .lines()
            .find_map(cgroup2_mount)
            .map(|mount| Self { mount })
    }

    /// The directory whose inode number is `id`: the cgroup a socket was created in. `None` for the root,
    /// which says nothing, and for one that was removed since.
    pub(crate) fn directory(&self, id: u64) -> Option<PathBuf> {
        if fs::metadata(&self.mount).ok()?.ino() == id {
            return None;
        }
        let mut open = vec![self.mount.clone()];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = entry.path();
                if entry.ino() == id {
                    return Some(path);
                }
                open.push(path);
            }
        }
        None
    }

    /// The path of a directory of the tree below its mount, as `/proc/PID/cgroup` writes it.
    pub(crate) fn path_of(&self, directory: &Path) -> String {
        let below = directory.strip_prefix(&self.mount).unwrap_or(directory);
        format!("/{}", below.display())
    }
}

/// The processes in a cgroup and below it, as far as readable.
pub(crate) fn pids_in(directory: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        let text = proc_file::read_text(directory.join("cgroup.procs")).unwrap_or_default();
        // 0 stands for a process of another pid namespace.
        pids.extend(
            text.lines()
                .filter_map(|line| line.parse::<u32>().ok())
                .filter(|pid| *pid != 0),
        );
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The mount point in a line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`), if it is cgroup v2's.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next()? != "cgroup2" {
        return None;
    }
    Some(PathBuf::from(left.split(' ').nth(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_another_machine_are_none_of_ours() {
        for (path, expected) in [
            (
                "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/nginx.service",
                "/machine.slice/systemd-nspawn@deb.service",
            ),
            (
                "/machine.slice/machine-deb.scope/payload/system.slice/nginx.service",
                "/machine.slice/machine-deb.scope",
            ),
            (
                "/lxc.payload.c1/system.slice/nginx.service",
                "/lxc.payload.c1",
            ),
            (
                "/machine.slice/my.scope/payload/system.slice/nginx.service",
                "/machine.slice/my.scope",
            ),
            (
                "/system.slice/box.service/payload/init.scope",
                "/system.slice/box.service",
            ),
            ("/lxc/c1/system.slice/nginx.service", "/lxc/c1"),
            ("/lxc.payload/c1/init.scope", "/lxc.payload/c1"),
        ] {
            assert_eq!(machine(path), Some(expected));
            assert_eq!(tenant(path), Tenant::Other, "{path}");
        }
        // Of podman's containers, and of this machine.
        for path in [
            "/machine.slice/libpod-conmon-1.scope",
            "/system.slice/nginx.service",
            "/system.slice/payload/nginx.service",
            "/lxc",
        ] {
            assert_eq!(machine(path), None, "{path}");
        }
    }

    const ID: &str = "9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e";

    #[test]
    fn containers_are_named_by_their_id() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!(
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
            ),
            format!("/kubepods.slice/kubepods-besteffort.slice/cri-containerd-{ID}.scope"),
            format!("/system.slice/containerd.service/kubepods:cri-containerd:{ID}"),
        ] {
            assert_eq!(tenant(&path), Tenant::Container(ID.to_owned()), "{path}");
        }
    }

    #[test]
    fn the_keeper_of_a_container_is_not_the_container() {
        let path = format!("/machine.slice/libpod-conmon-{ID}.scope");
        assert_eq!(tenant(&path), Tenant::Other);
    }

    #[test]
    fn services_of_the_system_and_of_a_user() {
        assert_eq!(
            tenant("/system.slice/nginx.service"),
            Tenant::Service {
                name: "nginx.service".into(),
                of_user: false
            }
        );
        assert_eq!(
            tenant("/user.slice/user-1000.slice/user@1000.service/app.slice/api.service"),
            Tenant::Service {
                name: "api.service".into(),
                of_user: true
            }
        );
        assert_eq!(
            tenant("/system.slice/ssh.socket"),
            Tenant::Service {
                name: "ssh.socket".into(),
                of_user: false
            }
        );
        assert_eq!(tenant("/init.scope"), Tenant::ServiceManager);
        assert_eq!(
            tenant("/user.slice/user-1000.slice/user@1000.service/init.scope"),
            Tenant::ServiceManager
        );
    }

    #[test]
    fn what_runs_in_a_login_or_a_desktop_is_not_that_service() {
        for path in [
            "/",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.kde.konsole@1.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-code-7.scope",
            "/system.slice/ssh.service",
            "/system.slice/cron.service",
            "/system.slice/system-vncserver.slice/vncserver@:1.service",
            "/system.slice/tailscaled.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/code-tunnel.service",
        ] {
            assert_eq!(tenant(path), Tenant::Other, "{path}");
        }
    }

    #[test]
    fn the_mount_is_found_by_its_type() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(
            cgroup2_mount(line),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        let old = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        assert_eq!(cgroup2_mount(old), None);
    }
}
