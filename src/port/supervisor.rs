//! Who would start a holder again: the ancestors that exist only to keep it alive.
//!
//! Killing a server under a watcher frees the port for a moment. So the watcher is stopped first, but
//! only if it has no other work, is no shell with a terminal, and nothing protects it. Reads only.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::port::cgroup::{self, Tenant};
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::process::{self, Stat, Table, process_facts};
use crate::port::shell_loop::{self, Course};
use crate::port::tool::{self, base, tool};
use crate::port::{PortError, describe, descriptors, protect, sockets, steward, unit, verb, work};

pub(super) const SHELLS: &[&str] = &[
    "sh", "bash", "dash", "zsh", "ash", "ksh", "mksh", "fish", "busybox", "yash",
];

/// What an ancestor is to the process below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Starts it again.
    Keeper,
    /// Exists for it and ends with it.
    Wrapper,
    /// Neither, but may stand between it and one of those.
    Passage,
    /// As a passage, and has work of its own after it, or may have: who only runs that is not there for the holder.
    Script,
    /// Has a life of its own.
    Stranger,
}

/// Who is stopped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Top {
    pub(crate) pid: u32,
    /// It would start the holder again; otherwise it merely runs it.
    pub(crate) starts_again: bool,
}

/// The topmost ancestor of `holder` that exists only to keep it alive, or `holder` itself. `sharing` are
/// the processes that hold the same socket: a master of several is a keeper whatever its name.
///
/// A wrapper never starts it again. So where it runs a script that goes on after the server, neither is stopped: they
/// end, or do not, as the script says.
pub(crate) fn topmost(table: &Table, holder: u32, sharing: &[u32]) -> Top {
    let mut top = Top {
        pid: holder,
        starts_again: false,
    };
    let mut child = holder;
    let mut goes_on = false;
    for ancestor in table.ancestors(holder) {
        let Some(facts) = table.facts(ancestor.pid) else {
            break;
        };
        if !facts.signalable || protect::reason(&facts).is_some() {
            break;
        }
        let shares = sharing.contains(&ancestor.pid);
        if tool(&facts).is_some_and(steward::is_steward) {
            break;
        }
        if !shares
            && (is_session_on_terminal(ancestor)
                || work::has_other(table, &facts, child)
                || serves(ancestor.pid))
        {
            break;
        }
        let below = table.facts(child);
        let role = role(ancestor, &facts, below.as_ref());
        match role {
            Role::Keeper => goes_on = false,
            // What only runs another program answers nobody.
            Role::Wrapper if !shares && answers(ancestor.pid) => break,
            Role::Wrapper | Role::Passage => {}
            Role::Script => goes_on = true,
            Role::Stranger if shares => {}
            Role::Stranger => break,
        }
        if shares || role == Role::Keeper || (role == Role::Wrapper && !goes_on) {
            top = Top {
                pid: ancestor.pid,
                starts_again: top.starts_again || shares || role == Role::Keeper,
            };
        }
        child = ancestor.pid;
    }
    top
}

/// The error for a port that was taken again: by whom, whether that is what was stopped once more, who started
/// it (which may be one that is never stopped), and what would end that.
pub(crate) fn explain_return(claim: &Claim, before: &[Holder], new: &ProcessFacts) -> PortError {
    let (mut who, mut hint) = explain(before, new);
    if hint.is_none()
        && let Some(leader) = session_leader(new)
    {
        let leader = describe::process(&leader);
        write!(who, ", of the session of {leader}").unwrap_or_default();
        hint = Some(format!("look there for what starts it: {leader}"));
    }
    if before.iter().any(|holder| is_the_same_again(holder, new)) {
        who.push_str("; it is the command that was stopped, started again");
        if hint.is_none() {
            who.push_str(" by somebody who is none of its ancestors");
            hint = Some(format!(
                "stop what starts it (a timer, a watchdog, a script that waits for it to end), then: wharf free {}{}",
                claim.port,
                match claim.protocol {
                    Protocol::Tcp => "",
                    Protocol::Udp => "/udp",
                }
            ));
        }
    }
    PortError::TakenAgain {
        again: !before.is_empty(),
        claim: claim.clone(),
        who,
        hint,
    }
}

/// Who began the session of a process whose ancestors say nothing: forking twice does not leave a session.
fn session_leader(new: &ProcessFacts) -> Option<ProcessFacts> {
    let stat = Stat::read(new.pid)?;
    let is_apart = stat.session != 0 && stat.session != stat.pid && stat.session != 1;
    let leader = is_apart.then(|| process_facts(stat.session)).flatten()?;
    (!protect::is_own_ancestor(leader.pid, &[]) && leader.pid != std::process::id())
        .then_some(leader)
}

/// Whether a process runs what a holder ran: program, words and directory.
fn is_the_same_again(holder: &Holder, new: &ProcessFacts) -> bool {
    match &holder.who {
        Who::Process(old) => {
            !old.command.is_empty()
                && (&old.command, &old.exe, &old.cwd) == (&new.command, &new.exe, &new.cwd)
        }
        Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => false,
    }
}

/// Whether a process above both has started what was stopped once more, whatever language its loop is written in. At
/// a prompt somebody may have typed it once more.
fn has_started_again(before: &[Holder], new: &ProcessFacts, above: &ProcessFacts) -> bool {
    let is_above = |holder: &Holder| matches!(&holder.who, Who::Process(old) if old.ancestors.iter().any(|(pid, _)| *pid == above.pid));
    let mut again = before
        .iter()
        .filter(|holder| is_the_same_again(holder, new));
    !(is_shell(above) && shell_text(above).is_none()) && again.any(is_above)
}

/// A process that took a port again, in words, and what would end that.
fn explain(before: &[Holder], new: &ProcessFacts) -> (String, Option<String>) {
    let who = describe::process(new);
    let tenant = cgroup::tenant_of(new.pid);
    // What shares our own unit was not started by that unit for its own sake.
    if tenant != cgroup::tenant_of(std::process::id())
        && let Tenant::Service { name, of_user } = tenant
    {
        let command = if of_user {
            unit::command("stop", &name, Some(new))
        } else {
            format!("sudo systemctl stop {name}")
        };
        return (
            format!("{who}, kept running by systemd unit {name}"),
            Some(format!("stop the unit: {command}")),
        );
    }
    let table = Table::read();
    let mut child = new.pid;
    for ancestor in table.ancestors(new.pid) {
        if ancestor.pid == 1 {
            break;
        }
        let Some(facts) = table.facts(ancestor.pid) else {
            break;
        };
        if let Some(project) = kept_by_wharf(&facts) {
            return (
                format!("{who}, a service of project {project}, kept by wharf"),
                Some(stop_of_project(project, &facts)),
            );
        }
        // Between a service and its supervisor.
        if protect::is_keeper(&facts) {
            child = ancestor.pid;
            continue;
        }
        let below = table.facts(child);
        let role = role(ancestor, &facts, below.as_ref());
        let looping = is_shell(&facts)
            && shell_text(&facts).is_some_and(|text| shell_loop::restarts(&text, below.as_ref()));
        let is_steward = tool(&facts).is_some_and(steward::is_steward);
        let is_proven = has_started_again(before, new, &facts);
        let relation = if looping || is_steward || is_proven || role == Role::Keeper {
            "kept running by"
        } else if role == Role::Stranger {
            "started by"
        } else {
            child = ancestor.pid;
            continue;
        };
        return (
            format!("{who}, {relation} {}", describe::process(&facts)),
            Some(hint(&table, ancestor, child, &facts)),
        );
    }
    (who, None)
}

/// The project whose services a process keeps, if it is wharf's supervisor.
fn kept_by_wharf(facts: &ProcessFacts) -> Option<&str> {
    let mut words = facts.command.iter().skip(1).map(String::as_str);
    if base(facts.command.first()?) != "wharf" || words.next() != Some("supervise") {
        return None;
    }
    words.find(|word| *word == "--project")?;
    words.next()
}

/// That a process is a service of a wharf with other files than ours, as another user's are, in words with the command
/// that stops it there.
pub(crate) fn kept_elsewhere(table: &Table, pid: u32) -> Option<String> {
    let above = table.ancestors(pid).into_iter();
    let supervisor = above
        .filter_map(|stat| table.facts(stat.pid))
        .find(|facts| kept_by_wharf(facts).is_some())?;
    let project = kept_by_wharf(&supervisor)?;
    let mut command = stop_of_project(project, &supervisor);
    let service = process::variable(Path::new(&format!("/proc/{pid}")), b"WHARF_SERVICE=");
    if let Some(service) = service.filter(|name| !name.contains(char::is_control)) {
        write!(command, " {}", shell_words::quote(&service)).unwrap_or_default();
    }
    Some(format!(
        "a wharf with other files keeps it, as a service of project {project}, and may start it again: {command}"
    ))
}

/// The command that stops a project: as the user of its supervisor, and where that keeps its state.
fn stop_of_project(project: &str, supervisor: &ProcessFacts) -> String {
    let mut command = format!("wharf -p {} stop", shell_words::quote(project));
    for name in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME"] {
        let of = |place: String| {
            process::variable(Path::new(&place), format!("{name}=").as_bytes())
                .filter(|value| !value.contains(char::is_control))
        };
        if let Some(value) = of(format!("/proc/{}", supervisor.pid))
            && Some(&value) != of("/proc/self".to_owned()).as_ref()
        {
            command = format!("{name}={} {command}", shell_words::quote(&value));
        }
    }
    if let Some(user) = &supervisor.user
        && supervisor.uid != rustix::process::geteuid().as_raw()
    {
        command = format!("sudo -u {} {command}", shell_words::quote(user));
    }
    command
}

fn hint(table: &Table, keeper: &Stat, child: u32, facts: &ProcessFacts) -> String {
    if let Some(command) = tool(facts).and_then(|name| steward::own_command(name, facts, child)) {
        return format!("stop it where it is kept: {command}");
    }
    if let Some(reason) = protect::reason(facts) {
        return format!(
            "stop it where it was started: {} is not to be stopped, {reason}",
            facts.name
        );
    }
    if is_shell(facts) && shell_text(facts).is_none() {
        return format!(
            "stop it in the shell or terminal it was started from (pid {})",
            keeper.pid
        );
    }
    let others = work::others(table, facts, child);
    let others = if others.is_empty() {
        String::new()
    } else {
        format!(" (it keeps others, too: {})", others.join(", "))
    };
    if keeper.terminal != 0 {
        return format!(
            "end the loop in its terminal, or stop what keeps it{others}: kill {}",
            keeper.pid
        );
    }
    let sudo = if facts.signalable { "" } else { "sudo " };
    format!("stop what keeps it{others}: {sudo}kill {}", keeper.pid)
}

fn role(stat: &Stat, facts: &ProcessFacts, below: Option<&ProcessFacts>) -> Role {
    if is_shell(facts) {
        return shell_role(stat, facts, below);
    }
    if below.is_some_and(|below| repeats_itself(facts, below)) || tool::watches(facts) {
        return Role::Keeper;
    }
    match tool(facts) {
        // It is told to stop one program, and keeps the others, which may not run just now.
        Some(name) if steward::is_steward(name) => Role::Stranger,
        Some(name) if tool::only_runs(name, facts) => Role::Wrapper,
        Some(name) if steward::ENDS_ALL.contains(&name) => Role::Wrapper,
        Some(name) if tool::KEEPERS.contains(&name) => Role::Keeper,
        Some(name) if tool::WRAPPERS.contains(&name) && verb::runs_one(name, facts) => {
            Role::Wrapper
        }
        Some(name) if tool::WRAPPERS.contains(&name) => Role::Script,
        Some(name) if tool::RUNNERS.contains(&name) => Role::Script,
        _ => Role::Stranger,
    }
}

fn shell_role(stat: &Stat, facts: &ProcessFacts, below: Option<&ProcessFacts>) -> Role {
    let Some(text) = shell_text(facts) else {
        // It reads commands from a person or a pipe.
        return Role::Stranger;
    };
    match (shell_loop::course(&text, below), stat.terminal) {
        (Course::Repeats, 0) => Role::Keeper,
        (Course::Repeats, _) => Role::Stranger,
        (Course::Ends, _) => Role::Passage,
        (Course::GoesOn, _) => Role::Script,
    }
}

/// What a shell runs: the text after `-c`, or its script.
pub(super) fn shell_text(facts: &ProcessFacts) -> Option<String> {
    let mut words = facts.command.iter().skip(1);
    // busybox sh -c …
    if facts.command.first().map(|word| base(word)) == Some("busybox") {
        words.next();
    }
    let mut command_follows = false;
    for word in words {
        if command_follows && !word.starts_with('-') {
            return Some(word.clone());
        }
        match word.strip_prefix('-') {
            Some(flags) if !flags.starts_with('-') => command_follows |= flags.contains('c'),
            Some(_) => {}
            None => {
                let path = match &facts.cwd {
                    Some(cwd) => cwd.join(word),
                    None => Path::new(word).to_path_buf(),
                };
                // `/dev/fd/3` is the shell's own descriptor, and a file of ours only by accident.
                if path.starts_with("/dev") || path.starts_with("/proc") {
                    return None;
                }
                // A file is a script; anything else (a pipe, a terminal) is somebody's input.
                return fs::metadata(&path)
                    .is_ok_and(|found| found.is_file())
                    .then(|| fs::read(&path).ok())
                    .flatten()
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    None
}

/// What tells the lower one of two processes with the same command that the upper one starts it again on changes.
const RELOADED: &[&str] = &["RUN_MAIN=", "WERKZEUG_RUN_MAIN="];

/// A server that restarts itself on changes runs the same command twice, one below the other. So does one that forks
/// a part of itself, which is not started again.
fn repeats_itself(facts: &ProcessFacts, below: &ProcessFacts) -> bool {
    let is_told = |pid: u32| {
        let place = format!("/proc/{pid}");
        let mut names = RELOADED.iter();
        names.any(|name| process::variable(Path::new(&place), name.as_bytes()).is_some())
    };
    !facts.command.is_empty()
        && below.command == facts.command
        && below.exe == facts.exe
        && is_told(below.pid)
        && !is_told(facts.pid)
}

/// Whether a process listens on a TCP port by itself: then it has work of its own, whatever it is called.
fn serves(pid: u32) -> bool {
    let Ok(all) = sockets::all_listeners() else {
        return false;
    };
    let inodes: Vec<u64> = all.iter().map(|socket| socket.inode).collect();
    !descriptors::pids_holding(&inodes, Some(&[pid])).is_empty()
}

/// Whether a process has a UDP port, or listens on a Unix socket.
fn answers(pid: u32) -> bool {
    // Of the process's own namespace. The column of the inode (proc_pid_net(5)).
    let tables = [("unix", 6), ("udp", 9), ("udp6", 9)].into_iter();
    let inodes: Vec<u64> = tables
        .flat_map(|(table, column)| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            let inode = |line: &str| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // Of Unix sockets, those that listen (`__SO_ACCEPTCON`).
                let is_open = table != "unix" || fields.get(3) == Some(&"00010000");
                fields.get(column).filter(|_| is_open)?.parse().ok()
            };
            text.lines().filter_map(inode).collect::<Vec<u64>>()
        })
        .collect();
    !descriptors::pids_holding(&inodes, Some(&[pid])).is_empty()
}

pub(super) fn is_shell(facts: &ProcessFacts) -> bool {
    facts
        .command
        .first()
        .map(|word| base(word).trim_start_matches('-'))
        .is_some_and(|name| SHELLS.contains(&name))
}

/// Whether a shell was started with nothing to run: it reads what somebody types.
pub(super) fn is_interactive(facts: &ProcessFacts) -> bool {
    let is_flag = |word: &String| word.starts_with(['-', '+']);
    let runs = |word: &String| !word.starts_with("--") && word.contains('c');
    let mut words = facts.command.iter().skip(1);
    // busybox sh -i …
    if facts.command.first().map(|word| base(word)) == Some("busybox") {
        words.next();
    }
    words.all(|word| is_flag(word) && !runs(word))
}

fn is_session_on_terminal(stat: &Stat) -> bool {
    stat.session == stat.pid && stat.terminal != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(command: &[&str]) -> ProcessFacts {
        ProcessFacts::of_words(command)
    }

    fn stat(terminal: i32) -> Stat {
        Stat {
            pid: 4711,
            name: "x".into(),
            state: 'S',
            parent: 1,
            group: 4711,
            session: 4711,
            terminal,
            foreground: -1,
            threads: 1,
            start_time: 1,
        }
    }

    #[test]
    fn tools_are_known_by_name_script_and_title() {
        for (command, expected) in [
            (
                &[
                    "/usr/bin/node",
                    "/usr/lib/node_modules/.bin/nodemon",
                    "ws.js",
                ][..],
                Role::Keeper,
            ),
            (
                &[
                    "node",
                    "--inspect",
                    "/usr/lib/node_modules/nodemon/bin/nodemon.js",
                ],
                Role::Keeper,
            ),
            // What a project calls its own programs.
            (&["node", "script.js", "8003"], Role::Stranger),
            (&["python3", "task.py"], Role::Stranger),
            (&["node", "/home/dev/app/air.js"], Role::Stranger),
            (&["PM2 v5.3.0: God Daemon (/home/dev/.pm2)"], Role::Stranger),
            (&["tsx", "ws.ts"], Role::Wrapper),
            (&["tsx", "watch", "ws.ts"], Role::Keeper),
            (&["python3.12", "-m", "watchfiles", "app"], Role::Keeper),
            (&["node", "--watch", "ws.js"], Role::Keeper),
            (
                &["/home/dev/.cargo/bin/watchexec", "-r", "ws"],
                Role::Keeper,
            ),
            (&["npm run dev"], Role::Wrapper),
            (&["node", "/usr/bin/npm", "start"], Role::Wrapper),
            (&["cargo", "run"], Role::Wrapper),
            (&["make", "serve"], Role::Script),
            (&["python3", "orchestra.py"], Role::Stranger),
            (&["vim", "nodemon"], Role::Stranger),
            // The daemon of `forever start`.
            (
                &[
                    "/usr/bin/node",
                    "/usr/lib/node_modules/forever/bin/monitor",
                    "ws.js",
                ],
                Role::Keeper,
            ),
            (&["node", "/home/dev/monitor.js", "8003"], Role::Stranger),
            (
                &["python3", "/home/dev/venv/bin/hupper", "-m", "app"],
                Role::Keeper,
            ),
            (
                &["python3", "/home/dev/venv/bin/pserve", "a.ini", "--reload"],
                Role::Keeper,
            ),
            (
                &["python3", "/home/dev/venv/bin/pserve", "a.ini"],
                Role::Stranger,
            ),
            (&["watch", "-n", "60", "ws"], Role::Keeper),
            (&["dotnet", "watch", "run"], Role::Keeper),
            (&["dotnet", "watch.dll"], Role::Stranger),
            (
                &["node", "/app/node_modules/.bin/nest", "start", "--watch"],
                Role::Keeper,
            ),
            (
                &["node", "/app/node_modules/.bin/nest", "start"],
                Role::Stranger,
            ),
        ] {
            assert_eq!(
                role(&stat(0), &facts(command), None),
                expected,
                "{command:?}"
            );
        }
    }

    #[test]
    fn a_program_that_a_project_built_is_no_tool() {
        let built = |exe: &str, cwd: &str| {
            let facts = ProcessFacts {
                exe: Some(exe.into()),
                cwd: Some(cwd.into()),
                ..facts(&["npx", "serve"])
            };
            role(&stat(0), &facts, None)
        };
        assert_eq!(built("/src/app/bin/npx", "/src/app"), Role::Stranger);
        assert_eq!(built("/usr/local/bin/npx", "/src/app"), Role::Wrapper);
        assert_eq!(built("/usr/bin/npx", "/"), Role::Wrapper);
        let local = "/src/app/node_modules/.bin/npx";
        assert_eq!(built(local, "/src/app"), Role::Wrapper);
    }

    #[test]
    fn a_shell_is_a_keeper_only_if_it_loops_without_a_terminal() {
        let server = facts(&["ws", "8003"]);
        let looping = facts(&["sh", "-c", "while true; do ws; sleep 1; done"]);
        assert_eq!(role(&stat(0), &looping, Some(&server)), Role::Keeper);
        let on_terminal = role(&stat(34_816), &looping, Some(&server));
        assert_eq!(on_terminal, Role::Stranger);
        for (command, expected) in [
            (&["bash", "-ec", "until ws; do :; done"][..], Role::Keeper),
            (&["/bin/sh", "-c", "ws --for-ever for"], Role::Passage),
            (&["sh", "-c", "ws; exit"], Role::Passage),
            (&["sh", "-c", "ws; echo done"], Role::Script),
            (&["-bash"], Role::Stranger),
            (&["bash", "-i"], Role::Stranger),
            (&["bash", "/dev/fd/3"], Role::Stranger),
            (
                &["busybox", "sh", "-c", "while :; do ws; done"],
                Role::Keeper,
            ),
        ] {
            assert_eq!(
                role(&stat(0), &facts(command), Some(&server)),
                expected,
                "{command:?}"
            );
        }
    }
}
