//! The canonical form of a project: every field in its order, with its type and whether it is shown
//! when empty.
//!
//! Only data, plus the look-up. `cast` gives values these types, `render` prints them. The order is
//! that of Compose's own model, because `config` prints in it and hashes are made over it.

/// What a field holds, and with it when it is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// Text; left out when empty.
    Text,
    /// A boolean; left out when false.
    Flag,
    /// A boolean that may be unset; false is shown.
    MaybeFlag,
    /// An integer; left out when 0.
    Int,
    /// An integer that may be unset; 0 is shown.
    MaybeInt,
    /// A number of 32 bits; left out when 0.
    Float,
    /// Bytes, printed as text; left out when 0.
    Bytes,
    /// A time; left out when 0.
    Duration,
    /// A time that may be unset; 0 is shown.
    MaybeDuration,
    /// Permission bits that may be unset, printed in octal as text.
    Mode,
    /// How many devices; `all` is -1.
    Count,
    /// argv; in JSON shown as null when unset.
    Command,
    /// The same for a healthcheck: text means a shell. Left out when unset.
    Test,
    /// A list of texts; a single text counts as a list of it.
    Texts,
    /// Text to text; also from `KEY=value` lists.
    Pairs,
    /// The same, values may be unset.
    Environment,
    /// Host to addresses, printed as a sorted list of `host=address`.
    Hosts,
    /// Text to lists of texts.
    MultiOptions,
    /// Build keys, printed as a list of `id=path`.
    Ssh,
    /// One limit for both, or a soft and a hard one.
    Ulimit,
    /// Env files; only the path is printed where nothing else is set.
    EnvFile,
    /// `external`; left out when false.
    External,
    /// A section that JSON shows even when it is empty.
    Value(&'static [Field]),
    /// A section that may be unset; shown when it is there, even if empty.
    Section(&'static [Field]),
    /// A list of something.
    List(&'static Form),
    /// Names to something; values may be nothing.
    Map(&'static Form),
}

/// A field of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    /// Its name in JSON, where that differs.
    pub(crate) json: &'static str,
    /// Shown whatever its value.
    pub(crate) always: bool,
}

/// A field with the same name everywhere.
pub(crate) const fn field(name: &'static str, form: Form) -> Field {
    Field {
        name,
        form,
        json: name,
        always: false,
    }
}

const fn always(name: &'static str, form: Form) -> Field {
    Field {
        always: true,
        ..field(name, form)
    }
}

const fn renamed(name: &'static str, json: &'static str, form: Form) -> Field {
    Field {
        json,
        always: true,
        ..field(name, form)
    }
}

use Form::{
    Bytes, Command, Count, Duration, EnvFile, Environment, External, Flag, Float, Hosts, Int, List,
    Map, MaybeDuration, MaybeFlag, MaybeInt, Mode, MultiOptions, Pairs, Section, Ssh, Test, Text,
    Texts, Ulimit, Value,
};

/// `services.*`.
pub(crate) static SERVICE: &[Field] = &[
    field("profiles", Texts),
    field("annotations", Pairs),
    field("attach", MaybeFlag),
    field("build", Section(BUILD)),
    field("develop", Section(DEVELOP)),
    field("blkio_config", Section(BLKIO)),
    field("cap_add", Texts),
    field("cap_drop", Texts),
    field("cgroup_parent", Text),
    field("cgroup", Text),
    field("cpu_count", Int),
    field("cpu_percent", Float),
    field("cpu_period", Int),
    field("cpu_quota", Int),
    field("cpu_rt_period", Int),
    field("cpu_rt_runtime", Int),
    field("cpus", Float),
    field("cpuset", Text),
    field("cpu_shares", Int),
    field("command", Command),
    field("configs", List(&Section(FILE_MOUNT))),
    field("container_name", Text),
    field(
        "credential_spec",
        Section(&[
            field("config", Text),
            field("file", Text),
            field("registry", Text),
        ]),
    ),
    field("depends_on", Map(&Section(DEPENDENCY))),
    field("deploy", Section(DEPLOY)),
    field("device_cgroup_rules", Texts),
    field(
        "devices",
        List(&Section(&[
            field("source", Text),
            field("target", Text),
            field("permissions", Text),
        ])),
    ),
    field("dns", Texts),
    field("dns_opt", Texts),
    field("dns_search", Texts),
    field("domainname", Text),
    field("entrypoint", Command),
    field(
        "provider",
        Section(&[field("type", Text), field("options", MultiOptions)]),
    ),
    field("environment", Environment),
    field("env_file", List(&EnvFile)),
    field("expose", Texts),
    field(
        "extends",
        Section(&[field("file", Text), field("service", Text)]),
    ),
    field("external_links", Texts),
    field("extra_hosts", Hosts),
    field("group_add", Texts),
    field("gpus", List(&Section(DEVICE_REQUEST))),
    field("hostname", Text),
    field("healthcheck", Section(HEALTHCHECK)),
    field("image", Text),
    field("init", MaybeFlag),
    field("ipc", Text),
    field("isolation", Text),
    field("labels", Pairs),
    field("label_file", Texts),
    field("links", Texts),
    field(
        "logging",
        Section(&[field("driver", Text), field("options", Pairs)]),
    ),
    field("mem_limit", Bytes),
    field("mem_reservation", Bytes),
    field("memswap_limit", Bytes),
    field("mem_swappiness", Bytes),
    field("mac_address", Text),
    field(
        "models",
        Map(&Section(&[
            field("endpoint_var", Text),
            field("model_var", Text),
        ])),
    ),
    field("network_mode", Text),
    field("networks", Map(&Section(SERVICE_NETWORK))),
    field("oom_kill_disable", Flag),
    field("oom_score_adj", Int),
    field("pid", Text),
    field("pids_limit", Int),
    field("platform", Text),
    field("ports", List(&Section(PORT))),
    field("privileged", Flag),
    field("pull_policy", Text),
    field("read_only", Flag),
    field("restart", Text),
    field("runtime", Text),
    field("scale", MaybeInt),
    field("secrets", List(&Section(FILE_MOUNT))),
    field("security_opt", Texts),
    field("shm_size", Bytes),
    field("stdin_open", Flag),
    field("stop_grace_period", MaybeDuration),
    field("stop_signal", Text),
    field("storage_opt", Pairs),
    field("sysctls", Pairs),
    field("tmpfs", Texts),
    field("tty", Flag),
    field("ulimits", Map(&Ulimit)),
    field("use_api_socket", Flag),
    field("user", Text),
    field("userns_mode", Text),
    field("uts", Text),
    field("volumes", List(&Section(MOUNT))),
    field("volumes_from", Texts),
    field("working_dir", Text),
    field("pre_start", List(&Section(PRE_START_HOOK))),
    field("post_start", List(&Section(HOOK))),
    field("pre_stop", List(&Section(HOOK))),
];

static BUILD: &[Field] = &[
    field("context", Text),
    field("dockerfile", Text),
    field("dockerfile_inline", Text),
    field("entitlements", Texts),
    field("args", Environment),
    field("provenance", Text),
    field("sbom", Text),
    field("ssh", Ssh),
    field("labels", Pairs),
    field("cache_from", Texts),
    field("cache_to", Texts),
    field("no_cache", Flag),
    field("no_cache_filter", Texts),
    field("additional_contexts", Pairs),
    field("pull", Flag),
    field("extra_hosts", Hosts),
    field("isolation", Text),
    field("network", Text),
    field("target", Text),
    field("secrets", List(&Section(FILE_MOUNT))),
    field("shm_size", Bytes),
    field("tags", Texts),
    field("ulimits", Map(&Ulimit)),
    field("platforms", Texts),
    field("privileged", Flag),
];

static DEVELOP: &[Field] = &[field(
    "watch",
    List(&Section(&[
        always("path", Text),
        always("action", Text),
        field("target", Text),
        field("exec", Value(HOOK)),
        field("include", Texts),
        field("ignore", Texts),
        field("initial_sync", Flag),
    ])),
)];

static HOOK: &[Field] = &[
    field("command", Command),
    field("user", Text),
    field("privileged", Flag),
    field("working_dir", Text),
    field("environment", Environment),
];

static PRE_START_HOOK: &[Field] = &[
    field("command", Command),
    field("image", Text),
    field("per_replica", Flag),
    field("user", Text),
    field("privileged", Flag),
    field("working_dir", Text),
    field("environment", Environment),
];

static BLKIO: &[Field] = &[
    field("weight", Int),
    field(
        "weight_device",
        List(&Section(&[
            renamed("path", "Path", Text),
            renamed("weight", "Weight", Int),
        ])),
    ),
    field("device_read_bps", List(&Section(THROTTLE_FIELDS))),
    field("device_read_iops", List(&Section(THROTTLE_FIELDS))),
    field("device_write_bps", List(&Section(THROTTLE_FIELDS))),
    field("device_write_iops", List(&Section(THROTTLE_FIELDS))),
];
static THROTTLE_FIELDS: &[Field] = &[
    renamed("path", "Path", Text),
    renamed("rate", "Rate", Bytes),
];

static FILE_MOUNT: &[Field] = &[
    field("source", Text),
    field("target", Text),
    field("uid", Text),
    field("gid", Text),
    field("mode", Mode),
];

static DEPENDENCY: &[Field] = &[
    field("condition", Text),
    field("restart", Flag),
    always("required", Flag),
];

static UPDATE: &[Field] = &[
    field("parallelism", MaybeInt),
    field("delay", Duration),
    field("failure_action", Text),
    field("monitor", Duration),
    field("max_failure_ratio", Float),
    field("order", Text),
];
static RESOURCE: &[Field] = &[
    field("cpus", Float),
    field("memory", Bytes),
    field("pids", Int),
    field("devices", List(&Section(DEVICE_REQUEST))),
    field(
        "generic_resources",
        List(&Section(&[field(
            "discrete_resource_spec",
            Section(&[always("kind", Text), always("value", Int)]),
        )])),
    ),
];
static DEPLOY: &[Field] = &[
    field("mode", Text),
    field("replicas", MaybeInt),
    field("labels", Pairs),
    field("update_config", Section(UPDATE)),
    field("rollback_config", Section(UPDATE)),
    field(
        "resources",
        Value(&[
            field("limits", Section(RESOURCE)),
            field("reservations", Section(RESOURCE)),
        ]),
    ),
    field(
        "restart_policy",
        Section(&[
            field("condition", Text),
            field("delay", MaybeDuration),
            field("max_attempts", MaybeInt),
            field("window", MaybeDuration),
        ]),
    ),
    field(
        "placement",
        Value(&[
            field("constraints", Texts),
            field("preferences", List(&Section(&[field("spread", Text)]))),
            field("max_replicas_per_node", Int),
        ]),
    ),
    field("endpoint_mode", Text),
];

static DEVICE_REQUEST: &[Field] = &[
    field("capabilities", Texts),
    field("driver", Text),
    field("count", Count),
    field("device_ids", Texts),
    field("options", Pairs),
];

/// `services.*.healthcheck`.
pub(crate) static HEALTHCHECK: &[Field] = &[
    field("test", Test),
    field("timeout", MaybeDuration),
    field("interval", MaybeDuration),
    field("retries", MaybeInt),
    field("start_period", MaybeDuration),
    field("start_interval", MaybeDuration),
    field("disable", Flag),
];

static SERVICE_NETWORK: &[Field] = &[
    field("aliases", Texts),
    field("driver_opts", Pairs),
    field("gw_priority", Int),
    field("interface_name", Text),
    field("ipv4_address", Text),
    field("ipv6_address", Text),
    field("link_local_ips", Texts),
    field("mac_address", Text),
    field("priority", Int),
];

static PORT: &[Field] = &[
    field("name", Text),
    field("mode", Text),
    field("host_ip", Text),
    field("target", Int),
    field("published", Text),
    field("protocol", Text),
    field("app_protocol", Text),
];

static MOUNT: &[Field] = &[
    field("type", Text),
    field("source", Text),
    field("target", Text),
    field("read_only", Flag),
    field("consistency", Text),
    field(
        "bind",
        Section(&[
            field("selinux", Text),
            field("propagation", Text),
            field("create_host_path", Flag),
            field("recursive", Text),
        ]),
    ),
    field(
        "volume",
        Section(&[
            field("labels", Pairs),
            field("nocopy", Flag),
            field("subpath", Text),
        ]),
    ),
    field(
        "tmpfs",
        Section(&[field("size", Bytes), field("mode", Int)]),
    ),
    field("image", Section(&[field("subpath", Text)])),
];

/// `networks.*`.
pub(crate) static NETWORK: &[Field] = &[
    field("name", Text),
    field("driver", Text),
    field("driver_opts", Pairs),
    field(
        "ipam",
        Value(&[
            field("driver", Text),
            field(
                "config",
                List(&Section(&[
                    field("subnet", Text),
                    field("gateway", Text),
                    field("ip_range", Text),
                    field("aux_addresses", Pairs),
                ])),
            ),
        ]),
    ),
    field("external", External),
    field("internal", Flag),
    field("attachable", Flag),
    field("labels", Pairs),
    field("enable_ipv4", MaybeFlag),
    field("enable_ipv6", MaybeFlag),
];

/// `volumes.*`.
pub(crate) static VOLUME: &[Field] = &[
    field("name", Text),
    field("driver", Text),
    field("driver_opts", Pairs),
    field("external", External),
    field("labels", Pairs),
];

/// `secrets.*` and `configs.*`.
pub(crate) static STORE: &[Field] = &[
    field("name", Text),
    field("file", Text),
    field("environment", Text),
    field("content", Text),
    field("external", External),
    field("labels", Pairs),
    field("driver", Text),
    field("driver_opts", Pairs),
    field("template_driver", Text),
];

/// `models.*`.
pub(crate) static MODEL: &[Field] = &[
    field("name", Text),
    field("model", Text),
    field("context_size", Int),
    field("runtime_flags", Texts),
];

/// The sections of a project that hold named things, with what is in them, in order.
pub(crate) static SECTIONS: &[(&str, &[Field])] = &[
    ("services", SERVICE),
    ("networks", NETWORK),
    ("volumes", VOLUME),
    ("secrets", STORE),
    ("configs", STORE),
    ("models", MODEL),
];
