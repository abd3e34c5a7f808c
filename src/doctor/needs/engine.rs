//! CONTAINERS: what the engine has to offer them.

use std::collections::BTreeSet;

use super::names_of;
use crate::backend::container::Abilities;
use crate::doctor::Finding;
use crate::doctor::api::FEATURES;
use crate::doctor::facts::Machine;
use crate::doctor::findings::findings;
use crate::project::model::{Build, MountKind, Project, Service};
pub(super) fn engine(containers: &[&Service], machine: &Machine) -> Finding {
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
    let hint = findings(machine)
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

pub(super) fn api(containers: &[&Service], abilities: &Abilities) -> Vec<Finding> {
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
pub(super) fn addresses(project: &Project, abilities: &Abilities) -> Option<Finding> {
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
pub(super) fn builds(containers: &[&Service], abilities: &Abilities) -> Vec<Finding> {
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
        ("build.no_cache_filter", !build.no_cache_filter.is_empty()),
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
pub(super) fn remote_files(containers: &[&Service]) -> Option<Finding> {
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
