//! The commands that list and watch: containers and processes side by side, in Docker's words.

use serde_json::{Value, json};

use crate::support::{Engine, Sandbox, eventually, require_engine};

/// A web server with a volume and a job that ends, both in containers, and a local process.
fn mixed(sandbox: &Sandbox, engine: &Engine) {
    let image = engine.busybox();
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 0s\n    \
             command: [sh, -c, 'echo serving; exec httpd -f -p 80']\n    ports: ['127.0.0.1::80']\n    \
             volumes: [data:/data]\n    labels: {{a.b: 'c,d'}}\n  \
             job:\n    image: {image}\n    pull_policy: never\n    command: [sh, -c, 'echo done; exit 3']\n  \
             local:\n    x-wharf: {{process: {{command: [sh, -c, 'echo here; sleep 1000 & wait']}}}}\n    \
             stop_grace_period: 1s\n\
             volumes: {{data: {{}}}}\n"
        ),
    );
}

#[test]
fn containers_and_processes_are_listed_alike() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    mixed(&sandbox, &engine);
    let project = sandbox.project();
    sandbox.wharf(&["up", "-d"]).expect(0);
    let label = |rest: &str| format!("com.docker.compose.{rest}");
    let _one_off = engine.run(
        &[
            "--name",
            &format!("{project}-one"),
            "--label",
            &label(&format!("project={project}")),
            "--label",
            &label("service=web"),
            "--label",
            &label("oneoff=True"),
            "--label",
            &label("config-hash=x"),
        ],
        &["sleep", "600"],
    );
    let lines = |arguments: &[&str]| -> Vec<String> {
        let told = sandbox.wharf(arguments).expect(0);
        told.stdout.lines().map(|line| told.stable(line)).collect()
    };
    // Which instances.
    let names = ["ps", "--format", "{{.Name}}"];
    assert_eq!(lines(&names), ["[PROJECT]-local-1", "[PROJECT]-web-1"]);
    assert_eq!(
        lines(&[&names[..], &["-a"]].concat()),
        [
            "[PROJECT]-job-1",
            "[PROJECT]-local-1",
            "[PROJECT]-local-wharf-relay-1",
            "[PROJECT]-one",
            "[PROJECT]-web-1"
        ]
    );
    assert_eq!(
        lines(&[&names[..], &["--status", "exited"]].concat()),
        ["[PROJECT]-job-1"]
    );
    let filter = ["--filter", "status=exited", "--status", "dead"];
    assert_eq!(lines(&[&names[..], &filter].concat()), ["[PROJECT]-job-1"]);
    assert_eq!(lines(&["ps", "--services"]), ["local", "web"]);
    assert_eq!(
        lines(&[
            "ps",
            "-a",
            "--format",
            "{{.Service}} {{.ExitCode}} {{.State}} {{.Backend}}",
            "job",
            "local"
        ]),
        [
            "job 3 exited container",
            "local 0 running process",
            "local 0 running container"
        ]
    );
    assert_eq!(
        lines(&[
            "ps",
            "web",
            "--format",
            "table {{.Service}}\\t{{upper .State}}\\t{{.Label \"a.b\"}}"
        ]),
        ["SERVICE   STATE     a.b", "web       RUNNING   c,d"]
    );
    sandbox.wharf(&["ps", "--format", "{{.Nope}}"]).expect(2);
    sandbox
        .wharf(&["ps", "--filter", "health=healthy"])
        .expect(2);
    let rows = sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .json_lines();
    let web = &rows[1];
    assert!(web["Pid"].as_u64().is_some_and(|pid| pid > 1), "{web}");
    assert_eq!(
        web["Mounts"].as_str().map(|text| text.len() <= 16),
        Some(true)
    );
    assert_eq!(
        (&web["LocalVolumes"], &web["Size"]),
        (&json!("1"), &json!("0B"))
    );
    // A service that the file no longer has.
    let file = std::fs::read_to_string(sandbox.path().join("compose.yaml")).unwrap();
    sandbox.write("less.yaml", file.replace("  job:", "  other:"));
    let less = ["-f", "less.yaml", "ps", "-a", "--format", "{{.Service}}"];
    assert!(lines(&less).contains(&"job".to_owned()));
    assert_eq!(
        lines(&[&less[..], &["--orphans=false"]].concat()),
        ["local", "local", "web", "web"]
    );
    // The other lists.
    let all: Vec<Value> = sandbox
        .wharf(&["ls", "-a", "--format", "json"])
        .expect(0)
        .json_lines();
    let ours = all[0]
        .as_array()
        .unwrap()
        .iter()
        .find(|each| each["Name"] == project);
    assert_eq!(ours.unwrap()["Status"], "exited(1), running(3)");
    let filter = format!("name=^{project}$");
    assert_eq!(lines(&["ls", "-q", "--filter", &filter]), ["[PROJECT]"]);
    let images = lines(&["images", "web"]);
    assert!(images[1].starts_with("[PROJECT]-one"), "{images:?}");
    assert!(
        images[2].contains(&format!("{}   latest", engine.busybox())),
        "{images:?}"
    );
    assert_eq!(lines(&["volumes", "-q"]), ["[PROJECT]_data"]);
    assert_eq!(lines(&["volumes", "job"]), ["DRIVER    VOLUME NAME"]);
    assert_eq!(
        lines(&[
            "volumes",
            "--format",
            "{{.Label \"com.docker.compose.volume\"}}"
        ]),
        ["data"]
    );
    let top = lines(&["top", "local", "web"]).join("\n");
    assert!(top.starts_with("SERVICE  #   UID"), "{top}");
    for command in ["sleep 1000", "httpd -f -p 80", "sleep 600"] {
        assert!(top.contains(command), "{top}");
    }
    let stats = [
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDs}} {{.CPUPerc}}",
    ];
    let stats = lines(&stats);
    assert!(stats[0].starts_with("[PROJECT]-local-1 2 "), "{stats:?}");
    assert!(stats[2].starts_with("[PROJECT]-web-1 1 "), "{stats:?}");
    // What happened so far.
    let past = [
        "events", "--json", "--since", "10m", "--until", "0s", "job", "local",
    ];
    let past = sandbox.wharf(&past).expect(0).json_lines();
    let told = |service: &str, action: &str| {
        let mut events = past.iter();
        events.any(|event| event["service"] == service && event["action"] == action)
    };
    for action in ["create", "start"] {
        assert!(
            told("local", action) && told("job", action),
            "{action}: {past:?}"
        );
    }
    let died = past.iter().find(|event| event["action"] == "die").unwrap();
    assert_eq!(died["attributes"]["exitCode"], "3");
    let of_local = past.iter().filter(|event| event["service"] == "local");
    let ids: std::collections::BTreeSet<String> =
        of_local.map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{past:?}");
    // Output.
    let logs = lines(&["logs"]);
    for line in ["web-1    | serving", "job-1    | done", "local-1  | here"] {
        assert!(logs.contains(&line.to_owned()), "{logs:?}");
    }
    assert_eq!(
        lines(&["logs", "--index", "1", "--no-log-prefix", "job"]),
        ["done"]
    );
    sandbox.wharf(&["logs", "--index", "2", "job"]).expect(1);
    sandbox.wharf(&["logs", "--index", "1"]).expect(2);
}

#[test]
fn docker_compose_says_the_same() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let version = sandbox
        .program("sh", &["-c", "docker-compose version --short"])
        .wait();
    if !version.stdout.starts_with("2.") {
        println!("skipped: no docker-compose 2.x on the PATH");
        return;
    }
    mixed(&sandbox, &engine);
    let file = std::fs::read_to_string(sandbox.path().join("compose.yaml")).unwrap();
    let (containers, _) = file.split_once("  local:").unwrap();
    sandbox.write(
        "compose.yaml",
        format!("{containers}volumes: {{data: {{}}}}\n"),
    );
    sandbox
        .program("docker-compose", &["up", "-d"])
        .wait()
        .expect(0);
    let filter = format!("name=^{}$", sandbox.project());
    for arguments in [
        &[
            "ps",
            "-a",
            "--format",
            "table {{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Ports}}\t{{.State}}",
        ][..],
        &[
            "ps",
            "-a",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Command}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}} {{.CreatedAt}}",
        ],
        &["ps", "-q"],
        &["ps", "--services", "-a"],
        &["ls", "-a", "--filter", &filter],
        &["ls", "--format", "json", "--filter", &filter],
        &["images"],
        &["images", "-q"],
        &["volumes"],
        &["volumes", "--format", "json"],
        &["top"],
        &["logs", "--no-color", "web"],
        &["logs", "-t", "job"],
    ] {
        // A second may pass between the two, and the job may end.
        for left in (0..10).rev() {
            let ours = sandbox.wharf(arguments).expect(0).stdout;
            let theirs = sandbox
                .program("docker-compose", arguments)
                .wait()
                .expect(0)
                .stdout;
            if ours == theirs {
                break;
            }
            assert!(left > 0, "{arguments:?}:\n{ours}\nis not\n{theirs}");
        }
    }
    // Go prints labels in any order and knows nothing of readiness.
    let row = |text: &str| -> Value {
        let mut row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let mut labels: Vec<&str> = row["Labels"].as_str().unwrap().split(',').collect();
        labels.sort_unstable();
        row["Labels"] = json!(labels.join(","));
        let fields = row.as_object_mut().unwrap();
        for name in [
            "Backend",
            "Connections",
            "Pid",
            "Ready",
            "RunningFor",
            "Status",
        ] {
            fields.remove(name);
        }
        row
    };
    let arguments = ["ps", "web", "--format", "json"];
    let ours = sandbox.wharf(&arguments).expect(0).stdout;
    let theirs = sandbox
        .program("docker-compose", &arguments)
        .wait()
        .expect(0)
        .stdout;
    assert_eq!(row(&ours), row(&theirs));
}

#[test]
fn following_goes_on_when_another_command_restarts_the_service() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    stop_grace_period: 1s\n    \
         x-wharf: {process: {command: [sh, -c, 'echo >> runs; echo run-$$(wc -l < runs); sleep 1000 & wait']}}\n  \
         two:\n    x-wharf: {process: {command: ['true']}}\n",
    );
    sandbox.wharf(&["up", "-d", "one"]).expect(0);
    let events = sandbox.spawn(&["events", "--json", "--since", "1m"]);
    events.wait_for_line("\"action\":\"start\"");
    let logs = sandbox.spawn(&["logs", "-f", "one"]);
    logs.wait_for_line("run-1");
    sandbox.wharf(&["restart", "one"]).expect(0);
    logs.wait_for_line("run-2");
    let recreate = ["up", "-d", "--force-recreate", "one"];
    sandbox.wharf(&recreate).expect(0);
    logs.wait_for_line("run-3");
    sandbox.wharf(&["down"]).expect(0);
    let told = logs.wait().expect(0);
    let lines = "one-1  | run-1\none-1  | run-2\none-1  | run-3\n";
    assert_eq!(told.stdout, lines, "{told}");
    // The same in the words of the engine; what happened to the other service came after it.
    sandbox.wharf(&["up", "-d", "two"]).expect(0);
    events.wait_for_line("two-1");
    events.signal(rustix::process::Signal::INT);
    let told = events.wait().expect(130);
    let told = told.json_lines();
    let of_one = told.iter().filter(|event| event["service"] == "one");
    let actions: Vec<&str> = of_one
        .map(|event| event["action"].as_str().unwrap())
        // What has come and gone between two looks at the ledger shows by its outcome alone.
        .filter(|action| !["stop", "kill", "restart"].contains(action))
        .collect();
    assert_eq!(
        actions,
        [
            "create", "start", "die", "start", "die", "destroy", "create", "start", "die",
            "destroy"
        ]
    );
}

#[test]
fn processes_are_listed_without_an_engine() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  one:\n    stop_grace_period: 1s\n    \
         x-wharf: {process: {command: [sh, -c, 'echo running; sleep 1000 & wait']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let ls = sandbox.wharf(&["ls"]).expect(0).expect_text("are not seen");
    let row = ls.stable(ls.stdout.lines().nth(1).unwrap());
    assert!(row.starts_with("[PROJECT]  "), "{ls}");
    assert!(row.ends_with("[DIR]/compose.yaml"), "{ls}");
    for arguments in [
        &["ps"][..],
        &["top"],
        &["stats", "--no-stream"],
        &["images"],
        &["volumes"],
    ] {
        let told = sandbox.wharf(arguments).expect(0);
        assert!(told.stderr.is_empty(), "{told}");
    }
    // A table on a screen is drawn again in its place; the reader of a pipe may leave at any time.
    let wharf = env!("CARGO_BIN_EXE_wharf");
    let mut stats = sandbox.terminal(&["stats"]);
    stats.wait_for("-one-1");
    stats.type_text("\u{3}");
    stats.wait().expect(130);
    let gone = format!("{wharf} stats --format json | head -n 1");
    sandbox
        .program("bash", &["-o", "pipefail", "-c", &gone])
        .wait()
        .expect(0);
    let full = format!("{wharf} ps > /dev/full");
    sandbox
        .program("sh", &["-c", &full])
        .wait()
        .expect(1)
        .expect_text("cannot write the output");
}

#[test]
fn a_service_whose_profile_is_off_is_listed_and_logged_by_name_alone() {
    let sandbox = Sandbox::new();
    let service = |word: &str| {
        format!("x-wharf: {{process: {{command: [sh, -c, 'echo {word}; exec sleep 600']}}}}")
    };
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  a: {{{}}}\n  b: {{profiles: [more], {}}}\n  c: {{attach: false, {}}}\n",
            service("one"),
            service("two"),
            service("three")
        ),
    );
    sandbox.wharf(&["--profile", "more", "up", "-d"]).expect(0);
    let logs = |words: &[&str]| {
        let all = [words, &["logs", "--no-log-prefix", "b"]].concat();
        sandbox.wharf(&all).expect(0).stdout
    };
    eventually("b has written", || logs(&[]).contains("two").then_some(()));
    eventually("a has written", || {
        let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
        (logs.stdout == "one\n").then_some(())
    });
    let named = ["ps", "--orphans=false", "--services"];
    assert_eq!(sandbox.wharf(&named).expect(0).stdout, "a\nc\n");
    let with = [&["--profile", "more"], &named[..]].concat();
    assert_eq!(sandbox.wharf(&with).expect(0).stdout, "a\nb\nc\n");
    sandbox
        .wharf(&["--profile", "more", "down", "-t", "0"])
        .expect(0);
}

#[test]
fn a_process_that_is_to_be_restarted_shows_its_code() {
    let sandbox = Sandbox::new();
    let user = if rustix::process::geteuid().is_root() {
        "user: ':27', "
    } else {
        ""
    };
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  a: {{image: none, working_dir: /app, {user}deploy: {{restart_policy: {{condition: any, delay: 1h}}}}, \
             x-wharf: {{process: {{command: [sh, -c, 'id -g; exit 7']}}}}}}\n"
        ),
    );
    let up = sandbox.wharf(&["up", "-d", "--local"]).expect(0);
    let note = "have no effect: working_dir (but that of x-wharf.process)\n";
    assert!(up.stderr.contains(note), "{up}");
    eventually("it has ended", || {
        let ps = sandbox
            .wharf(&["ps", "-a", "--format", "{{.Status}}"])
            .expect(0);
        (ps.stdout.starts_with("Restarting (7) ") && ps.stdout.ends_with(" ago\n")).then_some(())
    });
    if !user.is_empty() {
        let logs = sandbox.wharf(&["logs", "--no-log-prefix"]).expect(0);
        assert_eq!(logs.stdout, "27\n");
    }
    sandbox.wharf(&["down"]).expect(0);
}
