//! Networks and volumes as the engine's requests, and a container's places in its networks. Pure.

use std::collections::HashMap;

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest,
    VolumeCreateRequest,
};

use super::convert::{filled_map, owned};
use super::{ApiVersion, labels};
use crate::plan::step::{Attachment, InstanceSpec, ProjectIdentity};
use crate::project::model::{Network, NetworkAttachment, Volume};

/// Networks that the engine brings along and that give containers no further names.
const WITHOUT_NAMES: [&str; 4] = ["bridge", "host", "none", "default"];

/// The driver option that names an interface (API 1.49).
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// An instance's networks, the primary one first.
pub(super) fn endpoints(
    spec: &InstanceSpec,
    links: &[String],
    api: ApiVersion,
) -> Vec<(String, EndpointSettings)> {
    spec.networks
        .iter()
        .enumerate()
        .map(|(place, attachment)| {
            let declared = spec.service.networks.get(&attachment.key);
            // The service's own hardware address is that of its primary network.
            let mac = declared
                .and_then(|network| network.mac_address.clone())
                .or_else(|| spec.service.mac_address.clone().filter(|_| place == 0));
            let settings = EndpointSettings {
                aliases: aliases(spec, attachment),
                ip_address: declared.and_then(|network| network.ipv4_address.clone()),
                links: (!links.is_empty()).then(|| links.to_vec()),
                // Nothing, and not an empty object, where the file says nothing: as Docker Compose does.
                ipam_config: declared
                    .filter(|network| **network != NetworkAttachment::default())
                    .map(addresses),
                driver_opts: declared.and_then(driver_opts),
                gw_priority: declared
                    .map(|network| network.gw_priority)
                    .filter(|priority| *priority != 0),
                mac_address: mac.filter(|_| api >= ApiVersion::V1_44),
                ..EndpointSettings::default()
            };
            (attachment.network.clone(), settings)
        })
        .collect()
}

/// The hardware address that the primary network's entry asks for.
pub(super) fn first_mac(spec: &InstanceSpec) -> Option<String> {
    let first = spec.networks.first()?;
    spec.service.networks.get(&first.key)?.mac_address.clone()
}

fn aliases(spec: &InstanceSpec, attachment: &Attachment) -> Option<Vec<String>> {
    if WITHOUT_NAMES.contains(&attachment.network.as_str()) {
        return None;
    }
    let mut names: Vec<String> = Vec::new();
    // What is made for one command must not answer to the service's name unless it is told to.
    let service = match &spec.one_off {
        Some(one_off) if !one_off.aliases => None,
        Some(_) | None => Some(&spec.service.name),
    };
    let all = std::iter::once(&spec.name)
        .chain(service)
        .chain(&attachment.aliases);
    for name in all {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Some(names)
}

/// The driver's options; the interface's name is one of them.
fn driver_opts(network: &NetworkAttachment) -> Option<HashMap<String, String>> {
    let mut options = network.driver_opts.clone();
    if let Some(name) = &network.interface_name {
        options
            .entry(INTERFACE_NAME.to_owned())
            .or_insert_with(|| name.clone());
    }
    filled_map(&options)
}

fn addresses(network: &NetworkAttachment) -> EndpointIpamConfig {
    EndpointIpamConfig {
        ipv4_address: network.ipv4_address.clone(),
        ipv6_address: network.ipv6_address.clone(),
        link_local_ips: (!network.link_local_ips.is_empty())
            .then(|| network.link_local_ips.clone()),
    }
}

/// The request that makes a network.
pub(super) fn network(network: &Network, project: &ProjectIdentity) -> NetworkCreateRequest {
    let mut all = network.labels.clone();
    all.extend(labels::of_project(project));
    all.insert(labels::NETWORK.to_owned(), network.key.clone());
    all.insert(labels::CONFIG_HASH.to_owned(), network.config_hash());
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone(),
        options: filled_map(&network.driver_opts),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: ipam(network),
        labels: Some(owned(&all)),
        ..NetworkCreateRequest::default()
    }
}

fn ipam(network: &Network) -> Option<Ipam> {
    if network.ipam_driver.is_none() && network.subnets.is_empty() {
        return None;
    }
    let pools = network
        .subnets
        .iter()
        .enumerate()
        .map(|(place, (subnet, ip_range, gateway))| IpamConfig {
            subnet: subnet.clone(),
            ip_range: ip_range.clone(),
            gateway: gateway.clone(),
            auxiliary_addresses: network.reserved.get(place).and_then(filled_map),
        })
        .collect();
    Some(Ipam {
        driver: network.ipam_driver.clone(),
        config: Some(pools),
        options: None,
    })
}

/// The request that makes a volume.
pub(super) fn volume(volume: &Volume, project: &ProjectIdentity) -> VolumeCreateRequest {
    let mut all = volume.labels.clone();
    all.extend(labels::of_project(project));
    all.insert(labels::VOLUME.to_owned(), volume.key.clone());
    all.insert(labels::CONFIG_HASH.to_owned(), volume.config_hash());
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: volume.driver.clone(),
        driver_opts: filled_map(&volume.driver_opts),
        labels: Some(owned(&all)),
        ..VolumeCreateRequest::default()
    }
}
