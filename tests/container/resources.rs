//! Networks, volumes, secrets and configs, and containers that take the place of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wharf::backend::BackendError;
use wharf::backend::container::Names;
use wharf::plan::step::{Action, Attachment};
use wharf::project::model::{
    HealthTest, Healthcheck, Mount, MountKind, NetworkAttachment, Store, StoreMount, StoreSource,
    Volume,
};

use crate::engine::{Lab, docker, inspect, lab};

async fn volume(lab: &mut Lab, key: &str) -> Arc<Volume> {
    let volume = Arc::new(Volume {
        key: key.to_owned(),
        name: format!("{}_{key}", lab.project.name),
        labels: BTreeMap::from([("own".to_owned(), "label".to_owned())]),
        ..Volume::default()
    });
    lab.perform(Action::CreateVolume {
        volume: Arc::clone(&volume),
        project: Arc::clone(&lab.project),
    })
    .await
    .unwrap();
    volume
}

fn anonymous(target: &str) -> Mount {
    Mount {
        kind: MountKind::Volume {
            source: None,
            nocopy: false,
            subpath: None,
            labels: BTreeMap::new(),
        },
        target: target.to_owned(),
        read_only: false,
        consistency: None,
    }
}

#[tokio::test]
async fn what_a_project_has_is_found_by_label_and_by_name() {
    let mut lab = lab!();
    let network = lab.default_network().await;
    let volume = volume(&mut lab, "data").await;
    let labels = inspect(&volume.name)["Labels"].clone();
    assert_eq!(labels["com.docker.compose.volume"], "data");
    assert_eq!(labels["com.docker.compose.project"], lab.project.name);
    assert_eq!(labels["own"], "label");
    let labels = inspect(&network.name)["Labels"].clone();
    assert_eq!(labels["com.docker.compose.network"], "default");

    let busybox = lab.busybox().to_owned();
    let names = Names {
        networks: BTreeSet::from(["bridge".to_owned(), "no-such-network".to_owned()]),
        volumes: BTreeSet::from(["no-such-volume".to_owned()]),
        images: BTreeSet::from([busybox.clone(), "no/such:image".to_owned()]),
        labelled: true,
    };
    let found = lab
        .containers
        .resources(&lab.project.name, &names)
        .await
        .unwrap();
    let networks = BTreeSet::from(["bridge".to_owned(), network.name.clone()]);
    assert_eq!(found.networks, networks);
    assert_eq!(found.volumes, BTreeSet::from([volume.name.clone()]));
    let id = docker(&["image", "inspect", "-f", "{{.Id}}", &busybox]);
    assert_eq!(found.images, BTreeMap::from([(busybox, id)]));

    // Making it twice is making it once.
    lab.default_network().await;
    let listed = docker(&["network", "ls", "--format", "{{.Name}}"]);
    let same = listed.lines().filter(|name| *name == network.name).count();
    assert_eq!(same, 1);
    lab.perform(Action::RemoveVolume {
        name: volume.name.clone(),
    })
    .await
    .unwrap();
    assert_eq!(
        docker(&["volume", "ls", "-q", "-f", &format!("name={}", volume.name)]),
        ""
    );
}

#[tokio::test]
async fn what_is_in_use_is_said_to_be_kept() {
    let mut lab = lab!();
    let network = lab.default_network().await;
    let volume = volume(&mut lab, "data").await;
    let mut service = lab.shell("web", "sleep 60");
    service.volumes = vec![Mount {
        kind: MountKind::Volume {
            source: Some("data".to_owned()),
            nocopy: false,
            subpath: None,
            labels: BTreeMap::new(),
        },
        target: "/data".to_owned(),
        read_only: false,
        consistency: None,
    }];
    let mut spec = lab.spec(service);
    spec.volumes = BTreeMap::from([("data".to_owned(), volume.name.clone())]);
    lab.up(spec).await.unwrap();
    lab.perform(Action::RemoveNetwork {
        name: network.name.clone(),
        project: lab.project.name.clone(),
    })
    .await
    .unwrap();
    let kept = format!("network {}: kept, it is still in use", network.name);
    assert_eq!(lab.said(), Some(kept));
    lab.perform(Action::RemoveVolume {
        name: volume.name.clone(),
    })
    .await
    .unwrap();
    let kept = format!("volume {}: kept, it is still in use", volume.name);
    assert_eq!(lab.said(), Some(kept));
}

#[tokio::test]
async fn every_network_knows_every_name() {
    let mut lab = lab!();
    lab.default_network().await;
    let second = Arc::new(wharf::project::model::Network {
        key: "second".to_owned(),
        name: format!("{}_second", lab.project.name),
        ..Default::default()
    });
    lab.perform(Action::CreateNetwork {
        network: Arc::clone(&second),
        project: Arc::clone(&lab.project),
    })
    .await
    .unwrap();
    let mut service = lab.shell("web", "sleep 60");
    service
        .networks
        .insert("second".to_owned(), NetworkAttachment::default());
    let mut spec = lab.spec(service);
    spec.networks.push(Attachment {
        key: "second".to_owned(),
        network: second.name.clone(),
        aliases: vec!["web".to_owned(), "also".to_owned()],
    });
    let name = spec.name.clone();
    lab.up(spec).await.unwrap();

    let mut asks = lab.spec(lab.shell(
        "asks",
        &format!("ping -c1 web && ping -c1 also && ping -c1 {name}"),
    ));
    asks.networks = vec![Attachment {
        key: "second".to_owned(),
        network: second.name.clone(),
        aliases: Vec::new(),
    }];
    let id = lab.up(asks).await.unwrap();
    let instance = lab.target("asks", &id);
    lab.perform(Action::AwaitCompleted { instance })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_namespace_is_shared_with_a_service_s_container() {
    let mut lab = lab!();
    lab.default_network().await;
    let main = lab
        .up(lab.spec(lab.shell("main", "sleep 60")))
        .await
        .unwrap();
    let mut service = lab.shell("side", "sleep 60");
    service.network_mode = Some("service:main".to_owned());
    service.networks.clear();
    let mut spec = lab.spec(service.clone());
    spec.networks.clear();
    let side = lab.up(spec).await.unwrap();
    assert_eq!(
        inspect(&side.0)["HostConfig"]["NetworkMode"],
        format!("container:{}", main.0)
    );

    service.name = "lost".to_owned();
    service.network_mode = Some("service:nobody".to_owned());
    let mut spec = lab.spec(service);
    spec.networks.clear();
    let error = lab.create(spec).await.unwrap_err();
    assert!(error.to_string().contains("`nobody`"), "{error}");
}

#[tokio::test]
async fn secrets_and_configs_are_there_before_the_start() {
    let mut lab = lab!();
    lab.default_network().await;
    let file = lab.directory.path().join("secret.txt");
    std::fs::write(&file, "from a file").unwrap();
    let mut service = lab.shell(
        "web",
        "cat /run/secrets/file; echo; cat /run/secrets/renamed; echo; cat /content; echo; stat -c '%a %u:%g' /content",
    );
    let mount = |source: &str, target: Option<&str>| StoreMount {
        source: source.to_owned(),
        target: target.map(str::to_owned),
        uid: None,
        gid: None,
        mode: None,
    };
    service.secrets = vec![mount("file", None), mount("variable", Some("renamed"))];
    service.configs = vec![StoreMount {
        uid: Some("7".to_owned()),
        gid: Some("8".to_owned()),
        mode: Some(0o640),
        ..mount("content", None)
    }];
    let store = |key: &str, source: StoreSource| {
        let store = Store {
            key: key.to_owned(),
            name: key.to_owned(),
            source,
        };
        (key.to_owned(), Arc::new(store))
    };
    let mut spec = lab.spec(service);
    spec.secrets = BTreeMap::from([
        store("file", StoreSource::File(file)),
        store(
            "variable",
            StoreSource::Environment("V".to_owned(), Some("from a variable".to_owned())),
        ),
    ]);
    spec.configs = BTreeMap::from([store(
        "content",
        StoreSource::Content("from the compose file".to_owned()),
    )]);
    let id = lab.up(spec.clone()).await.unwrap();
    let instance = lab.target("web", &id);
    lab.perform(Action::AwaitCompleted { instance })
        .await
        .unwrap();
    assert_eq!(
        lab.containers.last_lines(&id.0, 10).await.unwrap(),
        [
            "from a file",
            "from a variable",
            "from the compose file",
            "640 7:8"
        ]
    );

    spec.name = format!("{}-unset", lab.project.name);
    spec.secrets.extend([store(
        "variable",
        StoreSource::Environment("V".to_owned(), None),
    )]);
    let error = lab.create(spec).await.unwrap_err();
    assert!(matches!(error, BackendError::Unsupported(_)));
    assert!(error.to_string().contains("V, which is not set"), "{error}");
    assert_eq!(lab.observe().await.len(), 1);
}

/// As Docker Compose has it: root's, unless an owner is named; then it is the container's user who gets it.
#[tokio::test]
async fn a_value_belongs_to_root_also_where_the_container_has_a_user() {
    let mut lab = lab!();
    lab.default_network().await;
    let mut service = lab.shell("web", "stat -c '%u:%g %a' /plain /owned");
    service.user = Some("1000".to_owned());
    let mount = |target: &str, uid: Option<&str>| StoreMount {
        source: "content".to_owned(),
        target: Some(target.to_owned()),
        uid: uid.map(str::to_owned),
        gid: None,
        mode: None,
    };
    service.configs = vec![mount("plain", None), mount("owned", Some("7"))];
    let mut spec = lab.spec(service);
    let store = Store {
        key: "content".to_owned(),
        name: "content".to_owned(),
        source: StoreSource::Content("from the compose file".to_owned()),
    };
    spec.configs = BTreeMap::from([("content".to_owned(), Arc::new(store))]);
    let id = lab.up(spec).await.unwrap();
    let instance = lab.target("web", &id);
    lab.perform(Action::AwaitCompleted { instance })
        .await
        .unwrap();
    let lines = lab.containers.last_lines(&id.0, 10).await.unwrap();
    let [plain, owned] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(plain, "0:0 444");
    // The engine takes the container's user for it; which group one without a name has, its version says.
    assert!(
        owned.starts_with("1000:") && owned.ends_with(" 444"),
        "{owned}"
    );
}

#[tokio::test]
async fn a_replacement_inherits_name_and_anonymous_volumes() {
    let mut lab = lab!();
    lab.default_network().await;
    let mut service = lab.shell("web", "sleep 60");
    service.volumes = vec![anonymous("/anonymous")];
    let spec = lab.spec(service);
    let name = spec.name.clone();
    let mounted = |id: &str| inspect(id)["Mounts"][0]["Name"].clone();
    let old = lab.up(spec.clone()).await.unwrap();
    let volume = mounted(&old.0);

    // Made while the old one still has the name.
    let mut next = spec.clone();
    next.replaces = Some(old.clone());
    let new = lab.create(next).await.unwrap();
    assert_eq!(inspect(&new.0)["Name"], format!("/{}_{name}", &old.0[..12]));
    let target = lab.target("web", &old);
    lab.perform(Action::Stop {
        instance: target.clone(),
        grace: None,
    })
    .await
    .unwrap();
    lab.perform(Action::Remove {
        instance: target,
        volumes: false,
    })
    .await
    .unwrap();
    assert_eq!(inspect(&new.0)["Name"], format!("/{name}"));
    assert_eq!(mounted(&new.0), volume);

    // Made after the old one is gone.
    lab.perform(Action::Remove {
        instance: lab.target("web", &new),
        volumes: false,
    })
    .await
    .unwrap();
    let mut last = spec;
    last.replaces = Some(new);
    let last = lab.create(last).await.unwrap();
    assert_eq!(mounted(&last.0), volume);
    assert_eq!(lab.observe().await.len(), 1);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let mut lab = lab!();
    lab.default_network().await;
    let mut spec = lab.spec(lab.shell("web", "true"));
    spec.image = "no/such:image".to_owned();
    let error = lab.create(spec).await.unwrap_err();
    let BackendError::Vanished { action, source } = &error else {
        panic!("{error:?}");
    };
    assert!(action.starts_with("create wharftest"), "{action}");
    assert_eq!(source.to_string(), "there is no image no/such:image");
}

#[tokio::test]
async fn what_the_engine_is_too_old_for_is_refused_by_name() {
    let mut lab = lab!();
    lab.default_network().await;
    let engine = lab.containers.reachable().await.unwrap();
    let minor: u32 = engine.api.split_once('.').unwrap().1.parse().unwrap();
    let mut service = lab.shell("web", "true");
    service.healthcheck = Some(Healthcheck {
        test: Some(HealthTest::Shell("true".to_owned())),
        interval: None,
        timeout: None,
        retries: None,
        start_period: Some(Duration::from_secs(1)),
        start_interval: Some(Duration::from_secs(1)),
    });
    let created = lab.create(lab.spec(service)).await;
    if minor >= 44 {
        created.unwrap();
        return;
    }
    let error = created.unwrap_err().to_string();
    assert!(
        error.ends_with(&format!(
            "healthcheck.start_interval needs API 1.44 (Docker Engine 25), and this engine has {}",
            engine.api
        )),
        "{error}"
    );
    assert_eq!(lab.observe().await, []);
}
