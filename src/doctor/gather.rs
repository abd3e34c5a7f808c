//! Gathers the facts: settings from `/proc/sys`, trials in children and with sockets, questions to engines.
//! Nothing takes longer than two seconds: what reads the system runs in threads that are left behind if they do.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::fs::Access;
use tokio::sync::oneshot;

use super::facts::{Cgroups, Directory, Layout, Machine, Plugin, Settings};
use crate::backend::container::Containers;
use crate::backend::process::Dirs;
use crate::backend::process::namespace_probe::can_mount_privately;
use crate::port::release::first_permitted;
use crate::port::sockets::abilities::abilities;

/// How long one part may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// `statfs(2)`, field `f_type`, of a cgroup v2 mount.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The folders of Docker CLI plug-ins that belong to the system (github.com/docker/cli, `cli-plugins/manager`).
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// Looks at everything.
pub async fn gather(containers: &Containers, dirs: &Dirs) -> Machine {
    let executable = std::env::current_exe().ok();
    let directories = [
        ("state", dirs.state().to_owned()),
        ("runtime", dirs.runtime().to_owned()),
    ];
    let configuration = containers.configuration();
    let own = executable.clone();
    let ways = within(|| can_mount_privately().map_err(|error| error.to_string()));
    let settings = within(settings);
    let cgroups = within(cgroups);
    let sockets = within(|| abilities().map_err(|error| error.to_string()));
    let unknown = directories.clone().map(|(what, path)| Directory {
        what,
        path,
        problem: Some("its file system does not answer".to_owned()),
        mode: None,
        foreign: false,
        free: None,
    });
    let looked = within(move || directories.map(|(what, path)| directory(what, path)));
    let helpers = {
        let containers = containers.clone();
        within(move || containers.credential_helpers())
    };
    let plugin = within(move || plugin(configuration.as_deref(), own.as_deref()));
    let (engines, ways, settings, cgroups, sockets, looked, helpers, plugin) = tokio::join!(
        containers.survey(),
        ways,
        settings,
        cgroups,
        sockets,
        looked,
        helpers,
        plugin
    );
    Machine {
        kernel: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        uid: nix::unistd::geteuid().as_raw(),
        executable,
        engines,
        cgroups: cgroups.flatten(),
        settings: settings.unwrap_or_default(),
        ways,
        descriptors: descriptors(),
        directories: looked.unwrap_or(unknown).to_vec(),
        sockets,
        helpers: helpers.unwrap_or_default(),
        plugin: plugin.unwrap_or_default(),
    }
}

/// The result, if it comes in time.
async fn within<T: Send + 'static>(probe: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    bounded(PATIENCE, probe).await
}

async fn bounded<T: Send + 'static>(
    patience: Duration,
    probe: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().spawn(move || {
        // Nobody listens any more once the time is over.
        drop(tell.send(probe()));
    });
    drop(thread.ok()?);
    tokio::time::timeout(patience, told).await.ok()?.ok()
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn settings() -> Settings {
    let number = |name: &str| text(format!("/proc/sys/{name}"))?.parse().ok();
    let range = text("/proc/sys/net/ipv4/ip_local_port_range").and_then(|range| {
        let mut numbers = range.split_whitespace().map(str::parse::<u16>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    Settings {
        ptrace_scope: number("kernel/yama/ptrace_scope"),
        max_user_namespaces: number("user/max_user_namespaces"),
        userns_clone: number("kernel/unprivileged_userns_clone"),
        apparmor_restricts: number("kernel/apparmor_restrict_unprivileged_userns"),
        port_range: range,
        reserved_ports: text("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default(),
        first_port: first_permitted(),
        inotify_watches: number("fs/inotify/max_user_watches"),
        inotify_instances: number("fs/inotify/max_user_instances"),
    }
}

fn descriptors() -> (Option<u64>, Option<u64>) {
    let limit = |value| Some(value).filter(|value| *value != RLIM_INFINITY);
    getrlimit(Resource::RLIMIT_NOFILE)
        .map_or((None, None), |(soft, hard)| (limit(soft), limit(hard)))
}

fn cgroups() -> Option<Cgroups> {
    let is_v2 =
        |path: &str| rustix::fs::statfs(path).is_ok_and(|found| found.f_type == CGROUP2_MAGIC);
    let listed = text("/proc/self/cgroup")?;
    let own = listed.lines().find_map(|line| line.strip_prefix("0::"));
    let unified = format!("{CGROUPS}/unified");
    let (layout, root) = if is_v2(CGROUPS) {
        (Layout::V2, CGROUPS)
    } else if is_v2(&unified) {
        (Layout::Hybrid, unified.as_str())
    } else if listed.lines().any(|line| !line.starts_with("0::")) {
        (Layout::V1, CGROUPS)
    } else {
        (Layout::None, CGROUPS)
    };
    let own = own.unwrap_or("/").to_owned();
    let uid = nix::unistd::geteuid().as_raw();
    // A process can only be moved below the nearest common ancestor, so only our own group and those above
    // count. What systemd manages is not root's to divide.
    let is_managed = Path::new("/run/systemd/system").is_dir();
    let may_divide = |group: &&Path| {
        let directory = Path::new(root).join(group.strip_prefix("/").unwrap_or(group));
        let is_ours = fs::metadata(&directory).is_ok_and(|found| found.uid() == uid);
        is_ours
            && (uid != 0 || !is_managed)
            && ["", "cgroup.procs"]
                .iter()
                .all(|file| rustix::fs::access(directory.join(file), Access::WRITE_OK).is_ok())
    };
    let has_v2 = matches!(layout, Layout::V2 | Layout::Hybrid);
    let delegated = Path::new(&own)
        .ancestors()
        .find(may_divide)
        .filter(|_| has_v2)
        .map(|group| group.display().to_string());
    let from = delegated.as_deref().unwrap_or(&own);
    let controllers = Path::new(root)
        .join(from.trim_start_matches('/'))
        .join("cgroup.controllers");
    Some(Cgroups {
        layout,
        controllers: text(controllers)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        own,
        delegated,
    })
}

/// What can be known of a directory without making it: it, or what it will be made in, is asked.
fn directory(what: &'static str, path: PathBuf) -> Directory {
    let there = path
        .ancestors()
        .find(|ancestor| fs::symlink_metadata(ancestor).is_ok())
        .unwrap_or(Path::new("/"))
        .to_owned();
    let problem = match fs::metadata(&there) {
        Err(error) => Some(error.to_string()),
        Ok(found) if !found.is_dir() => Some(format!("{} is no directory", there.display())),
        Ok(_) => rustix::fs::access(&there, Access::WRITE_OK | Access::EXEC_OK)
            .err()
            .map(|errno| format!("{}: {}", there.display(), io::Error::from(errno))),
    };
    let mode = fs::metadata(&path)
        .ok()
        .map(|found| found.permissions().mode() & 0o777);
    let foreign = fs::metadata(&path)
        .ok()
        .map(|found| found.uid())
        .filter(|uid| *uid != nix::unistd::geteuid().as_raw());
    let free = rustix::fs::statvfs(&there)
        .ok()
        .map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    Directory {
        what,
        problem: problem.or_else(|| foreign.map(|uid| format!("it belongs to user {uid}"))),
        path,
        mode,
        foreign: foreign.is_some(),
        free,
    }
}

/// The first `docker-compose` that the Docker client would find.
fn plugin(configuration: Option<&Path>, own: Option<&Path>) -> Plugin {
    let configured = configuration.and_then(|directory| {
        let file = fs::read(directory.join("config.json")).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&file).ok()?;
        let directories = value.get("cliPluginsExtraDirs")?.as_array()?.clone();
        Some(directories)
    });
    let extra = configured
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_str().map(PathBuf::from));
    let user = configuration.map(|directory| directory.join("cli-plugins"));
    let folders = user
        .into_iter()
        .chain(extra)
        .chain(PLUGINS.iter().map(PathBuf::from));
    for folder in folders {
        let path = folder.join("docker-compose");
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        return match (fs::canonicalize(&path), own.map(fs::canonicalize)) {
            (Err(_), _) => Plugin::Broken(path),
            (Ok(found), Some(Ok(own))) if found == own => Plugin::Wharf(path),
            (Ok(_), _) => Plugin::Other(path),
        };
    }
    Plugin::None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_is_asked_without_being_made() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        let found = directory("state", path.clone());
        assert_eq!((found.problem, found.mode), (None, None));
        assert!(found.free.is_some() && !path.exists());
        fs::write(root.path().join("file"), "").unwrap();
        let found = directory("state", root.path().join("file/below"));
        assert!(found.problem.unwrap().contains("no directory"));
        fs::create_dir(root.path().join("open")).unwrap();
        fs::set_permissions(root.path().join("open"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            directory("state", root.path().join("open")).mode,
            Some(0o755)
        );
    }

    #[test]
    fn the_plug_in_is_the_first_that_the_client_finds() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("wharf");
        fs::write(&own, "").unwrap();
        let folder = root.path().join("cli-plugins");
        fs::create_dir(&folder).unwrap();
        let link = folder.join("docker-compose");
        let found = || plugin(Some(root.path()), Some(&own));
        symlink(&own, &link).unwrap();
        assert_eq!(found(), Plugin::Wharf(link.clone()));
        fs::remove_file(&link).unwrap();
        symlink(root.path().join("nothing"), &link).unwrap();
        assert_eq!(found(), Plugin::Broken(link.clone()));
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        assert_eq!(found(), Plugin::Other(link.clone()));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_left_behind() {
        assert_eq!(within(|| 7).await, Some(7));
        // A sender that is never used stands for a system call that never returns.
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        assert_eq!(bounded(Duration::ZERO, move || never.recv()).await, None);
    }

    #[test]
    fn this_machine_has_settings() {
        let settings = settings();
        let (first, last) = settings.port_range.unwrap();
        assert!(first <= last);
        assert!(settings.inotify_instances.is_some());
    }
}
