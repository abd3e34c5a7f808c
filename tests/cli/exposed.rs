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

#[test]
fn whoever_listens_everywhere_in_the_place_of_a_service_is_named() {
    let sandbox = Sandbox::new();
    let (port, published) = (free_port(), free_port());
    // In a namespace: nothing of this machine is to listen on all addresses.
    let stack = format!(
        "services:\n  \
           db:\n    ports: ['127.0.0.1:{published}:{port}']\n    stop_grace_period: 0s\n    \
             x-wharf: {{process: {{command: [sh, -c, 'exec busybox httpd -f -p 127.0.0.1:$$PORT']}}}}\n  \
           client: {{x-wharf: {{process: {{command: [sleep, '1000']}}}}}}\n"
    );
    sandbox.write("compose.yaml", &stack);
    sandbox.write("www/who", "another");
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let inside = |script: &str| {
        let script = format!("ip link set lo up || busybox ip link set lo up; {script}");
        sandbox
            .program("unshare", &["--net", "sh", "-c", &script])
            .wait()
    };
    let told = format!("on port {port}, the name `db` leads other local services to ");
    let up = inside(&format!(
        "busybox httpd -f -p 0.0.0.0:{port} -h www & \
         until busybox wget -q -O who http://127.0.0.1:{port}/who; do sleep 0.02; done; \
         wharf up -d && wharf ports && wharf down; code=$?; kill $!; exit $code"
    ))
    .expect(0);
    assert_eq!(up.stderr.matches(&told).count(), 2, "{up}");
    let how = "have that listen on 127.0.0.1, or give `db` another port";
    assert!(up.stderr.contains(how), "{up}");
    // One of the project, which takes its time.
    let first = format!(
        "  a:\n    expose: ['{port}']\n    stop_grace_period: 0s\n    \
           x-wharf: {{process: {{command: [sh, -c, 'sleep 0.2; exec busybox httpd -f -p 0.0.0.0:$$PORT']}}}}\n"
    );
    sandbox.write("compose.yaml", format!("{stack}{first}"));
    let up = inside("wharf up -d && wharf down").expect(0);
    assert!(up.stderr.contains(&format!("{told}service `a`")), "{up}");
    sandbox.write("compose.yaml", &stack);
    // Without that one, nothing is said.
    let up = inside("wharf up -d && wharf ports && wharf down").expect(0);
    assert!(!up.stderr.contains("leads other local services"), "{up}");
}
