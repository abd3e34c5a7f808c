//! What a release takes along is said before it happens.

use wharf::port::claim::Protocol;
use wharf::port::holder::OtherPort;
use wharf::port::owner::{Depth, look_up_to};
use wharf::port::release::{consequences, consequences_of_each};

use super::stage::{Actor, claim, free_port, holders, pids, script};

#[test]
fn the_other_ports_of_a_holder_and_of_what_ends_with_it_are_named() {
    let [port, second, third, foreign] = [(); 4].map(|()| free_port());
    let wanted = claim(port, &["127.0.0.1"]);
    let numbers = [port, second, third].map(|port| port.to_string());
    let [port, second_text, third_text] = &numbers;
    let server = Actor::play(&["ports", "127.0.0.1", port, second_text, third_text]);
    let _other = Actor::play(&["serve", "127.0.0.1", &foreign.to_string()]);
    let worker = server.words[0];
    let found = consequences_of_each(&holders(&wanted), &wanted).remove(0);
    assert_eq!(
        found.lines,
        [
            format!("what it has started ends with it: perl (pid {worker})"),
            format!("also listens on {second}"),
            format!("what ends with it listens on {third} (perl, pid {worker})"),
        ]
    );
    let other = |port, pid| OtherPort {
        port,
        protocol: Protocol::Tcp,
        pid: Some(pid),
    };
    let mut expected = [other(second, server.pid()), other(third, worker)];
    expected.sort();
    assert_eq!(found.also_listens, expected);
}

#[test]
fn who_keeps_a_program_is_named_with_the_command_that_ends_that() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let words = [
        &script(),
        "watch",
        "127.0.0.1",
        &port.to_string(),
        "supervisord",
    ];
    let steward = Actor::start_apart("perl", &words);
    let said = consequences(&holders(&wanted), &wanted);
    let expected = format!(
        "supervisord (pid {}) keeps it and starts it again: supervisorctl stop PROGRAM (see supervisorctl status)",
        steward.pid()
    );
    assert!(said.contains(&expected), "{said:?}");
}

#[test]
fn what_a_supervisor_tears_down_is_named_with_its_ports() {
    let [port, second] = [(); 2].map(|()| free_port());
    let wanted = claim(port, &["127.0.0.1"]);
    let script = script();
    // Known by its name and place.
    let directory = tempfile::tempdir().unwrap();
    let launcher = directory.path().join("bin/honcho");
    std::fs::create_dir(launcher.parent().unwrap()).unwrap();
    let program = "import subprocess,sys
a=[subprocess.Popen(['perl',sys.argv[1],'serve','127.0.0.1',p]) for p in sys.argv[2:]]
for it in a: it.wait()";
    std::fs::write(&launcher, program).unwrap();
    let launcher = launcher.display().to_string();
    let words = [&*launcher, &script, &port.to_string(), &second.to_string()];
    let mut honcho = Actor::start_apart("python3", &words);
    honcho.hear();
    let said = consequences(&holders(&wanted), &wanted);
    let other = pids(&holders(&claim(second, &["127.0.0.1"])))[0];
    assert_eq!(
        said,
        [
            format!(
                "honcho (pid {}) ends its other programs when one of them has ended: perl (pid {other})",
                honcho.pid()
            ),
            format!("what ends with it listens on {second} (perl, pid {other})"),
        ]
    );
}

#[test]
fn those_who_share_a_socket_are_searched_once() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let server = Actor::play(&["prefork", "127.0.0.1", &port.to_string(), "3"]);
    let look = look_up_to(Depth::Everybody, std::slice::from_ref(&wanted)).unwrap();
    let holders = &look.held[0].holders;
    let mut all = [vec![server.pid()], server.words.clone()].concat();
    all.sort_unstable();
    assert_eq!(holders.len(), 4);
    assert!(holders.iter().all(|holder| holder.sharing == all));
}
