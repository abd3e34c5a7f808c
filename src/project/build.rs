//! `services.*.build` of the cast tree → `model`. Every mistake in it was reported before.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::model::{Build, BuildContext, NamedContext, StoreSource};
use super::outside::store;
use super::paths;
use super::tree::{Map, Node};
use super::typed::{
    Context, amount, entries, flag, items, maybe_pairs, owned, pairs, texts, ulimit,
};

/// How to build an image; what it takes from elsewhere in the file is not in it yet.
pub(super) fn build(node: &Node) -> Build {
    let context = node.text("context").unwrap_or(".");
    Build {
        context: if paths::is_remote(context) {
            BuildContext::Remote(context.to_owned())
        } else {
            BuildContext::Directory(PathBuf::from(context))
        },
        dockerfile: owned(node, "dockerfile"),
        dockerfile_inline: owned(node, "dockerfile_inline"),
        args: maybe_pairs(node, "args"),
        target: owned(node, "target"),
        tags: texts(node, "tags"),
        labels: pairs(node, "labels"),
        platforms: texts(node, "platforms"),
        cache_from: texts(node, "cache_from"),
        no_cache: flag(node, "no_cache"),
        no_cache_filter: texts(node, "no_cache_filter"),
        pull: flag(node, "pull"),
        network: owned(node, "network"),
        extra_hosts: texts(node, "extra_hosts"),
        shm_size: amount(node, "shm_size"),
        cache_to: texts(node, "cache_to"),
        additional_contexts: BTreeMap::new(),
        secrets: BTreeMap::new(),
        ssh: maybe_pairs(node, "ssh"),
        ulimits: entries(node, "ulimits")
            .map(|(name, node)| (name.clone(), ulimit(node)))
            .collect(),
        isolation: owned(node, "isolation"),
        privileged: flag(node, "privileged"),
        entitlements: texts(node, "entitlements"),
        provenance: owned(node, "provenance"),
        sbom: owned(node, "sbom"),
        memory: None,
        check: false,
    }
}

/// The secrets of a build by the id that its steps know, with where their content is.
pub(super) fn secrets(
    build: &Node,
    top: &Map,
    context: &Context<'_>,
) -> BTreeMap<String, StoreSource> {
    let declared = top.get("secrets");
    items(build, "secrets")
        .iter()
        .filter_map(|mount| {
            let source = mount.text("source")?;
            let id = owned(mount, "target").unwrap_or_else(|| source.to_owned());
            let declared = declared?.get(source)?;
            Some((id, store(source, declared, context.variables).source))
        })
        .collect()
}

/// The contexts beside the main one; those that are services with the images that these are built to.
pub(super) fn contexts(
    build: &Node,
    top: &Map,
    context: &Context<'_>,
) -> BTreeMap<String, NamedContext> {
    let named = |text: String| match text.strip_prefix("service:") {
        Some(name) => {
            let service = top.get("services").and_then(|all| all.get(name));
            NamedContext::Service {
                name: name.to_owned(),
                image: service
                    .and_then(|service| owned(service, "image"))
                    .unwrap_or_else(|| format!("{}{}{name}", context.name, context.separator)),
            }
        }
        None if text.starts_with('/') => NamedContext::Directory(PathBuf::from(text)),
        None => NamedContext::Other(text),
    };
    entries(build, "additional_contexts")
        .map(|(key, value)| (key.clone(), named(value.display())))
        .collect()
}
