//! The cast tree → `model`: the only place that knows both.
//!
//! Everything was checked before but what only running needs: port numbers, addresses, the words of
//! `restart`, `pull_policy` and `x-wharf`. Those mistakes are reported with their place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::extension::{conflict, extension};
use super::limits;
use super::model::{
    Condition, Dependency, HealthTest, Healthcheck, Hook, Logging, NO_VARIABLE, NetworkAttachment,
    PreStart, Project, Provider, PullPolicy, Restart, RestartPacing, Separator, Service, Ulimit,
    digest,
};
use super::mounts::{mount, store_mounts};
use super::outside::{network, store, volume};
use super::published::{ports, raw_ports};
use super::report::Report;
use super::socket::with_engine_socket;
use super::tree::{Map, Node};
use super::{build, paths, quantity, watch};

/// What the model needs beside the tree.
pub(crate) struct Context<'a> {
    pub(crate) name: &'a str,
    pub(crate) directory: &'a Path,
    pub(crate) files: &'a [PathBuf],
    pub(crate) env_files: &'a [PathBuf],
    pub(crate) variables: &'a BTreeMap<String, String>,
    pub(crate) home: Option<&'a str>,
    /// The text that a service's hash is made of.
    pub(crate) hash_form: &'a dyn Fn(&Node) -> String,
    /// What stands between the parts of names.
    pub(crate) separator: Separator,
}

impl Context<'_> {
    /// A path of the file from the root on.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        let base = paths::Base {
            directory: self.directory,
            home: self.home,
        };
        PathBuf::from(paths::absolute(path, base))
    }
}

/// Builds the model of a project.
pub(crate) fn project(
    top: &Map,
    disabled: &Map,
    context: &Context<'_>,
    report: &mut Report,
) -> Project {
    let section = |name: &str| top.get(name).and_then(Node::as_map).into_iter().flatten();
    let mut services = BTreeMap::new();
    for (name, node) in section("services") {
        let mut service = service(name, node, context, report);
        if let (Some(found), Some(node)) = (&mut service.build, node.get("build")) {
            found.secrets = build::secrets(node, top, context);
            found.additional_contexts = build::contexts(node, top, context);
        }
        services.insert(name.clone(), service);
    }
    let provided: BTreeSet<String> = services
        .values()
        .filter(|service| service.provider.is_some())
        .map(|service| service.name.clone())
        .collect();
    for (name, node) in section("services").filter(|_| !provided.is_empty()) {
        if let Some(service) = services.get_mut(name)
            && service.depends_on.keys().any(|on| provided.contains(on))
        {
            service.provided_form = Some(with_some_environment(node, context));
        }
    }
    let services = services
        .into_iter()
        .map(|(name, service)| (name, Arc::new(service)))
        .collect();
    Project {
        name: context.name.to_owned(),
        directory: context.directory.to_path_buf(),
        files: context.files.to_vec(),
        env_files: context.env_files.to_vec(),
        services,
        disabled: disabled.keys().cloned().collect(),
        disabled_containers: disabled
            .values()
            .any(|service| service.get("image").is_some() || service.get("build").is_some()),
        networks: section("networks")
            .map(|(key, node)| (key.clone(), Arc::new(network(key, node))))
            .collect(),
        volumes: section("volumes")
            .map(|(key, node)| (key.clone(), Arc::new(volume(key, node))))
            .collect(),
        secrets: section("secrets")
            .map(|(key, node)| (key.clone(), Arc::new(store(key, node, context.variables))))
            .collect(),
        configs: section("configs")
            .map(|(key, node)| (key.clone(), Arc::new(store(key, node, context.variables))))
            .collect(),
        conflict: top
            .get("x-wharf")
            .and_then(|wharf| wharf.text("conflict"))
            .and_then(conflict),
    }
}

pub(crate) fn owned(node: &Node, key: &str) -> Option<String> {
    node.text(key)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

pub(crate) fn flag(node: &Node, key: &str) -> bool {
    maybe_flag(node, key).unwrap_or_default()
}

pub(crate) fn maybe_flag(node: &Node, key: &str) -> Option<bool> {
    node.get(key).and_then(Node::as_bool)
}

pub(crate) fn int(node: &Node, key: &str) -> Option<i64> {
    node.get(key).and_then(Node::as_int)
}

/// An amount for which 0 means that none was given.
pub(crate) fn amount(node: &Node, key: &str) -> Option<i64> {
    int(node, key).filter(|value| *value != 0)
}

pub(crate) fn texts(node: &Node, key: &str) -> Vec<String> {
    items(node, key).iter().map(Node::display).collect()
}

pub(crate) fn items<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    node.get(key).and_then(Node::as_list).unwrap_or_default()
}

pub(crate) fn entries<'a>(
    node: &'a Node,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Node)> {
    node.get(key).and_then(Node::as_map).into_iter().flatten()
}

pub(crate) fn pairs(node: &Node, key: &str) -> BTreeMap<String, String> {
    entries(node, key)
        .map(|(key, value)| (key.clone(), value.display()))
        .collect()
}

pub(crate) fn maybe_pairs(node: &Node, key: &str) -> BTreeMap<String, Option<String>> {
    entries(node, key)
        .map(|(key, value)| (key.clone(), value.as_text().map(str::to_owned)))
        .collect()
}

pub(crate) fn time(node: &Node, key: &str) -> Option<Duration> {
    node.text(key).and_then(quantity::duration)
}

pub(crate) fn argv(node: &Node, key: &str) -> Option<Vec<String>> {
    node.get(key)?;
    Some(texts(node, key))
}

fn service(name: &str, node: &Node, context: &Context<'_>, report: &mut Report) -> Service {
    let deploy = node.get("deploy");
    let deployed = |section: &str| deploy?.get("resources")?.get(section);
    let limited = deployed("limits");
    let reservations = deployed("reservations");
    let place = node.key_place().map_or_else(String::new, |place| {
        let (line, _) = place.line_and_column();
        format!("{}:{line}", place.source.path.display())
    });
    let node = &*with_engine_socket(node);
    let form = (context.hash_form)(node);
    let mut service = Service {
        name: name.to_owned(),
        place,
        image: owned(node, "image"),
        build: node.get("build").map(build::build),
        command: argv(node, "command"),
        entrypoint: argv(node, "entrypoint"),
        environment: entries(node, "environment")
            .filter(|(key, _)| !key.is_empty())
            .filter_map(|(key, value)| Some((key.clone(), value.as_text()?.to_owned())))
            .collect(),
        unset: entries(node, "environment")
            .filter(|(key, value)| !key.is_empty() && value.is_null())
            .map(|(key, _)| key.clone())
            .collect(),
        ports: ports(name, node, report),
        raw_ports: raw_ports(node),
        expose: texts(node, "expose"),
        volumes: items(node, "volumes").iter().filter_map(mount).collect(),
        unheard: UNHEARD
            .into_iter()
            .filter(|key| {
                node.get(key)
                    .is_some_and(|it| it.value != super::tree::Value::Null)
            })
            .collect(),
        foreign_volumes: foreign(node),
        volumes_from: texts(node, "volumes_from"),
        links: texts(node, "links"),
        external_links: texts(node, "external_links"),
        tmpfs: texts(node, "tmpfs"),
        networks: entries(node, "networks")
            .map(|(key, value)| (key.clone(), attachment(value)))
            .collect(),
        network_mode: owned(node, "network_mode"),
        depends_on: entries(node, "depends_on")
            .map(|(key, value)| (key.clone(), dependency(value)))
            .collect(),
        healthcheck: node.get("healthcheck").map(healthcheck),
        profiles: texts(node, "profiles"),
        restart: restart(name, node, deploy, report),
        restart_given: restart_policy(deploy).map_or_else(
            || node.get("restart").is_some(),
            |policy| policy.text("condition").is_some(),
        ),
        restart_pacing: restart_policy(deploy)
            .map(restart_pacing)
            .unwrap_or_default(),
        container_name: owned(node, "container_name"),
        hostname: owned(node, "hostname"),
        domainname: owned(node, "domainname"),
        user: owned(node, "user"),
        group_add: texts(node, "group_add"),
        working_dir: owned(node, "working_dir"),
        labels: pairs(node, "labels"),
        annotations: pairs(node, "annotations"),
        init: maybe_flag(node, "init"),
        tty: flag(node, "tty"),
        stdin_open: flag(node, "stdin_open"),
        stop_signal: owned(node, "stop_signal"),
        stop_grace_period: time(node, "stop_grace_period"),
        extra_hosts: texts(node, "extra_hosts")
            .into_iter()
            .map(|entry| entry.replacen('=', ":", 1))
            .collect(),
        dns: texts(node, "dns"),
        dns_opt: texts(node, "dns_opt"),
        dns_search: texts(node, "dns_search"),
        secrets: store_mounts(node, "secrets"),
        configs: store_mounts(node, "configs"),
        pull_policy: pull_policy(node),
        scale: int(node, "scale")
            .or_else(|| deploy.and_then(|deploy| int(deploy, "replicas")))
            .and_then(|count| u32::try_from(count).ok()),
        platform: owned(node, "platform"),
        privileged: flag(node, "privileged"),
        cap_add: texts(node, "cap_add"),
        cap_drop: texts(node, "cap_drop"),
        read_only: flag(node, "read_only"),
        shm_size: amount(node, "shm_size"),
        ulimits: entries(node, "ulimits")
            .map(|(key, value)| (key.clone(), ulimit(value)))
            .collect(),
        sysctls: pairs(node, "sysctls"),
        security_opt: texts(node, "security_opt"),
        devices: items(node, "devices")
            .iter()
            .map(|device| {
                let part = |key: &str| device.text(key).unwrap_or_default().to_owned();
                format!(
                    "{}:{}:{}",
                    part("source"),
                    part("target"),
                    part("permissions")
                )
            })
            .collect(),
        ipc: owned(node, "ipc"),
        pid: owned(node, "pid"),
        uts: owned(node, "uts"),
        userns_mode: owned(node, "userns_mode"),
        cgroup: owned(node, "cgroup"),
        cgroup_parent: owned(node, "cgroup_parent"),
        runtime: owned(node, "runtime"),
        nano_cpus: limits::nano_cpus(node).or_else(|| limited.and_then(limits::nano_cpus)),
        cpu_shares: amount(node, "cpu_shares"),
        cpuset: owned(node, "cpuset"),
        mem_limit: amount(node, "mem_limit")
            .or_else(|| limited.and_then(|limits| amount(limits, "memory"))),
        mem_reservation: amount(node, "mem_reservation")
            .or_else(|| reservations.and_then(|reserved| amount(reserved, "memory"))),
        memswap_limit: amount(node, "memswap_limit"),
        pids_limit: amount(node, "pids_limit")
            .or_else(|| limited.and_then(|limits| amount(limits, "pids"))),
        limits: limits::limits(node),
        oom_score_adj: amount(node, "oom_score_adj"),
        logging: node.get("logging").map(|logging| Logging {
            driver: owned(logging, "driver"),
            options: pairs(logging, "options"),
        }),
        attach: maybe_flag(node, "attach"),
        post_start: items(node, "post_start").iter().map(hook).collect(),
        pre_start: items(node, "pre_start").iter().map(pre_start).collect(),
        pre_stop: items(node, "pre_stop").iter().map(hook).collect(),
        mac_address: owned(node, "mac_address"),
        watch: watch::triggers(node, context),
        wharf: extension(name, node, context, report),
        config_hash: digest(&form),
        shared_form: None,
        provider: provider(node, context),
        provided_form: None,
        separator: context.separator,
    };
    if service.shares_with().next().is_some() || !service.volumes_from.is_empty() {
        service.shared_form = Some(form);
    }
    service
}

/// The text that a service's hash is made of, with an environment whether it has one or not.
fn with_some_environment(node: &Node, context: &Context<'_>) -> String {
    let mut node = with_engine_socket(node).into_owned();
    if let Some(map) = node.as_map_mut() {
        let environment = map
            .entry("environment".to_owned())
            .or_insert_with(|| Node::new(Map::new()));
        if let Some(environment) = environment.as_map_mut() {
            environment.insert(NO_VARIABLE.to_owned(), Node::new(String::new()));
        }
    }
    (context.hash_form)(&node)
}

/// A provider that is not wharf itself.
fn provider(node: &Node, context: &Context<'_>) -> Option<Provider> {
    let provider = node.get("provider")?;
    let kind = owned(provider, "type").filter(|kind| kind != "wharf")?;
    Some(Provider {
        kind,
        options: entries(provider, "options")
            .map(|(name, _)| {
                let options = provider.get("options").map(|options| texts(options, name));
                (name.clone(), options.unwrap_or_default())
            })
            .collect(),
        environment: context.variables.clone(),
    })
}

fn attachment(node: &Node) -> NetworkAttachment {
    NetworkAttachment {
        aliases: texts(node, "aliases"),
        ipv4_address: owned(node, "ipv4_address"),
        ipv6_address: owned(node, "ipv6_address"),
        link_local_ips: texts(node, "link_local_ips"),
        mac_address: owned(node, "mac_address"),
        priority: int(node, "priority").unwrap_or_default(),
        gw_priority: int(node, "gw_priority").unwrap_or_default(),
        interface_name: owned(node, "interface_name"),
        driver_opts: pairs(node, "driver_opts"),
    }
}

fn dependency(node: &Node) -> Dependency {
    Dependency {
        condition: match node.text("condition") {
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::CompletedSuccessfully,
            _ => Condition::Started,
        },
        restart: flag(node, "restart"),
        required: maybe_flag(node, "required").unwrap_or(true),
    }
}

pub(crate) fn healthcheck(node: &Node) -> Healthcheck {
    let test = texts(node, "test");
    let test = match test.split_first() {
        _ if flag(node, "disable") => Some(HealthTest::None),
        None => None,
        Some((first, rest)) => Some(match first.as_str() {
            "NONE" => HealthTest::None,
            "CMD-SHELL" => HealthTest::Shell(rest.join(" ")),
            "CMD" => HealthTest::Command(rest.to_vec()),
            _ => HealthTest::Command(test.clone()),
        }),
    };
    Healthcheck {
        test,
        interval: time(node, "interval"),
        timeout: time(node, "timeout"),
        retries: int(node, "retries").and_then(|retries| u64::try_from(retries).ok()),
        start_period: time(node, "start_period"),
        start_interval: time(node, "start_interval"),
    }
}

fn restart(name: &str, node: &Node, deploy: Option<&Node>, report: &mut Report) -> Restart {
    // Docker Compose lets `deploy` win.
    if let Some(policy) = restart_policy(deploy) {
        let attempts = int(policy, "max_attempts").and_then(|n| u32::try_from(n).ok());
        return match policy.text("condition") {
            Some("any" | "always") => Restart::Always,
            Some("on-failure") => Restart::OnFailure(attempts.filter(|n| *n != 0)),
            Some("unless-stopped") => Restart::UnlessStopped,
            _ => Restart::No,
        };
    }
    let Some(policy) = node.get("restart") else {
        return Restart::No;
    };
    let text = policy.display();
    let (word, count) = match text.split_once(':') {
        Some((word, count)) => (word, Some(count)),
        None => (text.as_str(), None),
    };
    match (word, count.map(str::parse::<u32>)) {
        ("" | "no", None) => Restart::No,
        ("always", None) => Restart::Always,
        ("unless-stopped", None) => Restart::UnlessStopped,
        ("on-failure", None) => Restart::OnFailure(None),
        ("on-failure", Some(Ok(count))) => Restart::OnFailure(Some(count)),
        (_, _) => {
            report.add(
                Diagnostic::error(format!("`{text}` is not a restart policy"))
                    .at(policy.place())
                    .key(format!("services.{name}.restart"))
                    .label("expected no, always, on-failure[:count] or unless-stopped"),
            );
            Restart::No
        }
    }
}

fn restart_policy(deploy: Option<&Node>) -> Option<&Node> {
    deploy?.get("restart_policy")
}

fn restart_pacing(policy: &Node) -> RestartPacing {
    RestartPacing {
        delay: time(policy, "delay"),
        window: time(policy, "window"),
        attempts: int(policy, "max_attempts").and_then(|attempts| u32::try_from(attempts).ok()),
    }
}

fn pull_policy(node: &Node) -> Option<PullPolicy> {
    let text = node.text("pull_policy").filter(|text| !text.is_empty())?;
    Some(match text {
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        "build" => PullPolicy::Build,
        "daily" => PullPolicy::Every(86_400),
        "weekly" => PullPolicy::Every(604_800),
        _ => match text.strip_prefix("every_").and_then(quantity::duration) {
            Some(time) => PullPolicy::Every(time.as_secs()),
            None => PullPolicy::Missing,
        },
    })
}

pub(crate) fn ulimit(node: &Node) -> Ulimit {
    match node.as_int() {
        Some(both) => Ulimit {
            soft: both,
            hard: both,
        },
        None => Ulimit {
            soft: int(node, "soft").unwrap_or_default(),
            hard: int(node, "hard").unwrap_or_default(),
        },
    }
}

/// Attributes of a service that only other engines and plug-ins know.
const UNHEARD: [&str; 2] = ["credential_spec", "models"];

/// The types of the mounts that no engine of wharf's has.
fn foreign(node: &Node) -> Vec<String> {
    let all = items(node, "volumes").iter();
    let left_out = all.filter(|it| mount(it).is_none());
    left_out.filter_map(|it| owned(it, "type")).collect()
}

fn pre_start(node: &Node) -> PreStart {
    PreStart {
        hook: hook(node),
        image: owned(node, "image"),
        per_replica: flag(node, "per_replica"),
    }
}

pub(crate) fn hook(node: &Node) -> Hook {
    Hook {
        command: texts(node, "command"),
        user: owned(node, "user"),
        privileged: flag(node, "privileged"),
        working_dir: owned(node, "working_dir"),
        environment: entries(node, "environment")
            .map(|(key, value)| match value.as_text() {
                Some(text) => format!("{key}={text}"),
                None => key.clone(),
            })
            .collect(),
    }
}
