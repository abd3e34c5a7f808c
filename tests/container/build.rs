//! Images built by the engine's classic builder, and what it has in common with `BuildKit`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use wharf::backend::container::Containers;
use wharf::backend::{Backend, BackendError};
use wharf::event::Event;
use wharf::plan::step::{Action, Cause, Step, StepId};
use wharf::project::model::{Build, BuildContext, Service};

use crate::engine::{Lab, docker, env, inspect, lab};

/// Makes the lab's builds use one builder: `0` for the classic one, `1` for `BuildKit`.
pub(crate) fn use_builder(lab: &mut Lab, buildkit: &str) {
    let mut env = env();
    env.variables
        .insert("DOCKER_BUILDKIT".to_owned(), buildkit.to_owned());
    lab.containers = Containers::new(&env);
}

pub(crate) fn built(lab: &Lab, dockerfile: &str) -> Service {
    let base = lab.busybox();
    let context = lab.directory.path().join("context");
    fs::create_dir_all(context.join("skipped")).unwrap();
    fs::write(
        context.join("Dockerfile"),
        dockerfile
            .replace("BASE", base)
            .replace("MARK", &lab.project.name),
    )
    .unwrap();
    fs::write(context.join("kept"), "kept").unwrap();
    fs::write(context.join("skipped/file"), "no").unwrap();
    fs::write(context.join(".dockerignore"), "skipped\nDockerfile\n").unwrap();
    Service {
        name: "web".to_owned(),
        build: Some(Build {
            context: BuildContext::Directory(context),
            args: BTreeMap::from([("WORD".to_owned(), Some("given".to_owned()))]),
            tags: vec![format!("{}-second", lab.project.name)],
            labels: BTreeMap::from([("own".to_owned(), "label".to_owned())]),
            ..Build::default()
        }),
        ..Service::default()
    }
}

/// How many containers of the builder run a command with this lab's mark in it (`-a`: or did).
fn steps_at_work(lab: &Lab, which: &str) -> usize {
    let commands = docker(&["ps", "--no-trunc", which, "--format", "{{.Command}}"]);
    commands
        .lines()
        .filter(|command| command.contains(&lab.project.name))
        .count()
}

async fn await_steps_at_work(lab: &Lab, which: &str, wanted: usize) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while steps_at_work(lab, which) != wanted {
        assert!(Instant::now() < deadline, "not {wanted} steps at work");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn action(lab: &Lab, service: Service) -> Action {
    Action::Build {
        image: format!("{}-{}", lab.project.name, service.name),
        service: Arc::new(service),
        pull_first: false,
        project: Arc::clone(&lab.project),
    }
}

#[tokio::test]
async fn an_image_is_built_from_what_is_not_ignored() {
    let mut lab = lab!();
    use_builder(&mut lab, "0");
    let service = built(
        &lab,
        "FROM BASE AS first\nARG WORD=none\nCOPY . /in\nRUN ls -A /in; echo word=$WORD\nFROM first AS last\nENV LAST=1\n",
    );
    let mut first = service.clone();
    first.build.as_mut().unwrap().target = Some("first".to_owned());
    let action = action(&lab, service);
    lab.perform(action).await.unwrap();
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
            "com.docker.compose.image.builder": "classic",
        })
    );
    let last = image["Config"]["Env"].as_array().unwrap();
    assert!(last.contains(&json!("LAST=1")));

    let lines: Vec<String> = lab
        .told()
        .into_iter()
        .filter_map(|event| {
            let Event::Progress { subject, line } = event else {
                return None;
            };
            assert_eq!(subject, "web");
            Some(line)
        })
        .collect();
    let position = |wanted: &str| lines.iter().position(|line| line == wanted);
    assert!(position("kept").is_some(), "{lines:#?}");
    assert!(position("word=given").is_some(), "{lines:#?}");
    assert_eq!(position("skipped"), None);
    // Needed by the builder, ignored for the build.
    assert_eq!(position("Dockerfile"), None);
    assert!(
        position("Step 5/6 : FROM first AS last").is_some()
            || lines.iter().any(|line| line.contains("FROM first AS last"))
    );

    let again = Action::Build {
        image: format!("{}-web", lab.project.name),
        service: Arc::new(first),
        pull_first: false,
        project: Arc::clone(&lab.project),
    };
    lab.perform(again).await.unwrap();
    let image = inspect(&format!("{}-web", lab.project.name));
    let variables = image["Config"]["Env"].as_array().unwrap();
    assert!(!variables.contains(&json!("LAST=1")));
}

#[tokio::test]
async fn a_failing_step_is_named_with_its_output() {
    let mut lab = lab!();
    use_builder(&mut lab, "0");
    let service = built(
        &lab,
        "FROM BASE\nRUN : MARK; echo on the way; exit 7\nRUN echo never\n",
    );
    let action = action(&lab, service);
    let error = lab.perform(action).await.unwrap_err();
    let BackendError::Build {
        image,
        step,
        message,
        last_lines,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(image, format!("{}-web", lab.project.name));
    assert_eq!(
        step.as_deref(),
        Some(format!("RUN : {}; echo on the way; exit 7", lab.project.name).as_str())
    );
    assert!(message.contains("non-zero code: 7"), "{message}");
    assert!(
        last_lines.contains(&"on the way".to_owned()),
        "{last_lines:?}"
    );
    assert_eq!(steps_at_work(&lab, "-a"), 0);
}

#[tokio::test]
async fn mistakes_before_the_first_step_are_build_errors_too() {
    let mut lab = lab!();
    for builder in ["0", "1"] {
        use_builder(&mut lab, builder);
        let service = built(&lab, "FROM BASE\nFLY away\n");
        let broken = action(&lab, service.clone());
        let error = lab.perform(broken).await.unwrap_err();
        let BackendError::Build { message, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(message.contains("FLY"), "{message}");

        let mut missing = service;
        missing.build.as_mut().unwrap().dockerfile = Some("Elsewhere".to_owned());
        let missing = action(&lab, missing);
        let error = lab.perform(missing).await.unwrap_err();
        let BackendError::Build { message, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(message.contains("context/Elsewhere"), "{message}");
    }
}

#[tokio::test]
async fn a_dockerfile_may_be_in_the_compose_file() {
    let mut lab = lab!();
    for builder in ["0", "1"] {
        use_builder(&mut lab, builder);
        let mut service = built(&lab, "FROM nothing");
        let build = service.build.as_mut().unwrap();
        build.dockerfile_inline = Some(format!("FROM {}\nCOPY kept /kept\n", lab.busybox()));
        let action = action(&lab, service);
        lab.perform(action).await.unwrap();
        let name = format!("{}-web", lab.project.name);
        assert_eq!(
            docker(&["run", "--rm", "--net=none", &name, "cat", "/kept"]),
            "kept"
        );
    }
}

#[tokio::test]
async fn a_build_that_is_given_up_leaves_nothing_running() {
    let mut lab = lab!();
    use_builder(&mut lab, "0");
    let service = built(&lab, "FROM BASE\nRUN echo begun; sleep 600; : MARK\n");
    let step = Step {
        id: StepId(1),
        action: action(&lab, service),
        cause: Cause::Missing,
        needs: Vec::new(),
    };
    {
        let building = lab.containers.perform(&step, &lab.made, &lab.events);
        let mut building = std::pin::pin!(building);
        let begun = async {
            while let Some(event) = lab.received.recv().await {
                if matches!(event, Event::Progress { line, .. } if line == "begun") {
                    return;
                }
            }
        };
        tokio::select! {
            done = &mut building => panic!("{done:?}"),
            () = begun => {}
        }
        await_steps_at_work(&lab, "--no-trunc", 1).await;
    }
    await_steps_at_work(&lab, "-a", 0).await;
}
