//! What came with which version of the Engine API, as far as wharf uses it and an older engine has no
//! substitute. The container backend refuses the same things when it meets them.

use crate::project::model::{MountKind, Service};

/// One thing that an engine may be too old for.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The API version it came with.
    pub api: (u32, u32),
    /// The Docker Engine with that API.
    pub engine: &'static str,
    /// As it is written in a compose file.
    pub name: &'static str,
    /// Whether a service needs it.
    pub used: fn(&Service) -> bool,
}

/// All of them, oldest first.
pub const FEATURES: [Feature; 8] = [
    Feature {
        api: (1, 42),
        engine: "23",
        name: "build.additional_contexts",
        used: |service| {
            let build = service.build.as_ref();
            build.is_some_and(|build| !build.additional_contexts.is_empty())
        },
    },
    Feature {
        api: (1, 44),
        engine: "25",
        name: "healthcheck.start_interval",
        used: |service| {
            let check = service.healthcheck.as_ref();
            check.is_some_and(|check| check.start_interval.is_some())
        },
    },
    Feature {
        api: (1, 44),
        engine: "25",
        name: "bind.recursive",
        used: |service| {
            service.volumes.iter().any(|mount| match &mount.kind {
                MountKind::Bind { recursive, .. } => {
                    matches!(recursive.as_deref(), Some("writable" | "readonly"))
                }
                MountKind::Volume { .. } | MountKind::Image { .. } | MountKind::Tmpfs { .. } => {
                    false
                }
            })
        },
    },
    Feature {
        api: (1, 44),
        engine: "25",
        name: "mac_address on a further network",
        used: |service| {
            let mut networks: Vec<_> = service.networks.iter().collect();
            networks.sort_by_key(|(key, network)| (std::cmp::Reverse(network.priority), *key));
            let mut further = networks.iter().skip(1);
            further.any(|(_, network)| network.mac_address.is_some())
        },
    },
    Feature {
        api: (1, 45),
        engine: "26",
        name: "volume.subpath",
        used: |service| {
            service.volumes.iter().any(|mount| match &mount.kind {
                MountKind::Volume { subpath, .. } => subpath.is_some(),
                MountKind::Bind { .. } | MountKind::Image { .. } | MountKind::Tmpfs { .. } => false,
            })
        },
    },
    Feature {
        api: (1, 48),
        engine: "28",
        name: "volumes of type image",
        used: |service| {
            let mut mounts = service.volumes.iter();
            mounts.any(|mount| matches!(mount.kind, MountKind::Image { .. }))
        },
    },
    Feature {
        api: (1, 48),
        engine: "28",
        name: "gw_priority",
        used: |service| {
            let mut networks = service.networks.values();
            networks.any(|network| network.gw_priority != 0)
        },
    },
    Feature {
        api: (1, 49),
        engine: "28.1",
        name: "interface_name",
        used: |service| {
            let mut networks = service.networks.values();
            networks.any(|network| network.interface_name.is_some())
        },
    },
];

/// What an engine of this API is too old for.
pub fn beyond(api: (u32, u32)) -> impl Iterator<Item = &'static Feature> {
    FEATURES.iter().filter(move |feature| feature.api > api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_too_old_for_what_came_later() {
        let names = |api| beyond(api).map(|feature| feature.name).collect::<Vec<_>>();
        assert_eq!(names((1, 41)).len(), FEATURES.len());
        assert_eq!(names((1, 48)), ["interface_name"]);
        assert!(names((1, 49)).is_empty());
        assert!(FEATURES.is_sorted_by_key(|feature| feature.api));
    }
}
