//! `post_start` and `pre_stop`: in the service's environment, their failure is the command's.

use wharf::backend::BackendError;
use wharf::plan::step::Action;
use wharf::project::model::{Hook, Service};

use crate::stage::{PROJECT, Stage, name, shell, target};

fn hook(script: &str) -> Hook {
    Hook {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        user: None,
        privileged: false,
        working_dir: None,
        environment: vec!["EXTRA=more".into()],
    }
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_stop() {
    let mut stage = Stage::new();
    let service = Service {
        post_start: vec![hook("echo started $WHARF_SERVICE $EXTRA; pwd > after")],
        pre_stop: vec![hook("echo > before")],
        ..shell(
            "web",
            "trap 'test -e before && exit 9' TERM; echo up; while :; do sleep 0.05; done",
        )
    };
    stage.up(service).await.unwrap();
    let root = stage.root.path().to_owned();
    let wrote = std::fs::read_to_string(root.join("after")).unwrap();
    assert_eq!(wrote.trim_end(), root.display().to_string());
    let told: Vec<String> = stage.heard().into_iter().map(|(_, line)| line).collect();
    assert_eq!(told, ["started web more"]);
    stage.line("web", "up").await;
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.instance("web").await.status, crate::stage::exited(9));
}

#[tokio::test]
async fn a_hook_that_fails_is_the_error_of_the_start() {
    let stage = Stage::new();
    let service = Service {
        post_start: vec![hook("echo no good >&2; exit 3")],
        ..shell("web", "exec sleep 600")
    };
    let error = stage.up(service).await.unwrap_err();
    let BackendError::Hook {
        what,
        code,
        last_lines,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((what.as_str(), code), ("post_start", 3));
    assert_eq!(last_lines, ["no good"]);
    // The service itself runs.
    assert!(stage.instance("web").await.status.is_alive());
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_service_that_stands_still_has_its_hook_before_it_is_stopped() {
    let stage = Stage::new();
    for how in ["signal", "pause"] {
        let service = Service {
            pre_stop: vec![hook(&format!("echo > {how}"))],
            ..shell("web", "exec sleep 600")
        };
        stage.up(service).await.unwrap();
        if how == "pause" {
            let instance = target("web");
            stage.act(Action::Pause { instance }).await.unwrap();
        } else {
            let stop = rustix::process::Signal::STOP.as_raw();
            stage
                .processes
                .kill(PROJECT, &name("web"), stop)
                .await
                .unwrap();
        }
        stage.stop("web", None).await.unwrap();
        assert!(stage.root.path().join(how).exists(), "{how}");
        assert_eq!(stage.started(), Vec::<u32>::new(), "{how}");
    }
}

#[tokio::test]
async fn a_hook_that_cannot_be_run_is_named() {
    let stage = Stage::new();
    let service = Service {
        post_start: vec![Hook {
            command: vec!["no-such-program".to_owned()],
            ..hook("")
        }],
        ..shell("web", "exec sleep 600")
    };
    let error = stage.up(service).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stage-web-1: its post_start hook `no-such-program` cannot be run"
    );
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn who_it_runs_as_is_in_its_environment() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run as somebody else");
        return;
    }
    let mut stage = Stage::new();
    let say = "echo $HOME $(id -u) $USER $PWD";
    let by = |user: &str| Hook {
        user: Some(user.to_owned()),
        working_dir: Some("/".into()),
        ..hook(say)
    };
    let service = Service {
        user: Some("64321:64321".into()),
        working_dir: Some("/".into()),
        post_start: vec![by("root"), by("64322"), hook(say)],
        ..shell("web", &format!("{say}; exec sleep 600"))
    };
    stage.up(service).await.unwrap();
    let told: Vec<String> = stage.heard().into_iter().map(|(_, line)| line).collect();
    let lines = ["/root 0 root /", "/ 64322 64322 /", "/ 64321 64321 /"];
    assert_eq!(told, lines);
    assert_eq!(stage.line("web", "/ ").await, "64321 64321 /");
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn a_line_of_a_hook_that_comes_in_pieces_is_one_line() {
    let mut stage = Stage::new();
    // The second piece comes when somebody has read what came on the other stream between (`FIONREAD`).
    let script = "exec perl -e 'syswrite STDOUT, \"par\"; syswrite STDERR, \"err\\n\"; \
                  do { ioctl(STDERR, 0x541B, $left = pack(\"i\", 0)) } while unpack(\"i\", $left); \
                  print \"tial\\nlast\"'";
    let service = Service {
        post_start: vec![hook(script)],
        ..shell("web", "exec sleep 600")
    };
    stage.up(service).await.unwrap();
    let mut told: Vec<String> = stage.heard().into_iter().map(|(_, line)| line).collect();
    told.sort();
    assert_eq!(told, ["err", "last", "partial"]);
    stage.stop("web", None).await.unwrap();
}

#[tokio::test]
async fn what_a_hook_leaves_behind_with_its_output_is_not_waited_for() {
    let mut stage = Stage::new();
    let service = Service {
        post_start: vec![hook("echo begun; sleep 600 & exit 0")],
        ..shell("web", "exec sleep 600")
    };
    stage.up(service).await.unwrap();
    let told: Vec<String> = stage.heard().into_iter().map(|(_, line)| line).collect();
    assert_eq!(told, ["begun"]);
    stage.stop("web", None).await.unwrap();
    assert_eq!(stage.started(), Vec::<u32>::new());
}
