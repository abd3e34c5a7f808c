//! What a service declares beyond command, directory and environment → [`Attributes`], and which of it means
//! nothing for a process. Asks the system only what this user may do.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use rustix::process::getrlimit;

use super::attributes::{Attributes, HookCommand, Limit, Pacing, Rotation};
use super::cgroup::Resources;
use super::{child, convert};
use crate::backend::BackendError;
use crate::naming::{Names, Way};
use crate::project::model::{Blkio, Hook, Logging, NetworkAttachment, RestartPacing, Service};

/// The limits of the `local` logging driver of the engine.
const LOCAL_DRIVER: Rotation = Rotation {
    size: 20_000_000,
    files: 5,
};

/// The attributes of a service. What this user is not permitted to do is an error that says so.
pub(super) fn attributes(
    service: &Service,
    working_dir: &Path,
) -> Result<Attributes, BackendError> {
    let limits: BTreeMap<String, Limit> = service
        .ulimits
        .iter()
        .map(|(name, limit)| {
            let limit = Limit {
                soft: limit.soft,
                hard: limit.hard,
            };
            (name.clone(), limit)
        })
        .collect();
    for (name, limit) in &limits {
        check_limit(service, name, *limit)?;
    }
    if let Some(value) = service.oom_score_adj {
        check_oom(service, value)?;
    }
    let RestartPacing {
        delay,
        window,
        attempts,
    } = service.restart_pacing;
    let hooks = |hooks: &[Hook]| -> Result<Vec<HookCommand>, BackendError> {
        hooks
            .iter()
            .map(|hook| hook_command(service, hook, working_dir))
            .collect()
    };
    Ok(Attributes {
        limits,
        resources: Resources {
            nano_cpus: service.nano_cpus,
            cpu_quota: service.limits.cpu_quota,
            cpu_period: service.limits.cpu_period,
            cpu_shares: service.cpu_shares,
            cpuset: service.cpuset.clone(),
            memory: service.mem_limit,
            memory_reservation: service.mem_reservation,
            memory_swap: service.memswap_limit,
            pids: service.pids_limit,
        },
        oom_score_adj: service.oom_score_adj,
        tty: service.tty,
        stdin_open: service.stdin_open,
        rotation: service
            .logging
            .as_ref()
            .map(|logging| rotation(service, logging))
            .transpose()?
            .flatten(),
        pacing: Pacing {
            delay,
            window,
            attempts,
        },
        files: Vec::new(),
        post_start: hooks(&service.post_start)?,
        pre_stop: hooks(&service.pre_stop)?,
    })
}

/// Attributes that are set and mean nothing for a process with these names, by their own names in the compose file.
pub(super) fn without_effect(service: &Service, names: &Names) -> Vec<&'static str> {
    // Others find it by name, on its networks.
    let is_named = !names.places.is_empty();
    let own_network = |key: &String| key != "default";
    let mut networks = service.networks.values();
    let has_place = |place: &NetworkAttachment| {
        place.ipv4_address.is_some()
            || place.ipv6_address.is_some()
            || place.mac_address.is_some()
            || place.interface_name.is_some()
            || !place.link_local_ips.is_empty()
            || !place.driver_opts.is_empty()
    };
    let mut hooks = service.post_start.iter().chain(&service.pre_stop);
    let options = service.logging.iter().flat_map(|it| it.options.keys());
    let mut foreign = options.filter(|key| !["max-size", "max-file"].contains(&key.as_str()));
    [
        (
            "working_dir (but that of x-wharf.process)",
            service.wharf.working_dir_of_image.is_some(),
        ),
        ("volumes", !service.volumes.is_empty()),
        ("volumes_from", !service.volumes_from.is_empty()),
        ("external_links", !service.external_links.is_empty()),
        ("annotations", !service.annotations.is_empty()),
        ("isolation", service.limits.isolation.is_some()),
        ("cpu_count", service.limits.cpu_count.is_some()),
        ("cpu_percent", service.limits.cpu_percent.is_some()),
        ("addresses in networks", networks.any(has_place)),
        ("privileged hooks", hooks.any(|hook| hook.privileged)),
        (
            "logging.options but max-size and max-file",
            foreign.next().is_some(),
        ),
        (
            "group_add without user",
            service.user.is_none() && !service.group_add.is_empty(),
        ),
        ("tmpfs", !service.tmpfs.is_empty()),
        (
            "networks",
            !is_named && service.networks.keys().any(own_network),
        ),
        ("network_mode", service.network_mode.is_some()),
        ("hostname", !is_named && service.hostname.is_some()),
        (
            "hostname for itself",
            is_named && service.hostname.is_some(),
        ),
        ("domainname", service.domainname.is_some()),
        ("mac_address", service.mac_address.is_some()),
        ("links", names.way == Way::Off && !service.links.is_empty()),
        (
            "extra_hosts",
            names.way == Way::Off && !service.extra_hosts.is_empty(),
        ),
        (
            "extra_hosts but in values of the environment",
            names.way == Way::Environment && !service.extra_hosts.is_empty(),
        ),
        ("dns", !service.dns.is_empty()),
        ("dns_opt", !service.dns_opt.is_empty()),
        ("dns_search", !service.dns_search.is_empty()),
        ("init", service.init.is_some()),
        ("privileged", service.privileged),
        ("cap_add", !service.cap_add.is_empty()),
        ("cap_drop", !service.cap_drop.is_empty()),
        ("security_opt", !service.security_opt.is_empty()),
        ("read_only", service.read_only),
        ("shm_size", service.shm_size.is_some()),
        ("sysctls", !service.sysctls.is_empty()),
        ("devices", !service.devices.is_empty()),
        ("ipc", service.ipc.is_some()),
        ("pid", service.pid.is_some()),
        ("uts", service.uts.is_some()),
        ("userns_mode", service.userns_mode.is_some()),
        ("cgroup", service.cgroup.is_some()),
        ("cgroup_parent", service.cgroup_parent.is_some()),
        ("runtime", service.runtime.is_some()),
        ("platform", service.platform.is_some()),
        ("blkio_config", service.limits.blkio != Blkio::default()),
        ("mem_swappiness", service.limits.memory_swappiness.is_some()),
        ("oom_kill_disable", service.limits.oom_kill_disable),
        (
            "cpu_rt_runtime",
            service.limits.cpu_realtime_runtime.is_some(),
        ),
        (
            "device_cgroup_rules",
            !service.limits.device_cgroup_rules.is_empty(),
        ),
        ("gpus", !service.limits.device_requests.is_empty()),
        ("storage_opt", !service.limits.storage_opt.is_empty()),
        ("logging.driver", has_foreign_driver(service)),
    ]
    .into_iter()
    .filter(|(_, is_set)| *is_set)
    .map(|(name, _)| name)
    .collect()
}

/// What wharf keeps itself is like `json-file`, and with limits like `local`.
fn has_foreign_driver(service: &Service) -> bool {
    let driver = service
        .logging
        .as_ref()
        .and_then(|logging| logging.driver.as_deref());
    !matches!(driver, None | Some("json-file" | "local" | ""))
}

fn check_limit(service: &Service, name: &str, limit: Limit) -> Result<(), BackendError> {
    let Some(resource) = child::resource(name) else {
        return Err(BackendError::Unsupported(format!(
            "service {}: there is no ulimit `{name}`",
            service.name
        )));
    };
    let allowed = getrlimit(resource).maximum;
    let wanted = u64::try_from(limit.hard).ok();
    let is_above = match (wanted, allowed) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(wanted), Some(allowed)) => wanted > allowed,
    };
    if is_above && !rustix::process::geteuid().is_root() {
        return Err(BackendError::Unsupported(format!(
            "service {}: ulimit {name} of {} is above this user's hard limit of {}: lower it, or raise \
             the limit in /etc/security/limits.conf",
            service.name,
            wanted.map_or_else(|| "unlimited".to_owned(), |wanted| wanted.to_string()),
            allowed.unwrap_or_default(),
        )));
    }
    Ok(())
}

/// Whether this user may have an `oom_score_adj`: how low it may go, only trying tells (`proc_pid_oom_score_adj(5)`).
/// Higher than it is, it may be always, so that the trial can be undone.
fn check_oom(service: &Service, value: i64) -> Result<(), BackendError> {
    const OWN: &str = "/proc/self/oom_score_adj";
    let own = fs::read_to_string(OWN).ok();
    let Some(own) = own.and_then(|text| text.trim().parse::<i64>().ok()) else {
        return Ok(());
    };
    if value >= own {
        return Ok(());
    }
    let tried = fs::write(OWN, value.to_string());
    if tried.is_ok() {
        // It holds for this command alone, which is about to end.
        drop(fs::write(OWN, own.to_string()));
    }
    match tried {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(BackendError::Unsupported(format!(
                "service {}: oom_score_adj of {value} is below this user's own of {own}, which needs \
                 CAP_SYS_RESOURCE: raise it, or leave it out",
                service.name
            )))
        }
        _ => Ok(()),
    }
}

pub(super) fn hook_command(
    service: &Service,
    hook: &Hook,
    working_dir: &Path,
) -> Result<HookCommand, BackendError> {
    if hook.command.is_empty() {
        return Err(BackendError::Unsupported(format!(
            "service {}: a hook has no command",
            service.name
        )));
    }
    let user = match hook.user.as_deref() {
        // Who we are need not be who the service is.
        Some(text) if !text.is_empty() && service.user.is_some() => {
            convert::account_of(text, &[], &service.name)?.or_else(convert::ourselves)
        }
        Some(text) => convert::account_of(text, &[], &service.name)?,
        None => None,
    };
    let mut environment = BTreeMap::new();
    let mut directory = working_dir.to_owned();
    if let Some(own) = &hook.working_dir {
        directory.push(own);
        environment.insert("PWD".to_owned(), directory.display().to_string());
    }
    if let Some((account, user)) = &user {
        environment.extend(convert::identity(account, user.as_ref()));
    }
    let own = hook.environment.iter();
    environment.extend(
        own.filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    Ok(HookCommand {
        command: hook.command.clone(),
        working_dir: directory,
        environment,
        user: user.map(|(account, _)| account),
    })
}

/// `max-size` and `max-file` as the engine reads them; without `max-size` a log grows for ever.
fn rotation(service: &Service, logging: &Logging) -> Result<Option<Rotation>, BackendError> {
    let wrong = |option: &str, value: &str, wanted: &str| {
        BackendError::Unsupported(format!(
            "service {}: logging option {option}: `{value}` is not {wanted}",
            service.name
        ))
    };
    let is_local = logging.driver.as_deref() == Some("local");
    let base = is_local.then_some(LOCAL_DRIVER);
    let size = match logging.options.get("max-size").map(String::as_str) {
        None | Some("-1") => base.map(|base| base.size),
        Some(text) => Some(
            decimal_size(text)
                .filter(|size| *size > 0)
                .ok_or_else(|| wrong("max-size", text, "a size such as 10m"))?,
        ),
    };
    let files = match logging.options.get("max-file") {
        None => base.map_or(1, |base| base.files),
        Some(text) => text
            .parse()
            .ok()
            .filter(|files| *files > 0)
            .ok_or_else(|| wrong("max-file", text, "a number from 1"))?,
    };
    Ok(size.map(|size| Rotation { size, files }))
}

/// A size with a decimal unit, `10m` or `1.5 kB`, as the engine reads it for logs.
fn decimal_size(text: &str) -> Option<u64> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let thousands = ["", "k", "m", "g", "t", "p"]
        .iter()
        .position(|each| *each == unit)?;
    let factor = 1000_u64.checked_pow(u32::try_from(thousands).ok()?)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let mut size = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let mut place = factor;
    for digit in part.chars() {
        place /= 10;
        size = size.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::Place as Network;

    fn logging(driver: Option<&str>, options: &[(&str, &str)]) -> Option<Rotation> {
        let logging = Logging {
            driver: driver.map(str::to_owned),
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        rotation(&Service::default(), &logging).unwrap()
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(decimal_size("10m"), Some(10_000_000));
        assert_eq!(decimal_size("1.5 kB"), Some(1500));
        assert_eq!(decimal_size("512"), Some(512));
        assert_eq!(decimal_size("x"), None);
        assert_eq!(decimal_size("99999999999p"), None);
    }

    #[test]
    fn a_log_is_limited_where_the_service_or_the_driver_says_so() {
        assert_eq!(logging(None, &[("max-file", "3")]), None);
        assert_eq!(
            logging(None, &[("max-size", "1k"), ("max-file", "3")]),
            Some(Rotation {
                size: 1000,
                files: 3
            })
        );
        assert_eq!(logging(Some("local"), &[]), Some(LOCAL_DRIVER));
        let logging = Logging {
            driver: None,
            options: BTreeMap::from([("max-size".to_owned(), "many".to_owned())]),
        };
        assert!(rotation(&Service::default(), &logging).is_err());
    }

    #[test]
    fn what_means_nothing_is_named() {
        let mut service = Service {
            privileged: true,
            hostname: Some("web".into()),
            ..Service::default()
        };
        let none = Names::default();
        assert_eq!(without_effect(&service, &none), ["hostname", "privileged"]);
        let named = Names {
            way: Way::Hosts,
            places: vec![Network {
                network: "n".to_owned(),
                aliases: Vec::new(),
            }],
            ..Names::default()
        };
        service.extra_hosts = vec!["x:10.0.0.1".to_owned()];
        assert_eq!(
            without_effect(&service, &named),
            ["hostname for itself", "privileged"]
        );
        service.hostname = None;
        let without = ["extra_hosts", "privileged"];
        assert_eq!(without_effect(&service, &none), without);
        service.links = vec!["db:database".to_owned()];
        let without = ["links", "extra_hosts", "privileged"];
        assert_eq!(without_effect(&service, &none), without);
        assert!(without_effect(&Service::default(), &none).is_empty());
    }

    #[test]
    fn an_unknown_limit_is_an_error() {
        let mut service = Service::default();
        service.ulimits.insert(
            "nofiles".into(),
            crate::project::model::Ulimit { soft: 1, hard: 1 },
        );
        assert!(attributes(&service, Path::new("/")).is_err());
    }
}
