//! Files change, and the services follow.

use std::fs;

use rustix::process::Signal;

use crate::support::{Process, Sandbox, eventually, require_engine};

/// A process that says how often it was started; it is restarted by changes in `src`, rebuilt by one of
/// `make`.
fn process(sandbox: &Sandbox) {
    sandbox.write("src/a.txt", "a");
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf:\n      process:\n        \
         command: [sh, -c, 'echo x >> runs; echo run $$(wc -l < runs) built $$(wc -l < built); exec sleep 600']\n        \
         build: [sh, -c, 'test ! -e broken && echo x >> built']\n    \
         develop:\n      watch:\n        - {action: restart, path: ./src, ignore: [cache], include: ['**/*.txt', '**/cache']}\n        \
         - {action: rebuild, path: ./make}\n        - {action: sync, path: ./src, target: /src}\n",
    );
    sandbox.write("built", "");
}

#[test]
fn a_process_is_restarted_once_a_burst_and_rebuilt() {
    let sandbox = Sandbox::new();
    process(&sandbox);
    let up = sandbox.spawn(&["up", "--watch"]);
    up.wait_for_line("run 1 built 0");
    up.wait_for_line("watch: on");
    // What does not count comes first: it would be a run of its own.
    sandbox.write("src/cache/x.txt", "x");
    sandbox.write("src/a.swp", "x");
    // A busy machine may leave pauses between two files that are as long as the one that ends a burst.
    up.signal(Signal::STOP);
    for n in 0..1000 {
        sandbox.write(&format!("src/d{}/f{n}.txt", n % 7), "x");
    }
    up.signal(Signal::CONT);
    up.wait_for_line("run 2 built 0");
    fs::remove_file(sandbox.path().join("src/a.txt")).unwrap();
    up.wait_for_line("run 3 built 0");
    sandbox.write("a.new", "a");
    let (from, to) = (
        sandbox.path().join("a.new"),
        sandbox.path().join("src/a.txt"),
    );
    fs::rename(from, to).unwrap();
    up.wait_for_line("run 4 built 0");
    sandbox.write("make", "1");
    up.wait_for_line("run 5 built 1");
    // A build that fails leaves what runs alone, and the next one mends it.
    sandbox.write("broken", "");
    sandbox.write("make", "2");
    up.wait_for_line("its build command ended");
    fs::remove_file(sandbox.path().join("broken")).unwrap();
    sandbox.write("make", "3");
    up.wait_for_line("run 6 built 2");
    up.signal(Signal::INT);
    let finished = up.wait().expect(130);
    assert!(!finished.stdout.contains("run 7"), "{finished}");
    sandbox.until_nothing_runs();
}

#[test]
fn what_fails_for_one_service_keeps_nothing_from_another() {
    let sandbox = Sandbox::new();
    sandbox.write("src/in", "0");
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf: {process: {command: [sleep, '600'], build: [sh, -c, 'exit 3']}}\n    \
         develop: {watch: [{action: rebuild, path: ./src}]}\n  \
         b:\n    x-wharf: {process: {command: [sh, -c, 'echo x >> runs; echo run $$(wc -l < runs); exec sleep 600']}}\n    \
         develop: {watch: [{action: restart, path: ./src}]}\n",
    );
    let up = sandbox.spawn(&["up", "--watch"]);
    up.wait_for_line("watch: on");
    sandbox.write("src/in", "1");
    up.wait_for_line("service `a`: its build command ended with exit status: 3");
    up.wait_for_line("run 2");
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert!(!up.stderr.contains("a, b: restarting"), "{up}");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn what_another_terminal_has_removed_is_not_said_to_be_restarted() {
    let sandbox = Sandbox::new();
    process(&sandbox);
    let watch = sandbox.spawn(&["watch"]);
    watch.wait_for_line("watch: on");
    sandbox.wharf(&["down"]).expect(0);
    sandbox.write("src/a.txt", "b");
    watch.wait_for_line("watch: a: has no instance to restart; `wharf up -d a` makes one");
    sandbox.wharf(&["up", "-d"]).expect(0);
    sandbox.write("src/a.txt", "c");
    watch.wait_for_line("watch: a: restarting");
    watch.signal(Signal::INT);
    // 0 where the restart was finished by then.
    let watch = watch.wait();
    assert!([0, 130].contains(&watch.code()), "{watch}");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn an_interrupt_ends_a_build_with_all_that_it_has_started() {
    for words in [&["watch"][..], &["up", "--watch"]] {
        let sandbox = Sandbox::new();
        sandbox.write("src/in", "0");
        sandbox.write(
            "compose.yaml",
            "services:\n  a:\n    x-wharf:\n      process:\n        command: [sleep, '600']\n        \
             build: [sh, -c, 'sleep 600 & echo $$! > pid.new; mv pid.new pid; wait']\n    \
             develop: {watch: [{action: rebuild, path: ./src}]}\n",
        );
        let watch = sandbox.spawn(words);
        watch.wait_for_line("watch: on");
        sandbox.write("src/in", "1");
        let pid = eventually("the build is under way", || {
            fs::read_to_string(sandbox.path().join("pid")).ok()
        });
        let below = Process::open(pid.trim().parse().unwrap()).unwrap();
        watch.signal(Signal::INT);
        let watch = watch.wait().expect(130);
        below.wait_end();
        if words == ["watch"] {
            let told = "a: interrupted: its build command was ended, and it was left as it was";
            assert!(watch.stderr.contains(told), "{watch}");
            sandbox.wharf(&["down"]).expect(0);
        }
        sandbox.until_nothing_runs();
    }
}

#[test]
fn what_a_build_writes_does_not_build_again_and_what_is_saved_meanwhile_does() {
    let sandbox = Sandbox::new();
    sandbox.write("made/in", "0");
    sandbox.write("built", "");
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf:\n      process:\n        \
         command: [sh, -c, 'echo runs $$(cat made/out) after $$(wc -l < built); exec sleep 600']\n        \
         build: [sh, -c, 'echo x >> built; cat made/in > made/out; if test -e slow; then : > slowly; while test -e slow; do sleep 0.01; done; fi']\n    \
         develop: {watch: [{action: rebuild, path: ./made}, {action: restart, path: ./made}]}\n  \
         b:\n    x-wharf: {process: {command: [sh, -c, 'echo x >> runs; echo run $$(wc -l < runs); exec sleep 600']}}\n    \
         develop: {watch: [{action: restart, path: ./mark}]}\n",
    );
    sandbox.write("made/out", "0");
    let up = sandbox.spawn(&["up", "--watch"]);
    up.wait_for_line("runs 0 after 0");
    up.wait_for_line("watch: on");
    let mut runs = 1;
    let mut rests_after = |builds: &str| {
        // What has changed before is acted upon before.
        runs += 1;
        sandbox.write("mark", "x");
        up.wait_for_line(&format!("run {runs}"));
        let built = fs::read_to_string(sandbox.path().join("built")).unwrap();
        assert_eq!(built.lines().count().to_string(), builds);
    };
    // Once more, since nobody knows who has written it.
    sandbox.write("made/in", "1");
    up.wait_for_line("made/out, which is watched");
    up.wait_for_line("runs 1 after 2");
    rests_after("2");
    sandbox.write("made/in", "2");
    up.wait_for_line("runs 2 after 3");
    rests_after("3");
    // Saved while the one before is being built.
    sandbox.write("slow", "");
    sandbox.write("made/in", "3");
    eventually("the build is under way", || {
        sandbox.path().join("slowly").exists().then_some(())
    });
    sandbox.write("made/in", "4");
    fs::remove_file(sandbox.path().join("slow")).unwrap();
    up.wait_for_line("runs 4 after 5");
    rests_after("5");
    up.signal(Signal::INT);
    up.wait().expect(130);
}

#[test]
fn what_a_service_writes_into_its_own_watched_path_does_not_restart_it_without_end() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf:\n      process:\n        \
         command: [sh, -c, 'echo x >> runs; while :; do echo x >> src/a.log; sleep 0.2; done']\n    \
         develop: {watch: [{action: restart, path: ./src}]}\n  \
         b:\n    x-wharf: {process: {command: [sh, -c, 'echo x >> bees; echo bee $$(wc -l < bees); exec sleep 600']}}\n    \
         develop: {watch: [{action: restart, path: ./mark}]}\n",
    );
    sandbox.write("src/main", "1");
    let up = sandbox.spawn(&["up", "--watch"]);
    up.wait_for_line("name it in `ignore`");
    // Nobody else waits for that.
    sandbox.write("mark", "x");
    up.wait_for_line("bee 2");
    std::thread::sleep(std::time::Duration::from_secs(3));
    up.signal(Signal::INT);
    let finished = up.wait().expect(130);
    let log = "src/a.log: if a service writes that";
    assert_eq!(finished.stderr.matches(log).count(), 1, "{finished}");
    let runs = fs::read_to_string(sandbox.path().join("runs")).unwrap();
    assert!(runs.lines().count() < 10, "{finished}");
}

#[test]
fn what_git_ignores_does_not_restart_a_process() {
    let sandbox = Sandbox::new();
    for (name, text) in [
        (".git/HEAD", ""),
        (".git/info/exclude", "*.mine\n"),
        (".gitignore", "*.log\n"),
        ("app/.gitignore", "/*\n!/src/\n!/mark\n"),
        ("app/src/.gitignore", "!keep.log\n/gen/\n"),
        ("app/src/gen/x", ""),
        ("app/src/a", ""),
    ] {
        sandbox.write(name, text);
    }
    sandbox.write(
        "app/compose.yaml",
        "services:\n  a:\n    x-wharf: {process: {command: [sh, -c, 'echo x >> runs; echo run $$(wc -l < runs); exec sleep 600']}}\n    \
         develop: {watch: [{action: restart, path: .}]}\n",
    );
    let up = sandbox.spawn(&["-f", "app/compose.yaml", "up", "--watch"]);
    up.wait_for_line("run 1");
    up.wait_for_line("watch: on");
    for (run, name) in ["src/a", "src/keep.log", "mark"].into_iter().enumerate() {
        for ignored in ["src/gen/x", "src/a.log", "src/a.mine", "top", "other/x"] {
            sandbox.write(&format!("app/{ignored}"), "x");
        }
        // Had one of them counted, it would be another batch's, or a run more in the end.
        sandbox.write(&format!("app/{name}"), "y");
        up.wait_for_line(&format!("run {}", run + 2));
    }
    up.signal(Signal::INT);
    let finished = up.wait().expect(130);
    assert_eq!(
        finished.stderr.matches("a: restarting").count(),
        3,
        "{finished}"
    );
}

#[test]
fn ignore_files_that_change_count_from_then_on() {
    let sandbox = Sandbox::new();
    for (name, text) in [
        (".git/config", ""),
        (".git/info/exclude", ""),
        (".gitignore", "*.log\n"),
        (".dockerignore", "docs\n"),
        ("../config/git/ignore", "*.mine\n"),
        ("app/src/a", ""),
        ("app/gen/x", ""),
        ("app/docs/x", ""),
    ] {
        sandbox.write(name, text);
    }
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf: {process: {command: [sh, -c, 'echo x >> runs; echo run $$(wc -l < runs); exec sleep 600']}}\n    \
         develop: {watch: [{action: restart, path: ./app/src}, {action: restart, path: ./app/docs}, {action: restart, path: ./app/gen}]}\n",
    );
    let up = sandbox.spawn(&["up", "--watch"]);
    up.wait_for_line("run 1");
    up.wait_for_line("watch: on");
    // Which file is written with which text; then what counts no more, and what does.
    let steps = [
        (".gitignore", "*.log\n", "a.mine", "a"),
        (".gitignore", "*.tmp\n", "a.tmp", "a.log"),
        ("app/src/.gitignore", "*.new\n", "b.new", "a"),
        (".git/info/exclude", "*.mess\n", "c.mess", "a"),
        ("../config/git/ignore", "*.other\n", "d.other", "d.mine"),
        (".dockerignore", "app/src/docs\n", "docs", "a"),
    ];
    let mut run = 1;
    for (file, text, ignored, counted) in steps {
        sandbox.write(file, text);
        if file.starts_with("app/src") {
            // It is itself below what is watched.
            run += 1;
            up.wait_for_line(&format!("run {run}"));
        }
        sandbox.write(&format!("app/src/{ignored}"), "x");
        sandbox.write(&format!("app/src/{counted}"), run.to_string());
        run += 1;
        up.wait_for_line(&format!("run {run}"));
        // Alone, it would be a batch of its own.
        sandbox.write(&format!("app/src/{ignored}"), "y");
    }
    up.signal(Signal::INT);
    let finished = up.wait().expect(130);
    assert_eq!(
        finished.stderr.matches("a: restarting").count(),
        run - 1,
        "{finished}"
    );
}

#[test]
fn a_key_switches_watching_on_and_off() {
    let sandbox = Sandbox::new();
    process(&sandbox);
    let mut terminal = sandbox.terminal(&["up"]);
    let screen = terminal.wait_for("run 1 built 0");
    assert!(screen.contains("w watch"), "{screen}");
    terminal.type_text("w");
    terminal.wait_for("watch: on");
    sandbox.write("src/a.txt", "b");
    terminal.wait_for("run 2 built 0");
    terminal.type_text("w");
    terminal.wait_for("watch: off");
    sandbox.write("src/a.txt", "c");
    terminal.type_text("d");
    let finished = terminal.wait().expect(0);
    assert!(!finished.stdout.contains("run 3"), "{finished}");
    assert_eq!(
        fs::read_to_string(sandbox.path().join("runs")).unwrap(),
        "x\nx\n"
    );
}

#[test]
fn watching_needs_something_to_watch() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "compose.yaml",
        "services:\n  a: {x-wharf: {process: {command: [sleep, '600']}}}\n",
    );
    for command in [&["watch"][..], &["up", "--watch"]] {
        let failed = sandbox.wharf(command).expect(1);
        assert!(failed.stderr.contains("develop: {watch"), "{failed}");
    }
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    image: x\n    develop: {watch: [{action: rebuild, path: .}]}\n    \
         x-wharf: {process: {command: [sleep, '600'], buidl: x}}\n",
    );
    sandbox.wharf(&["watch"]).expect(3).expect_text("build");
}

#[test]
fn where_a_process_reads_all_itself_there_is_nothing_to_do_and_no_failure() {
    let sandbox = Sandbox::new();
    sandbox.write("src/a.txt", "a");
    sandbox.write(
        "compose.yaml",
        "services:\n  a:\n    x-wharf: {process: {command: [sh, -c, 'echo runs; exec sleep 600']}}\n    \
         develop: {watch: [{action: sync, path: ./src, target: /app, initial_sync: true}]}\n",
    );
    let up = sandbox.spawn(&["up", "--watch"]);
    up.wait_for_line("runs");
    up.wait_for_line("a: nothing to sync");
    up.signal(Signal::INT);
    up.wait().expect(130);
    let watch = sandbox.wharf(&["watch"]).expect(0);
    assert!(watch.stderr.contains("a: nothing to sync"), "{watch}");
    assert!(!watch.stderr.contains("watch: on"), "{watch}");
    sandbox.wharf(&["ps"]).expect(0).expect_text("Up");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn a_container_that_has_ended_gets_files_too() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    sandbox.write("src/run", "echo run 1; exit 3");
    sandbox.write("src/old", "");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    image: {image}\n    pull_policy: never\n    stop_grace_period: 0s\n    command: [sh, /src/run]\n    \
             develop: {{watch: [{{action: sync+restart, path: ./src, target: /src, initial_sync: true}}]}}\n"
        ),
    );
    let up = sandbox.spawn(&["up", "--watch"]);
    // Its first start is after it has the file.
    up.wait_for_line("web-1  | run 1");
    up.wait_for_line("web-1 exited with code 3");
    up.wait_for_line("watch: on");
    // In one go, on a busy machine too.
    up.signal(Signal::STOP);
    fs::remove_file(sandbox.path().join("src/old")).unwrap();
    sandbox.write("src/run", "echo run 2; exec sleep 600");
    up.signal(Signal::CONT);
    up.wait_for_line("web-1  | run 2");
    eventually("what is gone is gone there", || {
        let listed = sandbox.wharf(&["exec", "-T", "web", "ls", "/src"]);
        (listed.stdout == "run\n").then_some(())
    });
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert_eq!(up.stdout.matches("| run 1").count(), 1, "{up}");
    assert!(!up.stderr.contains("can't open"), "{up}");
    sandbox.wharf(&["down"]).expect(0);
    // `watch` copies when it begins: what has failed for want of that is started once more.
    let watch = sandbox.spawn(&["watch"]);
    watch.wait_for_line("watch: on");
    sandbox
        .wharf(&["logs", "web"])
        .expect(0)
        .expect_text("run 2");
    watch.signal(Signal::INT);
    watch.wait().expect(130);
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn containers_get_files_lose_them_and_are_rebuilt() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let image = engine.busybox();
    sandbox.write("src/a.txt", "one");
    sandbox.write("src/sub/b.txt", "b");
    sandbox.write("conf.toml", "x = 1");
    sandbox.write("shown/x", "x");
    sandbox.write(".dockerignore", "**/*.tmp\n");
    sandbox.write(
        "Dockerfile",
        format!("FROM {image}\nRUN [\"/bin/busybox\", \"mkdir\", \"/tmp\"]\nCOPY src /app\nCMD [\"sleep\", \"600\"]\n"),
    );
    sandbox.write(
        "compose.yaml",
        "services:\n  web:\n    build: .\n    stop_grace_period: 0s\n    volumes: ['./shown:/shown']\n    develop:\n      watch:\n        \
         - {action: sync, path: ./src, target: /app}\n        \
         - {action: sync, path: ./shown, target: /shown}\n        \
         - {action: sync+restart, path: ./conf.toml, target: /conf.toml, initial_sync: true}\n        \
         - {action: sync+exec, path: ./hot, target: /hot, exec: {command: [sh, -c, 'echo reloaded; echo x >> /tmp/reloads']}}\n        \
         - {action: rebuild, path: ./Dockerfile}\n",
    );
    let name = format!("{}-web-1", sandbox.project());
    let watch = sandbox.spawn(&["watch", "--quiet"]);
    watch.wait_for_line("watch: on");
    watch.wait_for_line("a bind mount already shows it");
    let inside = |what: &str| {
        let shown = engine.docker(&["exec", &name, "sh", "-c", what]);
        shown.stdout.trim().to_owned()
    };
    let until = |what: &str, expected: &str| {
        eventually(&format!("`{what}` says {expected}"), || {
            (inside(what) == expected).then_some(())
        });
    };
    assert_eq!(inside("cat /conf.toml"), "x = 1");
    sandbox.write("src/no.tmp", "x");
    sandbox.write("src/a.txt", "two");
    sandbox.write("src/new/deep/c.txt", "c");
    fs::remove_dir_all(sandbox.path().join("src/sub")).unwrap();
    until("cat /app/new/deep/c.txt", "c");
    until("cat /app/a.txt; echo; ls /app", "two\na.txt\nnew");
    sandbox.write("hot/h", "h");
    watch.wait_for_line("| reloaded");
    assert_eq!(inside("cat /hot/h"), "h");
    let started = || engine.ask(&["inspect", "--format", "{{.State.StartedAt}} {{.Id}}", &name]);
    let before = started();
    sandbox.write("conf.toml", "x = 2");
    eventually("it was restarted", || (started() != before).then_some(()));
    until("cat /conf.toml", "x = 2");
    let dockerfile = fs::read_to_string(sandbox.path().join("Dockerfile")).unwrap();
    sandbox.write("Dockerfile", dockerfile + "ENV NEW=1\n");
    until("echo $NEW; ls /app", "1\na.txt\nnew");
    let label = format!("label=com.docker.compose.project={}", sandbox.project());
    let nameless = [
        "images",
        "--quiet",
        "--filter",
        "dangling=true",
        "--filter",
        &label,
    ];
    eventually("the old image is gone", || {
        engine.ask(&nameless).is_empty().then_some(())
    });
    watch.signal(Signal::INT);
    watch.wait().expect(130);
    assert_eq!(engine.of_project("container", sandbox.project()).len(), 1);
    sandbox.wharf(&["down"]).expect(0);
    engine.ask(&["rmi", &format!("{}-web", sandbox.project())]);
}
