//! Rules within one resource: where secrets, configs and external volumes come from, what a mount and
//! a device need.
//!
//! Runs on the canonical tree of a set of files. Reports only.

use std::collections::BTreeSet;

use super::diagnostic::Diagnostic;
use super::report::Report;
use super::tree::Node;
use super::watch;

/// Reports every breach.
pub(crate) fn check(tree: &Node, report: &mut Report) {
    let section = |name: &str| tree.get(name).and_then(Node::as_map).into_iter().flatten();
    for (what, sources) in [
        ("configs", ["file", "environment", "content"].as_slice()),
        ("secrets", ["file", "environment"].as_slice()),
    ] {
        for (name, node) in section(what) {
            let given: Vec<&str> = sources
                .iter()
                .copied()
                .filter(|key| node.get(key).is_some())
                .collect();
            let listed = sources.join("`, `");
            if let [_, second, ..] = given.as_slice() {
                report.add(
                    Diagnostic::error(format!("only one of `{listed}` can be given"))
                        .at(node.get(second).and_then(Node::key_place))
                        .key(format!("{what}.{name}"))
                        .label("a second source"),
                );
            } else if given.is_empty()
                && node.get("driver").is_none()
                && node.get("external").is_none()
            {
                report.add(
                    Diagnostic::error(format!("one of `{listed}` must be given"))
                        .at(node.key_place())
                        .key(format!("{what}.{name}"))
                        .label("has no source"),
                );
            }
        }
    }
    for (name, node) in section("volumes") {
        let external = node
            .get("external")
            .is_some_and(|external| external.display() == "true");
        let extra: BTreeSet<&str> = node
            .as_map()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
            .filter(|key| !key.starts_with("x-") && !matches!(*key, "name" | "external"))
            .collect();
        if external && let Some(key) = extra.first() {
            report.add(
                Diagnostic::error(format!("an external volume has no `{key}`"))
                    .at(node.get(key).and_then(Node::key_place))
                    .key(format!("volumes.{name}.{key}"))
                    .label("somebody else made the volume"),
            );
        }
    }
    for (name, service) in section("services") {
        for (index, mount) in service
            .get("volumes")
            .and_then(Node::as_list)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            if mount.text("type") == Some("bind") && mount.get("source").is_none() {
                let key = format!("services.{name}.volumes[{index}]");
                report.error(mount, key, "a bind mount needs a `source`");
            }
        }
        let reserved = service
            .get("deploy")
            .and_then(|deploy| deploy.get("resources")?.get("reservations")?.get("devices"));
        for (key, list) in [
            ("gpus", service.get("gpus")),
            ("deploy.resources.reservations.devices", reserved),
        ] {
            for request in list.and_then(Node::as_list).unwrap_or_default() {
                if request.get("count").is_some() && request.get("device_ids").is_some() {
                    let key = format!("services.{name}.{key}");
                    let message = "`count` and `device_ids` exclude each other";
                    report.error(request, key, message);
                }
            }
        }
        for (index, trigger) in watch::written(service).iter().enumerate() {
            if let Some(path) = trigger.get("path")
                && path.as_text() == Some("")
            {
                let key = format!("services.{name}.develop.watch[{index}].path");
                report.error(path, key, "an empty path cannot be watched");
            }
        }
    }
}
