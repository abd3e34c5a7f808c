//! What another terminal starts while `up` is in front: shown, waited for and stopped as if `up` had started it.

use rustix::process::Signal;

use crate::support::{Engine, Sandbox, require_engine};

/// Three services of one form, of which `extra` and `job` do not run by themselves, and one whose profile is off. Each
/// says a word.
fn stack(sandbox: &Sandbox, word: &str, form: &dyn Fn(&str) -> String) {
    let lives = form("echo $$WORD; while :; do sleep 0.1; done");
    let lives = format!("stop_grace_period: 0s\n    environment: {{WORD: {word}}}\n    {lives}");
    let ends = form("echo done; exit 3");
    sandbox.write(
        "compose.yaml",
        format!(
            "services:\n  web:\n    {lives}\n  extra:\n    scale: 0\n    {lives}\n  job:\n    scale: 0\n    {ends}\n  \
             other:\n    profiles: [off]\n    {lives}\n"
        ),
    );
}

fn local(script: &str) -> String {
    format!("x-wharf: {{process: {{command: [sh, -c, '{script}']}}}}")
}

fn in_containers(engine: &Engine) -> impl Fn(&str) -> String {
    let image = engine.busybox();
    move |script| {
        format!("image: {image}\n    pull_policy: never\n    command: [sh, -c, '{script}']")
    }
}

/// What runs, without the project's part of the name.
fn running(sandbox: &Sandbox) -> Vec<String> {
    let rows = ["ps", "--orphans", "--format", "{{.Name}}"];
    let rows = sandbox.wharf(&rows).expect(0).stdout;
    let mut names: Vec<String> = rows.lines().map(str::to_owned).collect();
    for name in &mut names {
        *name = name.replace(&format!("{}-", sandbox.project()), "");
    }
    names
}

/// Starts one more instance of a service as another terminal would.
fn start(sandbox: &Sandbox, service: &str, count: u32) {
    let scale = format!("{service}={count}");
    let words = ["up", "-d", "--no-recreate", "--scale", &scale, service];
    sandbox.wharf(&words).expect(0);
}

fn everything_is_in_front(sandbox: &Sandbox, form: &dyn Fn(&str) -> String) {
    stack(sandbox, "old", form);
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("web-1  | old");
    start(sandbox, "web", 2);
    up.wait_for_line("web-2  | old");
    // The longest name is a new one.
    start(sandbox, "extra", 1);
    up.wait_for_line("extra-1  | old");
    // Over before anybody has looked.
    up.signal(Signal::STOP);
    start(sandbox, "job", 1);
    up.signal(Signal::CONT);
    up.wait_for_line("job-1    | done");
    up.wait_for_line("job-1 exited with code 3");
    stack(sandbox, "new", form);
    let anew = ["up", "-d", "--scale", "web=2", "web"];
    sandbox.wharf(&anew).expect(0);
    up.wait_for_line("web-1    | new");
    up.wait_for_line("web-2    | new");
    // Whose profile is off takes no part.
    sandbox.wharf(&["up", "-d", "other"]).expect(0);
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    for line in [
        "web-2  | old",
        "web-2    | new",
        "job-1    | done",
        "job-1 exited with code 3",
    ] {
        assert_eq!(up.stdout.matches(line).count(), 1, "`{line}`: {up}");
    }
    assert!(!up.stdout.contains("other-1"), "{up}");
    assert_eq!(running(sandbox), ["other-1"], "{up}");
    sandbox.wharf(&["--profile", "off", "down"]).expect(0);
}

#[test]
fn processes_that_another_terminal_starts_are_in_front_too() {
    let sandbox = Sandbox::new();
    everything_is_in_front(&sandbox, &local);
    sandbox.until_nothing_runs();
}

#[test]
fn containers_that_another_terminal_starts_are_in_front_too() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    everything_is_in_front(&sandbox, &in_containers(&engine));
}

#[test]
fn what_moves_between_the_forms_is_followed() {
    let engine = require_engine!();
    let sandbox = Sandbox::with_engine(&engine);
    let container = in_containers(&engine);
    let both = |script: &str| format!("{}\n    {}", container(script), local(script));
    stack(&sandbox, "word", &both);
    let up = sandbox.spawn(&["up", "--local"]);
    up.wait_for_line("web-1  | word");
    sandbox.wharf(&["up", "-d", "--container"]).expect(0);
    // A replica of the other form, which is heard of by the engine alone.
    start(&sandbox, "web", 2);
    up.wait_for_line("web-2  | word");
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert_eq!(up.stdout.matches("web-1  | word").count(), 2, "{up}");
    assert_eq!(running(&sandbox), [""; 0], "{up}");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn what_was_not_asked_for_is_neither_shown_nor_stopped() {
    let sandbox = Sandbox::new();
    stack(&sandbox, "word", &local);
    let up = sandbox.spawn(&["up", "web"]);
    up.wait_for_line("web-1  | word");
    start(&sandbox, "extra", 1);
    start(&sandbox, "web", 2);
    up.wait_for_line("web-2  | word");
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert!(!up.stdout.contains("extra-1"), "{up}");
    assert_eq!(running(&sandbox), ["extra-1"], "{up}");
    // Shown is what was not excluded, stopped is everything.
    let up = sandbox.spawn(&["up", "--no-attach", "extra", "--scale", "extra=1"]);
    up.wait_for_line("web-1    | word");
    start(&sandbox, "extra", 2);
    start(&sandbox, "web", 2);
    up.wait_for_line("web-2    | word");
    up.signal(Signal::INT);
    let up = up.wait().expect(130);
    assert!(!up.stdout.contains("extra-"), "{up}");
    assert_eq!(running(&sandbox), [""; 0], "{up}");
    sandbox.wharf(&["down"]).expect(0);
}

#[test]
fn the_end_of_what_another_terminal_starts_ends_up_where_an_end_does() {
    let sandbox = Sandbox::new();
    stack(&sandbox, "word", &local);
    let up = sandbox.spawn(&["up", "--abort-on-container-exit"]);
    up.wait_for_line("web-1  | word");
    start(&sandbox, "extra", 1);
    up.wait_for_line("extra-1  | word");
    start(&sandbox, "job", 1);
    let up = up.wait().expect(3);
    assert!(up.stdout.contains("extra-1 exited with code"), "{up}");
    assert_eq!(running(&sandbox), [""; 0], "{up}");
    // Without that, `up` goes on as long as anything does.
    let up = sandbox.spawn(&["up"]);
    up.wait_for_line("web-1  | word");
    start(&sandbox, "extra", 1);
    up.wait_for_line("extra-1  | word");
    sandbox.wharf(&["stop", "web"]).expect(0);
    up.wait_for_line("web-1 exited with code");
    sandbox.wharf(&["restart", "extra"]).expect(0);
    sandbox.wharf(&["stop", "extra"]).expect(0);
    // Who is late sees the second end alone.
    let up = up.wait().expect(0);
    assert!(up.stdout.contains("extra-1 exited with code"), "{up}");
    sandbox.wharf(&["down"]).expect(0);
}
