//! Services that expose a port for their neighbours alone, as processes beside each other.

use crate::support::{Sandbox, eventually, free_port, require_engine};

/// `one` and `two` expose the same port, `own` listens somewhere else, `plain` does not look at `PORT`.
fn servers(port: u16, other: u16, plain: u16, more: &str) -> String {
    let service = |name: &str, port: u16, process: &str| {
        format!(
            "  {name}:\n    {more}\n    expose: ['{port}']\n    stop_grace_period: 0s\n    \
             x-wharf: {{process: {{{process}}}}}\n"
        )
    };
    let serve = |at: &str, name: &str| {
        format!("command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:{at} -h www/{name}']")
    };
    let own = format!(
        "environment: {{PORT: '{other}'}}, {}",
        serve("$$PORT", "own")
    );
    [
        "services:\n".to_owned(),
        service("one", port, &serve("$$PORT", "one")),
        service("two", port, &serve("$$PORT", "two")),
        service("own", port, &own),
        service("plain", plain, &serve(&plain.to_string(), "plain")),
    ]
    .concat()
}

/// Asks for all of them by name until they answer.
fn expect_answers(sandbox: &Sandbox, clients: &[&str], port: u16, plain: u16) {
    for from in clients {
        for (to, port) in [
            ("one", port),
            ("two", port),
            ("own", port),
            ("plain", plain),
        ] {
            eventually(&format!("{from} reaches {to}"), || {
                let line = format!("busybox timeout 5 busybox wget -q -O - http://{to}:{port}/who");
                let done = sandbox.wharf(&["exec", "-T", from, "busybox", "sh", "-c", &line]);
                (done.stdout.trim() == to).then_some(())
            });
        }
    }
}

fn write(sandbox: &Sandbox, text: impl AsRef<[u8]>) {
    for name in ["one", "two", "own", "plain"] {
        sandbox.write(&format!("www/{name}/who"), name);
    }
    sandbox.write("compose.yaml", text);
}

const SERVERS: [&str; 4] = ["one", "two", "own", "plain"];

#[test]
fn local_services_that_expose_the_same_port_stand_beside_each_other() {
    let sandbox = Sandbox::new();
    let (port, other, plain) = (free_port(), free_port(), free_port());
    write(&sandbox, servers(port, other, plain, ""));
    let up = sandbox.wharf(&["up", "-d"]).expect(0);
    let said = "service `two` is told to listen on port ";
    assert_eq!(up.stderr.matches(said).count(), 1, "{up}");
    expect_answers(&sandbox, &SERVERS, port, plain);
    // Nothing is published.
    let listed = sandbox.wharf(&["ps", "--format", "json"]).expect(0);
    for row in listed.json_lines() {
        assert_eq!(row["Ports"], "", "{row}");
    }
    let ports = sandbox.wharf(&["ports", "--format", "json"]).expect(0);
    assert!(!ports.stdout.contains("\"service\""), "{ports}");
    sandbox.wharf(&["port", "one", &port.to_string()]).expect(1);
    // They have their ports again whatever comes first.
    sandbox.wharf(&["stop"]).expect(0);
    sandbox.wharf(&["start", "two"]).expect(0);
    sandbox.wharf(&["start"]).expect(0);
    expect_answers(&sandbox, &["one", "two"], port, plain);
}

#[test]
fn containers_reach_what_is_exposed_wherever_it_listens() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let (port, other, plain) = (free_port(), free_port(), free_port());
    let image = engine.busybox();
    let client = format!(
        "  client: {{image: {image}, pull_policy: never, command: [sleep, '1000'], stop_grace_period: 0s}}\n"
    );
    write(&sandbox, servers(port, other, plain, "") + &client);
    sandbox.wharf(&["up", "-d"]).expect(0);
    expect_answers(&sandbox, &["client", "two"], port, plain);
}

#[test]
fn the_same_project_of_two_users_does_not_meet_itself() {
    let sandbox = Sandbox::new();
    for name in ["mine", "theirs"] {
        sandbox.write(&format!("www/{name}/who"), name);
    }
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  \
               web:\n    ports: ['127.0.0.1:{}:8000']\n    stop_grace_period: 0s\n    \
                 x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT -h www/$WHO']}}}}\n  \
               client: {{x-wharf: {{process: {{command: [sleep, '1000']}}}}}}\n",
            free_port()
        ),
    );
    // What they have in common is the directory; files of their own is what makes them two.
    let run = |who: &str, line: &str| {
        let homes = match who {
            "mine" => "",
            _ => {
                "export XDG_STATE_HOME=\"$TMPDIR/s\" XDG_RUNTIME_DIR=\"$TMPDIR/r\"; mkdir -p \"$TMPDIR/r\"; "
            }
        };
        let line = format!("{homes}export WHO={who}; {line}");
        sandbox.program("sh", &["-c", &line]).wait()
    };
    for who in ["mine", "theirs"] {
        run(who, "wharf up -d --on-conflict move").expect(0);
    }
    for who in ["mine", "theirs"] {
        eventually(&format!("{who} answers"), || {
            let ask = "wharf exec -T client busybox wget -q -O - http://web:8000/who";
            let done = run(who, ask);
            assert!(matches!(done.stdout.trim(), "" | "mine" | "theirs"));
            (!done.stdout.is_empty()).then(|| assert_eq!(done.stdout.trim(), who))
        });
    }
    run("theirs", "wharf down").expect(0);
}
