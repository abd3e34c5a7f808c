//! The engine is killed in the middle of `up`: what was done is told, and the same command goes on with it.

use std::fmt::Write as _;

use crate::support::own_engine::OwnEngine;
use crate::support::{Sandbox, eventually, require_engine};

const SERVICES: usize = 9;

#[test]
fn an_up_whose_engine_was_killed_is_gone_on_with() {
    let engine = require_engine!();
    let mut sandbox = Sandbox::new();
    let Some(mut own) = OwnEngine::start(&mut sandbox, &engine) else {
        return;
    };
    let mut text = "services:\n".to_owned();
    for number in 0..SERVICES {
        let image = engine.busybox();
        write!(
            text,
            "  s{number}:\n    image: {image}\n    pull_policy: never\n    command: [sleep, '1000']\n    \
             stop_grace_period: 0s\n"
        )
        .unwrap();
        if number > 0 {
            writeln!(text, "    depends_on: [s{}]", number - 1).unwrap();
        }
    }
    sandbox.write("compose.yaml", text);
    let wharf = |own: &OwnEngine, words: &[&str]| own.program(&sandbox, "wharf", words);
    let running = |own: &OwnEngine| {
        let filter = format!("label=com.docker.compose.project={}", sandbox.project());
        let all = own.engine.ask(&["ps", "-q", "--filter", &filter]);
        all.lines().count()
    };

    // While the containers are made, and while they are started one after the other.
    for moment in ["s0-1: create", "s2-1: start"] {
        let up = wharf(&own, &["up", "-d"]);
        up.wait_for_line(moment);
        own.kill();
        let up = up.wait();
        assert_eq!(up.code(), 4, "{up}");
        for words in ["does not answer", "done: ", "not done: "] {
            assert!(up.stderr.contains(words), "{words}: {up}");
        }
        own.run(&sandbox);
        let again = wharf(&own, &["up", "-d"]).wait();
        assert_eq!(again.code(), 0, "{again}");
        eventually("all run", || (running(&own) == SERVICES).then_some(()));
        let third = wharf(&own, &["up", "-d"]).wait();
        assert_eq!(
            third.stderr.matches("is up to date").count(),
            SERVICES,
            "{third}"
        );
        wharf(&own, &["down"]).wait().expect(0);
        assert_eq!(own.engine.ask(&["ps", "-aq"]), "");
    }
}
