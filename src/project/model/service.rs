//! `services.*` (compose specification, 05-services).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Build, Limits, Mount, NetworkAttachment, Port, Provider, RawPort, ServiceExtension, StoreMount,
    Trigger,
};

/// A service, canonical and resolved. Fields follow the specification's names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Its key.
    pub name: String,
    /// Where it stands in its compose file, `file:line`, for messages.
    pub place: String,
    /// The reference; `None` with `build`: `P-service`.
    pub image: Option<String>,
    /// How to build the image.
    pub build: Option<Build>,
    /// argv; `None`: the image's. Already split.
    pub command: Option<Vec<String>>,
    /// argv in front of it; `None`: the image's; empty: none.
    pub entrypoint: Option<Vec<String>>,
    /// `environment` over `env_file`, resolved; unset ones removed.
    pub environment: BTreeMap<String, String>,
    /// Variables that are to be unset: named without a value, and nothing gives them one.
    pub unset: Vec<String>,
    /// Ports on the host.
    pub ports: Vec<Port>,
    /// Ports on the host that no claim is made on.
    pub raw_ports: Vec<RawPort>,
    /// `port/protocol` open to other containers.
    pub expose: Vec<String>,
    /// Mounts.
    pub volumes: Vec<Mount>,
    /// Attributes that are set and that wharf does nothing about.
    pub unheard: Vec<&'static str>,
    /// What cannot be mounted here: the type of each such mount (`npipe`, `cluster`).
    pub foreign_volumes: Vec<String>,
    /// `tmpfs:` entries, `path[:options]`.
    pub tmpfs: Vec<String>,
    /// Services and containers whose volumes it mounts too, `service[:mode]` or `container:name[:mode]`.
    pub volumes_from: Vec<String>,
    /// Services under further names, `service[:name]`.
    pub links: Vec<String>,
    /// Containers of others under further names, `container[:name]`.
    pub external_links: Vec<String>,
    /// Networks by key; empty with `network_mode`.
    pub networks: BTreeMap<String, NetworkAttachment>,
    /// `host`, `none`, `service:x`, `container:x`.
    pub network_mode: Option<String>,
    /// What must come up first; implicit ones added.
    pub depends_on: BTreeMap<String, Dependency>,
    /// Its healthcheck.
    pub healthcheck: Option<Healthcheck>,
    /// Profiles.
    pub profiles: Vec<String>,
    /// Restart policy.
    pub restart: Restart,
    /// Whether the policy was written: the engine tells `no` from nothing.
    pub restart_given: bool,
    /// `deploy.restart_policy`, beyond its condition; engines of containers do not know it.
    pub restart_pacing: RestartPacing,
    /// Its container's name.
    pub container_name: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// More groups.
    pub group_add: Vec<String>,
    /// Working directory in the container.
    pub working_dir: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// An init process as pid 1.
    pub init: Option<bool>,
    /// A terminal.
    pub tty: bool,
    /// Open standard input.
    pub stdin_open: bool,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
    /// How long it gets after that; `None`: 10 s.
    pub stop_grace_period: Option<Duration>,
    /// `host:address`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Resolver options.
    pub dns_opt: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Secrets.
    pub secrets: Vec<StoreMount>,
    /// Configs.
    pub configs: Vec<StoreMount>,
    /// When to pull.
    pub pull_policy: Option<PullPolicy>,
    /// Replicas; `None`: 1.
    pub scale: Option<u32>,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    /// All privileges.
    pub privileged: bool,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Read-only root.
    pub read_only: bool,
    /// `/dev/shm` in bytes.
    pub shm_size: Option<i64>,
    /// Limits by name.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Security options.
    pub security_opt: Vec<String>,
    /// `host:container[:permissions]`.
    pub devices: Vec<String>,
    /// IPC namespace.
    pub ipc: Option<String>,
    /// PID namespace.
    pub pid: Option<String>,
    /// UTS namespace.
    pub uts: Option<String>,
    /// User namespace.
    pub userns_mode: Option<String>,
    /// cgroup namespace.
    pub cgroup: Option<String>,
    /// Parent cgroup.
    pub cgroup_parent: Option<String>,
    /// OCI runtime.
    pub runtime: Option<String>,
    /// CPUs in billionths.
    pub nano_cpus: Option<i64>,
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// CPU set.
    pub cpuset: Option<String>,
    /// Bytes.
    pub mem_limit: Option<i64>,
    /// Bytes.
    pub mem_reservation: Option<i64>,
    /// Bytes, -1 for no limit.
    pub memswap_limit: Option<i64>,
    /// Processes.
    pub pids_limit: Option<i64>,
    /// What else is limited or let in.
    pub limits: Limits,
    /// OOM score adjustment.
    pub oom_score_adj: Option<i64>,
    /// Logging.
    pub logging: Option<Logging>,
    /// Whether `up` shows its output; `None`: yes.
    pub attach: Option<bool>,
    /// Commands after the start.
    pub post_start: Vec<Hook>,
    /// Commands before the first start, each in a container of its own.
    pub pre_start: Vec<PreStart>,
    /// Commands before the stop.
    pub pre_stop: Vec<Hook>,
    /// A fixed hardware address.
    pub mac_address: Option<String>,
    /// `develop.watch`.
    pub watch: Vec<Trigger>,
    /// `x-wharf`.
    pub wharf: ServiceExtension,
    /// The hash of its canonical form, as `config --hash` prints it.
    pub config_hash: String,
    /// What stands between the parts of its names.
    pub separator: Separator,
    /// The text that the hash is made of, where it shares something of another service and the hash
    /// therefore depends on that one's container.
    pub shared_form: Option<String>,
    /// The program that provides it in place of an engine; `None` also for wharf itself, which gives it a
    /// process form.
    pub provider: Option<Provider>,
    /// The text that the hash is made of, with an environment in any case, where it depends on a provided
    /// service and its environment therefore on what that one's provider tells.
    pub provided_form: Option<String>,
}

impl Service {
    /// Whether it can run as a container.
    pub fn has_container_form(&self) -> bool {
        self.provider.is_none() && (self.image.is_some() || self.build.is_some())
    }

    /// Whether it can run as a process.
    pub fn has_process_form(&self) -> bool {
        self.provider.is_none() && self.wharf.process.is_some()
    }

    /// The services whose namespaces or volumes its containers share.
    pub fn shares_with(&self) -> impl Iterator<Item = &str> {
        let modes = [&self.network_mode, &self.ipc, &self.pid];
        let spaces = modes
            .into_iter()
            .filter_map(|mode| mode.as_deref()?.strip_prefix("service:"));
        let volumes = self
            .volumes_from
            .iter()
            .filter_map(|entry| entry.split(':').next())
            .filter(|name| *name != "container");
        spaces.chain(volumes)
    }

    /// The containers that it shares something with or is linked to, where it says them by their own names.
    pub fn containers_named(&self) -> impl Iterator<Item = &str> {
        let links = self.external_links.iter();
        self.containers_shared()
            .chain(links.filter_map(|link| link.split(':').next()))
    }

    /// The containers whose namespaces or volumes its own share, where it says them by their own names.
    pub fn containers_shared(&self) -> impl Iterator<Item = &str> {
        let modes = [&self.network_mode, &self.ipc, &self.pid];
        let spaces = modes.into_iter().filter_map(|mode| mode.as_deref());
        let volumes = self.volumes_from.iter().map(String::as_str);
        spaces.chain(volumes).filter_map(|entry| {
            let rest = entry.strip_prefix("container:")?;
            rest.split(':').next()
        })
    }

    /// The image that a container of it is made of, in project `project`.
    pub fn image_name(&self, project: &str) -> String {
        self.image
            .clone()
            .unwrap_or_else(|| format!("{project}{}{}", self.separator, self.name))
    }

    /// The name of replica `number` in project `project`: `container_name`, or `P-service-N`.
    pub fn instance_name(&self, project: &str, number: u32) -> String {
        let between = self.separator;
        self.container_name
            .clone()
            .unwrap_or_else(|| format!("{project}{between}{}{between}{number}", self.name))
    }
}

/// What stands between the parts of the names that wharf makes (`--compatibility`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Separator {
    /// `-`
    #[default]
    Dash,
    /// `_`, as in Compose 1.
    Underscore,
}

impl std::fmt::Display for Separator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dash => "-",
            Self::Underscore => "_",
        })
    }
}

/// `depends_on.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// What to wait for.
    pub condition: Condition,
    /// Restart with it.
    pub restart: bool,
    /// Fail without it.
    pub required: bool,
}

/// `depends_on.*.condition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `service_started`
    Started,
    /// `service_healthy`
    Healthy,
    /// `service_completed_successfully`
    CompletedSuccessfully,
}

/// `healthcheck`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The test; `None`: the image's.
    pub test: Option<HealthTest>,
    /// Between checks.
    pub interval: Option<Duration>,
    /// Of one check.
    pub timeout: Option<Duration>,
    /// Failures in a row until unhealthy.
    pub retries: Option<u64>,
    /// Failures do not count until then.
    pub start_period: Option<Duration>,
    /// Between checks during the start period.
    pub start_interval: Option<Duration>,
}

/// `healthcheck.test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthTest {
    /// No check at all (`NONE`, `disable: true`).
    None,
    /// argv.
    Command(Vec<String>),
    /// For a shell.
    Shell(String),
}

/// `restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// `no`
    #[default]
    No,
    /// `always`
    Always,
    /// `on-failure[:max]`
    OnFailure(Option<u32>),
    /// `unless-stopped`
    UnlessStopped,
}

/// `deploy.restart_policy`: `delay`, `window`, `max_attempts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartPacing {
    /// Between two attempts.
    pub delay: Option<Duration>,
    /// A run that lasted so long was a success.
    pub window: Option<Duration>,
    /// At most so many.
    pub attempts: Option<u32>,
}

/// `pull_policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every `up`.
    Always,
    /// Never.
    Never,
    /// When it is not there.
    Missing,
    /// Build it instead.
    Build,
    /// When the last pull is older (seconds).
    Every(u64),
}

/// `ulimits.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// `logging`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The driver.
    pub driver: Option<String>,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// One of `pre_start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreStart {
    /// What to run; without a command it is the image's own.
    pub hook: Hook,
    /// The image of its container; `None`: the service's.
    pub image: Option<String>,
    /// Whether it is run for each replica, not once for the service.
    pub per_replica: bool,
}

/// `post_start`, `pre_stop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// argv.
    pub command: Vec<String>,
    /// Run as.
    pub user: Option<String>,
    /// All privileges.
    pub privileged: bool,
    /// Working directory.
    pub working_dir: Option<String>,
    /// `KEY=value`.
    pub environment: Vec<String>,
}
