//! exec, run, attach and cp: programs in the foreground, on a terminal and without one, and their files.

use std::fs;

use rustix::process::Signal;

use crate::support::{Engine, Process, Sandbox, eventually, free_port, require_engine};

/// A project with a service that a shell can be started in, one to attach to, and a dependency.
fn containers(sandbox: &Sandbox, engine: &Engine, port: u16) {
    let image = engine.busybox();
    sandbox.write(
        "compose.yaml",
        format!(
            "x-common: &common {{image: {image}, pull_policy: never, stop_grace_period: 0s}}\n\
             services:\n  \
               db:\n    <<: *common\n    command: [sleep, '600']\n  \
               web:\n    <<: *common\n    command: [sleep, '600']\n    depends_on: [db]\n    \
                 environment: {{A: one}}\n    volumes: [/anonymous]\n    restart: always\n    \
                 networks: {{default: {{aliases: [site]}}}}\n    \
                 ports: ['127.0.0.1:{port}:80']\n  \
               shell:\n    <<: *common\n    command: [sh]\n    tty: true\n    stdin_open: true\n"
        ),
    );
}

/// A project of processes: a service and what it depends on.
fn processes(sandbox: &Sandbox, command: &str) {
    sandbox.write("work/here", "");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  dep:\n    x-wharf: {{process: {{command: [sleep, '600']}}}}\n  \
               api:\n    depends_on: [dep]\n    stop_grace_period: 1s\n    \
                 x-wharf: {{process: {{command: [sh, -c, '{command}'], working_dir: ./work, environment: {{A: one}}}}}}\n"
        ),
    );
}

/// A process of the sandbox, by its command line.
fn child(sandbox: &Sandbox, command: &str) -> Option<Process> {
    let mut found = sandbox.processes().into_iter();
    found.find(|process| process.command_line() == command)
}

#[test]
fn exec_runs_a_command_in_a_container() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    containers(&sandbox, &engine, free_port());
    sandbox
        .wharf(&["exec", "web", "true"])
        .expect(1)
        .expect_text("wharf up -d web");
    sandbox.wharf(&["up", "-d", "web"]).expect(0);
    let script = "echo $A $B; id -u; pwd; echo trouble >&2; exit 7";
    sandbox
        .wharf(&[
            "exec", "-T", "-e", "B=two", "-u", "5", "-w", "/bin", "web", "sh", "-c", script,
        ])
        .expect_exactly(7, "one two\n5\n/bin\n", "trouble\n");
    // What cannot be run has the engine's code: 126, or 127 on newer ones.
    let missing = sandbox.wharf(&["exec", "-T", "web", "no-such-program"]);
    assert!(matches!(missing.code(), 126 | 127), "{missing}");
    sandbox
        .wharf(&["exec", "-T", "--index", "2", "web", "true"])
        .expect(1);
    sandbox.wharf(&["exec", "-T", "nobody", "true"]).expect(2);
    // The input reaches its end, and every byte comes back.
    let piped = "head -c 3000000 /dev/urandom > big && wharf exec -T web cat < big | cmp - big";
    sandbox.program("sh", &["-c", piped]).wait().expect(0);
    let reader = "wharf exec -T web yes | head -n 1";
    sandbox
        .program("sh", &["-c", reader])
        .wait()
        .expect_exactly(0, "y\n", "");
    sandbox
        .wharf(&["exec", "-d", "web", "touch", "/anonymous/made"])
        .expect(0);
    eventually("the detached command ran", || {
        let seen = sandbox.wharf(&["exec", "-T", "web", "ls", "/anonymous"]);
        seen.stdout.contains("made").then_some(())
    });
}

#[test]
fn exec_gives_the_terminal_away_and_takes_it_back() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    containers(&sandbox, &engine, free_port());
    sandbox.wharf(&["up", "-d", "web"]).expect(0);
    // A shell around it looks at the terminal afterwards.
    let around = |command: &str| {
        let script = format!("{command}; echo code $?; stty -a");
        sandbox.on_terminal("sh", &["-c", &script])
    };
    let mut terminal = around("wharf exec web sh");
    terminal.wait_for("/ # ");
    terminal.type_text("tty; stty -a\n");
    terminal.wait_for("rows 40; columns 120");
    terminal.resize(33, 111);
    terminal.type_text("sleep 1; stty -a\n");
    terminal.wait_for("rows 33; columns 111");
    // An interrupt is the program's business, and so is the end of its input. Who says that it has begun
    // has the terminal already: a shell takes a while to hand it over, and an interrupt is lost until then.
    terminal.type_text("sh -c 'echo be\"\"gun; exec sleep 600'\n");
    terminal.wait_for("begun\n");
    terminal.type_text("\x03");
    terminal.type_text("echo still $((40 + 2))\n");
    terminal.wait_for("still 42");
    terminal.type_text("exit 6\n");
    let finished = terminal.wait().expect_text("code 6");
    assert!(
        finished.stdout.contains(" icanon ") && finished.stdout.contains(" echo "),
        "{finished}"
    );

    let mut terminal = around("wharf exec web sh");
    terminal.wait_for("/ # ");
    terminal.type_text("\x10\x11");
    let finished = terminal.wait().expect_text("code 1");
    assert!(finished.stdout.contains(" icanon "), "{finished}");

    let mut terminal = around("wharf exec web sh");
    terminal.wait_for("/ # ");
    let wharf = terminal.process().children().remove(0);
    wharf.signal(Signal::TERM);
    let finished = terminal.wait().expect_text("code 130");
    assert!(finished.stdout.contains(" icanon "), "{finished}");

    let without = sandbox.on_terminal("sh", &["-c", "wharf exec web true < /dev/null"]);
    without.wait().expect(1).expect_text("not a terminal");
}

#[test]
fn run_makes_an_instance_for_one_command() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let port = free_port();
    containers(&sandbox, &engine, port);
    sandbox.write("some.env", "C=three\nB=no\n");
    sandbox.write("mounted/file", "content\n");
    let script = "echo $A $B $C; cat /m/file; pwd; exit 5";
    let ran = sandbox.wharf(&[
        "run",
        "--rm",
        "-T",
        "--quiet",
        "-e",
        "B=two",
        "--env-from-file",
        "some.env",
        "-v",
        "./mounted:/m",
        "-w",
        "/bin",
        "web",
        "sh",
        "-c",
        script,
    ]);
    ran.expect_exactly(5, "one two three\ncontent\n/bin\n", "");
    let brief = sandbox.wharf(&["run", "--rm", "-d", "web"]).expect(0);
    let brief = brief.stdout.trim();
    let mounts = ["inspect", "--format", "{{(index .Mounts 0).Name}}", brief];
    let volume = engine.ask(&mounts);
    engine.ask(&["kill", brief]);
    eventually("its anonymous volume is gone", || {
        let gone = engine.docker(&["volume", "inspect", &volume]).code() != 0;
        gone.then_some(())
    });
    let names = || {
        engine.ask(&[
            "ps",
            "--all",
            "--format",
            "{{.Names}}",
            "--filter",
            &format!("label=com.docker.compose.project={}", sandbox.project()),
        ])
    };
    assert_eq!(
        names(),
        format!("{}-db-1", sandbox.project()),
        "what it depends on, and no more"
    );

    let id = sandbox
        .wharf(&[
            "run",
            "-d",
            "-l",
            "k=v",
            "-p",
            "127.0.0.1::81",
            "--cap-add",
            "net_admin",
            "web",
        ])
        .expect(0);
    let id = id.stdout.trim();
    let inspect = |what: &str| engine.ask(&["inspect", "--format", what, id]);
    let label = |name: &str| inspect(&format!("{{{{index .Config.Labels \"{name}\"}}}}"));
    let slug = label("com.docker.compose.slug");
    assert_eq!(slug.len(), 64);
    assert_eq!(
        inspect("{{.Name}}"),
        format!("/{}-web-run-{}", sandbox.project(), &slug[..12])
    );
    assert_eq!(label("com.docker.compose.oneoff"), "True");
    assert_eq!(label("com.docker.compose.container-number"), "");
    assert_eq!(label("k"), "v");
    assert_eq!(
        inspect("{{range $port, $x := .HostConfig.PortBindings}}{{$port}} {{end}}"),
        "81/tcp"
    );
    assert_eq!(inspect("{{.HostConfig.CapAdd}}"), "[CAP_NET_ADMIN]");
    // Newer engines fill it in.
    let restart = inspect("{{.HostConfig.RestartPolicy.Name}}");
    assert!(["", "no"].contains(&restart.as_str()), "{restart}");
    let aliases = inspect("{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}}");
    assert!(
        !aliases.contains("web ") && !aliases.contains("site"),
        "{aliases}"
    );
    let aliased = sandbox
        .wharf(&[
            "run",
            "-d",
            "--use-aliases",
            "--name",
            &format!("{}x", sandbox.project()),
            "web",
        ])
        .expect(0);
    let aliases = engine.ask(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}}",
        aliased.stdout.trim(),
    ]);
    assert!(
        aliases.contains(" web ") && aliases.contains("site"),
        "{aliases}"
    );

    // A port that somebody has is found before anything is made.
    let _holder = sandbox.server(port, &[]);
    let count = names().lines().count();
    let refused = sandbox
        .wharf(&["run", "--rm", "-P", "web", "true"])
        .expect(5);
    assert!(refused.stderr.contains(&port.to_string()), "{refused}");
    sandbox
        .wharf(&["run", "--rm", "web", "no-such-program"])
        .expect(1);
    assert_eq!(names().lines().count(), count, "nothing is half-made");
    sandbox.wharf(&["run", "nobody"]).expect(2);
}

#[test]
fn run_is_interrupted_and_leaves_nothing() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    containers(&sandbox, &engine, free_port());
    let left = || {
        engine.ask(&[
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("name={}-web-run", sandbox.project()),
        ])
    };
    // Without a terminal of its own, the program gets the signal.
    let script = "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 1; done";
    let mut terminal = sandbox.terminal(&["run", "--rm", "-T", "web", "sh", "-c", script]);
    terminal.wait_for("up\n");
    terminal.type_text("\x03");
    terminal.wait().expect(9).expect_text("caught");
    assert_eq!(left(), "");
    // One that does not listen is killed at last.
    let mut terminal = sandbox.terminal(&[
        "run",
        "--rm",
        "-T",
        "web",
        "sh",
        "-c",
        "echo up; exec sleep 600",
    ]);
    terminal.wait_for("up\n");
    // Signals that come at once are one.
    eventually("it ended", || {
        let ended = terminal.process().ended();
        terminal.process().signal(Signal::INT);
        ended.then_some(())
    });
    terminal.wait().expect(137);
    assert_eq!(left(), "");
    // With one, the keys are the program's; two of them leave it.
    let mut terminal = sandbox.terminal(&["run", "--rm", "web", "sh"]);
    terminal.wait_for("/ # ");
    terminal.type_text("\x03echo $((40 + 2))\n");
    terminal.wait_for("42");
    terminal.type_text("\x10\x11");
    terminal.wait().expect(0);
    assert_ne!(left(), "", "it goes on");
}

#[test]
fn attach_talks_to_the_main_program() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::with_engine(&engine);
    containers(&sandbox, &engine, free_port());
    sandbox.wharf(&["up", "-d", "shell"]).expect(0);
    let mut terminal = sandbox.terminal(&["attach", "--detach-keys", "ctrl-a,d", "shell"]);
    terminal.type_text("echo $((40 + 2))\n");
    terminal.wait_for("42");
    terminal.type_text("\x01d");
    terminal.wait().expect(1);
    // The keys may come from the Docker configuration.
    sandbox.write("docker/config.json", r#"{"detachKeys": "ctrl-e,e"}"#);
    let configuration = sandbox.path().join("docker");
    sandbox.set("DOCKER_CONFIG", configuration);
    let mut terminal = sandbox.terminal(&["attach", "shell"]);
    terminal.type_text("echo $((40 + 3))\n");
    terminal.wait_for("43");
    terminal.type_text("\x05e");
    terminal.wait().expect(1);
    sandbox
        .wharf(&["attach", "--detach-keys", "nonsense", "--no-stdin", "shell"])
        .expect(2);
    let mut terminal = sandbox.terminal(&["attach", "shell"]);
    terminal.type_text("exit 6\n");
    terminal.wait().expect(6);
    sandbox
        .wharf(&["attach", "shell"])
        .expect(1)
        .expect_text("not running");
}

#[test]
fn files_are_copied_both_ways() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    containers(&sandbox, &engine, free_port());
    sandbox
        .wharf(&["up", "-d", "--scale", "db=2", "db"])
        .expect(0);
    sandbox.write("dir/sub/file", "content\n");
    sandbox.write("file", "one\n");
    std::os::unix::fs::symlink("file", sandbox.path().join("link")).unwrap();
    let copy = |from: &str, to: &str| sandbox.wharf(&["cp", from, to]);
    copy("dir", "db:/new").expect(0);
    copy("dir", "db:/new").expect(0);
    copy("dir/.", "db:/new/inner").expect(0);
    copy("link", "db:/new/link").expect(0);
    sandbox
        .wharf(&["cp", "-L", "link", "db:/new/followed"])
        .expect(0);
    copy("dir", "db:/new/followed")
        .expect(1)
        .expect_text("onto a file");
    copy("file", "db:/none/")
        .expect(1)
        .expect_text("no such directory");
    let find = "cd /new; find . -type f -o -type l | sort";
    for index in ["1", "2"] {
        let seen = sandbox.wharf(&["exec", "-T", "--index", index, "db", "sh", "-c", find]);
        let expected = "./dir/sub/file\n./followed\n./inner/sub/file\n./link\n./sub/file\n";
        seen.expect_exactly(0, expected, "");
    }
    // A container that does not run has files all the same.
    sandbox.wharf(&["stop", "db"]).expect(0);
    sandbox
        .wharf(&["cp", "--index", "2", "file", "db:/only"])
        .expect(0);
    copy("db:/only", "back").expect(1);
    sandbox
        .wharf(&["cp", "--index", "2", "db:/only", "back"])
        .expect(0);
    copy("db:/new", "out").expect(0);
    copy("db:/new/.", "out").expect(0);
    let read = |path: &str| fs::read_to_string(sandbox.path().join(path)).unwrap();
    assert_eq!(read("back"), "one\n");
    assert_eq!(read("out/sub/file"), "content\n");
    assert_eq!(read("out/inner/sub/file"), "content\n");
    assert_eq!(
        fs::read_link(sandbox.path().join("out/link"))
            .unwrap()
            .to_str(),
        Some("file")
    );
    copy("db:/new", "file").expect(1).expect_text("onto a file");
    copy("db:/nothing", "x").expect(1);
    copy("db:/a", "web:/b").expect(2);
    let piped =
        "tar c file | wharf cp --index 1 - db:/new && wharf cp --index 1 db:/new/file - | tar xO";
    let piped = sandbox.program("sh", &["-c", piped]).wait().expect(0);
    assert_eq!(piped.stdout, "one\n");
}

#[test]
fn a_process_has_company_in_its_environment() {
    let sandbox = Sandbox::new();
    processes(&sandbox, "echo begun; exec sleep 600");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let script = "pwd; echo $A $B $WHARF_SERVICE; exit 7";
    sandbox
        .wharf(&["exec", "-e", "B=two", "api", "sh", "-c", script])
        .expect_exactly(7, "[DIR]/work\none two api\n", "");
    sandbox
        .wharf(&["exec", "api", "no-such-program"])
        .expect(127);
    sandbox.wharf(&["exec", "api", "./here"]).expect(126);
    let piped = sandbox.program("sh", &["-c", "echo text | wharf exec -T api cat"]);
    piped.wait().expect_exactly(0, "text\n", "");
    let mut terminal = sandbox.terminal(&["exec", "api", "sh"]);
    terminal.type_text("test -t 0 && stty size\n");
    terminal.wait_for("40 120");
    terminal.type_text("echo be''gun; sleep 604\n");
    terminal.wait_for("begun\n");
    let sleeper = eventually("it sleeps", || child(&sandbox, "sleep 604"));
    terminal.type_text("\x03");
    sleeper.wait_end();
    terminal.type_text("echo $((40 + 2)); exit 6\n");
    terminal.wait_for("42");
    terminal.wait().expect(6);
    // What runs beside a service ends with it.
    sandbox
        .wharf(&["exec", "-d", "api", "sleep", "601"])
        .expect(0);
    let beside = eventually("it runs", || child(&sandbox, "sleep 601"));
    sandbox.write("file", "one\n");
    sandbox.write("dir/sub", "two\n");
    sandbox.wharf(&["cp", "file", "api:copied"]).expect(0);
    sandbox.wharf(&["cp", "dir", "api:."]).expect(0);
    sandbox.wharf(&["cp", "api:dir/sub", "back"]).expect(0);
    sandbox
        .wharf(&["cp", ".", "api:."])
        .expect(1)
        .expect_text("into itself");
    let read = |path: &str| fs::read_to_string(sandbox.path().join(path)).unwrap();
    assert_eq!(
        (read("work/copied"), read("back")),
        ("one\n".to_owned(), "two\n".to_owned())
    );
    sandbox.wharf(&["stop", "api"]).expect(0);
    assert!(beside.ended());
}

#[test]
fn a_process_runs_once_in_the_foreground() {
    let sandbox = Sandbox::new();
    processes(&sandbox, "exec sleep 600");
    let script = "pwd; echo $A $B; sleep 602 & exit 4";
    let ran = sandbox
        .wharf(&["run", "--rm", "-e", "B=two", "api", "sh", "-c", script])
        .expect(4);
    assert_eq!(ran.stable(&ran.stdout), "[DIR]/work\none two\n");
    let left = |command: &str| child(&sandbox, command);
    assert!(left("sleep 602").is_none(), "what it left behind is gone");
    eventually("what it depends on runs", || left("sleep 600"));
    let rows = |sandbox: &Sandbox| {
        sandbox
            .wharf(&["ps", "-a", "--format", "json"])
            .expect(0)
            .json_lines()
    };
    assert_eq!(rows(&sandbox).len(), 1, "and nothing else");
    sandbox
        .wharf(&["run", "--rm", "api", "no-such-program"])
        .expect(127);
    assert_eq!(rows(&sandbox).len(), 1);
    let mut terminal = sandbox.terminal(&["run", "api", "sh"]);
    terminal.type_text("test -t 0 && stty size\n");
    terminal.wait_for("40 120");
    terminal.type_text("exit 6\n");
    terminal.wait().expect(6);
    assert!(
        rows(&sandbox).iter().any(|row| row["ExitCode"] == 6),
        "it is kept"
    );
    // Killed half-way, or before it has noted what it has started, it is known to the next command.
    for script in [
        "echo up; exec sleep 603",
        "kill -KILL $PPID; echo up; exec sleep 603",
    ] {
        let run = sandbox.spawn(&["run", "--rm", "api", "sh", "-c", script]);
        run.wait_for_line("up");
        let orphan = eventually("it runs", || left("sleep 603"));
        run.signal(Signal::KILL);
        assert!(!orphan.ended());
        assert!(
            rows(&sandbox)
                .iter()
                .any(|row| row["State"] == "running" && row["Service"] == "api")
        );
        sandbox.wharf(&["down", "--remove-orphans"]).expect(0);
        assert!(orphan.ended());
    }
}

#[test]
fn a_program_that_closes_its_terminal_goes_on() {
    let sandbox = Sandbox::new();
    processes(&sandbox, "exec sleep 600");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let script = "t=$(tty); echo begun; exec >closed 2>&1 </dev/null; sleep 1; echo done; echo again >$t; exit 5";
    for command in [&["exec", "api"][..], &["run", "--rm", "api"]] {
        let command = [command, &["sh", "-c", script]].concat();
        let terminal = sandbox.terminal(&command);
        let finished = terminal.wait().expect(5);
        assert!(finished.stdout.contains("begun\nagain\n"), "{finished}");
        let written = fs::read_to_string(sandbox.path().join("work/closed")).unwrap();
        assert_eq!(written, "done\n");
    }
}

#[test]
fn a_program_without_a_terminal_gets_none_of_the_user() {
    let sandbox = Sandbox::new();
    processes(&sandbox, "exec sleep 600");
    sandbox.wharf(&["up", "-d"]).expect(0);
    let look = "for i in 0 1 2; do test -t $i && echo $i is one; done";
    for command in [&["exec", "-T", "api"][..], &["run", "--rm", "-T", "api"]] {
        let on_terminal =
            |script: &str| sandbox.terminal(&[command, &["sh", "-c", script]].concat());
        // Both of its outputs in its own order, and all of it.
        let script = format!(
            "{look}; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo out $i; echo err $i >&2; done; exit 7"
        );
        let finished = on_terminal(&script).wait().expect(7);
        let lines: Vec<String> = (1..=2000).map(|i| format!("out {i}\nerr {i}\n")).collect();
        let told = lines.concat();
        assert!(finished.stdout.ends_with(&told), "{finished}");
        assert!(!finished.stdout.contains("is one"), "{finished}");
        // What is typed reaches it line by line, and so does its end.
        let mut terminal = on_terminal("echo begun; cat; echo end; sleep 1; exit 3");
        terminal.wait_for("begun\n");
        terminal.type_text("typed\n");
        terminal.wait_for("typed\ntyped\n");
        terminal.type_text("\x04");
        terminal.wait_for("end\n");
        terminal.wait().expect(3);
        // That it closes everything is not its end, and an interrupt reaches it all the same.
        let script = "trap 'exit 9' INT; echo begun; exec >/dev/null 2>&1 </dev/null; while :; do sleep 0.1; done";
        let mut terminal = on_terminal(script);
        terminal.wait_for("begun\n");
        terminal.type_text("\x03");
        terminal.wait().expect(9);
    }
    let script = format!("echo in | wharf run --rm api sh -c '{look}; cat'");
    let piped = sandbox.on_terminal("sh", &["-c", &script]).wait().expect(0);
    assert!(piped.stdout.ends_with("in\n"), "{piped}");
    assert!(!piped.stdout.contains("is one"), "{piped}");
    // What is a file stays one.
    let script = "wharf exec -T api sh -c 'test -f /dev/stdout && test ! -t 2; echo $?; echo trouble >&2' >file";
    let finished = sandbox.on_terminal("sh", &["-c", script]).wait().expect(0);
    assert_eq!(finished.stdout, "trouble\n");
    assert_eq!(
        fs::read_to_string(sandbox.path().join("file")).unwrap(),
        "0\n"
    );
}

#[test]
fn attach_shows_what_a_process_writes_and_passes_signals_on() {
    let sandbox = Sandbox::new();
    processes(
        &sandbox,
        "trap \"echo caught; exit 3\" INT; while :; do echo tick; sleep 0.1; done",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let attached = sandbox.spawn(&["attach", "api"]);
    attached.wait_for_line("tick");
    attached.signal(Signal::INT);
    attached.wait().expect(3).expect_text("caught");
}

#[test]
fn attach_types_into_a_process_with_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  shell:\n    tty: true\n    stdin_open: true\n    \
         x-wharf: {process: {command: [sh]}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let mut terminal = sandbox.terminal(&["attach", "shell"]);
    terminal.type_text("echo $((40 + 2)); stty size\n");
    terminal.wait_for("42\n40 120");
    terminal.resize(33, 111);
    terminal.type_text("sleep 1; stty size\n");
    terminal.wait_for("33 111");
    // An interrupt is the program's business.
    terminal.type_text("echo be''gun; sleep 600\n");
    terminal.wait_for("begun\n");
    terminal.type_text("\x03");
    terminal.type_text("echo still $((40 + 3))\n");
    terminal.wait_for("still 43");
    terminal.type_text("\x10\x11");
    terminal.wait().expect(1);
    let mut terminal = sandbox.terminal(&["attach", "shell"]);
    terminal.type_text("exit 6\n");
    terminal.wait().expect(6);
}

#[test]
fn attach_types_into_a_process_without_a_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  echo:\n    stdin_open: true\n    \
         x-wharf: {process: {command: [sh, -c, 'while read line; do echo got $$line; done']}}\n",
    );
    sandbox.wharf(&["up", "-d"]).expect(0);
    let script = "printf 'one\\ntwo\\n' | wharf attach echo";
    let piped = sandbox.program("sh", &["-c", script]);
    piped.wait_for_line("got one");
    piped.wait_for_line("got two");
    // What was typed has come to its end, the input of the service has not.
    sandbox
        .wharf(&["ps", "--format", "json"])
        .expect(0)
        .expect_text("running");
    sandbox.wharf(&["stop", "echo"]).expect(0);
    piped.wait().expect(143);
}
