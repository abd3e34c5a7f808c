//! A service as the engine's create request. Pure: everything that had to be looked up is in
//! [`Surroundings`].
//!
//! Where the engine has several ways to say one thing, this is the way Docker Compose takes, so that
//! `docker inspect` shows the same for both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, HostConfigLogConfig, Mount,
    NetworkingConfig, PortBinding, PortMap, ResourcesBlkioWeightDevice, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum, ThrottleDevice,
};

use super::mounts::{self, Inherited};
use super::networks;
use super::{ApiVersion, labels};
use crate::backend::BackendError;
use crate::plan::step::{InstanceSpec, SettledPort};
use crate::project::model::{
    self, Blkio, HealthTest, Healthcheck, MountKind, RawPort, Restart, Service,
};
use crate::state::Fingerprint;

/// Every capability.
const ALL: &str = "ALL";

/// What a container that is replaced is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predecessor {
    /// It has the name that its replacement is to have.
    HasName,
    /// It has another one.
    HasAnother,
}

/// What is known about the engine and the other containers at the moment of creation.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The API version spoken.
    pub api: ApiVersion,
    /// The container that is replaced, if it is there.
    pub replaced: Option<Predecessor>,
    /// The image's id.
    pub image_id: String,
    /// `network_mode`, `ipc` and `pid` with services replaced by containers.
    pub network_mode: Option<String>,
    /// See `network_mode`.
    pub ipc: Option<String>,
    /// See `network_mode`.
    pub pid: Option<String>,
    /// `volumes_from` with services replaced by containers.
    pub volumes_from: Vec<String>,
    /// `links` and `external_links` as `container:name`.
    pub links: Vec<String>,
    /// What it is made from, with services replaced by containers.
    pub fingerprint: Fingerprint,
    /// `security_opt` with profiles read, and whether system paths stay visible.
    pub security: Security,
    /// Anonymous volumes of the container that is replaced.
    pub inherited: Vec<Inherited>,
    /// Files of secrets and configs.
    pub stores: Vec<Mount>,
}

/// `security_opt`, as the engine takes it.
#[derive(Debug, Default)]
pub(super) struct Security {
    /// What goes through.
    pub options: Vec<String>,
    /// `systempaths=unconfined`.
    pub unconfined_paths: bool,
}

/// A create request and what must follow it.
#[derive(Debug)]
pub(super) struct Request {
    /// The body.
    pub body: ContainerCreateBody,
    /// A hardware address, for engines that take one per container and not per network.
    pub mac_address: Option<String>,
    /// Networks to connect after creation: the engine's name and the place in it.
    pub connect: Vec<(String, EndpointSettings)>,
}

/// Makes the request.
///
/// # Errors
/// [`BackendError::Unsupported`] when the service needs a newer engine.
pub(super) fn request(spec: &InstanceSpec, around: &Surroundings) -> Result<Request, BackendError> {
    let service = &*spec.service;
    check(spec, around.api)?;
    let mut endpoints = networks::endpoints(spec, &around.links, around.api);
    let mode = around
        .network_mode
        .clone()
        .or_else(|| endpoints.first().map(|(name, _)| name.clone()))
        .unwrap_or_else(|| "none".to_owned());
    // Before API 1.44 a container is created in one network and connected to the others.
    let connect = if around.api < ApiVersion::V1_44 && endpoints.len() > 1 {
        endpoints.split_off(1)
    } else {
        Vec::new()
    };
    let networking = (!endpoints.is_empty()).then(|| NetworkingConfig {
        endpoints_config: Some(endpoints.into_iter().collect()),
    });
    let for_input = spec.one_off.is_some() && service.stdin_open;
    let body = ContainerCreateBody {
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        attach_stdin: for_input.then_some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: Some(exposed(spec)),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        stdin_once: for_input.then_some(true),
        env: Some(environment(spec)),
        cmd: service.command.clone(),
        healthcheck: service
            .healthcheck
            .as_ref()
            .map(|check| health(check, spec, around.api))
            .transpose()?,
        image: Some(spec.image.clone()),
        volumes: None,
        working_dir: service.working_dir.clone(),
        entrypoint: service.entrypoint.clone(),
        labels: Some(owned(&labels::of_container(spec, around))),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service.stop_grace_period.map(whole_seconds),
        host_config: Some(host(spec, around, mode)),
        networking_config: networking,
        ..ContainerCreateBody::default()
    };
    Ok(Request {
        body,
        mac_address: service
            .mac_address
            .clone()
            .or_else(|| networks::first_mac(spec))
            .filter(|_| around.api < ApiVersion::V1_44),
        connect,
    })
}

/// What an older engine would not refuse but ignore.
fn check(spec: &InstanceSpec, api: ApiVersion) -> Result<(), BackendError> {
    if let Some(kind) = spec.service.foreign_volumes.first() {
        return Err(BackendError::Unsupported(format!(
            "{}: a volume of type {kind} cannot be mounted by this engine",
            spec.name
        )));
    }
    let partial = |mount: &model::Mount| {
        matches!(
            mount.kind,
            MountKind::Volume {
                subpath: Some(_),
                ..
            }
        )
    };
    if spec.service.volumes.iter().any(partial) {
        api.offers(ApiVersion::V1_45, "26", &spec.name, "volume.subpath")?;
    }
    let recursive = |mount: &model::Mount| match &mount.kind {
        MountKind::Bind { recursive, .. } => {
            matches!(recursive.as_deref(), Some("writable" | "readonly"))
        }
        MountKind::Volume { .. } | MountKind::Tmpfs { .. } | MountKind::Image { .. } => false,
    };
    if spec.service.volumes.iter().any(recursive) {
        api.offers(ApiVersion::V1_44, "25", &spec.name, "bind.recursive")?;
    }
    let image = |mount: &model::Mount| matches!(mount.kind, MountKind::Image { .. });
    if spec.service.volumes.iter().any(image) {
        api.offers(
            ApiVersion::V1_48,
            "28",
            &spec.name,
            "a volume of type image",
        )?;
    }
    for network in spec.service.networks.values() {
        if network.gw_priority != 0 {
            api.offers(ApiVersion::V1_48, "28", &spec.name, "gw_priority")?;
        }
        if network.interface_name.is_some() {
            api.offers(ApiVersion::V1_49, "28.1", &spec.name, "interface_name")?;
        }
    }
    let further_mac = spec.networks.iter().skip(1).any(|attachment| {
        let network = spec.service.networks.get(&attachment.key);
        network.is_some_and(|network| network.mac_address.is_some())
    });
    if further_mac {
        let what = "mac_address on a network that is not the primary one";
        api.offers(ApiVersion::V1_44, "25", &spec.name, what)?;
    }
    Ok(())
}

fn host(spec: &InstanceSpec, around: &Surroundings, network_mode: String) -> HostConfig {
    let service = &*spec.service;
    let limits = &service.limits;
    let devices = devices(&service.devices);
    let mut placed = mounts::of(spec, &around.inherited);
    let (cap_add, cap_drop) = capabilities(&service.cap_add, &service.cap_drop);
    placed.mounts.extend(around.stores.iter().cloned());
    HostConfig {
        annotations: filled_map(&service.annotations),
        binds: filled(&placed.binds),
        mounts: Some(placed.mounts).filter(|mounts| !mounts.is_empty()),
        tmpfs: filled_map(&placed.tmpfs),
        port_bindings: Some(bindings(&spec.ports, &service.raw_ports)),
        network_mode: Some(network_mode),
        restart_policy: Some(restart(service.restart, service.restart_given)),
        auto_remove: spec.one_off.as_ref().map(|one_off| one_off.remove),
        init: service.init,
        privileged: Some(service.privileged),
        cap_add: filled(&cap_add),
        cap_drop: filled(&cap_drop),
        readonly_rootfs: Some(service.read_only),
        shm_size: service.shm_size,
        sysctls: filled_map(&service.sysctls),
        security_opt: filled(&around.security.options),
        masked_paths: around.security.unconfined_paths.then(Vec::new),
        readonly_paths: around.security.unconfined_paths.then(Vec::new),
        ulimits: (!service.ulimits.is_empty()).then(|| ulimits(service)),
        devices: Some(devices.mapped).filter(|devices| !devices.is_empty()),
        device_requests: Some(requests(&devices.named, &limits.device_requests))
            .filter(|requests| !requests.is_empty()),
        device_cgroup_rules: filled(&limits.device_cgroup_rules),
        ipc_mode: around.ipc.clone(),
        pid_mode: around.pid.clone(),
        uts_mode: service.uts.clone(),
        userns_mode: service.userns_mode.clone(),
        cgroupns_mode: service.cgroup.as_deref().and_then(|mode| match mode {
            "host" => Some(HostConfigCgroupnsModeEnum::HOST),
            "private" => Some(HostConfigCgroupnsModeEnum::PRIVATE),
            _ => None,
        }),
        cgroup_parent: service.cgroup_parent.clone(),
        runtime: service.runtime.clone(),
        volumes_from: filled(&around.volumes_from),
        links: filled(&around.links),
        storage_opt: filled_map(&limits.storage_opt),
        isolation: limits
            .isolation
            .as_deref()
            .and_then(|word| word.parse::<HostConfigIsolationEnum>().ok()),
        blkio_weight: limits.blkio.weight,
        blkio_weight_device: Some(weights(&limits.blkio.weight_device))
            .filter(|_| limits.blkio != Blkio::default()),
        blkio_device_read_bps: throttles(&limits.blkio.read_bps),
        blkio_device_read_iops: throttles(&limits.blkio.read_iops),
        blkio_device_write_bps: throttles(&limits.blkio.write_bps),
        blkio_device_write_iops: throttles(&limits.blkio.write_iops),
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_realtime_period: limits.cpu_realtime_period,
        cpu_realtime_runtime: limits.cpu_realtime_runtime,
        cpu_count: limits.cpu_count,
        cpu_percent: limits.cpu_percent,
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: Some(limits.oom_kill_disable),
        nano_cpus: service.nano_cpus,
        cpu_shares: service.cpu_shares,
        cpuset_cpus: service.cpuset.clone(),
        memory: service.mem_limit,
        memory_reservation: service.mem_reservation,
        memory_swap: service.memswap_limit,
        pids_limit: service.pids_limit,
        oom_score_adj: service.oom_score_adj,
        dns: filled(&service.dns),
        dns_options: filled(&service.dns_opt),
        dns_search: filled(&service.dns_search),
        extra_hosts: Some(service.extra_hosts.clone()),
        group_add: filled(&service.group_add),
        log_config: service.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: logging.driver.clone(),
            config: Some(owned(&logging.options)),
        }),
        ..HostConfig::default()
    }
}

/// `KEY=value`, sorted; wharf's own variables on top.
fn environment(spec: &InstanceSpec) -> Vec<String> {
    let mut variables = spec.service.environment.clone();
    variables.extend(spec.environment.clone());
    // A name alone takes a variable of the image away.
    let unset = spec.service.unset.iter().cloned();
    variables
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .chain(unset)
        .collect()
}

/// `expose` as it is written, as Docker Compose hands it on, and `port/protocol` of the published
/// ports, each once.
fn exposed(spec: &InstanceSpec) -> Vec<String> {
    let declared = spec.service.expose.iter().cloned();
    let published = spec.ports.iter().map(key);
    let raw = spec
        .service
        .raw_ports
        .iter()
        .map(|port| port.target.clone());
    declared
        .chain(published)
        .chain(raw)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn key(port: &SettledPort) -> String {
    format!("{}/{}", port.target, port.protocol)
}

fn bindings(ports: &[SettledPort], raw: &[RawPort]) -> PortMap {
    let mut map = PortMap::new();
    for port in raw {
        let entry = map.entry(port.target.clone()).or_default();
        entry.get_or_insert_default().push(PortBinding {
            host_ip: Some(port.host_ip.clone()),
            host_port: Some(port.published.clone()),
        });
    }
    for port in ports {
        let published = port
            .published
            .map_or_else(String::new, |number| number.to_string());
        let entry = map.entry(key(port)).or_default().get_or_insert_default();
        entry.extend(
            host_addresses(&port.addresses)
                .into_iter()
                .map(|ip| PortBinding {
                    host_ip: Some(ip),
                    host_port: Some(published.clone()),
                }),
        );
    }
    map
}

/// Both wildcards together are what the engine does by itself when it is told no address.
fn host_addresses(addresses: &[IpAddr]) -> Vec<String> {
    let any =
        |wanted: fn(&IpAddr) -> bool| addresses.iter().any(|ip| ip.is_unspecified() && wanted(ip));
    if addresses.is_empty() || (any(IpAddr::is_ipv4) && any(IpAddr::is_ipv6)) {
        return vec![String::new()];
    }
    addresses.iter().map(ToString::to_string).collect()
}

/// Capabilities by the kernel's names, each once; what is added is not dropped, `ALL` stands alone.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let named = |words: &[String]| -> BTreeSet<String> {
        let names: BTreeSet<String> = words
            .iter()
            .map(|word| {
                let name = word.trim().to_uppercase();
                if name == ALL || name.starts_with("CAP_") {
                    name
                } else {
                    format!("CAP_{name}")
                }
            })
            .collect();
        if names.contains(ALL) {
            BTreeSet::from([ALL.to_owned()])
        } else {
            names
        }
    };
    let add = named(add);
    let drop = named(drop).difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

fn restart(policy: Restart, given: bool) -> RestartPolicy {
    let (name, retries) = match policy {
        Restart::No if given => (RestartPolicyNameEnum::NO, None),
        Restart::No => (RestartPolicyNameEnum::EMPTY, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure(retries) => (RestartPolicyNameEnum::ON_FAILURE, retries),
    };
    RestartPolicy {
        name: Some(name),
        maximum_retry_count: retries.map(i64::from),
    }
}

fn health(
    check: &Healthcheck,
    spec: &InstanceSpec,
    api: ApiVersion,
) -> Result<HealthConfig, BackendError> {
    if check.start_interval.is_some() {
        let what = "healthcheck.start_interval";
        api.offers(ApiVersion::V1_44, "25", &spec.name, what)?;
    }
    let test = check.test.as_ref().map(|test| match test {
        HealthTest::None => vec!["NONE".to_owned()],
        HealthTest::Command(argv) => std::iter::once("CMD".to_owned())
            .chain(argv.iter().cloned())
            .collect(),
        HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
    });
    Ok(HealthConfig {
        test,
        interval: check.interval.map(nanoseconds),
        timeout: check.timeout.map(nanoseconds),
        retries: check
            .retries
            .map(|retries| i64::try_from(retries).unwrap_or(i64::MAX)),
        start_period: check.start_period.map(nanoseconds),
        start_interval: check.start_interval.map(nanoseconds),
    })
}

fn ulimits(service: &Service) -> Vec<ResourcesUlimits> {
    service
        .ulimits
        .iter()
        .map(|(name, limit)| ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(limit.soft),
            hard: Some(limit.hard),
        })
        .collect()
}

/// Devices of the host, and devices by their names in the Container Device Interface.
#[derive(Debug, Default)]
struct Devices {
    mapped: Vec<DeviceMapping>,
    named: Vec<String>,
}

/// `host[:container[:permissions]]`, or `vendor/class=name`.
fn devices(entries: &[String]) -> Devices {
    let mut devices = Devices::default();
    for entry in entries {
        let name = entry.split(':').next().unwrap_or_default();
        let is_named = !name.starts_with('/') && name.contains('/') && name.contains('=');
        if is_named {
            devices.named.push(name.to_owned());
        } else {
            devices.mapped.push(device(entry));
        }
    }
    devices
}

fn device(entry: &str) -> DeviceMapping {
    let mut parts = entry.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    let container = parts.next().unwrap_or(host);
    let permissions = parts.next().unwrap_or("rwm");
    DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    }
}

fn requests(named: &[String], asked: &[model::DeviceRequest]) -> Vec<DeviceRequest> {
    let named = (!named.is_empty()).then(|| DeviceRequest {
        driver: Some("cdi".to_owned()),
        device_ids: Some(named.to_vec()),
        ..DeviceRequest::default()
    });
    let asked = asked.iter().map(|request| DeviceRequest {
        driver: request.driver.clone(),
        count: Some(request.count),
        device_ids: filled(&request.device_ids),
        capabilities: Some(vec![request.capabilities.clone()]),
        options: filled_map(&request.options),
    });
    named.into_iter().chain(asked).collect()
}

fn weights(devices: &[(String, i64)]) -> Vec<ResourcesBlkioWeightDevice> {
    devices
        .iter()
        .map(|(path, weight)| ResourcesBlkioWeightDevice {
            path: Some(path.clone()),
            weight: usize::try_from(*weight).ok(),
        })
        .collect()
}

fn throttles(devices: &[(String, i64)]) -> Option<Vec<ThrottleDevice>> {
    let throttles = devices.iter().map(|(path, rate)| ThrottleDevice {
        path: Some(path.clone()),
        rate: Some(*rate),
    });
    (!devices.is_empty()).then(|| throttles.collect())
}

/// The engine counts whole seconds; a fraction must not shorten the grace period.
pub(super) fn whole_seconds(period: Duration) -> i64 {
    let up = u64::from(period.subsec_nanos() > 0);
    i64::try_from(period.as_secs().saturating_add(up)).unwrap_or(i64::MAX)
}

fn nanoseconds(period: Duration) -> i64 {
    i64::try_from(period.as_nanos()).unwrap_or(i64::MAX)
}

/// bollard's maps are hash maps; their order never reaches the wire as meaning.
pub(super) fn owned(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A map, unless it is empty.
pub(super) fn filled_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| owned(map))
}

fn filled(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn capabilities_get_their_names() {
        let (add, drop) = capabilities(
            &words(&["net_admin", "CAP_SYS_TIME", "NET_ADMIN"]),
            &words(&["sys_time", "chown"]),
        );
        assert_eq!(add, ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert_eq!(drop, ["CAP_CHOWN"]);
        let (add, drop) = capabilities(&words(&["chown"]), &words(&["all", "mknod"]));
        assert_eq!(add, ["CAP_CHOWN"]);
        assert_eq!(drop, ["ALL"]);
    }

    #[test]
    fn every_host_address_is_a_binding() {
        let wildcards = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        assert_eq!(host_addresses(&wildcards), [""]);
        assert_eq!(host_addresses(&[]), [""]);
        assert_eq!(host_addresses(&[Ipv4Addr::UNSPECIFIED.into()]), ["0.0.0.0"]);
        let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(host_addresses(&both), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn a_grace_period_is_never_shortened() {
        assert_eq!(whole_seconds(Duration::from_millis(500)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
        assert_eq!(whole_seconds(Duration::ZERO), 0);
    }

    #[test]
    fn devices_are_split() {
        let found = devices(&words(&["/dev/zero", "/dev/null:/dev/x:r"]));
        let found: Vec<_> = found
            .mapped
            .iter()
            .map(|device| {
                [
                    device.path_on_host.as_deref(),
                    device.path_in_container.as_deref(),
                    device.cgroup_permissions.as_deref(),
                ]
            })
            .collect();
        assert_eq!(
            found,
            [
                [Some("/dev/zero"), Some("/dev/zero"), Some("rwm")],
                [Some("/dev/null"), Some("/dev/x"), Some("r")],
            ]
        );
    }
}
