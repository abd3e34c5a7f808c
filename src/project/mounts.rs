//! The cast tree → `model::Mount`: what a service mounts.

use std::path::PathBuf;

use super::model::{Mount, MountKind, StoreMount};
use super::tree::Node;
use super::typed::{amount, flag, int, items, owned, pairs};

/// One entry of `volumes`; `None` for what is shown and not mounted.
pub(crate) fn mount(node: &Node) -> Option<Mount> {
    let empty = Node::default();
    let section = |key: &str| node.get(key).unwrap_or(&empty);
    let kind = match node.text("type")? {
        "bind" => MountKind::Bind {
            source: PathBuf::from(node.text("source").unwrap_or_default()),
            create_host_path: node.get("bind").is_none()
                || flag(section("bind"), "create_host_path"),
            propagation: owned(section("bind"), "propagation"),
            selinux: owned(section("bind"), "selinux"),
            recursive: owned(section("bind"), "recursive"),
        },
        "volume" => MountKind::Volume {
            source: owned(node, "source"),
            nocopy: flag(section("volume"), "nocopy"),
            subpath: owned(section("volume"), "subpath"),
            labels: pairs(section("volume"), "labels"),
        },
        "tmpfs" => MountKind::Tmpfs {
            size: amount(section("tmpfs"), "size"),
            mode: amount(section("tmpfs"), "mode").and_then(|mode| u32::try_from(mode).ok()),
        },
        "image" => MountKind::Image {
            source: node.text("source").unwrap_or_default().to_owned(),
            subpath: owned(section("image"), "subpath"),
        },
        // Named pipes and cluster volumes: shown by `config`, refused by `up`.
        _ => return None,
    };
    Some(Mount {
        kind,
        target: node.text("target").unwrap_or_default().to_owned(),
        read_only: flag(node, "read_only"),
        consistency: owned(node, "consistency"),
    })
}

/// The secrets or configs of a service.
pub(crate) fn store_mounts(node: &Node, key: &str) -> Vec<StoreMount> {
    items(node, key)
        .iter()
        .map(|mount| StoreMount {
            source: mount.text("source").unwrap_or_default().to_owned(),
            target: owned(mount, "target"),
            uid: owned(mount, "uid"),
            gid: owned(mount, "gid"),
            mode: int(mount, "mode").and_then(|mode| u32::try_from(mode).ok()),
        })
        .collect()
}
