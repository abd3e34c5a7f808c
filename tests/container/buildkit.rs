//! Images built by the engine's `BuildKit`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::json;
use wharf::backend::BackendError;
use wharf::event::Event;
use wharf::project::model::{NamedContext, StoreSource};

use crate::build::{action, built, use_builder};
use crate::engine::{Lab, docker, inspect, lab, skipped};

fn buildkit() -> Option<Lab> {
    let mut lab = Lab::new()?;
    use_builder(&mut lab, "1");
    Some(lab)
}

/// The lines of the build so far, without their numbers.
fn lines(lab: &mut Lab) -> Vec<String> {
    let line = |event| {
        let Event::Progress { line, .. } = event else {
            return None;
        };
        let (_, text) = line.split_once(' ')?;
        Some(text.to_owned())
    };
    lab.told().into_iter().filter_map(line).collect()
}

#[tokio::test]
async fn an_image_is_built_with_secrets_caches_and_an_ssh_agent() {
    let Some(mut lab) = buildkit() else {
        return;
    };
    let mut service = built(
        &lab,
        "FROM BASE AS first\nARG WORD=none\nCOPY . /in\nRUN ls -A /in; echo word=$WORD\n\
         RUN --mount=type=secret,id=word --mount=type=secret,id=note cat /run/secrets/word /run/secrets/note\n\
         RUN --mount=type=cache,target=/kept-by-builder echo MARK >> /kept-by-builder/runs\n\
         RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo an agent is here\n\
         FROM first AS last\nENV LAST=1\n",
    );
    let agent = lab.directory.path().join("agent.sock");
    let note = lab.directory.path().join("note");
    fs::write(&note, "from a file\n").unwrap();
    let build = service.build.as_mut().unwrap();
    // What comes from the cache says nothing.
    build.no_cache = true;
    build.secrets = BTreeMap::from([
        (
            "word".to_owned(),
            StoreSource::Environment("WORD".to_owned(), Some("from a variable\n".to_owned())),
        ),
        ("note".to_owned(), StoreSource::File(note)),
    ]);
    build.ssh = BTreeMap::from([("default".to_owned(), Some(agent.display().to_string()))]);
    let _listener = UnixListener::bind(&agent).unwrap();
    let build = action(&lab, service);
    lab.perform(build).await.unwrap();

    let image = inspect(&format!("{}-web", lab.project.name));
    assert_eq!(
        image["Id"],
        inspect(&format!("{}-second", lab.project.name))["Id"]
    );
    assert_eq!(
        image["Config"]["Labels"],
        json!({
            "own": "label",
            "com.docker.compose.project": lab.project.name,
            "com.docker.compose.service": "web",
            "com.docker.compose.version": env!("CARGO_PKG_VERSION"),
        })
    );
    let variables = image["Config"]["Env"].as_array().unwrap();
    assert!(variables.contains(&json!("LAST=1")));
    let lines = lines(&mut lab);
    let said = |text: &str| lines.iter().any(|line| line.ends_with(text));
    for text in [
        "kept",
        "word=given",
        "from a variable",
        "from a file",
        "an agent is here",
    ] {
        assert!(said(text), "{text} in {lines:#?}");
    }
    assert!(
        !said(" skipped") && !lines.contains(&"skipped".to_owned()),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn the_cache_is_in_an_image_that_asks_for_it() {
    let Some(mut lab) = buildkit() else {
        return;
    };
    let holds_cache = |image: &str| {
        let save = Command::new("docker")
            .args(["save", image])
            .output()
            .unwrap();
        assert!(save.status.success(), "{save:?}");
        // The configuration of the image, as it would be pushed.
        let key = b"moby.buildkit.cache.v0";
        save.stdout.windows(key.len()).any(|bytes| bytes == key)
    };
    let image = format!("{}-web", lab.project.name);
    for (asked, wanted) in [("0", false), ("1", true)] {
        let mut service = built(&lab, "FROM BASE\nRUN echo MARK > /made\n");
        let build = service.build.as_mut().unwrap();
        build
            .args
            .insert("BUILDKIT_INLINE_CACHE".to_owned(), Some(asked.to_owned()));
        lab.perform(action(&lab, service)).await.unwrap();
        assert_eq!(holds_cache(&image), wanted, "{asked}");
    }
}

#[tokio::test]
async fn the_cache_is_left_aside_for_the_stages_that_are_named() {
    let Some(mut lab) = buildkit() else {
        return;
    };
    let image = format!("{}-web", lab.project.name);
    let mut made = Vec::new();
    for _ in 0..2 {
        let mut service = built(
            &lab,
            "FROM BASE AS one\nRUN echo MARK > /one; cat /proc/sys/kernel/random/uuid >> /one\n\
             FROM one AS two\nRUN cat /proc/sys/kernel/random/uuid > /two\n\
             FROM two AS last\n",
        );
        let build = service.build.as_mut().unwrap();
        build.target = Some("last".to_owned());
        build.no_cache_filter = vec!["two".to_owned()];
        lab.perform(action(&lab, service)).await.unwrap();
        let read = |file: &str| docker(&["run", "--rm", &image, "cat", file]);
        made.push((read("/one"), read("/two")));
    }
    assert_eq!(made[0].0, made[1].0);
    assert_ne!(made[0].1, made[1].1);
}

#[tokio::test]
async fn a_key_file_has_an_agent_as_long_as_the_build() {
    let Some(mut lab) = buildkit() else {
        return;
    };
    let key = lab.directory.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("there is no ssh-keygen");
        return;
    }
    let mut service = built(
        &lab,
        "FROM BASE\nRUN --mount=type=ssh,id=deploy,required=true : MARK; test -S $SSH_AUTH_SOCK\n",
    );
    let build = service.build.as_mut().unwrap();
    build.ssh = BTreeMap::from([("deploy".to_owned(), Some(key.display().to_string()))]);
    let again = service.clone();
    let build = action(&lab, service);
    lab.perform(build).await.unwrap();

    fs::write(&key, "no key").unwrap();
    let build = action(&lab, again);
    let BackendError::Build { message, .. } = lab.perform(build).await.unwrap_err() else {
        panic!("not a build error");
    };
    assert!(message.contains("ssh-add"), "{message}");
}

#[tokio::test]
async fn a_failing_step_is_named_with_its_output() {
    let Some(mut lab) = buildkit() else {
        return;
    };
    let service = built(
        &lab,
        "FROM BASE\nRUN : MARK; echo on the way; exit 7\nRUN echo never\n",
    );
    let build = action(&lab, service);
    let error = lab.perform(build).await.unwrap_err();
    let BackendError::Build {
        step,
        message,
        last_lines,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(
        step.as_deref(),
        Some(format!("RUN : {}; echo on the way; exit 7", lab.project.name).as_str())
    );
    assert!(message.contains("exit code: 7"), "{message}");
    assert!(
        last_lines.iter().any(|line| line.ends_with("on the way")),
        "{last_lines:?}"
    );
}

#[tokio::test]
async fn named_contexts_are_used_or_refused() {
    let mut lab = lab!();
    use_builder(&mut lab, "1");
    let more = lab.directory.path().join("more");
    fs::create_dir(&more).unwrap();
    fs::write(more.join("file"), "from beside").unwrap();
    let mut service = built(&lab, "FROM BASE\nCOPY --from=more file /file\n");
    let build = service.build.as_mut().unwrap();
    build.additional_contexts =
        BTreeMap::from([("more".to_owned(), NamedContext::Directory(more))]);
    let build = action(&lab, service);
    let outcome = lab.perform(build).await;
    let api = docker(&["version", "--format", "{{.Server.APIVersion}}"]);
    let minor: u32 = api.strip_prefix("1.").unwrap().parse().unwrap();
    if minor >= 42 {
        outcome.unwrap();
        let name = format!("{}-web", lab.project.name);
        let read = docker(&["run", "--rm", "--net=none", &name, "cat", "/file"]);
        assert_eq!(read, "from beside");
    } else {
        let BackendError::Build { message, .. } = outcome.unwrap_err() else {
            panic!("not a build error");
        };
        assert!(message.contains("Docker Engine 23"), "{message}");
    }
}

#[tokio::test]
async fn the_classic_builder_refuses_what_it_does_not_have() {
    let mut lab = lab!();
    use_builder(&mut lab, "0");
    let mut service = built(&lab, "FROM BASE\n");
    let build = service.build.as_mut().unwrap();
    build.ssh = BTreeMap::from([("default".to_owned(), None)]);
    let build = action(&lab, service);
    let BackendError::Build { message, .. } = lab.perform(build).await.unwrap_err() else {
        panic!("not a build error");
    };
    assert!(message.contains("build.ssh"), "{message}");
}
