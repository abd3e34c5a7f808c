//! `docker inspect` of what wharf makes: against what Docker Compose makes from the same files, and,
//! for what matters most, against values written down here.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::engine::{Lab, docker, lab};
use crate::interop::comparable;
use crate::tools::{Tool, changed, compose};

/// Every attribute that engines of all versions take. `IMAGE` and `VOLUMES` are images of the tests.
const FILES: [&str; 6] = [
    r#"
x-b: &b {image: IMAGE, command: sleep 600, init: true}
services:
  a: {image: IMAGE, command: ["sleep", "600"], hostname: h, domainname: d.example, user: "1:2", working_dir: /tmp, labels: {x: "1", y: ""}, tty: true, stdin_open: true, stop_signal: SIGUSR1, stop_grace_period: 1m30s}
  b: {<<: *b, cap_add: [NET_ADMIN, sys_time], cap_drop: [ALL], read_only: true, shm_size: 128m, ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}}, sysctls: {net.core.somaxconn: "1024"}, security_opt: ["no-new-privileges:true", "seccomp=unconfined"]}
  c: {<<: *b, privileged: true, devices: ["/dev/zero:/dev/x:r", "/dev/null"], device_cgroup_rules: ["c 1:3 mr", "a 7:* rmw"], group_add: [mail, "99"], ipc: host, pid: host, uts: host, userns_mode: host, cgroup_parent: /wharf-test}
  d: {<<: *b, cpu_shares: 73, cpu_quota: 50000, cpu_period: 100000, cpuset: "0", mem_limit: 50m, mem_reservation: 20m, memswap_limit: 100m, pids_limit: 10, oom_kill_disable: true, oom_score_adj: 500, mem_swappiness: 10}
  e: {<<: *b, dns: 8.8.8.8, dns_opt: [use-vc], dns_search: [a.example, b.example], extra_hosts: ["a:1.2.3.4", "b=::1", "host.docker.internal:host-gateway"]}
  f: {<<: *b, logging: {driver: json-file, options: {max-size: 10m, max-file: "3"}}, restart: on-failure:3}
  g: {<<: *b, logging: {driver: none}, restart: "no", entrypoint: ["/bin/sh", "-c"], command: "echo a"}
  h: {<<: *b, expose: ["80", "90-92", "53/udp"], restart: always, environment: {A: "1", B: , C: "x y"}, tmpfs: [/t1, "/t2:size=1m,mode=1777"]}
  i: {<<: *b, restart: unless-stopped, deploy: {restart_policy: {condition: on-failure, max_attempts: 5}, resources: {limits: {cpus: "0.25", memory: 64M, pids: 11}, reservations: {cpus: "0.1", memory: 32M}}}}
  j: {<<: *b, deploy: {restart_policy: {condition: any}}, cgroup: host, isolation: default, annotations: {"a.b": c}}
  k: {<<: *b, deploy: {restart_policy: {}, replicas: 2}, cgroup: private, runtime: runc, security_opt: ["systempaths=unconfined", "label:disable"]}
  l: {<<: *b, blkio_config: {weight: 300, device_read_bps: [{path: /dev/null, rate: "12mb"}], device_write_iops: [{path: /dev/null, rate: 30}]}, memswap_limit: -1, mem_limit: 10m, cpus: 1.5}
  m: {<<: *b, gpus: all, deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: ["3"], capabilities: [compute]}]}}}}
  n: {<<: *b, ipc: shareable, healthcheck: {test: ["CMD", "true"], interval: 3s, timeout: 2s, retries: 4, start_period: 1m}}
  o: {<<: *b, ipc: "service:n", pid: "service:n", healthcheck: {disable: true}}
  p: {<<: *b, healthcheck: {test: "exit 0"}, use_api_socket: true}
  q: {<<: *b, depends_on: {n: {condition: service_healthy, restart: true}, g: {condition: service_completed_successfully, required: false}, a: {condition: service_started}}}
"#,
    r#"
x-b: &b {image: IMAGE, command: sleep 600}
services:
  a: {<<: *b, volumes: ["./d1:/a", "./d2:/b:ro", "./d3:/c:z", "./d4:/d:rshared", "data:/e", "data:/f:ro", "/g", "data:/h:nocopy"]}
  b: {<<: *b, volumes: [{type: bind, source: ./d1, target: /a, bind: {propagation: rslave}}, {type: bind, source: ./d1, target: /b, read_only: true, bind: {create_host_path: false}}, {type: volume, source: data, target: /c, volume: {nocopy: true}}, {type: tmpfs, target: /e, tmpfs: {size: 1mb, mode: 0o1770}}, {type: tmpfs, target: /e2}, {type: bind, source: ./d1, target: /f}, {type: bind, source: ./d1, target: /r, bind: {recursive: disabled}}, {type: volume, source: data, target: /i, volume: {labels: {a: b}}}]}
  c: {<<: *b, volumes_from: [a]}
  d: {image: VOLUMES, command: sleep 600, volumes: ["own:/declared", "tmp:/x"]}
volumes:
  data:
  own: {labels: {l: "1"}}
  tmp: {driver: local, driver_opts: {type: tmpfs, device: tmpfs, o: "size=1m"}}
"#,
    r#"
x-b: &b {image: IMAGE, command: sleep 600}
services:
  a: {<<: *b, networks: {front: {aliases: [x, y], ipv4_address: 172.29.84.5, priority: 10, driver_opts: {a: b}}, back: {}, default: {priority: 1}}}
  b: {<<: *b, networks: [front, back], links: ["a:alink", "c"]}
  c: {<<: *b, network_mode: none}
  d: {<<: *b, network_mode: host}
  e: {<<: *b, network_mode: "service:a"}
  f: {<<: *b, network_mode: bridge}
  g: {<<: *b, mac_address: "02:42:ac:11:65:43"}
networks:
  front: {ipam: {driver: default, config: [{subnet: 172.29.84.0/24, ip_range: 172.29.84.0/26, gateway: 172.29.84.254, aux_addresses: {h1: 172.29.84.60}}]}, driver: bridge, driver_opts: {com.docker.network.bridge.enable_icc: "true"}, labels: {n: "1"}, attachable: true}
  back: {internal: true}
"#,
    r#"
x-b: &b {image: IMAGE, command: sleep 600}
services:
  a: {<<: *b, secrets: [f, {source: f, target: other}, {source: e, target: /abs/e, mode: 0o400}], configs: [cf, {source: cc, target: /etc/cc, mode: 0o600}]}
  b: {<<: *b, env_file: [one.env, {path: raw.env, format: raw}, {path: missing.env, required: false}], environment: {OVER: here, PARITY_SECRET: }, label_file: [labels.txt], labels: {own: x}}
secrets: {f: {file: ./one.env}, e: {environment: PARITY_SECRET}}
configs: {cf: {file: ./one.env}, cc: {content: "hello ${PARITY_SECRET}"}}
"#,
    r#"
services:
  a: {image: IMAGE, command: sleep 600, ports: ["23480:80", "127.0.0.1:23481:81", "82", "23490-23492:90-92", "23453:53/udp", "127.0.0.1::84", "23499:80/sctp"]}
  b: {image: IMAGE, command: sleep 600, ports: [{target: 80, published: "23482", protocol: tcp, host_ip: 127.0.0.1, mode: host, name: web, app_protocol: http}, "[::1]:23483:80"], expose: [1234]}
"#,
    r#"
x-b: &b {image: IMAGE, command: sleep 600}
services:
  base: {<<: *b, environment: {A: "1"}, labels: {l: base}, cap_add: [NET_ADMIN]}
  a: {extends: {service: base}, environment: {B: "2"}, labels: {m: own}, cap_add: [SYS_TIME], container_name: "${COMPOSE_PROJECT_NAME}-named", attach: false, networks: {six: {ipv4_address: 172.29.84.6, ipv6_address: "fd29:84::6", link_local_ips: [169.254.84.6, "fe80::84:6"]}}}
  b: {extends: base, pull_policy: if_not_present, depends_on: [a], external_links: ["${COMPOSE_PROJECT_NAME}-named:x"], deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2, window: 10s}, resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: g, value: 2}}]}}}}
  c: {<<: *b, pull_policy: daily}
  d: {<<: *b, pull_policy: weekly}
networks:
  six: {enable_ipv6: true, ipam: {config: [{subnet: 172.29.84.0/24}, {subnet: "fd29:84::/64"}]}}
"#,
];

/// The subnet of this process in place of the one in the file: tests run at the same time, and what is of its
/// default pools an engine may have given away.
fn subnet() -> String {
    format!("10.181.{}.", 90 + std::process::id() % 160)
}

fn prepare(lab: &Lab, file: &str) {
    let place = |name: &str| lab.directory.path().join(name);
    for directory in ["d1", "d2", "d3", "d4", "image"] {
        fs::create_dir_all(place(directory)).unwrap();
    }
    fs::write(place("one.env"), "A=1\nOVER=file\nQ=\"q $PARITY_SECRET\"\n").unwrap();
    fs::write(place("raw.env"), "RAW=\"$X y\"\nB= z \n").unwrap();
    fs::write(place("labels.txt"), "fl=1\nown=file\n").unwrap();
    let busybox = lab.busybox();
    let recipe = format!("FROM {busybox}\nVOLUME /declared\nHEALTHCHECK CMD true\n");
    fs::write(place("image/Dockerfile"), recipe).unwrap();
    let image = format!("{busybox}-volumes");
    let directory = place("image").display().to_string();
    docker(&["build", "-q", "-t", &image, &directory]);
    let file = file.replace("IMAGE", busybox).replace("VOLUMES", &image);
    let file = file.replace("172.29.84.", &subnet());
    let six = format!("fd29:{:x}:", std::process::id() % 0xffff);
    lab.write(&file.replace("fd29:84:", &six));
}

/// What is to be the same: without ids, times and addresses.
fn facts(lab: &Lab) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    for (name, mut container) in lab.inspected() {
        let host = container["HostConfig"].clone();
        let shares = ["NetworkMode", "IpcMode", "PidMode"].iter().any(|key| {
            host[*key]
                .as_str()
                .unwrap_or_default()
                .starts_with("container:")
        }) || host["VolumesFrom"].is_array();
        if let Some(labels) = container["Config"]["Labels"].as_object_mut() {
            labels.retain(|label, _| !label.starts_with("wharf."));
            if shares {
                // The hash has the other container's id in it.
                labels.remove("com.docker.compose.config-hash");
            }
            if let Some(depends) = labels.get_mut("com.docker.compose.depends_on") {
                let mut all: Vec<&str> = depends.as_str().unwrap_or_default().split(',').collect();
                all.sort_unstable();
                *depends = all.join(",").into();
            }
        }
        let places: BTreeMap<String, Value> = container["NetworkSettings"]["Networks"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(network, place)| {
                let kept = ["Aliases", "Links", "IPAMConfig", "DriverOpts", "GwPriority"];
                let kept = kept.map(|key| (key.to_owned(), place[key].clone()));
                (network.clone(), Value::Object(kept.into_iter().collect()))
            })
            .collect();
        let fact = json!({
            "Config": container["Config"], "HostConfig": host, "Networks": places,
            "Path": container["Path"], "Args": container["Args"],
        });
        facts.insert(name, anonymised(&comparable(&fact, "")));
    }
    for kind in ["network", "volume"] {
        let label = format!("label=com.docker.compose.project={}", lab.project.name);
        let names = docker(&[kind, "ls", "--format", "{{.Name}}", "--filter", &label]);
        for name in names.lines() {
            let text = docker(&[kind, "inspect", name]);
            let found: Vec<Value> = serde_json::from_str(&text).unwrap();
            let fact = json!({
                "Labels": found[0]["Labels"], "Options": found[0]["Options"],
                "Driver": found[0]["Driver"], "Internal": found[0]["Internal"],
                "Attachable": found[0]["Attachable"], "EnableIPv6": found[0]["EnableIPv6"],
            });
            facts.insert(format!("{kind} {name}"), comparable(&fact, ""));
        }
    }
    facts
}

/// Ids of containers and volumes, and what the engine makes of them, as a word.
fn anonymised(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, value)| {
                let is_id = |text: &str| {
                    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
                };
                *key != "Hostname" || !value.as_str().is_some_and(is_id)
            })
            .map(|(key, value)| {
                let fixed = key == "com.docker.compose.config-hash";
                let value = if fixed {
                    value.clone()
                } else {
                    anonymised(value)
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(list) => list.iter().map(anonymised).collect(),
        Value::String(text) => {
            let words = text.split(':').map(|word| {
                let is_id = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
                if is_id { "ID" } else { word }
            });
            words.collect::<Vec<_>>().join(":").into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[test]
fn docker_compose_hands_on_the_same() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    for file in FILES {
        prepare(&lab, file);
        let of = |tool| {
            lab.succeeds(tool, &["up", "--no-start"]);
            let facts = facts(&lab);
            lab.succeeds(tool, &["down", "-v", "-t", "0"]);
            facts
        };
        let (theirs, ours) = (of(Tool::Compose), of(Tool::Wharf));
        let names = |facts: &BTreeMap<String, Value>| facts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs));
        for (name, theirs) in theirs {
            assert_eq!(ours[&name], theirs, "{name} of {file}");
        }
    }
}

#[test]
fn neither_tool_makes_the_containers_of_the_other_anew() {
    let lab = lab!();
    if compose().is_none() {
        return;
    }
    for file in FILES {
        prepare(&lab, file);
        for (first, second) in [(Tool::Compose, Tool::Wharf), (Tool::Wharf, Tool::Compose)] {
            lab.succeeds(first, &["up", "--no-start"]);
            let before = lab.states();
            lab.succeeds(second, &["up", "--no-start"]);
            assert!(!before.is_empty());
            let changed = changed(&before, &lab.states());
            assert_eq!(
                changed,
                Vec::<String>::new(),
                "{first:?}, {second:?}: {file}"
            );
            lab.succeeds(second, &["down", "-v", "-t", "0"]);
            assert_eq!(lab.states(), BTreeMap::new());
        }
    }
}

#[test]
fn what_the_file_says_is_what_the_engine_has() {
    let lab = lab!();
    for (file, expected) in [
        (
            FILES[0],
            json!({
                "P-a-1": {"/Config/User": "1:2", "/Config/StopTimeout": 90, "/Config/StopSignal": "SIGUSR1",
                          "/Config/Hostname": "h", "/Config/Tty": true, "/Config/OpenStdin": true},
                "P-b-1": {"/HostConfig/ReadonlyRootfs": true, "/HostConfig/ShmSize": 134_217_728,
                          "/HostConfig/CapDrop": ["ALL"], "/HostConfig/Init": true,
                          "/HostConfig/Sysctls": {"net.core.somaxconn": "1024"}},
                "P-c-1": {"/HostConfig/Privileged": true, "/HostConfig/PidMode": "host",
                          "/HostConfig/DeviceCgroupRules": ["c 1:3 mr", "a 7:* rmw"],
                          "/HostConfig/CgroupParent": "/wharf-test"},
                "P-d-1": {"/HostConfig/CpuQuota": 50000, "/HostConfig/CpuPeriod": 100_000,
                          "/HostConfig/Memory": 52_428_800, "/HostConfig/MemorySwap": 104_857_600,
                          "/HostConfig/PidsLimit": 10, "/HostConfig/OomScoreAdj": 500},
                "P-e-1": {"/HostConfig/Dns": ["8.8.8.8"],
                          "/HostConfig/ExtraHosts": ["a:1.2.3.4", "b:::1", "host.docker.internal:host-gateway"]},
                "P-f-1": {"/HostConfig/LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
                          "/HostConfig/RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
                "P-h-1": {"/HostConfig/Tmpfs": {"/t1": "", "/t2": "size=1m,mode=1777"}},
                "P-i-1": {"/HostConfig/NanoCpus": 250_000_000, "/HostConfig/Memory": 67_108_864,
                          "/HostConfig/RestartPolicy/Name": "on-failure"},
                "P-k-2": {"/HostConfig/MaskedPaths": [], "/HostConfig/CgroupnsMode": "private"},
                "P-l-1": {"/HostConfig/MemorySwap": -1,
                          "/HostConfig/BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 12_582_912}]},
                "P-m-1": {"/HostConfig/DeviceRequests/1/Capabilities": [["gpu"]],
                          "/HostConfig/DeviceRequests/0/DeviceIDs": ["3"]},
                "P-n-1": {"/Config/Healthcheck/Test": ["CMD", "true"], "/Config/Healthcheck/Retries": 4},
                "P-o-1": {"/Config/Healthcheck/Test": ["NONE"]},
                "P-p-1": {"/HostConfig/Binds": ["/var/run/docker.sock:/var/run/docker.sock:rw"]},
            }),
        ),
        (
            FILES[2],
            json!({
                "P-a-1": {"/NetworkSettings/Networks/P_front/IPAMConfig/IPv4Address": "172.29.84.5",
                          "/NetworkSettings/Networks/P_front/DriverOpts": {"a": "b"},
                          "/HostConfig/NetworkMode": "P_front"},
                "P-c-1": {"/HostConfig/NetworkMode": "none"},
                "P-d-1": {"/HostConfig/NetworkMode": "host"},
            }),
        ),
    ] {
        prepare(&lab, file);
        lab.succeeds(Tool::Wharf, &["up", "--no-start"]);
        let found = lab.inspected();
        for (name, values) in expected.as_object().unwrap() {
            for (pointer, value) in values.as_object().unwrap() {
                let pointer = pointer.replace("P_", &format!("{}_", lab.project.name));
                let value = value.as_str().map_or_else(
                    || value.clone(),
                    |text| {
                        text.replace("P_", &format!("{}_", lab.project.name))
                            .replace("172.29.84.", &subnet())
                            .into()
                    },
                );
                let seen = found[name].pointer(&pointer);
                assert_eq!(seen, Some(&value), "{name}{pointer}");
            }
        }
        lab.succeeds(Tool::Wharf, &["down", "-v", "-t", "0"]);
    }
}

/// Attributes that came with later versions of the engine: what has them gets them, what has not is said.
#[test]
fn what_the_engine_is_too_old_for_is_said() {
    let lab = lab!();
    let api = docker(&["version", "--format", "{{.Server.APIVersion}}"]);
    let minor: u32 = api.trim_start_matches("1.").parse().unwrap();
    for (since, attribute) in [
        (
            44,
            "healthcheck: {test: ['CMD', 'true'], start_interval: 1s, start_period: 5s}",
        ),
        (
            44,
            "volumes: [{type: bind, source: ., target: /x, read_only: true, bind: {recursive: writable}}]",
        ),
        (
            45,
            "volumes: [{type: volume, source: data, target: /x, volume: {subpath: sub}}]",
        ),
        (48, "volumes: [{type: image, source: IMAGE, target: /x}]"),
        (48, "networks: {default: {gw_priority: 5}}"),
        (49, "networks: {default: {interface_name: eth7}}"),
    ] {
        let file = format!(
            "services: {{a: {{image: IMAGE, command: sleep 600, {attribute}}}}}\nvolumes: {{data: {{}}}}\n"
        );
        prepare(&lab, &file);
        let ended = lab.run(Tool::Wharf, &["up", "--no-start"]);
        if minor >= since {
            assert_eq!(ended.code, Some(0), "{attribute}: {}", ended.stderr);
        } else {
            assert_eq!(ended.code, Some(1), "{attribute}");
            let version = format!("needs API 1.{since}");
            assert!(
                ended.stderr.contains(&version),
                "{attribute}: {}",
                ended.stderr
            );
        }
        lab.succeeds(Tool::Wharf, &["down", "-v", "-t", "0"]);
    }
}
