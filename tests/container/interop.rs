//! Side by side with Docker Compose: the same file by both tools, and one project by both in turn.
//!
//! Runs where a `docker-compose` 2.x is on the PATH; says so where there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wharf::backend::Backend;
use wharf::backend::LogOptions;
use wharf::plan::step::{Action, Attachment, InstanceSpec};
use wharf::port::claim::{Claim, Protocol};
use wharf::project::model::{
    Condition, Dependency, HealthTest, Healthcheck, Logging, Mount, MountKind, Network,
    NetworkAttachment, Restart, Service, Store, StoreMount, StoreSource, Ulimit, Volume,
};
use wharf::state::{Fingerprint, Status};

use crate::engine::{Lab, docker, env, free_port, inspect, lab, published};

/// Docker Compose on the lab's project.
struct Compose<'a>(&'a Lab);

impl Compose<'_> {
    /// Whether there is one.
    fn exists() -> bool {
        let version = Command::new("docker-compose")
            .args(["version", "--short"])
            .output();
        let exists = version.is_ok_and(|output| output.stdout.starts_with(b"2."));
        if !exists {
            println!("skipped: no docker-compose 2.x on the PATH");
        }
        exists
    }

    /// Runs a command, which must succeed, and returns what it printed.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker-compose")
            .args(["-p", &self.0.project.name])
            .args(arguments)
            .current_dir(self.0.directory.path())
            .env("DOCKER_HOST", &env().variables["DOCKER_HOST"])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

const EVERYTHING: &str = r#"
services:
  full:
    image: wharf-test-container-busybox
    command: ["sleep", "600"]
    entrypoint: ["busybox"]
    hostname: h
    domainname: d.example
    user: "1000:1000"
    working_dir: /tmp
    environment: {B: "2", A: "1"}
    labels: {x: y, com.docker.compose.service: other}
    ports: ["P1:80", "127.0.0.1:P2:81/udp", "82", "127.0.0.1::83"]
    expose: ["91/udp"]
    init: true
    tty: true
    stdin_open: true
    stop_signal: SIGINT
    stop_grace_period: 3s
    restart: on-failure:3
    privileged: true
    cap_add: [NET_ADMIN]
    cap_drop: [MKNOD]
    read_only: true
    shm_size: 64m
    ulimits: {nofile: {soft: 1024, hard: 2048}, nproc: 99}
    sysctls: {net.core.somaxconn: "1024"}
    security_opt: ["no-new-privileges:true", "label=disable"]
    devices: ["/dev/null:/dev/xnull:r", "/dev/zero"]
    ipc: shareable
    cgroup: host
    cpus: 0.5
    cpu_shares: 512
    cpuset: "0"
    mem_limit: 64m
    mem_reservation: 32m
    memswap_limit: 128m
    pids_limit: 50
    oom_score_adj: 100
    dns: [1.1.1.1]
    dns_opt: [ndots:2]
    dns_search: [example.org]
    extra_hosts: ["a:10.0.0.1", "b=10.0.0.2"]
    group_add: ["7"]
    logging: {driver: json-file, options: {max-size: 1m}}
    tmpfs: ["/t1:size=1m", "/t2"]
    mac_address: 02:42:ac:11:00:09
    depends_on:
      plain: {condition: service_completed_successfully, restart: true}
    healthcheck: {test: [CMD, "true"], interval: 3s, timeout: 1s, retries: 2, start_period: 1s}
    networks:
      default: {aliases: [al], priority: 10}
      second: {ipv4_address: 10.181.83.9}
    volumes:
      - data:/data
      - {type: volume, source: data, target: /data2, read_only: true, volume: {nocopy: true}}
      - /anon
      - ./src:/src:ro
      - {type: bind, source: ./src, target: /src2, bind: {propagation: rslave}}
      - {type: tmpfs, target: /mt, tmpfs: {size: 1000000, mode: 0700}}
    secrets: [s1]
    configs: [{source: c1, target: /etc/c1}]
  plain:
    image: wharf-test-container-busybox
    command: "true"
networks:
  second:
    driver: bridge
    ipam: {config: [{subnet: 10.181.83.0/24, gateway: 10.181.83.1}]}
    labels: {nl: nv}
volumes:
  data: {labels: {vl: vv}}
secrets:
  s1: {file: ./s1.txt}
configs:
  c1: {file: ./c1.txt}
"#;

fn text(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// The same service as in [`EVERYTHING`].
fn everything(lab: &Lab) -> Service {
    let mount = |kind: MountKind, target: &str, read_only: bool| Mount {
        kind,
        target: target.to_owned(),
        read_only,
        consistency: None,
    };
    let volume = |source: Option<&str>, nocopy: bool| MountKind::Volume {
        source: source.map(str::to_owned),
        nocopy,
        subpath: None,
        labels: BTreeMap::new(),
    };
    let bind = |propagation: Option<&str>| MountKind::Bind {
        source: lab.directory.path().join("src"),
        create_host_path: true,
        propagation: propagation.map(str::to_owned),
        selinux: None,
        recursive: None,
    };
    let store = |source: &str, target: Option<&str>| StoreMount {
        source: source.to_owned(),
        target: target.map(str::to_owned),
        uid: None,
        gid: None,
        mode: None,
    };
    Service {
        name: "full".to_owned(),
        image: Some(lab.busybox().to_owned()),
        command: Some(text(&["sleep", "600"])),
        entrypoint: Some(text(&["busybox"])),
        hostname: Some("h".to_owned()),
        domainname: Some("d.example".to_owned()),
        user: Some("1000:1000".to_owned()),
        working_dir: Some("/tmp".to_owned()),
        environment: pairs(&[("B", "2"), ("A", "1")]),
        labels: pairs(&[("x", "y"), ("com.docker.compose.service", "other")]),
        expose: text(&["91/udp"]),
        init: Some(true),
        tty: true,
        stdin_open: true,
        stop_signal: Some("SIGINT".to_owned()),
        stop_grace_period: Some(Duration::from_secs(3)),
        restart: Restart::OnFailure(Some(3)),
        privileged: true,
        cap_add: text(&["NET_ADMIN"]),
        cap_drop: text(&["MKNOD"]),
        read_only: true,
        shm_size: Some(64 << 20),
        ulimits: [("nofile", 1024, 2048), ("nproc", 99, 99)]
            .map(|(name, soft, hard)| (name.to_owned(), Ulimit { soft, hard }))
            .into(),
        sysctls: pairs(&[("net.core.somaxconn", "1024")]),
        security_opt: text(&["no-new-privileges:true", "label=disable"]),
        devices: text(&["/dev/null:/dev/xnull:r", "/dev/zero"]),
        ipc: Some("shareable".to_owned()),
        cgroup: Some("host".to_owned()),
        nano_cpus: Some(500_000_000),
        cpu_shares: Some(512),
        cpuset: Some("0".to_owned()),
        mem_limit: Some(64 << 20),
        mem_reservation: Some(32 << 20),
        memswap_limit: Some(128 << 20),
        pids_limit: Some(50),
        oom_score_adj: Some(100),
        dns: text(&["1.1.1.1"]),
        dns_opt: text(&["ndots:2"]),
        dns_search: text(&["example.org"]),
        extra_hosts: text(&["a:10.0.0.1", "b:10.0.0.2"]),
        group_add: text(&["7"]),
        logging: Some(Logging {
            driver: Some("json-file".to_owned()),
            options: pairs(&[("max-size", "1m")]),
        }),
        tmpfs: text(&["/t1:size=1m", "/t2"]),
        mac_address: Some("02:42:ac:11:00:09".to_owned()),
        depends_on: BTreeMap::from([(
            "plain".to_owned(),
            Dependency {
                condition: Condition::CompletedSuccessfully,
                restart: true,
                required: true,
            },
        )]),
        healthcheck: Some(Healthcheck {
            test: Some(HealthTest::Command(text(&["true"]))),
            interval: Some(Duration::from_secs(3)),
            timeout: Some(Duration::from_secs(1)),
            retries: Some(2),
            start_period: Some(Duration::from_secs(1)),
            start_interval: None,
        }),
        networks: BTreeMap::from([
            (
                "default".to_owned(),
                NetworkAttachment {
                    aliases: text(&["al"]),
                    priority: 10,
                    ..NetworkAttachment::default()
                },
            ),
            (
                "second".to_owned(),
                NetworkAttachment {
                    ipv4_address: Some("10.181.83.9".to_owned()),
                    ..NetworkAttachment::default()
                },
            ),
        ]),
        volumes: vec![
            mount(volume(Some("data"), false), "/data", false),
            mount(volume(Some("data"), true), "/data2", true),
            mount(volume(None, false), "/anon", false),
            mount(bind(None), "/src", true),
            mount(bind(Some("rslave")), "/src2", false),
            mount(
                MountKind::Tmpfs {
                    size: Some(1_000_000),
                    mode: Some(0o700),
                },
                "/mt",
                false,
            ),
        ],
        secrets: vec![store("s1", None)],
        configs: vec![store("c1", Some("/etc/c1"))],
        ..Service::default()
    }
}

fn spec(lab: &Lab, ports: (u16, u16)) -> InstanceSpec {
    let mut spec = lab.spec(everything(lab));
    let any = |target: u16, host: Option<u16>| {
        let mut port = published(target, host, std::net::Ipv4Addr::LOCALHOST);
        port.addresses = Claim::any_address();
        port
    };
    let local = std::net::Ipv4Addr::LOCALHOST;
    let mut udp = published(81, Some(ports.1), local);
    udp.protocol = Protocol::Udp;
    spec.ports = vec![
        any(80, Some(ports.0)),
        udp,
        any(82, None),
        published(83, None, local),
    ];
    spec.networks[0].aliases = text(&["full", "al"]);
    spec.networks.push(Attachment {
        key: "second".to_owned(),
        network: format!("{}_second", lab.project.name),
        aliases: text(&["full"]),
    });
    spec.volumes = BTreeMap::from([("data".to_owned(), format!("{}_data", lab.project.name))]);
    let store = |key: &str| {
        let store = Store {
            key: key.to_owned(),
            name: key.to_owned(),
            source: StoreSource::File(lab.directory.path().join(format!("{key}.txt"))),
        };
        BTreeMap::from([(key.to_owned(), Arc::new(store))])
    };
    spec.secrets = store("s1");
    spec.configs = store("c1");
    spec
}

/// What is worth comparing: without ids, versions, empty values and orders that mean nothing.
pub(crate) fn comparable(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| {
                !["com.docker.compose.version", "Id", "Created", "CreatedAt"]
                    .contains(&key.as_str())
            })
            .map(|(key, value)| (key.clone(), comparable(value, key)))
            .filter(|(_, value)| !is_empty(value))
            .collect(),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(|value| comparable(value, "")).collect();
            // Every container has its own short id among its names.
            if key == "Aliases" {
                list.retain(|name| {
                    let name = name.as_str().unwrap_or_default();
                    !(name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
                });
            }
            if key != "Cmd" && key != "Entrypoint" {
                list.sort_by_key(Value::to_string);
            }
            Value::Array(list)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A container, its networks and its volumes.
fn facts(lab: &Lab) -> Value {
    let name = &lab.project.name;
    let container = inspect(&format!("{name}-full-1"));
    let resources: Vec<Value> = [
        format!("{name}_default"),
        format!("{name}_second"),
        format!("{name}_data"),
    ]
    .iter()
    .map(|resource| {
        let found = inspect(resource);
        json!({
            "Name": found["Name"], "Driver": found["Driver"], "Labels": found["Labels"],
            "Options": found["Options"], "Internal": found["Internal"],
        })
    })
    .collect();
    let facts = json!({
        "Config": container["Config"],
        "HostConfig": container["HostConfig"],
        "Networks": container["NetworkSettings"]["Networks"],
        "Resources": resources,
    });
    comparable(&facts, "")
}

#[tokio::test]
async fn an_inspected_container_looks_the_same() {
    let mut lab = lab!();
    if !Compose::exists() {
        return;
    }
    lab.busybox();
    let ports = (free_port(), free_port());
    let file = EVERYTHING
        .replace("P1", &ports.0.to_string())
        .replace("P2", &ports.1.to_string());
    let place = |name: &str| lab.directory.path().join(name);
    fs::write(place("compose.yaml"), file).unwrap();
    fs::create_dir(place("src")).unwrap();
    fs::write(place("s1.txt"), "s").unwrap();
    fs::write(place("c1.txt"), "c").unwrap();
    Compose(&lab).run(&["create"]);
    let theirs = facts(&lab);
    Compose(&lab).run(&["down", "-v"]);

    lab.default_network().await;
    let second = Network {
        key: "second".to_owned(),
        name: format!("{}_second", lab.project.name),
        driver: Some("bridge".to_owned()),
        subnets: vec![(
            Some("10.181.83.0/24".to_owned()),
            None,
            Some("10.181.83.1".to_owned()),
        )],
        labels: pairs(&[("nl", "nv")]),
        ..Network::default()
    };
    let project = Arc::clone(&lab.project);
    lab.perform(Action::CreateNetwork {
        network: Arc::new(second),
        project: Arc::clone(&project),
    })
    .await
    .unwrap();
    let data = Volume {
        key: "data".to_owned(),
        name: format!("{}_data", project.name),
        labels: pairs(&[("vl", "vv")]),
        ..Volume::default()
    };
    lab.perform(Action::CreateVolume {
        volume: Arc::new(data),
        project,
    })
    .await
    .unwrap();
    let mut spec = spec(&lab, ports);
    let hash = &theirs["Config"]["Labels"]["com.docker.compose.config-hash"];
    spec.fingerprint = Fingerprint(hash.as_str().unwrap().to_owned());
    lab.create(spec).await.unwrap();
    let ours = facts(&lab);
    for part in ["Config", "HostConfig", "Networks", "Resources"] {
        assert_eq!(ours[part], theirs[part], "{part}");
    }
}

const SMALL: &str = r#"
services:
  web:
    image: wharf-test-container-busybox
    command: ["sh", "-c", "echo hello; exec sleep 600"]
    stop_grace_period: 1s
"#;

#[tokio::test]
async fn docker_compose_goes_on_with_what_wharf_started() {
    let mut lab = lab!();
    if !Compose::exists() {
        return;
    }
    fs::write(lab.directory.path().join("compose.yaml"), SMALL).unwrap();
    lab.default_network().await;
    let mut spec = lab.spec(lab.shell("web", "echo hello; exec sleep 600"));
    let hash = Compose(&lab).run(&["config", "--hash", "web"]);
    let hash = hash.split_whitespace().last().unwrap();
    spec.fingerprint = Fingerprint(hash.to_owned());
    let id = lab.up(spec).await.unwrap();

    let listed = Compose(&lab).run(&["ps", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Service"], "web");
    assert_eq!(listed["State"], "running");
    let logs = Compose(&lab).run(&["logs", "--no-color", "--no-log-prefix"]);
    assert_eq!(logs, "hello");
    assert_eq!(
        Compose(&lab).run(&["exec", "-T", "web", "echo", "inside"]),
        "inside"
    );
    Compose(&lab).run(&["up", "-d"]);
    let running: Vec<_> = lab.observe().await;
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].id, id, "not made again");
    Compose(&lab).run(&["down"]);
    assert_eq!(lab.observe().await, []);
    let label = format!("label=com.docker.compose.project={}", lab.project.name);
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &label]), "");
}

#[tokio::test]
async fn wharf_goes_on_with_what_docker_compose_started() {
    let mut lab = lab!();
    if !Compose::exists() {
        return;
    }
    lab.busybox();
    fs::write(lab.directory.path().join("compose.yaml"), SMALL).unwrap();
    Compose(&lab).run(&["up", "-d", "--scale", "web=2"]);
    let seen = lab.observe().await;
    let numbers: Vec<u32> = seen.iter().map(|instance| instance.number).collect();
    assert_eq!(numbers, [1, 2]);
    let hash = Compose(&lab).run(&["config", "--hash", "web"]);
    for instance in &seen {
        let found = instance.fingerprint.as_ref().map(|print| print.0.as_str());
        assert_eq!(found, hash.split_whitespace().last());
        assert_eq!(instance.status, Status::Running);
    }
    lab.containers
        .follow(&seen, &LogOptions::default(), &lab.events)
        .await
        .unwrap();
    let told = format!("{:?}", lab.told());
    assert_eq!(told.matches("Log {").count(), 2, "{told}");
    for instance in &seen {
        let target = lab.target("web", &instance.id);
        lab.perform(Action::Stop {
            instance: target.clone(),
            grace: None,
        })
        .await
        .unwrap();
        lab.perform(Action::Remove {
            instance: target,
            volumes: true,
        })
        .await
        .unwrap();
    }
    let names = wharf::backend::container::Names::default();
    let left = lab
        .containers
        .resources(&lab.project.name, &names)
        .await
        .unwrap();
    let network = format!("{}_default", lab.project.name);
    assert_eq!(left.networks, BTreeSet::from([network.clone()]));
    lab.perform(Action::RemoveNetwork {
        name: network,
        project: lab.project.name.clone(),
    })
    .await
    .unwrap();
    assert_eq!(Compose(&lab).run(&["ps", "-aq"]), "");
}
