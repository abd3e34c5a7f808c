//! What a service declares beyond its command reaches the process, and what cannot is said.

use wharf::backend::LogOptions;
use wharf::event::Event;
use wharf::plan::step::Action;
use wharf::project::model::{Service, Store, StoreMount, StoreSource, Ulimit};

use crate::stage::{Stage, shell};

#[tokio::test]
async fn limits_and_the_oom_score_are_those_of_the_service() {
    let mut stage = Stage::new();
    let script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; cat /proc/self/oom_score_adj";
    let mut service = shell("web", script);
    service.ulimits.insert(
        "nofile".into(),
        Ulimit {
            soft: 100,
            hard: 200,
        },
    );
    service
        .ulimits
        .insert("core".into(), Ulimit { soft: 0, hard: 0 });
    service.oom_score_adj = Some(300);
    stage.up(service).await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    assert_eq!(text(&mut stage).await, ["100", "200", "0", "300"]);
}

#[tokio::test]
async fn secrets_and_configs_are_private_files_that_go_with_the_instance() {
    let mut stage = Stage::new();
    let script = "stat -c %a $WHARF_SECRETS_DIR $WHARF_SECRETS_DIR/key $WHARF_CONFIGS_DIR/app.conf; \
                  cat $WHARF_SECRETS_DIR/key $WHARF_CONFIGS_DIR/app.conf; echo $WHARF_SECRETS_DIR";
    let mut service = shell("web", script);
    let mount = |source: &str, target: Option<&str>| StoreMount {
        source: source.into(),
        target: target.map(str::to_owned),
        uid: None,
        gid: None,
        mode: None,
    };
    service.secrets = vec![mount("key", None)];
    service.configs = vec![mount("conf", Some("/etc/app.conf"))];
    let store = |key: &str, source| {
        std::sync::Arc::new(Store {
            key: key.into(),
            name: key.into(),
            source,
        })
    };
    let mut spec = stage.spec(service);
    let value = StoreSource::Environment("KEY".into(), Some("hush\n".into()));
    spec.secrets.insert("key".into(), store("key", value));
    let content = StoreSource::Content("a = 1\n".into());
    spec.configs.insert("conf".into(), store("conf", content));
    stage.act(Action::Create(Box::new(spec))).await.unwrap();
    stage.start("web").await.unwrap();
    assert_eq!(stage.exit_code("web").await, 0);
    let lines = text(&mut stage).await;
    assert_eq!(lines[..5], ["700", "400", "400", "hush", "a = 1"]);
    stage.remove("web").await.unwrap();
    assert!(!std::path::Path::new(&lines[5]).exists());
}

#[tokio::test]
async fn secrets_of_a_service_that_runs_as_somebody_else_are_that_users_alone() {
    let mut stage = Stage::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run a service as somebody else");
        return;
    }
    let script = "id -u; cd /; stat -c '%a %u' $WHARF_SECRETS_DIR $WHARF_SECRETS_DIR/key; \
                  cat $WHARF_SECRETS_DIR/key; echo $WHARF_SECRETS_DIR";
    let mut service = shell("web", script);
    service.user = Some("12345:12345".into());
    service.secrets = vec![StoreMount {
        source: "key".into(),
        target: None,
        uid: None,
        gid: None,
        mode: None,
    }];
    let mut spec = stage.spec(service);
    let source = StoreSource::Environment("KEY".into(), Some("hush\n".into()));
    let store = Store {
        key: "key".into(),
        name: "key".into(),
        source,
    };
    spec.secrets
        .insert("key".into(), std::sync::Arc::new(store));
    stage.act(Action::Create(Box::new(spec))).await.unwrap();
    for _ in 0..2 {
        stage.start("web").await.unwrap();
        assert_eq!(stage.exit_code("web").await, 0);
    }
    let lines = text(&mut stage).await;
    let dir = &lines[4];
    let once = ["12345", "700 12345", "400 12345", "hush", dir];
    assert_eq!(lines[..5], once);
    assert_eq!(lines[5..], once);
    stage.remove("web").await.unwrap();
    assert!(!std::path::Path::new(dir).exists());
}

#[tokio::test]
async fn what_means_nothing_for_a_process_is_said_once() {
    let mut stage = Stage::new();
    let service = Service {
        privileged: true,
        hostname: Some("other".into()),
        ..shell("web", "true")
    };
    stage.up(service).await.unwrap();
    let mut notes = Vec::new();
    while let Ok(event) = stage.receiver.try_recv() {
        if let Event::Note(text) = event {
            notes.push(text);
        }
    }
    assert_eq!(
        notes,
        ["web runs as a local process, for which these have no effect: hostname, privileged"]
    );
}

async fn text(stage: &mut Stage) -> Vec<String> {
    let lines = stage.lines("web", LogOptions::default()).await;
    lines.into_iter().map(|(_, line)| line).collect()
}
