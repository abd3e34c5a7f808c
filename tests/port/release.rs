//! What is stopped, how, and what is left alone.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use wharf::port::PortError;
use wharf::port::attribute::mark_orphans;
use wharf::port::claim::Claim;
use wharf::port::holder::{Holder, Who};
use wharf::port::release::{
    Stopped, await_free, how_released, is_free, stop_process, stop_process_with,
};
use wharf::state::Held;

use super::stage::{
    Actor, claim, facts, free_port, holders, in_namespaces, is_alive, is_root, pids, script, udp,
};

/// Long enough that no test passes by waiting it out.
const LONG: Duration = Duration::from_mins(1);
/// For those who are known to ignore the polite signal.
const SHORT: Duration = Duration::from_millis(200);

fn only(claim: &Claim) -> Holder {
    let mut found = holders(claim);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn stop(claim: &Claim, grace: Duration) -> Stopped {
    let holder = only(claim);
    let stopped = stop_process(&holder, claim, grace).unwrap();
    await_free(claim, &[holder], LONG).unwrap();
    stopped
}

#[test]
fn a_server_is_stopped_and_bystanders_live() {
    let port = free_port();
    let text = port.to_string();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut server = Actor::play(&["accept", "127.0.0.1", &text]);
    let from = free_port().to_string();
    let mut client = Actor::play(&["connect", "127.0.0.1", &from, "127.0.0.1", &text]);
    let mut neighbour = Actor::play(&["serve", "127.0.0.2", &text]);
    let mut reader = Actor::play(&["idle", "notes-about-port", &text]);
    server.hear();

    let holder = only(&wanted);
    assert_eq!(how_released(&holder), format!("kill {}", server.pid()));
    let stopped = stop(&wanted, LONG);

    assert_eq!(stopped.pids, [server.pid()]);
    assert!(!stopped.killed);
    assert!(
        stopped.who.contains(&text) && stopped.who.contains("perl"),
        "{}",
        stopped.who
    );
    assert!(is_free(&wanted).unwrap());
    assert!(!server.is_alive());
    assert!(client.is_alive() && neighbour.is_alive() && reader.is_alive());
}

#[test]
fn who_ignores_the_polite_signal_is_killed() {
    let port = free_port();
    let server = Actor::play(&["stubborn", "127.0.0.1", &port.to_string()]);
    let stopped = stop(&claim(port, &["127.0.0.1"]), SHORT);
    assert!(stopped.killed);
    assert_eq!(stopped.pids, [server.pid()]);
    assert!(!is_alive(server.pid()));
}

#[test]
fn a_holder_that_is_suspended_ends_politely() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    let child = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    rustix::process::kill_process(child, Signal::STOP).unwrap();
    let stopped = stop(&wanted, LONG);
    assert_eq!((stopped.pids, stopped.killed), (vec![server.pid()], false));
}

#[test]
fn a_udp_holder_is_stopped_too() {
    let port = free_port();
    let server = Actor::play(&["udp", "127.0.0.1", &port.to_string()]);
    let stopped = stop(&udp(claim(port, &["0.0.0.0"])), LONG);
    assert_eq!(stopped.pids, [server.pid()]);
}

#[test]
fn the_whole_tree_goes() {
    let port = free_port();
    let server = Actor::play(&["family", "127.0.0.1", &port.to_string()]);
    assert_eq!(
        server.words.len(),
        2,
        "a child in a session of its own, and an orphan"
    );
    let stopped = stop(&claim(port, &["127.0.0.1"]), SHORT);
    assert!(stopped.killed, "the orphan ignores SIGTERM");
    for pid in &server.words {
        assert!(stopped.pids.contains(pid));
        assert!(!is_alive(*pid));
    }
}

#[test]
fn a_master_is_stopped_before_it_starts_its_workers_again() {
    let port = free_port();
    let master = Actor::play(&["prefork", "127.0.0.1", &port.to_string(), "3"]);
    let wanted = claim(port, &["127.0.0.1"]);
    let found = holders(&wanted);
    assert_eq!(found.len(), 4);
    // Even when a worker is asked for first.
    let worker = found.last().unwrap();
    let stopped = stop_process(worker, &wanted, LONG).unwrap();
    assert_eq!(stopped.pids.first(), Some(&master.pid()));
    for holder in &found {
        let pid = facts(holder).unwrap().pid;
        assert!(!is_alive(pid));
        let again = stop_process(holder, &wanted, LONG).unwrap();
        assert!(again.pids.is_empty());
    }
    await_free(&wanted, &found, LONG).unwrap();
}

#[test]
fn a_loop_that_restarts_the_server_is_stopped_first() {
    let port = free_port();
    let text = format!(
        "while true; do perl {} serve 127.0.0.1 {port}; done",
        script()
    );
    let mut shell = Actor::start_apart("sh", &["-c", &text]);
    let wanted = claim(port, &["127.0.0.1"]);
    let server = facts(&only(&wanted)).unwrap().pid;
    let stopped = stop(&wanted, LONG);
    assert_eq!(stopped.pids.first(), Some(&shell.pid()));
    assert!(stopped.pids.contains(&server));
    assert!(!shell.is_alive());
    assert!(is_free(&wanted).unwrap());
}

#[test]
fn a_watcher_behind_a_shell_is_stopped_first() {
    let port = free_port();
    let mut actor = Actor::start_apart(
        "perl",
        &[&script(), "watch", "127.0.0.1", &port.to_string()],
    );
    let wanted = claim(port, &["127.0.0.1"]);
    let stopped = stop(&wanted, LONG);
    assert_eq!(stopped.pids.first(), Some(&actor.pid()));
    assert_eq!(stopped.pids.len(), 3);
    assert!(!actor.is_alive());
}

#[test]
fn a_server_that_reloads_itself_is_stopped_at_the_top() {
    let port = free_port();
    let mut reloader = Actor::play(&["reload", "127.0.0.1", &port.to_string()]);
    let stopped = stop(&claim(port, &["127.0.0.1"]), LONG);
    assert_eq!(stopped.pids.first(), Some(&reloader.pid()));
    assert_eq!(stopped.pids.len(), 2);
    assert!(!reloader.is_alive());
}

#[test]
fn who_forked_a_server_is_not_its_supervisor() {
    let port = free_port();
    let mut parent = Actor::play(&["forked", "127.0.0.1", &port.to_string()]);
    let stopped = stop(&claim(port, &["127.0.0.1"]), LONG);
    assert_eq!(stopped.pids.len(), 1);
    assert!(!stopped.pids.contains(&parent.pid()));
    assert!(parent.is_alive());
}

#[test]
fn a_loop_in_a_terminal_is_left_alone_and_reported() {
    let port = free_port();
    let text = format!(
        "exec 2>/dev/null; while true; do perl {} serve 127.0.0.1 {port}; done",
        script()
    );
    // script(1) runs the shell on a terminal of its own.
    let mut terminal = Actor::start_apart("script", &["-qfc", &text, "/dev/null"]);
    let wanted = claim(port, &["127.0.0.1"]);
    let before = only(&wanted);
    let shell = facts(&before).unwrap().ancestors.first().unwrap().0;
    let stopped = stop_process(&before, &wanted, LONG).unwrap();
    assert_eq!(stopped.pids, [facts(&before).unwrap().pid]);
    terminal.hear();
    let error = await_free(&wanted, &[before], LONG).unwrap_err();
    let PortError::TakenAgain { who, hint, .. } = error else {
        panic!("{error:?}");
    };
    assert!(who.contains(&format!("(pid {shell},")), "{who}");
    assert!(hint.is_some_and(|hint| hint.contains("terminal")));
    assert!(is_alive(shell) && terminal.is_alive());
}

#[test]
fn a_watcher_in_a_terminal_is_stopped_and_its_shell_is_not() {
    let port = free_port();
    let text = format!("perl {} watch 127.0.0.1 {port}; sleep 600", script());
    let mut terminal = Actor::start_apart("script", &["-qfc", &text, "/dev/null"]);
    let wanted = claim(port, &["127.0.0.1"]);
    // The server, `sh -c`, the watcher, the terminal's shell.
    let ancestors = facts(&only(&wanted)).unwrap().ancestors.clone();
    let (watcher, shell) = (ancestors.get(1).unwrap().0, ancestors.get(2).unwrap().0);
    let stopped = stop(&wanted, LONG);
    assert_eq!(stopped.pids.first(), Some(&watcher));
    assert!(!stopped.pids.contains(&shell));
    assert!(!is_alive(watcher) && is_alive(shell) && terminal.is_alive());
}

#[test]
fn a_supervisor_with_other_work_lives_and_is_reported_once() {
    let port = free_port();
    let mut orchestra = Actor::play(&["orchestra", "127.0.0.1", &port.to_string(), "2"]);
    let [other, server] = orchestra.words[..] else {
        panic!("it said {:?}", orchestra.words);
    };
    let wanted = claim(port, &["127.0.0.1"]);
    let before = holders(&wanted);
    assert_eq!(pids(&before), [server]);
    let stopped = stop_process(before.first().unwrap(), &wanted, LONG).unwrap();
    assert_eq!(stopped.pids, [server]);

    let [_, second] = orchestra.hear()[..] else {
        panic!("no second round");
    };
    let error = await_free(&wanted, &before, LONG).unwrap_err();
    let PortError::TakenAgain { who, hint, .. } = error else {
        panic!("{error:?}");
    };
    assert!(who.contains(&format!("pid {second},")), "{who}");
    assert!(who.contains(&format!("pid {},", orchestra.pid())), "{who}");
    assert!(hint.is_some());
    assert!(is_alive(second) && is_alive(other) && orchestra.is_alive());
}

#[test]
fn a_thief_is_reported() {
    let port = free_port();
    let text = port.to_string();
    let wanted = claim(port, &["127.0.0.1"]);
    let _server = Actor::play(&["serve", "127.0.0.1", &text]);
    let before = holders(&wanted);
    stop_process(before.first().unwrap(), &wanted, LONG).unwrap();
    let mut thief = Actor::play(&["serve", "0.0.0.0", &text]);
    let error = await_free(&wanted, &before, LONG).unwrap_err();
    let PortError::TakenAgain { who, .. } = error else {
        panic!("{error:?}");
    };
    assert!(who.contains(&format!("pid {}", thief.pid())), "{who}");
    assert!(thief.is_alive());
}

#[test]
fn a_port_that_stays_taken_is_said_to_be() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let _server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    let before = holders(&wanted);
    let error = await_free(&wanted, &before, SHORT).unwrap_err();
    assert!(matches!(error, PortError::NotFree { .. }), "{error:?}");
}

#[test]
fn a_pid_that_means_another_process_by_now_is_left_alone() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    let mut holder = only(&wanted);
    if let Who::Process(facts) = &mut holder.who {
        facts.start_time -= 1;
    }
    let stopped = stop_process(&holder, &wanted, LONG).unwrap();
    assert!(stopped.pids.is_empty());
    assert!(server.is_alive());
}

#[test]
fn a_reused_pid_is_never_signalled() {
    const INSIDE: &str = "WHARF_TEST_IN_NAMESPACE";
    const NAME: &str = "port::release::a_reused_pid_is_never_signalled";
    if std::env::var_os(INSIDE).is_some() {
        return reuse_a_pid_again_and_again();
    }
    if !is_root("a pid namespace") {
        return;
    }
    in_namespaces(
        &["--pid", "--fork", "--mount-proc", "--kill-child"],
        NAME,
        INSIDE,
    );
}

#[test]
fn a_thousand_reused_pids_and_no_wrong_process_signalled() {
    const INSIDE: &str = "WHARF_TEST_IN_NAMESPACE";
    const NAME: &str = "port::release::a_thousand_reused_pids_and_no_wrong_process_signalled";
    if std::env::var_os(INSIDE).is_some() {
        return give_a_pid_to_a_bystander_again_and_again();
    }
    if !is_root("a pid namespace") {
        return;
    }
    in_namespaces(
        &["--pid", "--fork", "--mount-proc", "--kill-child"],
        NAME,
        INSIDE,
    );
}

/// In a pid namespace of its own: between the look-up and the signal, the holder ends and its pid is given to
/// a process that has nothing to do with the port, within the same tick of the clock as often as not.
fn give_a_pid_to_a_bystander_again_and_again() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut actor = Actor::play(&["swap", "127.0.0.1", &port.to_string()]);
    let pid = actor.words.first().copied().unwrap();
    for round in 0..1000 {
        let found = holders(&wanted);
        assert_eq!(pids(&found), [pid], "round {round}");
        actor.say("bystander");
        assert_eq!(actor.hear(), [pid], "round {round}");
        let stopped = stop_process(found.first().unwrap(), &wanted, LONG).unwrap();
        assert!(stopped.pids.is_empty(), "round {round}");
        assert!(is_alive(pid) && actor.is_alive(), "round {round}");
        actor.say("server");
        assert_eq!(actor.hear(), [pid], "round {round}");
    }
}

#[test]
fn a_holder_that_stays_a_zombie_counts_as_gone() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let parent = Actor::play(&["careless", "127.0.0.1", &port.to_string()]);
    let child = parent.words.first().copied().unwrap();
    let before = only(&wanted);
    assert_eq!(facts(&before).unwrap().pid, child);
    let stopped = stop_process(&before, &wanted, LONG).unwrap();
    assert_eq!((stopped.pids, stopped.killed), (vec![child], false));
    await_free(&wanted, &[before], LONG).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
    assert!(is_alive(parent.pid()));
}

#[test]
fn a_port_is_not_free_because_one_of_its_holders_is_gone() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    // It left its socket to a process in a session of its own, which is nobody's child any more.
    let server = Actor::play(&["bequeath", "127.0.0.1", &port.to_string()]);
    let heir = server.words.first().copied().unwrap();
    let found = holders(&wanted);
    let mut all = pids(&found);
    all.sort_unstable();
    let mut expected = [server.pid(), heir];
    expected.sort_unstable();
    assert_eq!(all, expected);
    let of = |pid: u32| {
        let mut found = found.iter();
        found.find(|holder| pids(std::slice::from_ref(holder)) == [pid])
    };
    let stopped = stop_process(of(server.pid()).unwrap(), &wanted, LONG).unwrap();
    assert_eq!(stopped.pids, [server.pid()]);
    let error = await_free(&wanted, &found, SHORT).unwrap_err();
    assert!(matches!(error, PortError::NotFree { .. }), "{error:?}");
    let stopped = stop_process(of(heir).unwrap(), &wanted, LONG).unwrap();
    assert_eq!(stopped.pids, [heir]);
    await_free(&wanted, &found, LONG).unwrap();
}

#[test]
fn another_users_process_is_not_signalled_and_the_command_is_named() {
    if !is_root("looking as another user") {
        return;
    }
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    let holder = only(&wanted);
    let asked = wanted.clone();
    let error = std::thread::spawn(move || {
        let nobody = rustix::thread::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        stop_process(&holder, &asked, LONG).unwrap_err()
    })
    .join()
    .unwrap();
    let PortError::NotPermitted { command, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(command, format!("sudo kill {}", server.pid()));
    assert!(server.is_alive());
}

#[test]
fn every_known_keeper_is_stopped_before_its_server() {
    for name in ["nodemon", "watchexec", "cargo-watch", "npm run dev"] {
        let port = free_port();
        let words = [&script(), "watch", "127.0.0.1", &port.to_string(), name];
        let mut keeper = Actor::start_apart("perl", &words);
        let stopped = stop(&claim(port, &["127.0.0.1"]), LONG);
        assert_eq!(stopped.pids.first(), Some(&keeper.pid()), "{name}");
        assert!(!keeper.is_alive(), "{name}");
    }
}

#[test]
fn who_keeps_what_a_configuration_lists_is_not_stopped_for_one_program() {
    for name in ["PM2 v5.3.0: God Daemon", "supervisord"] {
        let port = free_port();
        let words = [&script(), "watch", "127.0.0.1", &port.to_string(), name];
        let mut steward = Actor::start_apart("perl", &words);
        let wanted = claim(port, &["127.0.0.1"]);
        // It starts the next one at once.
        let stopped = stop_process(&only(&wanted), &wanted, LONG).unwrap();
        assert!(!stopped.pids.contains(&steward.pid()), "{name}");
        assert!(steward.is_alive(), "{name}");
    }
}

#[test]
fn who_keeps_programs_is_not_stopped_for_a_port_of_its_own() {
    for (name, command) in [
        (
            "PM2 v7.0.4: God Daemon (/home/dev/.pm2)",
            "pm2 stop NAME (see pm2 list)",
        ),
        ("supervisord", "supervisorctl shutdown"),
        ("circusd", "circusctl quit"),
    ] {
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let mut steward = Actor::play_as(name, &["serve", "127.0.0.1", &port.to_string()]);
        let holder = only(&wanted);
        let reason = holder.obstacle(true).unwrap();
        assert!(reason.ends_with(command), "{name}: {reason}");
        let refused = stop_process(&holder, &wanted, LONG).unwrap_err();
        assert!(matches!(refused, PortError::Protected { .. }), "{refused}");
        assert!(steward.is_alive(), "{name}");
    }
}

#[test]
fn an_editor_that_started_the_server_is_left_alone() {
    for name in ["nvim", "code", "emacs", "sshd: dev@pts/0"] {
        let port = free_port();
        let words = [&script(), "once", "127.0.0.1", &port.to_string(), name];
        let mut editor = Actor::start_apart("perl", &words);
        let stopped = stop(&claim(port, &["127.0.0.1"]), LONG);
        assert!(!stopped.pids.contains(&editor.pid()), "{name}");
        assert!(editor.is_alive(), "{name}");
    }
}

#[test]
fn another_signal_may_come_first() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let server = Actor::play(&["stubborn", "127.0.0.1", &port.to_string()]);
    let holder = only(&wanted);
    // It ignores SIGTERM, so what ends it within its grace was SIGINT.
    let stopped = stop_process_with(&holder, &wanted, Signal::INT, LONG).unwrap();
    assert_eq!((stopped.pids, stopped.killed), (vec![server.pid()], false));
}

/// The source says it: all signals go through a handle of one identified process.
#[test]
fn nothing_is_signalled_by_number_or_group() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/port");
    let mut open = vec![source];
    let mut handles = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        // Signal 0 only asks.
        let text = text.replace("test_kill_process(", "");
        handles += text.matches("pidfd_send_signal(").count();
        for call in [
            "kill(",
            "killpg(",
            "kill_process(",
            "kill_process_group(",
            "kill_current_process_group(",
            "tgkill",
        ] {
            assert!(!text.contains(call), "{call} in {}", path.display());
        }
    }
    assert_eq!(handles, 1, "one place sends signals");
}

#[test]
fn an_orphaned_proxy_is_stopped_only_when_no_engine_has_its_container() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut proxy = Actor::play_as("docker-proxy", &["serve", "127.0.0.1", &port.to_string()]);
    let mut held = vec![Held {
        claim: wanted.clone(),
        holders: holders(&wanted),
    }];
    let before = held.first().unwrap().holders.first().unwrap().clone();
    assert!(before.protected.is_some() && !before.orphan);
    // A daemon that was not asked owns it, as far as anybody knows.
    let parent = std::os::unix::process::parent_id();
    mark_orphans(&mut held, &[parent].into());
    let orphan = held.first().unwrap().holders.first().unwrap().clone();
    assert!(orphan.orphan && orphan.protected.is_none());
    // The mark alone allows it.
    let refused = stop_process(&before, &wanted, LONG).unwrap_err();
    assert!(
        matches!(refused, PortError::Protected { .. }),
        "{refused:?}"
    );
    assert!(proxy.is_alive());
    let stopped = stop_process(&orphan, &wanted, LONG).unwrap();
    assert_eq!(stopped.pids, [proxy.pid()]);
    await_free(&wanted, &[orphan], LONG).unwrap();
}

#[test]
fn a_proxy_of_a_daemon_that_was_not_asked_is_no_orphan() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    // The daemon, and its proxy below it.
    let daemon = Actor::start_apart(
        "perl",
        &[
            &script(),
            "once",
            "127.0.0.1",
            &port.to_string(),
            "dockerd",
            "docker-proxy",
        ],
    );
    let mut held = vec![Held {
        claim: wanted.clone(),
        holders: holders(&wanted),
    }];
    mark_orphans(&mut held, &[].into());
    let holder = held.first().unwrap().holders.first().unwrap().clone();
    assert!(!holder.orphan && holder.protected.is_some(), "{holder:?}");
    // That daemon answered and knows no container: the proxy is a stray one.
    mark_orphans(&mut held, &[daemon.pid()].into());
    assert!(held.first().unwrap().holders.first().unwrap().orphan);
}

/// In a pid namespace of its own, where the next pid can be chosen.
fn reuse_a_pid_again_and_again() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut actor = Actor::play(&["reuse", "127.0.0.1", &port.to_string()]);
    let pid = actor.words.first().copied().unwrap();
    for round in 0..50 {
        let found = holders(&wanted);
        assert_eq!(pids(&found), [actor.pid(), pid], "round {round}");
        actor.say("next");
        assert_eq!(actor.hear(), [pid], "round {round}");
        // The number and the socket are the same; the process is not.
        let stopped = stop_process(found.last().unwrap(), &wanted, LONG).unwrap();
        assert!(stopped.pids.is_empty(), "round {round}");
        assert!(is_alive(pid) && actor.is_alive(), "round {round}");
    }
}

#[test]
fn who_let_go_of_the_port_is_left_alone() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut server = Actor::play(&["lets-go", "127.0.0.1", &port.to_string()]);
    let holder = only(&wanted);
    server.say("let go");
    server.hear();
    let stopped = stop_process(&holder, &wanted, LONG).unwrap();
    assert!(stopped.pids.is_empty());
    assert!(server.is_alive());
}

#[test]
fn what_must_never_be_stopped_is_not() {
    for name in [
        "sshd",
        "dockerd",
        "docker-proxy",
        "containerd-shim-runc-v2",
        "rootlesskit",
        "conmon",
        "pasta",
        "slirp4netns",
        "com.docker.backend",
        "limactl",
        "tmux",
        "code-server",
        "qemu-system-x86_64",
        "systemd",
    ] {
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let mut actor = Actor::play_as(name, &["serve", "127.0.0.1", &port.to_string()]);
        let mut holder = only(&wanted);
        assert!(holder.protected.is_some(), "{name}");
        // Not even if the caller forgot.
        holder.protected = None;
        let error = stop_process(&holder, &wanted, LONG).unwrap_err();
        assert!(
            matches!(error, PortError::Protected { .. }),
            "{name}: {error:?}"
        );
        assert!(actor.is_alive(), "{name}");
    }
}

#[test]
fn a_program_of_ones_own_is_not_kept_for_its_name() {
    let project = tempfile::Builder::new()
        .prefix("project-")
        .tempdir()
        .unwrap();
    let project = std::fs::canonicalize(project.path()).unwrap();
    for (program, cwd, word, is_own) in [
        ("login", "", "", true),
        ("bin/init", "", "", true),
        ("target/debug/view", "", "", true),
        ("studio", "", "", true),
        ("podman", "", "", true),
        // It may be anything: not below its directory, installed, of an editor, told by its words.
        ("login", "/", "", false),
        (".local/bin/micro", "", "", false),
        ("ide/bin/studio", "", "", false),
        ("teleport", "", "start", false),
        ("podman", "", "system", false),
        // No word that anybody would use.
        ("sshd", "", "", false),
        ("dockerd", "", "", false),
        ("conmon", "", "", false),
        ("tmux", "", "", false),
    ] {
        let path = project.join(program);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if program.starts_with("ide/") {
            std::fs::write(project.join("ide/product-info.json"), "{}").unwrap();
        }
        // A copy that this process has had open for writing could not be run yet while another test forks.
        let copied = Command::new("cp").arg("/usr/bin/perl").arg(&path).status();
        assert!(copied.unwrap().success());
        let port = free_port();
        let text = port.to_string();
        let wanted = claim(port, &["127.0.0.1"]);
        let mut command = Command::new(&path);
        command.current_dir(project.join(cwd)).arg(script()).args([
            "serve",
            "127.0.0.1",
            &text,
            word,
        ]);
        let mut server = Actor::start(command);
        let mut holder = only(&wanted);
        assert_eq!(holder.protected.is_none(), is_own, "{program} {holder:?}");
        holder.protected = None;
        let stopped = stop_process(&holder, &wanted, LONG);
        assert_eq!(stopped.is_ok(), is_own, "{program}: {stopped:?}");
        assert_eq!(server.is_alive(), !is_own, "{program}");
    }
}

#[test]
fn this_command_and_what_it_runs_in_are_never_stopped() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = claim(listener.local_addr().unwrap().port(), &["127.0.0.1"]);
    let mut holder = only(&wanted);
    assert!(holder.protected.is_some());
    holder.protected = None;
    let error = stop_process(&holder, &wanted, SHORT).unwrap_err();
    assert!(matches!(error, PortError::Protected { .. }), "{error:?}");
    let parent = wharf::port::owner::process_facts(std::os::unix::process::parent_id()).unwrap();
    assert!(wharf::port::protect::reason(&parent).is_some());
    let first = wharf::port::owner::process_facts(1).unwrap();
    assert!(wharf::port::protect::reason(&first).is_some());
}

#[test]
fn a_script_that_ends_with_the_server_is_not_torn_down_above_it() {
    let port = free_port();
    // An interactive-like shell reads its commands from a pipe: it has a life of its own.
    let mut command = Command::new("setsid");
    command.arg("sh");
    let wanted = claim(port, &["127.0.0.1"]);
    let mut shell = Actor::start_with(
        command,
        &format!(
            "perl {} serve 127.0.0.1 {port}; echo ready; sleep 600",
            script()
        ),
    );
    let stopped = stop(&wanted, LONG);
    assert!(!stopped.pids.contains(&shell.pid()));
    shell.hear();
    assert!(shell.is_alive());
}

#[test]
fn nobody_is_killed_for_a_port_that_he_has_let_go_of() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let mut server = Actor::play(&["drains", "127.0.0.1", &port.to_string()]);
    let holder = only(&wanted);
    let stopped = stop_process(&holder, &wanted, SHORT).unwrap();
    assert!(stopped.lives && !stopped.killed, "{stopped:?}");
    server.hear();
    assert!(server.is_alive() && is_free(&wanted).unwrap());
}
