//! Mounts of a container: which go as bind strings and which as mount objects. Pure.
//!
//! The split is Docker Compose's. Bind strings make a missing host directory, mount objects do not; and
//! the inspected container is compared field by field by other tools.

use std::collections::BTreeMap;

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions,
};

use super::convert::filled_map;
use crate::plan::step::InstanceSpec;
use crate::project::model::{self, MountKind};

/// An anonymous volume of a container that is replaced: it goes on to the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    /// The engine's name for it.
    pub volume: String,
    /// Where it was mounted.
    pub target: String,
}

/// Mounts in the engine's three forms.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// `source:target:options`.
    pub binds: Vec<String>,
    /// Objects.
    pub mounts: Vec<Mount>,
    /// `tmpfs:` entries: path and options.
    pub tmpfs: BTreeMap<String, String>,
}

/// Sorts out the mounts of an instance.
pub(super) fn of(spec: &InstanceSpec, inherited: &[Inherited]) -> Placed {
    let mut placed = Placed::default();
    for mount in &spec.service.volumes {
        place(mount, spec, inherited, &mut placed);
    }
    let declared = |target: &str| {
        spec.service
            .volumes
            .iter()
            .any(|mount| mount.target == target)
    };
    // Volumes that the image declares have no entry in the service.
    placed.mounts.extend(
        inherited
            .iter()
            .filter(|volume| !declared(&volume.target))
            .map(|volume| volume_object(Some(volume.volume.clone()), &volume.target, false)),
    );
    placed.tmpfs = spec
        .service
        .tmpfs
        .iter()
        .map(|entry| {
            let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
            (path.to_owned(), options.to_owned())
        })
        .collect();
    placed
}

fn place(mount: &model::Mount, spec: &InstanceSpec, inherited: &[Inherited], to: &mut Placed) {
    match &mount.kind {
        MountKind::Bind {
            source,
            create_host_path: true,
            propagation: None,
            recursive: None,
            selinux,
        } => to.binds.push(bind_string(
            &source.display().to_string(),
            mount,
            selinux.as_deref(),
        )),
        MountKind::Bind {
            source,
            create_host_path,
            propagation,
            recursive,
            ..
        } => to.mounts.push(Mount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            bind_options: Some(MountBindOptions {
                propagation: propagation
                    .as_deref()
                    .and_then(|word| word.parse::<MountBindOptionsPropagationEnum>().ok()),
                create_mountpoint: create_host_path.then_some(true),
                non_recursive: says(recursive.as_deref(), "disabled"),
                read_only_non_recursive: says(recursive.as_deref(), "writable"),
                read_only_force_recursive: says(recursive.as_deref(), "readonly"),
            }),
            ..object(mount)
        }),
        MountKind::Volume {
            source: Some(key),
            nocopy: false,
            subpath: None,
            labels,
        } if labels.is_empty() => to
            .binds
            .push(bind_string(engine_name(spec, key), mount, None)),
        MountKind::Volume {
            source,
            nocopy,
            subpath,
            labels,
        } => {
            let name = match source {
                Some(key) => Some(engine_name(spec, key).to_owned()),
                None => inherited
                    .iter()
                    .find(|volume| volume.target == mount.target)
                    .map(|volume| volume.volume.clone()),
            };
            let mut object = volume_object(name, &mount.target, mount.read_only);
            if *nocopy || subpath.is_some() || !labels.is_empty() {
                object.volume_options = Some(MountVolumeOptions {
                    no_copy: nocopy.then_some(true),
                    subpath: subpath.clone(),
                    labels: filled_map(labels),
                    ..MountVolumeOptions::default()
                });
            }
            object.consistency.clone_from(&mount.consistency);
            to.mounts.push(object);
        }
        MountKind::Tmpfs { size, mode } => to.mounts.push(Mount {
            typ: Some(MountType::TMPFS),
            tmpfs_options: (size.is_some() || mode.is_some()).then(|| MountTmpfsOptions {
                size_bytes: *size,
                mode: mode.map(i64::from),
                ..MountTmpfsOptions::default()
            }),
            ..object(mount)
        }),
        MountKind::Image { source, subpath } => to.mounts.push(Mount {
            typ: Some(MountType::IMAGE),
            source: Some(source.clone()),
            image_options: subpath.as_ref().map(|subpath| MountImageOptions {
                subpath: Some(subpath.clone()),
            }),
            ..object(mount)
        }),
    }
}

/// A volume's name in the engine; an undeclared key stands for itself.
fn engine_name<'a>(spec: &'a InstanceSpec, key: &'a str) -> &'a str {
    spec.volumes.get(key).map_or(key, String::as_str)
}

fn bind_string(source: &str, mount: &model::Mount, option: Option<&str>) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let options: Vec<&str> = std::iter::once(access).chain(option).collect();
    format!("{source}:{}:{}", mount.target, options.join(","))
}

fn object(mount: &model::Mount) -> Mount {
    Mount {
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        consistency: mount.consistency.clone(),
        ..Mount::default()
    }
}

fn says(word: Option<&str>, wanted: &str) -> Option<bool> {
    (word == Some(wanted)).then_some(true)
}

fn volume_object(name: Option<String>, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: name,
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}
