//! What a project needs, held against what was found. Pure.

use std::collections::BTreeSet;

use super::Finding;
use super::api::FEATURES;
use super::facts::Machine;
use super::findings::how_local_services_find_containers;
use crate::backend::container::Abilities;
use crate::plan::placement::Placement;
use crate::port::claim::Protocol;
use crate::project::model::{Build, MountKind, Project, Service};
use crate::state::BackendKind;

/// A port of the project, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortNeed {
    /// The service that publishes it.
    pub service: String,
    /// The port on this machine.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Who has it, where it is not us.
    pub held: Option<Hold>,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// In words.
    pub by: String,
    /// Whether `up` can have it released.
    pub releasable: bool,
}

/// Where processes and their output are kept.
const LOCAL: &str = "a place for local services";

/// What the project needs. `wished` is where its services are to run, `placement` where `up` runs them, which is
/// another place for some where no engine answers.
pub fn needs(
    project: &Project,
    wished: &Placement,
    placement: &Placement,
    machine: &Machine,
    ports: &[PortNeed],
) -> Vec<Finding> {
    let mut all = Vec::new();
    let services = |placement: &Placement, backend| -> Vec<&Service> {
        let own = project.services.values();
        own.filter(|service| service.provider.is_none())
            .filter(|service| placement.of(&service.name) == backend)
            .map(AsRef::as_ref)
            .collect()
    };
    let containers = services(wished, BackendKind::Container);
    let processes = services(placement, BackendKind::Process);
    let is_mixed = !services(placement, BackendKind::Container).is_empty() && !processes.is_empty();
    if !containers.is_empty() {
        all.push(engine(&containers, machine));
        if let Some((facts, abilities)) = machine.engine() {
            all.extend(api(&containers, abilities));
            all.extend(addresses(project, abilities));
            all.extend(builds(&containers, abilities));
            if !facts.local {
                all.extend(remote_files(&containers));
            }
        }
    }
    if !processes.is_empty() {
        all.push(state(LOCAL, &processes, machine));
        let limited = |service: &&Service| {
            service.nano_cpus.is_some()
                || service.mem_limit.is_some()
                || service.pids_limit.is_some()
        };
        all.extend(as_found(
            "cgroups",
            processes.iter().copied().filter(limited),
            machine,
        ));
    }
    if processes.is_empty() && !containers.is_empty() {
        // Every command that changes a project locks it there, and remembers what was chosen.
        let place = state("a place for the project's state", &containers, machine);
        all.extend(Some(place).filter(|finding| finding.state != super::State::Ok));
    }
    let watched = project.services.values().map(AsRef::as_ref);
    let watched = watched.filter(|service: &&Service| !service.watch.is_empty());
    all.extend(as_found("inotify", watched, machine));
    if is_mixed {
        all.extend(names(&processes, machine));
    }
    all.extend(holders(ports, placement, machine));
    all.extend(privileged(project, &processes, machine));
    all.extend(outgoing(project, ports, machine));
    all
}

fn names_of<'a>(services: &[&'a Service]) -> Vec<&'a str> {
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect()
}

/// A finding about the machine that these services have to do with, unless all is well.
fn as_found<'a>(
    check: &str,
    services: impl Iterator<Item = &'a Service>,
    machine: &Machine,
) -> Option<Finding> {
    let names: Vec<&str> = services.map(|service| service.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let mut found = super::findings::findings(machine).into_iter();
    let finding = found.find(|finding| finding.check == check && finding.state != super::State::Ok);
    finding.map(|finding| finding.of(names))
}

fn engine(containers: &[&Service], machine: &Machine) -> Finding {
    const CHECK: &str = "an engine";
    let names = names_of(containers);
    if let Some((engine, _)) = machine.engine() {
        return Finding::ok(CHECK, engine.endpoint.clone()).of(names);
    }
    let stuck: Vec<&Service> = containers
        .iter()
        .copied()
        .filter(|service| !service.has_process_form())
        .collect();
    // That of the engine that commands work with, which stands first.
    let hint = super::findings::findings(machine)
        .into_iter()
        .find(|finding| finding.check.starts_with("engine"))
        .and_then(|finding| finding.hint)
        .unwrap_or_else(|| "sudo systemctl start docker".to_owned());
    if stuck.is_empty() {
        return Finding::reduced(
            CHECK,
            "none answers: `up` runs all services as local processes",
            hint,
        )
        .of(names);
    }
    Finding::missing(
        CHECK,
        "none answers, and these services have no process form",
        hint,
    )
    .of(names_of(&stuck))
}

fn api(containers: &[&Service], abilities: &Abilities) -> Vec<Finding> {
    let (major, minor) = abilities.api;
    FEATURES
        .iter()
        .filter_map(|feature| {
            let users: Vec<&str> = containers
                .iter()
                .filter(|service| (feature.used)(service))
                .map(|service| service.name.as_str())
                .collect();
            if users.is_empty() {
                return None;
            }
            let (least_major, least_minor) = feature.api;
            Some(if abilities.api >= feature.api {
                Finding::ok(feature.name, format!("API {major}.{minor} has it")).of(users)
            } else {
                Finding::missing(
                    feature.name,
                    format!(
                        "it needs API {least_major}.{least_minor} (Docker Engine {}), and the engine has \
                         {major}.{minor}",
                        feature.engine
                    ),
                    format!(
                        "sudo apt-get install docker-ce   # {} or newer",
                        feature.engine
                    ),
                )
                .of(users)
            })
        })
        .collect()
}

/// Networks that are to have no IPv4.
fn addresses(project: &Project, abilities: &Abilities) -> Option<Finding> {
    const NEEDED: (u32, u32) = (1, 48);
    let keys: Vec<&str> = project
        .networks
        .values()
        .filter(|network| !network.external && network.enable_ipv4 == Some(false))
        .map(|network| network.key.as_str())
        .collect();
    if keys.is_empty() || abilities.api >= NEEDED {
        return None;
    }
    let users = project
        .services
        .values()
        .filter(|service| keys.iter().any(|key| service.networks.contains_key(*key)))
        .map(|service| service.name.clone());
    Some(
        Finding::missing(
            "enable_ipv4: false",
            format!(
                "networks without IPv4 ({}) need API 1.48 (Docker Engine 28)",
                keys.join(", ")
            ),
            "sudo apt-get install docker-ce   # 28 or newer",
        )
        .of(users),
    )
}

/// What only `BuildKit` has, and what only the containerd image store has.
fn builds(containers: &[&Service], abilities: &Abilities) -> Vec<Finding> {
    let users = |of: fn(&Build) -> Option<&'static str>| -> (BTreeSet<&'static str>, Vec<&str>) {
        let mut what = BTreeSet::new();
        let mut names = Vec::new();
        for service in containers {
            if let Some(found) = service.build.as_ref().and_then(of) {
                what.insert(found);
                names.push(service.name.as_str());
            }
        }
        (what, names)
    };
    let listed = |what: BTreeSet<&'static str>| what.into_iter().collect::<Vec<_>>().join(", ");
    let mut all = Vec::new();
    let (what, names) = users(beyond_classic);
    if !names.is_empty() {
        let what = listed(what);
        all.push(if abilities.buildkit {
            Finding::ok("BuildKit", format!("the engine has it, for {what}")).of(names)
        } else {
            Finding::missing(
                "BuildKit",
                format!("the engine has none, and the classic builder has no {what}"),
                "sudo apt-get install docker-ce   # 20.10 or newer, and unset DOCKER_BUILDKIT",
            )
            .of(names)
        });
    }
    let (what, names) = users(beyond_one_platform);
    if !names.is_empty() && abilities.buildkit && !abilities.containerd_store {
        all.push(
            Finding::missing(
                "containerd image store",
                format!("the engine's own image store has no {}", listed(what)),
                "echo '{\"features\": {\"containerd-snapshotter\": true}}' | sudo tee /etc/docker/daemon.json \
                 && sudo systemctl restart docker",
            )
            .of(names),
        );
    }
    all
}

/// The first key of a build that the classic builder cannot do.
fn beyond_classic(build: &Build) -> Option<&'static str> {
    let given = [
        ("build.secrets", !build.secrets.is_empty()),
        ("build.ssh", !build.ssh.is_empty()),
        (
            "build.additional_contexts",
            !build.additional_contexts.is_empty(),
        ),
        ("build.cache_to", !build.cache_to.is_empty()),
        ("build.entitlements", !build.entitlements.is_empty()),
        ("build.privileged", build.privileged),
    ];
    given
        .into_iter()
        .find_map(|(what, given)| given.then_some(what))
}

fn beyond_one_platform(build: &Build) -> Option<&'static str> {
    let wanted = |attestation: Option<&str>| attestation.is_some_and(|value| value != "false");
    let given = [
        ("several build.platforms", build.platforms.len() > 1),
        ("build.provenance", wanted(build.provenance.as_deref())),
        ("build.sbom", wanted(build.sbom.as_deref())),
    ];
    given
        .into_iter()
        .find_map(|(what, given)| given.then_some(what))
}

/// Bind mounts, whose paths are those of the engine's machine.
fn remote_files(containers: &[&Service]) -> Option<Finding> {
    let users: Vec<&str> = containers
        .iter()
        .filter(|service| {
            let mut mounts = service.volumes.iter();
            mounts.any(|mount| matches!(mount.kind, MountKind::Bind { .. }))
        })
        .map(|service| service.name.as_str())
        .collect();
    (!users.is_empty()).then(|| {
        Finding::reduced(
            "bind mounts",
            "the engine is on another machine: they show that machine's files",
            "docker context use default",
        )
        .of(users)
    })
}

fn state(check: &str, services: &[&Service], machine: &Machine) -> Finding {
    let names = names_of(services);
    // To a project of containers it is the commands that matter.
    let detail = |words: String| {
        let local = words.strip_suffix(": local services cannot run");
        let local = local.filter(|_| check != LOCAL);
        local.map_or(words.clone(), |fact| format!("{fact}: `up` fails"))
    };
    let broken = super::findings::findings(machine)
        .into_iter()
        .find(|finding| {
            finding.check.ends_with(" directory") && finding.state == super::State::Missing
        });
    match broken {
        Some(finding) => Finding {
            check: check.to_owned(),
            detail: detail(finding.detail),
            ..finding
        },
        None => Finding::ok(check, "state and sockets can be kept"),
    }
    .of(names)
}

/// How the local services of a mixed stack find the containers.
fn names(processes: &[&Service], machine: &Machine) -> Option<Finding> {
    let finding = how_local_services_find_containers(machine);
    (finding.state != super::State::Ok).then(|| finding.of(names_of(processes)))
}

fn holders(ports: &[PortNeed], placement: &Placement, machine: &Machine) -> Vec<Finding> {
    ports
        .iter()
        .map(|need| {
            let PortNeed {
                port,
                protocol,
                service,
                held,
            } = need;
            let check = format!("port {port}/{protocol}");
            let udp = if *protocol == Protocol::Udp {
                "/udp"
            } else {
                ""
            };
            match held {
                None if *port < machine.settings.first_port
                    && placement.of(service) == BackendKind::Process =>
                {
                    Finding::missing(
                        check,
                        "you may not listen there: it needs CAP_NET_BIND_SERVICE, or another port to be published",
                        format!("sudo sysctl -w net.ipv4.ip_unprivileged_port_start={port}"),
                    )
                }
                None => Finding::ok(check, "free, or the project's own"),
                Some(hold) if hold.releasable => Finding::reduced(
                    check,
                    format!("held by {}: `up` asks before it stops anybody", hold.by),
                    format!("wharf free {port}{udp}"),
                ),
                Some(hold) => Finding::missing(
                    check,
                    format!("held by {}, which is not stopped", hold.by),
                    "wharf up --on-conflict move",
                ),
            }
            .of([service.clone()])
        })
        .collect()
}

/// Container ports of local services that others may not be able to reach them on by name.
fn privileged(project: &Project, processes: &[&Service], machine: &Machine) -> Option<Finding> {
    let first_port = machine.settings.first_port;
    let mut at_risk: BTreeSet<(u16, String)> = BTreeSet::new();
    for service in processes {
        let form = project.services.get(&service.name);
        let ports = form.into_iter().flat_map(|service| &service.ports);
        let ports = ports
            .filter(|port| port.protocol == Protocol::Tcp && port.target < first_port)
            .filter(|port| port.published != Some((port.target, port.target)));
        at_risk.extend(ports.map(|port| (port.target, service.name.clone())));
    }
    let (first, _) = at_risk.first()?;
    if processes.len() < 2 {
        return None;
    }
    let numbers: BTreeSet<String> = at_risk.iter().map(|(port, _)| port.to_string()).collect();
    let numbers: Vec<String> = numbers.into_iter().collect();
    let hint = format!("sudo sysctl -w net.ipv4.ip_unprivileged_port_start={first}");
    let services: BTreeSet<String> = at_risk.iter().map(|(_, name)| name.clone()).collect();
    Some(
        Finding::reduced(
            "names of local services",
            format!(
                "you may not listen below {first_port}: without an engine's networks, local services do not reach \
                 each other by name on {}",
                numbers.join(", ")
            ),
            hint,
        )
        .of(services),
    )
}

/// Published ports that an outgoing connection may have when a service wants them.
fn outgoing(project: &Project, ports: &[PortNeed], machine: &Machine) -> Option<Finding> {
    let (first, last) = machine.settings.port_range?;
    let reserved = ranges(&machine.settings.reserved_ports);
    // A port that the engine has chosen is chosen anew the next time.
    let is_fixed = |need: &&PortNeed| {
        let service = project.services.get(&need.service);
        service.is_some_and(|service| {
            service.ports.iter().any(|port| {
                let range = port.published;
                range.is_some_and(|(first, last)| (first..=last).contains(&need.port))
            })
        })
    };
    let at_risk: Vec<&PortNeed> = ports
        .iter()
        .filter(is_fixed)
        .filter(|need| (first..=last).contains(&need.port))
        .filter(|need| !reserved.iter().any(|(a, b)| (*a..=*b).contains(&need.port)))
        .collect();
    if at_risk.is_empty() {
        return None;
    }
    let numbers: BTreeSet<u16> = at_risk.iter().map(|need| need.port).collect();
    let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
    let services: BTreeSet<String> = at_risk.iter().map(|need| need.service.clone()).collect();
    let before = &machine.settings.reserved_ports;
    let before = if before.is_empty() {
        String::new()
    } else {
        format!("{before},")
    };
    Some(
        Finding::reduced(
            "published ports",
            format!(
                "{} inside {first} to {last}, the ports of outgoing connections: one may have it for a moment, \
                 and `up` then cannot",
                match numbers.as_slice() {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(", ")),
                }
            ),
            format!(
                "sudo sysctl -w net.ipv4.ip_local_reserved_ports={before}{}",
                numbers.join(",")
            ),
        )
        .of(services),
    )
}

/// Reads `8080,9000-9010`.
fn ranges(text: &str) -> Vec<(u16, u16)> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::State;
    use super::super::findings::tests::{engine as facts, fit};
    use super::*;
    use crate::backend::container::Answer;
    use crate::plan::placement::{Wishes, place, place_without_engine};
    use crate::project::model::{Mount, Port, ProcessForm, StoreSource};

    fn image(name: &str) -> Service {
        Service {
            name: name.to_owned(),
            image: Some("x".to_owned()),
            ..Service::default()
        }
    }

    fn local(name: &str) -> Service {
        let mut service = Service {
            name: name.to_owned(),
            ..Service::default()
        };
        service.wharf.process = Some(ProcessForm::default());
        service
    }

    fn project(services: Vec<Service>) -> Project {
        Project {
            env_files: Vec::new(),
            name: "p".to_owned(),
            directory: "/p".into(),
            files: Vec::new(),
            services: services
                .into_iter()
                .map(|service| (service.name.clone(), Arc::new(service)))
                .collect(),
            disabled: Vec::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            conflict: None,
        }
    }

    fn needed(services: Vec<Service>, machine: &Machine, ports: &[PortNeed]) -> Vec<Finding> {
        let project = project(services);
        let wished = place(&project, &Wishes::default()).unwrap();
        let placement = match place_without_engine(&project, &Wishes::default()) {
            Ok(placement) if machine.engine().is_none() => placement,
            Ok(_) | Err(_) => wished.clone(),
        };
        needs(&project, &wished, &placement, machine, ports)
    }

    fn state(all: &[Finding], check: &str) -> Option<State> {
        let mut found = all.iter().filter(|finding| finding.check == check);
        found.next().map(|finding| finding.state)
    }

    #[test]
    fn a_project_of_processes_needs_no_engine() {
        let mut machine = fit();
        machine.engines[0].answer = Answer::Absent;
        let all = needed(vec![local("api")], &machine, &[]);
        assert_eq!(state(&all, "an engine"), None);
        assert_eq!(state(&all, "a place for local services"), Some(State::Ok));
        machine.directories[1].problem = Some("closed".to_owned());
        let all = needed(vec![local("api")], &machine, &[]);
        assert_eq!(
            state(&all, "a place for local services"),
            Some(State::Missing)
        );
        assert_eq!(all[0].services, ["api"]);
    }

    #[test]
    fn services_that_are_local_for_want_of_an_engine_need_a_place() {
        let mut machine = fit();
        machine.engines[0].answer = Answer::Absent;
        machine.directories[0].problem = Some("closed".to_owned());
        let both = || Service {
            wharf: local("api").wharf,
            ..image("api")
        };
        let all = needed(vec![both()], &machine, &[]);
        assert_eq!(state(&all, "an engine"), Some(State::Reduced));
        assert_eq!(state(&all, LOCAL), Some(State::Missing));
        // With an engine it is a container, and the commands have nowhere to keep what they must know.
        machine.engines = fit().engines;
        let all = needed(vec![both()], &machine, &[]);
        assert_eq!(state(&all, LOCAL), None);
        let place = all.iter().find(|it| it.check.ends_with("project's state"));
        let place = place.unwrap();
        assert_eq!(place.state, State::Missing);
        assert!(place.detail.ends_with("closed: `up` fails"), "{place:?}");
    }

    #[test]
    fn a_container_needs_an_engine_unless_it_can_be_a_process() {
        let mut machine = fit();
        machine.engines[0].answer = Answer::Absent;
        let all = needed(vec![image("db")], &machine, &[]);
        assert_eq!(state(&all, "an engine"), Some(State::Missing));
        let hint = all[0].hint.as_deref().unwrap();
        assert!(hint.starts_with("sudo systemctl start docker"), "{hint}");
        let mut both = image("db");
        both.wharf.process = Some(ProcessForm::default());
        let all = needed(vec![both], &machine, &[]);
        assert_eq!(state(&all, "an engine"), Some(State::Reduced));
    }

    #[test]
    fn an_old_engine_lacks_what_the_project_uses_and_only_that() {
        let mut machine = fit();
        machine.engines = vec![facts((1, 41), "20.10.24")];
        assert!(
            needed(vec![image("db")], &machine, &[])
                .iter()
                .all(|finding| finding.state == State::Ok)
        );
        let mut db = image("db");
        db.volumes = vec![Mount {
            kind: MountKind::Volume {
                source: Some("data".to_owned()),
                nocopy: false,
                subpath: Some("a".to_owned()),
                labels: BTreeMap::new(),
            },
            target: "/data".to_owned(),
            read_only: false,
            consistency: None,
        }];
        let all = needed(vec![db.clone(), image("web")], &machine, &[]);
        assert_eq!(state(&all, "volume.subpath"), Some(State::Missing));
        let finding = all
            .iter()
            .find(|finding| finding.check == "volume.subpath")
            .unwrap();
        assert_eq!(finding.services, ["db"]);
        assert!(
            finding.detail.contains("API 1.45 (Docker Engine 26)"),
            "{finding:?}"
        );
        assert_eq!(
            state(&needed(vec![db], &fit(), &[]), "volume.subpath"),
            Some(State::Ok)
        );
    }

    #[test]
    fn build_secrets_need_buildkit() {
        let mut web = image("web");
        web.build = Some(Build {
            secrets: BTreeMap::from([("key".to_owned(), StoreSource::External)]),
            ..Build::default()
        });
        assert_eq!(
            state(&needed(vec![web.clone()], &fit(), &[]), "BuildKit"),
            Some(State::Ok)
        );
        let mut machine = fit();
        if let Answer::Engine(abilities) = &mut machine.engines[0].answer {
            abilities.buildkit = false;
        }
        let all = needed(vec![web], &machine, &[]);
        assert_eq!(state(&all, "BuildKit"), Some(State::Missing));
    }

    fn port(port: u16, held: Option<(&str, bool)>) -> PortNeed {
        PortNeed {
            service: "web".to_owned(),
            port,
            protocol: Protocol::Tcp,
            held: held.map(|(by, releasable)| Hold {
                by: by.to_owned(),
                releasable,
            }),
        }
    }

    #[test]
    fn a_port_that_this_user_may_not_listen_on_is_missing_for_a_process_alone() {
        let mut machine = fit();
        machine.settings.first_port = 1024;
        let all = needed(vec![local("web")], &machine, &[port(80, None)]);
        assert_eq!(state(&all, "port 80/tcp"), Some(State::Missing));
        let all = needed(vec![image("web")], &machine, &[port(80, None)]);
        assert_eq!(state(&all, "port 80/tcp"), Some(State::Ok));
        let mut web = local("web");
        web.ports = vec![Port {
            target: 80,
            published: Some((8080, 8080)),
            ..fixed(80)
        }];
        let both = vec![web.clone(), local("api")];
        let check = "names of local services";
        let all = needed(both.clone(), &machine, &[]);
        assert_eq!(state(&all, check), Some(State::Reduced));
        assert_eq!(state(&needed(vec![web], &machine, &[]), check), None);
        assert_eq!(state(&needed(both, &fit(), &[]), check), None);
    }

    #[test]
    fn only_a_holder_that_is_never_stopped_is_in_the_way() {
        let ports = [
            port(80, None),
            port(81, Some(("python3", true))),
            port(82, Some(("sshd", false))),
        ];
        let all = needed(vec![local("web")], &fit(), &ports);
        assert_eq!(state(&all, "port 80/tcp"), Some(State::Ok));
        assert_eq!(state(&all, "port 81/tcp"), Some(State::Reduced));
        assert_eq!(state(&all, "port 82/tcp"), Some(State::Missing));
    }

    #[test]
    fn a_port_of_outgoing_connections_is_reserved_with_those_that_are() {
        let mut machine = fit();
        machine.settings.reserved_ports = "40000-40010".to_owned();
        let ports = [
            port(40_005, None),
            port(8080, None),
            port(45_678, None),
            port(50_000, None),
        ];
        // The engine chose the last one.
        let web = |published: &[u16]| {
            let mut web = local("web");
            web.ports = published.iter().map(|port| fixed(*port)).collect();
            vec![web]
        };
        let all = needed(web(&[40_005, 8080, 45_678]), &machine, &ports);
        let mut found = all
            .iter()
            .filter(|finding| finding.check == "published ports");
        let finding = found.next().unwrap();
        assert!(
            finding.detail.starts_with("45678 is inside 32768 to 60999"),
            "{finding:?}"
        );
        assert_eq!(
            finding.hint.as_deref(),
            Some("sudo sysctl -w net.ipv4.ip_local_reserved_ports=40000-40010,45678")
        );
        let all = needed(web(&[40_005, 8080]), &machine, &ports);
        assert_eq!(state(&all, "published ports"), None);
    }

    fn fixed(port: u16) -> Port {
        Port {
            target: port,
            published: Some((port, port)),
            host_ip: None,
            protocol: Protocol::Tcp,
            app_protocol: None,
            mode: None,
            name: None,
        }
    }

    #[test]
    fn a_mixed_stack_is_told_how_names_are_found_where_that_is_reduced() {
        const CHECK: &str = "container names in local services";
        let services = || vec![local("api"), image("db")];
        assert_eq!(state(&needed(services(), &fit(), &[]), CHECK), None);
        let mut machine = fit();
        machine.ways = None;
        assert_eq!(
            state(&needed(services(), &machine, &[]), CHECK),
            Some(State::Reduced)
        );
        assert_eq!(
            state(&needed(vec![local("api")], &machine, &[]), CHECK),
            None
        );
    }

    #[test]
    fn limits_and_watching_are_said_to_be_reduced_where_they_are_used() {
        let mut machine = fit();
        machine.cgroups = None;
        machine.settings.inotify_watches = Some(1);
        let all = needed(vec![local("api"), image("db")], &machine, &[]);
        assert_eq!(
            (state(&all, "cgroups"), state(&all, "inotify")),
            (None, None)
        );
        let mut api = local("api");
        api.mem_limit = Some(1);
        let all = needed(vec![api.clone(), image("db")], &machine, &[]);
        assert_eq!(state(&all, "cgroups"), Some(State::Reduced));
        assert_eq!(state(&needed(vec![api], &fit(), &[]), "cgroups"), None);
    }

    #[test]
    fn everything_that_is_not_ok_has_a_hint() {
        let mut machine = fit();
        machine.engines[0].local = false;
        machine.ways = None;
        let ports = [port(40_000, Some(("sshd", false)))];
        let mut web = local("web");
        web.ports = vec![fixed(40_000)];
        for finding in needed(vec![image("db"), web], &machine, &ports) {
            assert_eq!(
                finding.state != State::Ok,
                finding.hint.is_some(),
                "{finding:?}"
            );
        }
    }
}
