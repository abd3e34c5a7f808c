//! Files: where wharf keeps what it knows, and how many may be open.

use crate::doctor::Finding;
use crate::doctor::facts::{Directory, Machine};

/// Below this, logs of local services soon have no room.
const LITTLE: u64 = 200 * 1000 * 1000;

/// Below this, nothing can be written down.
const NOTHING: u64 = 1000 * 1000;

/// What a supervisor of some dozens of services needs.
const DESCRIPTORS: u64 = 1024;

pub(super) fn findings(machine: &Machine) -> Vec<Finding> {
    let directories = machine.directories.iter();
    let mut all: Vec<Finding> = directories.map(|it| directory(it, machine.uid)).collect();
    all.push(descriptors(machine.descriptors));
    all
}

fn directory(directory: &Directory, uid: u32) -> Finding {
    let check = format!("{} directory", directory.what);
    let path = directory.path.display();
    let (variable, other) = if directory.what == "state" {
        ("XDG_STATE_HOME", "$HOME/.local/state")
    } else {
        ("XDG_RUNTIME_DIR", "/run/user/$(id -u)")
    };
    if let Some(problem) = &directory.problem {
        let hint = match (directory.foreign, uid) {
            (true, 0) => "sudo -H wharf doctor   # with root's own home".to_owned(),
            (true, _) => format!(
                "sudo chown -R \"$(id -u)\" {}   # if it is to be yours; else: export {variable}=DIR",
                shell_words::quote(&directory.path.to_string_lossy())
            ),
            (false, _) => format!("export {variable}={other}"),
        };
        return Finding::missing(
            check,
            format!("{path} cannot be written to: {problem}: local services cannot run"),
            hint,
        );
    }
    let free = directory.free.unwrap_or(u64::MAX);
    let room = directory
        .free
        .map_or_else(String::new, |free| format!(", {} free", amount(free)));
    if free < NOTHING {
        return Finding::missing(
            check,
            format!("{path}: its file system is full{room}: local services cannot run"),
            format!("df -h {path}"),
        );
    }
    let mode = directory.mode.unwrap_or(0o700);
    if mode & 0o077 != 0 {
        return Finding::reduced(
            check,
            format!(
                "{path} has mode {mode:04o}: others may look into it, logs and sockets among the rest"
            ),
            format!("chmod 700 {path}"),
        );
    }
    if free < LITTLE {
        return Finding::reduced(
            check,
            format!("{path}{room}: logs of local services will soon have no room"),
            format!("du -sh {path}/*"),
        );
    }
    let made = if directory.mode.is_none() {
        ", made when it is first needed"
    } else {
        ""
    };
    Finding::ok(check, format!("{path}{room}{made}"))
}

fn amount(bytes: u64) -> String {
    match bytes / 1_000_000 {
        megabytes if megabytes >= 10_000 => format!("{} GB", megabytes / 1000),
        megabytes => format!("{megabytes} MB"),
    }
}

fn descriptors((soft, hard): (Option<u64>, Option<u64>)) -> Finding {
    const CHECK: &str = "open files";
    let word = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
    let words = format!("{}, and {} where it is asked for", word(soft), word(hard));
    if soft.is_some_and(|soft| soft < DESCRIPTORS) {
        let raised = hard.map_or(DESCRIPTORS, |hard| hard.min(4096));
        // Only root raises the second one, for a process that is there already, too.
        let hint = if soft == hard {
            format!("sudo prlimit --pid $$ --nofile={DESCRIPTORS}")
        } else {
            format!("ulimit -n {raised}")
        };
        return Finding::reduced(
            CHECK,
            format!("{words}: many services or `watch` on large trees may reach it"),
            hint,
        );
    }
    Finding::ok(CHECK, words)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fit, only};
    use super::*;
    use crate::doctor::State;
    use crate::doctor::facts::Machine;

    fn changed(change: impl Fn(&mut Directory)) -> Finding {
        let mut machine: Machine = fit();
        change(&mut machine.directories[0]);
        only(&machine, "state directory")
    }

    #[test]
    fn a_directory_must_be_writable_private_and_have_room() {
        let closed = changed(|state| state.problem = Some("Read-only file system".to_owned()));
        assert_eq!(closed.state, State::Missing);
        assert!(
            closed.detail.contains("Read-only file system"),
            "{closed:?}"
        );
        let foreign = changed(|state| {
            state.problem = Some("Permission denied".to_owned());
            state.foreign = true;
        });
        let hint = foreign.hint.unwrap();
        assert!(
            hint.starts_with("sudo chown -R \"$(id -u)\" /home/a/.local/state/wharf "),
            "{hint}"
        );
        assert_eq!(changed(|state| state.free = Some(0)).state, State::Missing);
        let little = changed(|state| state.free = Some(50_000_000));
        assert!(little.detail.contains("50 MB free"), "{little:?}");
        let open = changed(|state| state.mode = Some(0o755));
        assert_eq!(open.state, State::Reduced);
        assert_eq!(
            open.hint.as_deref(),
            Some("chmod 700 /home/a/.local/state/wharf")
        );
        assert_eq!(changed(|state| state.mode = None).state, State::Ok);
    }

    #[test]
    fn few_descriptors_are_raised_to_what_is_allowed() {
        let mut machine = fit();
        machine.descriptors = (Some(256), Some(512));
        assert_eq!(
            only(&machine, "open files").hint.as_deref(),
            Some("ulimit -n 512")
        );
        machine.descriptors = (Some(200), Some(200));
        let hint = only(&machine, "open files").hint.unwrap();
        assert!(hint.starts_with("sudo prlimit --pid $$ "), "{hint}");
        machine.descriptors = (None, None);
        assert_eq!(only(&machine, "open files").state, State::Ok);
    }
}
