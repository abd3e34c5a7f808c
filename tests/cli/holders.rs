//! Holders in words and as data: services of other projects, several at once, and ports that nobody can have.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Sandbox, eventually, free_port, is_free, python, ws_server};

/// A compose file with plain TCP servers on these ports.
fn servers(sandbox: &Sandbox, file: &str, ports: &[u16]) {
    let (python, server) = (python(), ws_server());
    let services: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(at, port)| {
            format!(
                "  s{at}:\n    ports: ['127.0.0.1:{port}:{port}']\n    x-wharf: {{process: {{command: [{python}, '{server}', --port, '{port}']}}}}\n"
            )
        })
        .collect();
    sandbox.write(file, format!("services:\n{}", services.concat()));
}

fn two_projects(sandbox: &Sandbox) -> (String, String) {
    let name = |letter| format!("{}{letter}", sandbox.project());
    (name('a'), name('b'))
}

#[test]
fn a_service_of_another_project_is_named_as_one() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let (one, other) = two_projects(&sandbox);
    servers(&sandbox, "compose.yaml", &[port]);
    sandbox.wharf(&["-p", &one, "up", "-d"]).expect(0);
    let name = format!("service s0 (replica 1) of wharf project {one}");
    let who = sandbox.wharf(&["who", &text]).expect(1);
    assert!(who.stdout.contains(&name), "{who}");
    let row = sandbox
        .wharf(&["who", &text, "--format", "json"])
        .expect(1)
        .json_lines()
        .remove(0);
    assert_eq!(
        row["holders"][0]["service"],
        json!({"project": one, "service": "s0", "number": 1})
    );
    let ports = sandbox.wharf(&["-p", &other, "ports"]).expect(1);
    assert!(ports.stdout.contains(&name), "{ports}");
    let refused = sandbox.wharf(&["-p", &other, "up", "-d"]).expect(5);
    assert!(refused.stderr.contains(&name), "{refused}");
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    let history = sandbox.wharf(&["ports", "--history"]).expect(0);
    assert!(history.stdout.contains(&name), "{history}");
    sandbox.wharf(&["-p", &one, "down"]).expect(0);
}

#[test]
fn all_conflicts_are_reported_at_once() {
    let sandbox = Sandbox::new();
    let ports = [free_port(), free_port(), free_port()];
    servers(&sandbox, "compose.yaml", &ports);
    let holders = [sandbox.server(ports[0], &[]), sandbox.server(ports[2], &[])];
    let refused = sandbox.wharf(&["up", "-d"]).expect(5);
    for holder in &holders {
        let pid = format!("pid {},", holder.pid());
        assert!(refused.stderr.contains(&pid), "no {pid} in {refused}");
        assert!(!holder.process().ended());
    }
    assert!(refused.stderr.contains("2 ports"), "{refused}");
    for (port, service, held) in [
        (ports[0], "s0", true),
        (ports[1], "s1", false),
        (ports[2], "s2", true),
    ] {
        let line = format!("port 127.0.0.1:{port}/tcp, which service `{service}` needs, is taken");
        assert_eq!(refused.stderr.contains(&line), held, "{refused}");
    }
    assert!(refused.stderr.contains("--on-conflict move"), "{refused}");
}

#[test]
fn the_status_of_servers_has_holders_in_the_shape_of_who() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let server = sandbox.server(port, &[]);
    let status = sandbox.wharf(&["server", "status", "--port", &text, "--format", "json"]);
    let who = sandbox.wharf(&["who", &text, "--format", "json"]);
    let status = status.json_lines().remove(0);
    let (status, who) = (&status["port"]["holders"][0], who.json_lines().remove(0));
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(status), keys(&who["holders"][0]));
    assert_eq!(status["pid"], json!(server.pid()));
    server.signal(Signal::KILL);
}

#[test]
fn a_port_on_an_address_that_no_interface_has_is_not_offered() {
    let sandbox = Sandbox::new();
    let found = sandbox
        .wharf(&["next-port", "8003", "--host", "203.0.113.7"])
        .expect(1);
    assert_eq!(found.stdout, "");
    assert!(found.stderr.contains("no interface"), "{found}");
}

#[test]
fn two_who_free_one_port_stop_its_holder_once() {
    let sandbox = Sandbox::new();
    for _ in 0..3 {
        let port = free_port();
        let text = port.to_string();
        let _server = sandbox.server(port, &[]);
        let words = ["free", &text, "--force"];
        let both = [sandbox.spawn(&words), sandbox.spawn(&words)];
        for one in both {
            one.wait().expect(0);
        }
        let stopped = sandbox
            .wharf(&["ports", "--history", "--format", "json"])
            .expect(0)
            .json_lines()
            .iter()
            .filter(|entry| entry["port"] == json!(port) && entry["outcome"] == "stopped")
            .count();
        assert_eq!(stopped, 1);
    }
}

#[test]
fn a_run_id_that_the_ledger_does_not_know_is_nobodys() {
    let sandbox = Sandbox::new();
    let text = free_port().to_string();
    let words = [
        "WHARF_RUN_ID=unknown",
        python(),
        ws_server(),
        "--port",
        &text,
    ];
    let server = sandbox.program("env", &words);
    server.wait_for_line("listening on ");
    let who = sandbox.wharf(&["who", &text]).expect(1);
    assert!(!who.stdout.contains("a service of wharf's"), "{who}");
    assert!(who.stdout.contains("a signal, then SIGKILL"), "{who}");
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    server.wait();
}

#[test]
fn a_service_under_another_state_directory_is_met_when_it_comes_back() {
    let mut sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let (python, server) = (python(), ws_server());
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ws:\n    restart: always\n    ports: ['127.0.0.1:{port}:{port}']\n    x-wharf: {{process: {{command: [{python}, '{server}', --port, '{port}']}}}}\n"
        ),
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let root = sandbox.path().parent().unwrap();
    let (own, other) = (root.join("state"), root.join("other"));
    sandbox.set("XDG_STATE_HOME", other);
    let who = sandbox.wharf(&["who", &text]).expect(1);
    assert!(!who.stdout.contains("a service of wharf's"), "{who}");
    let freed = sandbox.wharf(&["free", &text, "--force"]).expect(1);
    let project = sandbox.project();
    let kept = format!("a service of project {project}, kept by wharf");
    let stop = format!("XDG_STATE_HOME={} wharf -p {project} stop", own.display());
    for said in ["is taken again", &kept, &stop] {
        assert!(freed.stderr.contains(said), "{freed}");
    }
    sandbox.set("XDG_STATE_HOME", own);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn the_history_cannot_play_with_the_terminal() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let place = sandbox.path().join("dir\u{1b}[31m\nport 1 is free");
    std::fs::create_dir(&place).unwrap();
    let server = ws_server();
    let line = format!("cd \"$0\" && exec {} {server} --port {port}", python());
    let holder = sandbox.program("sh", &["-c", &line, place.to_str().unwrap()]);
    holder.wait_for_line("listening on ");
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    holder.wait();
    let history = sandbox.wharf(&["ports", "--history"]).expect(0);
    assert!(history.stdout.contains("[31m port 1 is free"), "{history}");
    assert!(!history.stdout.contains('\u{1b}'), "{history}");
}

#[test]
fn a_forwarder_closes_with_the_service_that_it_has_the_port_for() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let (one, other) = two_projects(&sandbox);
    let (python, server) = (python(), ws_server());
    let served =
        format!("x-wharf: {{process: {{command: [{python}, '{server}', --port, '{port}']}}}}");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  db:\n    ports: ['127.0.0.1:{port}:{port}']\n    {served}\n  app:\n    depends_on: [db]\n    environment: {{DB: 'db:{port}'}}\n    x-wharf: {{process: {{command: [sleep, '600'], names: environment}}}}\n"
        ),
    );
    sandbox.write(
        "other.yaml",
        format!("services:\n  web:\n    ports: ['{port}:{port}']\n    {served}\n"),
    );
    let up = ["-p", &one, "up", "-d"];
    sandbox.wharf(&up).expect(0);
    let name = format!("the forwarder for service db of wharf project {one}");
    let who = || sandbox.wharf(&["who", &text]).expect(1);
    // It opens when the service is seen to listen.
    eventually("the forwarder has the port", || {
        who().stdout.contains(&name).then_some(())
    });

    let plan = sandbox
        .wharf(&["--dry-run", "free", &text, "--force"])
        .expect(0);
    assert!(
        plan.stdout.contains("to be stopped, which closes it"),
        "{plan}"
    );
    let refused = sandbox
        .wharf(&["-p", &other, "-f", "other.yaml", "up", "-d"])
        .expect(5);
    assert!(refused.stderr.contains(&name), "{refused}");
    sandbox.wharf(&["free", &text, "--force"]).expect(0);
    sandbox.wharf(&["who", &text]).expect(0);
    let left = sandbox.wharf(&["-p", &one, "ps", "--services"]).expect(0);
    assert_eq!(left.stdout, "app\n", "the others live");

    sandbox.wharf(&up).expect(0);
    eventually("the forwarder has the port", || {
        who().stdout.contains(&name).then_some(())
    });
    sandbox
        .wharf(&["-p", &other, "-f", "other.yaml", "up", "-d", "--force"])
        .expect(0);
    for project in [&one, &other] {
        sandbox.wharf(&["-p", project, "down"]).expect(0);
    }
}

#[test]
fn a_service_that_an_editor_is_part_of_is_not_ended_for_a_port() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let (python, server) = (python(), ws_server());
    // The editor, and a server that was begun in it.
    let command = format!("{python} {server} --port {port} & exec -a code-server sleep 600");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  ide:\n    x-wharf: {{process: {{command: [bash, -c, '{command}']}}}}\n"
        ),
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    eventually("the server listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let refused = sandbox.wharf(&["free", &text, "--force"]).expect(1);
    let stop = format!("wharf -p {} stop ide", sandbox.project());
    assert!(
        refused.stderr.contains("belongs to an editor") && refused.stderr.contains(&stop),
        "{refused}"
    );
    sandbox.wharf(&["who", &text]).expect(1);
    sandbox
        .wharf(&["-p", sandbox.project(), "stop", "ide"])
        .expect(0);
    sandbox.wharf(&["who", &text]).expect(0);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_signal_for_a_service_is_kept_to_or_said_to_be_none() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    servers(&sandbox, "compose.yaml", &[port]);
    for (signal, said) in [
        ("INT", "by its own stop signal: --signal is for others"),
        ("KILL", "without a grace period"),
    ] {
        sandbox.wharf(&["up", "-d"]).expect(0);
        let freed = sandbox
            .wharf(&["free", &text, "--force", "--signal", signal])
            .expect(0);
        assert!(freed.stderr.contains(said), "{freed}");
    }
    sandbox.wharf(&["down"]).expect(0);
}

/// As nginx, php-fpm and Puma do: a title is written over the environment, and with it over the run's id.
#[test]
fn a_service_that_writes_titles_over_its_environment_is_its_projects() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let text = port.to_string();
    let script = "use IO::Socket::INET; $0 = 'titled: master'; \
         $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1) or die; \
         if (!fork) { $0 = 'titled: worker' } while (1) { sleep 600 }";
    let service = |more: &str| {
        let service = json!({"services": {"web": {
            "ports": [format!("127.0.0.1:{port}:{port}")],
            "labels": {"is": more},
            "x-wharf": {"process": {"command": ["perl", "-e", script.replace('$', "$$"), text]}},
        }}});
        sandbox.write("compose.yaml", service.to_string());
    };
    service("one");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let project = sandbox.project();
    let name = format!("held by service web (replica 1) of wharf project {project}");
    eventually("both have the port", || {
        let who = sandbox.wharf(&["who", &text]).expect(1).stdout;
        let holders = who.matches("port ").count();
        (holders == 2).then(|| assert_eq!(who.matches(&name).count(), 2, "{who}"))
    });
    let ports = sandbox.wharf(&["ports"]).expect(0);
    assert!(ports.stdout.contains("ours: "), "{ports}");
    // Neither is in the way of the instance that takes their place.
    service("another");
    sandbox.wharf(&["up", "-d"]).expect(0);
    servers(&sandbox, "other.yaml", &[port]);
    let (_, other) = two_projects(&sandbox);
    let up = ["-p", &other, "-f", "other.yaml", "up", "-d"];
    let refused = sandbox.wharf(&up).expect(5);
    assert!(refused.stderr.contains("titled: master"), "{refused}");
    // It is stopped as a whole, and told of once.
    let forced = sandbox.wharf(&[&up[..], &["--force"]].concat()).expect(0);
    let of = format!("of project {project}, a service of wharf's");
    assert!(forced.stderr.contains(&of), "{forced}");
    assert!(!forced.stderr.contains("titled: worker"), "{forced}");
    assert!(!forced.stderr.contains("), service web"), "{forced}");
    let down = ["-p", &other, "-f", "other.yaml", "down"];
    sandbox.wharf(&down).expect(0);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn start_names_who_has_the_ports_of_stopped_services() {
    let sandbox = Sandbox::new();
    let ports = [free_port(), free_port()];
    servers(&sandbox, "compose.yaml", &ports);
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.wharf(&["stop"]).expect(0);
    let mut others = ports.map(|port| Some(sandbox.server(port, &[])));
    for (command, count) in [("start", 2), ("restart", 2), ("start", 1)] {
        for gone in others.iter_mut().take(2 - count).filter_map(Option::take) {
            gone.signal(Signal::KILL);
            gone.wait();
        }
        let refused = sandbox.wharf(&[command]).expect(1);
        for (at, other) in others.iter().enumerate() {
            let Some(other) = other else { continue };
            let port = ports[at];
            let taken = format!("port 127.0.0.1:{port}/tcp, which service `s{at}` needs, is taken");
            let holder = format!("(pid {}", other.pid());
            assert!(refused.stderr.contains(&taken), "{refused}");
            assert!(refused.stderr.contains(&holder), "{refused}");
        }
        let services = if count == 2 { "s0 s1" } else { "s1" };
        let hint = format!("hint: wharf up -d --force {services}   # stops the holder");
        assert!(refused.stderr.contains(&hint), "{refused}");
        let listed = sandbox.wharf(&["ps", "-a", "--format", "json"]).expect(0);
        let states = listed.json_lines();
        assert!(
            states.iter().all(|row| row["State"] == "exited"),
            "{listed}"
        );
    }
    // What runs is restarted all the same.
    let first = || {
        let listed = sandbox.wharf(&["ps", "--format", "json", "s0"]).expect(0);
        listed.json_lines().remove(0)["Pid"].clone()
    };
    sandbox.wharf(&["start", "s0"]).expect(0);
    let before = first();
    let refused = sandbox.wharf(&["restart"]).expect(1);
    assert!(
        refused.stderr.contains("service `s1` needs, is taken"),
        "{refused}"
    );
    assert_ne!(first(), before);
    sandbox.wharf(&["stop"]).expect(0);
    for gone in others.iter_mut().filter_map(Option::take) {
        gone.signal(Signal::KILL);
        gone.wait();
    }
    // One that takes a flag to stop it is no other matter.
    if rustix::process::geteuid().is_root() {
        let (first, server) = (ports[0].to_string(), ws_server());
        let words = [
            "--pid",
            "--fork",
            "--kill-child",
            python(),
            server,
            "--port",
            &first,
        ];
        let other = sandbox.program("unshare", &words);
        other.wait_for_line("listening on ");
        let refused = sandbox.wharf(&["start"]).expect(1);
        assert!(
            refused.stderr.contains("hint: wharf up -d --force s0"),
            "{refused}"
        );
        assert!(!refused.stderr.contains("hint: --force"), "{refused}");
        other.signal(Signal::KILL);
        other.wait();
        eventually("what was in the namespace has gone", || {
            is_free(ports[0]).then_some(())
        });
    }
    sandbox.wharf(&["start"]).expect(0);
    eventually("it has its port", || {
        let who = sandbox.wharf(&["who", &ports[0].to_string()]);
        who.stdout.contains("service s0").then_some(())
    });
    // Its own is in nobody's way.
    sandbox.wharf(&["start"]).expect(0);
    sandbox.wharf(&["restart"]).expect(0);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn the_flags_that_answer_are_those_of_a_command_that_has_them() {
    let sandbox = Sandbox::new();
    let port = free_port();
    servers(&sandbox, "compose.yaml", &[port]);
    sandbox.wharf(&["up", "-d"]).expect(0);
    let refused = sandbox.wharf(&["scale", "s0=2"]).expect(5);
    let hint = "hint: wharf up s0 --detach --scale=s0=2 --on-conflict move   # publishes on port";
    assert!(refused.stderr.contains(hint), "{refused}");
    sandbox.wharf(&["down"]).expect(0);
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    ports: ['127.0.0.1:{port}:{port}']\n    \
             develop: {{watch: [{{action: restart, path: .}}]}}\n    \
             x-wharf: {{process: {{command: [sleep, '600']}}}}\n"
        ),
    );
    let other = sandbox.server(port, &[]);
    let refused = sandbox.wharf(&["watch", "web"]).expect(5);
    let hint = "hint: wharf up --watch web --force   # stops the holder";
    assert!(refused.stderr.contains(hint), "{refused}");
    other.signal(Signal::KILL);
}

/// As `uvicorn --reload` does: it binds, and what it starts listens when it has read the program.
#[test]
fn a_port_that_is_bound_is_waited_for_until_something_listens() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let script = "import socket, sys, time\n\
                  s = socket.socket()\n\
                  s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                  s.bind(('127.0.0.1', int(sys.argv[1])))\n\
                  time.sleep(1.5)\n\
                  s.listen()\n\
                  time.sleep(600)\n";
    let project = json!({"services": {"web": {
        "ports": [format!("127.0.0.1:{port}:{port}")],
        "x-wharf": {"process": {"command": [python(), "-c", script, port.to_string()]}},
    }}});
    sandbox.write("compose.yaml", project.to_string());
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    let connected = std::net::TcpStream::connect(("127.0.0.1", port));
    assert!(connected.is_ok(), "{up}");
    sandbox.wharf(&["down"]).expect(0);
}
