//! From facts about a machine to findings. Pure.

mod engines;
mod files;
mod kernel;
mod names;

use super::Finding;
use super::facts::Machine;

/// All findings about a machine.
pub fn findings(machine: &Machine) -> Vec<Finding> {
    let mut all = engines::findings(machine);
    all.extend(names::findings(machine));
    all.extend(kernel::findings(machine));
    all.extend(files::findings(machine));
    all
}

/// Whether neither containers nor processes can be run here.
pub fn is_useless(machine: &Machine) -> bool {
    machine.engine().is_none()
        && machine
            .directories
            .iter()
            .any(|directory| directory.problem.is_some())
}

pub(super) use names::how_local_services_find_containers;

/// The beginning of a list, and how many more there are.
fn listed(words: &[&str], most: usize) -> String {
    let shown = words.get(..most).unwrap_or(words).join(", ");
    match words.len().checked_sub(most) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::backend::container::{Abilities, Answer, EngineFacts};
    use crate::backend::process::namespace_probe::Ways;
    use crate::doctor::State;
    use crate::doctor::facts::{Cgroups, Directory, Layout, Plugin, Settings};
    use crate::port::sockets::abilities::Abilities as Sockets;

    /// An engine as Docker installs it.
    pub(in crate::doctor) fn engine(api: (u32, u32), version: &str) -> EngineFacts {
        EngineFacts {
            endpoint: "unix:///var/run/docker.sock".to_owned(),
            found: vec!["the current context".to_owned()],
            current: true,
            unix: true,
            local: true,
            answer: Answer::Engine(Box::new(Abilities {
                product: "Docker".to_owned(),
                version: version.to_owned(),
                api,
                operating_system: "Debian GNU/Linux 13".to_owned(),
                kernel: "6.12.1".to_owned(),
                cgroup_version: "2".to_owned(),
                cgroup_driver: "systemd".to_owned(),
                buildkit: true,
                ..Abilities::default()
            })),
        }
    }

    /// A machine on which everything is as it should be.
    pub(in crate::doctor) fn fit() -> Machine {
        let directory = |what, path: &str| Directory {
            what,
            path: PathBuf::from(path),
            problem: None,
            mode: Some(0o700),
            foreign: false,
            free: Some(10_000_000_000),
        };
        Machine {
            kernel: "6.12.1".to_owned(),
            uid: 1000,
            executable: Some(PathBuf::from("/usr/local/bin/wharf")),
            engines: vec![engine((1, 51), "28.5.2")],
            cgroups: Some(Cgroups {
                layout: Layout::V2,
                own: "/user.slice/user-1000.slice/session-2.scope".to_owned(),
                delegated: Some("/user.slice/user-1000.slice/user@1000.service".to_owned()),
                controllers: vec!["cpu".to_owned(), "memory".to_owned(), "pids".to_owned()],
            }),
            settings: Settings {
                ptrace_scope: Some(0),
                max_user_namespaces: Some(60_000),
                port_range: Some((32768, 60999)),
                inotify_watches: Some(500_000),
                inotify_instances: Some(512),
                ..Settings::default()
            },
            ways: Some(Ok(Ways {
                namespace: Ok(()),
                as_root: Ok(()),
            })),
            descriptors: (Some(1024), Some(1_048_576)),
            directories: vec![
                directory("state", "/home/a/.local/state/wharf"),
                directory("runtime", "/run/user/1000/wharf"),
            ],
            sockets: Some(Ok(Sockets {
                sock_diag: Ok(()),
                bound: true,
            })),
            helpers: Vec::new(),
            plugin: Plugin::None,
        }
    }

    /// The one finding of a check.
    pub(in crate::doctor) fn only(machine: &Machine, check: &str) -> Finding {
        let all = findings(machine);
        let mut found = all.iter().filter(|finding| finding.check == check);
        let first = found.next();
        assert!(
            first.is_some() && found.next().is_none(),
            "{check}: {all:?}"
        );
        first.cloned().expect("it is there")
    }

    #[test]
    fn on_a_fit_machine_all_is_well() {
        for finding in findings(&fit()) {
            assert_eq!(finding.state, State::Ok, "{finding:?}");
            assert_eq!(finding.hint, None);
        }
        assert!(!is_useless(&fit()));
    }

    #[test]
    fn a_machine_of_which_nothing_is_known_has_hints_for_everything() {
        for finding in findings(&Machine::default()) {
            let hinted = finding.hint.as_ref().is_some_and(|hint| !hint.is_empty());
            assert_eq!(finding.state != State::Ok, hinted, "{finding:?}");
        }
    }

    #[test]
    fn nothing_works_without_an_engine_and_without_a_place_for_the_state() {
        let mut machine = fit();
        machine.engines.clear();
        assert!(!is_useless(&machine));
        machine.directories[0].problem = Some("read-only file system".to_owned());
        assert!(is_useless(&machine));
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed(&["a", "b"], 2), "a, b");
        assert_eq!(listed(&["a", "b", "c"], 2), "a, b and 1 more");
    }
}
