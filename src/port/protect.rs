//! What is never stopped, whatever the flags say, each with its reason in words for people.
//!
//! Errs on the safe side: the kernel's name, argv\[0\] and the executable are each enough to be
//! recognised. A refusal costs a person one command; a wrong kill costs a login, a desktop or every
//! container.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::port::cgroup;
use crate::port::holder::ProcessFacts;
use crate::port::process::{Stat, pids, process_facts, run_id};
use crate::port::{namesake, refused};

/// Why this process must never be stopped; `None` if it may be.
pub fn reason(facts: &ProcessFacts) -> Option<String> {
    let own = std::process::id();
    if facts.pid == 1 {
        return Some("it is the first process: the system, or its container, would end".to_owned());
    }
    if facts.pid == own {
        return Some("it is this command itself".to_owned());
    }
    if facts.pid == 2 || facts.ancestors.first().is_some_and(|(pid, _)| *pid == 2) {
        return Some("it is part of the kernel".to_owned());
    }
    if is_own_ancestor(facts.pid, &facts.ancestors) {
        return Some("this command runs inside it (shell, terminal or session)".to_owned());
    }
    if runs_this(facts) {
        return Some("this command runs inside the same service of wharf's".to_owned());
    }
    if is_wharf(facts) {
        let mut words = facts.command.iter().skip_while(|word| *word != "--project");
        return Some(
            match words.nth(1).map(|project| shell_words::quote(project)) {
                Some(project) => format!(
                    "it is wharf itself, keeping services of project {project}: use `wharf -p {project} stop` or `wharf -p {project} down`"
                ),
                None => "it is wharf itself, keeping services: use `wharf stop` or `wharf down`"
                    .to_owned(),
            },
        );
    }
    if is_engine_part(facts) {
        const STOP: &str =
            "it keeps ports open for containers or virtual machines: stop the container instead";
        return Some(match podmans_stop(facts) {
            Some(command) => format!("{STOP}: {command}"),
            None => STOP.to_owned(),
        });
    }
    if let Some(machine) = foreign_machine(facts.pid) {
        return Some(format!(
            "it is part of the machine {machine} (a container or virtual machine with an init of its own): stop it in there"
        ));
    }
    people_work_in(facts)
}

/// The command that stops the container which podman has started a monitor for. Podman has no daemon to ask, and its
/// service seldom runs; other engines' monitors end with another command.
fn podmans_stop(facts: &ProcessFacts) -> Option<String> {
    let mut words = facts.command.iter();
    let is_podmans = has_name(facts, "conmon") && words.any(|word| base(word) == "podman");
    let mut words = facts.command.iter().filter(|_| is_podmans);
    words.find(|word| matches!(word.as_str(), "-n" | "--name"))?;
    let name = words
        .next()
        .filter(|name| !name.contains(char::is_control))?;
    let sudo = if facts.signalable { "" } else { "sudo " };
    Some(format!("{sudo}podman stop {}", shell_words::quote(name)))
}

/// The other machine that a process is part of, by its control group.
fn foreign_machine(pid: u32) -> Option<String> {
    cgroup::paths_of(pid).iter().find_map(|path| {
        let machine = cgroup::foreign_machine(path)?;
        let name = machine.rsplit('/').next().unwrap_or(machine);
        Some(name.to_owned())
    })
}

/// Why a process is not stopped for what people have in it: sessions, unsaved work.
fn people_work_in(facts: &ProcessFacts) -> Option<String> {
    if let Some((name, why)) = refused::sessions().find(|(name, _)| has_name(facts, name)) {
        return Some(format!("{name} is never stopped: {why}"));
    }
    if is_editor(facts) {
        return Some("it belongs to an editor: close the port or the session there".to_owned());
    }
    None
}

/// Whether it is an editor, or the server of one.
pub(super) fn is_editor(facts: &ProcessFacts) -> bool {
    refused::EDITORS.iter().any(|name| has_name(facts, name)) || lives_in_editor(facts)
}

/// Why runs of services of wharf's are not ended for a port: an editor or a session is part of them. By run id.
pub fn reasons_of_runs(runs: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    if runs.is_empty() {
        return reasons;
    }
    for pid in pids() {
        let Some(run) = run_id(Path::new(&format!("/proc/{pid}"))) else {
            continue;
        };
        if !runs.contains(&run) || reasons.contains_key(&run) {
            continue;
        }
        if let Some(facts) = process_facts(pid)
            && let Some(reason) = people_work_in(&facts)
        {
            let name = &facts.name;
            reasons.insert(
                run,
                format!("{name} (pid {pid}) is part of it, and {reason}"),
            );
        }
    }
    reasons
}

/// Whether it carries sessions (logins, terminals, desktops, a service manager): what ends in one of those is
/// not started again by it.
pub(crate) fn carries_sessions(facts: &ProcessFacts) -> bool {
    refused::sessions().any(|(name, _)| has_name(facts, name))
}

/// Whether it is systemd, the system's or a user's: orphans become its children.
pub(crate) fn is_service_manager(facts: &ProcessFacts) -> bool {
    has_name(facts, "systemd")
}

/// As [`reason`], for a port proxy that no engine has a container for.
pub(crate) fn reason_of_orphan(facts: &ProcessFacts) -> Option<String> {
    if is_port_proxy(facts) && facts.pid != 1 && !is_own_ancestor(facts.pid, &facts.ancestors) {
        return None;
    }
    reason(facts)
}

/// Why this systemd unit must never be stopped; `None` if it may be.
pub fn reason_of_unit(name: &str) -> Option<String> {
    let (plain, _) = name.rsplit_once('.').unwrap_or((name, ""));
    let plain = plain.split('@').next().unwrap_or(plain);
    let why = refused::reason_of_service(plain)?;
    Some(format!("{name} is never stopped: {why}"))
}

/// Whether it does nothing but hold one published port, by all of its names that can be read.
pub(crate) fn is_port_proxy(facts: &ProcessFacts) -> bool {
    const NAME: &str = "docker-proxy";
    let argv0 = facts.command.first().map(|word| base(word));
    argv0 == Some(NAME) || facts.name == NAME
}

/// Whether ports of this process are a container's or a virtual machine's in truth: an engine knows more.
pub(crate) fn is_engine_part(facts: &ProcessFacts) -> bool {
    refused::ENGINE_PARTS
        .iter()
        .any(|name| has_name(facts, name))
        || has_prefix(facts, "containerd-shim")
        || has_prefix(facts, "qemu-system-")
}

/// Whether an engine may know whose port this is in truth: virtual machines forward through ssh, too.
pub(crate) fn may_forward(facts: &ProcessFacts) -> bool {
    is_engine_part(facts) || has_name(facts, "ssh")
}

/// By the kernel's name (cut at 15 bytes), by argv\[0\] and by the executable; a word that people call their own programs
/// by counts only where it is no such one.
pub(super) fn has_name(facts: &ProcessFacts, name: &str) -> bool {
    (names(facts).any(|found| found == name) || is_cut(&facts.name, name))
        && !namesake::is_one(facts, name)
}

fn has_prefix(facts: &ProcessFacts, prefix: &str) -> bool {
    names(facts).any(|found| found.starts_with(prefix))
}

fn is_cut(kernel_name: &str, name: &str) -> bool {
    name.len() > 15 && name.get(..15) == Some(kernel_name)
}

fn names(facts: &ProcessFacts) -> impl Iterator<Item = &str> {
    let argv0 = facts.command.first().map(String::as_str);
    // A login shell's and some daemons' titles: `-bash`, `sshd: user@pts/0`, `tmux: server`.
    let title = argv0
        .and_then(|word| word.split(": ").next())
        .map(|word| word.trim_start_matches('-'));
    [
        Some(facts.name.as_str()),
        title.map(base),
        facts
            .exe
            .as_deref()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str())
            .map(|name| name.strip_suffix(" (deleted)").unwrap_or(name)),
    ]
    .into_iter()
    .flatten()
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// By the executable, or by the script that a runtime outside of those places runs.
fn lives_in_editor(facts: &ProcessFacts) -> bool {
    let exe = facts.exe.as_deref().and_then(Path::to_str);
    let script = facts.command.get(1).map(String::as_str);
    [exe, script].into_iter().flatten().any(|path| {
        refused::EDITOR_PLACES
            .iter()
            .any(|place| path.contains(place))
    })
}

/// A wharf that is no server of its own (`wharf serve` is one, and may be replaced as any other).
pub(crate) fn is_wharf(facts: &ProcessFacts) -> bool {
    let same_file = facts.exe.is_some() && facts.exe == std::env::current_exe().ok();
    let verb = facts
        .command
        .iter()
        .skip(1)
        .find(|word| !word.starts_with('-'));
    (same_file || facts.name == "wharf" || is_keeper(facts))
        && !verb.is_some_and(|word| word == "serve" || word == "server")
}

/// Whether it is the keeper of a run of wharf's, also of a wharf of another file: it tells who it is by its name and
/// title alone, as nothing else of it can be seen from outside.
pub(crate) fn is_keeper(facts: &ProcessFacts) -> bool {
    let is_titled = |title: &String| title.starts_with("keeper of ");
    facts.name == "keeper" && facts.command.first().is_some_and(is_titled)
}

/// Whether it is a forwarder of wharf's: what it listens on follows services, and is there for them alone.
pub(crate) fn is_forwarder(facts: &ProcessFacts) -> bool {
    let mut words = facts.command.iter().skip(1);
    is_wharf(facts) && words.next().is_some_and(|word| word == "forward")
}

/// Whether this command was started by the run of a service that a process belongs to: that is stopped as a
/// whole.
fn runs_this(facts: &ProcessFacts) -> bool {
    let Some(run) = &facts.run_id else {
        return false;
    };
    let mut at = std::process::id();
    for _ in 0..128 {
        if run_id(Path::new(&format!("/proc/{at}"))).as_ref() == Some(run) {
            return true;
        }
        match Stat::read(at) {
            Some(stat) if stat.parent > 1 => at = stat.parent,
            Some(_) | None => return false,
        }
    }
    false
}

/// Whether this command runs below a process, of whose own ancestors these are known.
pub(crate) fn is_own_ancestor(pid: u32, above: &[(u32, String)]) -> bool {
    let mut at = std::process::id();
    for _ in 0..128 {
        let Some(stat) = Stat::read(at) else {
            return false;
        };
        if stat.parent == pid {
            return true;
        }
        // Above us both, and it cannot be above that.
        let is_above_it = above.iter().any(|(other, _)| *other == stat.parent);
        if stat.parent == 0 || is_above_it {
            return false;
        }
        at = stat.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, exe: &str, command: &[&str]) -> ProcessFacts {
        ProcessFacts {
            // No process has it.
            pid: u32::MAX,
            start_time: 1,
            uid: 1000,
            user: None,
            name: name.into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            exe: (!exe.is_empty()).then(|| exe.into()),
            cwd: None,
            started: 0,
            age_seconds: 0,
            ancestors: vec![(1, "systemd".into())],
            run_id: None,
            signalable: true,
            heads_namespace: false,
            tracer: None,
        }
    }

    #[test]
    fn a_keeper_of_a_wharf_of_another_file_is_wharfs() {
        let keeper = facts("keeper", "/usr/bin/wharf-1", &["keeper of shop-web-1"]);
        assert!(is_keeper(&keeper) && is_wharf(&keeper));
        assert!(reason(&keeper).is_some_and(|reason| reason.starts_with("it is wharf itself")));
        let other = facts("keeper", "/usr/bin/keeper", &["keeper", "of", "bees"]);
        assert!(!is_keeper(&other) && !is_wharf(&other));
    }

    #[test]
    fn the_protected_are_recognised_by_any_of_their_names() {
        for (name, exe, command) in [
            ("sshd", "", &[][..]),
            ("sshd", "", &["sshd: dev@pts/0"]),
            (
                "rootlesskit-doc",
                "",
                &["rootlesskit-docker-proxy", "-proto", "tcp"],
            ),
            ("exe", "/usr/bin/docker-proxy", &["/proc/self/exe"]),
            ("tmux: server", "/usr/bin/tmux", &["tmux", "new"]),
            ("containerd-shim", "", &["/usr/bin/containerd-shim-runc-v2"]),
            (
                "node",
                "/home/dev/.vscode-server/bin/1/node",
                &["node", "x.js"],
            ),
            (
                "node",
                "/usr/bin/node",
                &["node", "/usr/lib/code-server/out/node/entry"],
            ),
            (
                "ssh",
                "/usr/bin/ssh",
                &["ssh", "-L", "8003:localhost:8003", "far"],
            ),
            ("ControlCenter", "", &[]),
            ("wslrelay.exe", "", &[]),
            ("wharf", "/usr/bin/wharf", &["wharf", "up"]),
            ("wharf", "/usr/bin/wharf", &["wharf", "logs", "serve"]),
            ("docker-proxy", "/usr/bin/docker-proxy (deleted)", &["x"]),
        ] {
            assert!(
                reason(&facts(name, exe, command)).is_some(),
                "{name} {exe} {command:?}"
            );
        }
    }

    #[test]
    fn the_container_of_a_monitor_of_podmans_is_named() {
        let stop = |command: &[&str]| {
            let reason = reason(&facts("conmon", "/usr/bin/conmon", command)).unwrap();
            let command = reason.rsplit_once("instead: ")?.1;
            Some(command.to_owned())
        };
        let words = "conmon --api-version 1 -c 0f14 -u 0f14 -n pod2 --exit-command";
        let words: Vec<&str> = words.split(' ').collect();
        let of = |engine| stop(&[&words[..], &[engine]].concat());
        assert_eq!(of("/usr/bin/podman").as_deref(), Some("podman stop pod2"));
        assert_eq!(of("/usr/bin/crio"), None);
        assert_eq!(stop(&["conmon", "/usr/bin/podman"]), None);
    }

    #[test]
    fn ordinary_servers_are_not() {
        for (name, exe, command) in [
            (
                "python3",
                "/usr/bin/python3",
                &["python3", "sshd.py", "dockerd"][..],
            ),
            ("node", "/usr/bin/node", &["node", "/home/dev/code/ws.js"]),
            (
                "wharf",
                "/usr/bin/wharf",
                &["wharf", "serve", "--port", "8003"],
            ),
            ("wharf", "/usr/bin/wharf", &["wharf", "server", "start"]),
            ("ws", "/home/dev/JetBrains/ws/target/debug/ws", &["./ws"]),
        ] {
            assert_eq!(
                reason(&facts(name, exe, command)),
                None,
                "{name} {exe} {command:?}"
            );
        }
    }

    #[test]
    fn units_that_carry_sessions_or_containers_are_protected() {
        for name in [
            "ssh.socket",
            "sshd@1.service",
            "docker.service",
            "systemd-resolved.service",
            "openvpn-client@home.service",
            "wg-quick@wg0.service",
            "k3s-agent.service",
            "NetworkManager.service",
        ] {
            assert!(reason_of_unit(name).is_some(), "{name}");
        }
        assert_eq!(reason_of_unit("nginx.service"), None);
        assert_eq!(reason_of_unit("cups.socket"), None);
    }

    #[test]
    fn every_name_of_the_table_is_refused_and_forwarders_for_one_port_are_not() {
        let sessions = refused::sessions().map(|(name, _)| name);
        let all = sessions
            .chain(refused::ENGINE_PARTS.iter().copied())
            .chain(refused::EDITORS.iter().copied());
        let mut known = BTreeSet::new();
        for name in all {
            assert!(known.insert(name), "{name} stands there twice");
            // The kernel's name is cut at 15 bytes; the others are whole.
            let short = name.get(..15).unwrap_or(name);
            let exe = format!("/usr/bin/{name}");
            for facts in [
                facts(short, "", &[]),
                facts("x", &exe, &["x"]),
                facts("x", "", &[&exe]),
            ] {
                assert!(reason(&facts).is_some(), "{name}: {facts:?}");
            }
        }
        // They have a port for one thing alone, and whoever started them starts them again.
        for command in [
            &["kubectl", "port-forward", "svc/web", "8080:80"][..],
            &["ngrok", "http", "8080"],
            &["cloudflared", "tunnel"],
            &["socat", "TCP-LISTEN:80", "TCP:far:80"],
            &["minikube", "tunnel"],
            &["systemd-socket-activate", "-l", "8080", "./ws"],
            &["Xvfb", ":99"],
            &["dnsmasq"],
        ] {
            assert_eq!(reason(&facts(command[0], "", command)), None, "{command:?}");
        }
    }
}
