//! `services.*`: the 93 attributes of the specification and `x-wharf`.

use super::parts::{
    BLKIO, BUILD, DEPENDS_ON, DEPLOY, DEVELOP, DEVICES, ENV_FILE, EXTENDS, FILE_MOUNTS, GPUS,
    HEALTHCHECK, HOOK, PORTS, PRE_START_HOOK, SERVICE_MODELS, SERVICE_NETWORKS, VOLUMES,
};
use super::{
    BOOLEAN, CLOSED, COMMAND, CONFLICT, EXTRA_HOSTS, FILLED_SCALAR, Kinds, LIST_OR_DICT, NONE,
    Names, Object, Shape, TEXT, TEXT_OR_BOOLEAN, TEXT_OR_INTEGER, TEXT_OR_NULL, TEXT_OR_NUMBER,
    TEXT_OR_TEXTS, TEXTS, ULIMITS, UNIQUE_TEXTS,
};

pub(super) const SERVICE: Shape = Shape::Object(&Object {
    fields: &[
        ("annotations", LIST_OR_DICT),
        ("attach", TEXT_OR_BOOLEAN),
        ("blkio_config", BLKIO),
        ("build", Shape::Either(&[TEXT, BUILD])),
        ("cap_add", UNIQUE_TEXTS),
        ("cap_drop", UNIQUE_TEXTS),
        ("cgroup", Shape::Word(&["host", "private"])),
        ("cgroup_parent", TEXT),
        ("command", COMMAND),
        ("configs", FILE_MOUNTS),
        (
            "container_name",
            Shape::Text(has_container_name, "a name of at least two characters"),
        ),
        (
            "cpu_count",
            Shape::Either(&[TEXT, Shape::Within(0, i64::MAX)]),
        ),
        ("cpu_percent", Shape::Either(&[TEXT, Shape::Within(0, 100)])),
        ("cpu_period", TEXT_OR_NUMBER),
        ("cpu_quota", TEXT_OR_NUMBER),
        ("cpu_rt_period", TEXT_OR_NUMBER),
        ("cpu_rt_runtime", TEXT_OR_NUMBER),
        ("cpu_shares", TEXT_OR_NUMBER),
        ("cpus", TEXT_OR_NUMBER),
        ("cpuset", TEXT),
        (
            "credential_spec",
            Shape::Object(&Object {
                fields: &[("config", TEXT), ("file", TEXT), ("registry", TEXT)],
                ..CLOSED
            }),
        ),
        ("depends_on", DEPENDS_ON),
        ("deploy", DEPLOY),
        ("develop", DEVELOP),
        ("device_cgroup_rules", UNIQUE_TEXTS),
        ("devices", DEVICES),
        ("dns", TEXT_OR_TEXTS),
        ("dns_opt", UNIQUE_TEXTS),
        ("dns_search", TEXT_OR_TEXTS),
        ("domainname", TEXT),
        ("entrypoint", COMMAND),
        ("env_file", ENV_FILE),
        ("environment", LIST_OR_DICT),
        ("expose", Shape::List(&TEXT_OR_NUMBER, true)),
        ("extends", EXTENDS),
        ("external_links", UNIQUE_TEXTS),
        ("extra_hosts", EXTRA_HOSTS),
        ("gpus", GPUS),
        ("group_add", Shape::List(&TEXT_OR_NUMBER, true)),
        ("healthcheck", HEALTHCHECK),
        ("hostname", TEXT),
        ("image", TEXT),
        ("init", TEXT_OR_BOOLEAN),
        ("ipc", TEXT),
        ("isolation", TEXT),
        ("label_file", Shape::Either(&[TEXT, TEXTS])),
        ("labels", LIST_OR_DICT),
        ("links", UNIQUE_TEXTS),
        (
            "logging",
            Shape::Object(&Object {
                fields: &[
                    ("driver", TEXT),
                    (
                        "options",
                        Shape::Map(
                            Names::Any,
                            &Shape::Scalar(Kinds {
                                text: true,
                                integer: true,
                                number: true,
                                null: true,
                                ..NONE
                            }),
                        ),
                    ),
                ],
                ..CLOSED
            }),
        ),
        ("mac_address", TEXT),
        ("mem_limit", TEXT_OR_NUMBER),
        ("mem_reservation", TEXT_OR_INTEGER),
        ("mem_swappiness", TEXT_OR_INTEGER),
        ("memswap_limit", TEXT_OR_NUMBER),
        ("models", SERVICE_MODELS),
        ("network_mode", TEXT),
        ("networks", SERVICE_NETWORKS),
        ("oom_kill_disable", TEXT_OR_BOOLEAN),
        (
            "oom_score_adj",
            Shape::Either(&[TEXT, Shape::Within(-1000, 1000)]),
        ),
        ("pid", TEXT_OR_NULL),
        ("pids_limit", TEXT_OR_NUMBER),
        ("platform", TEXT),
        ("ports", PORTS),
        ("post_start", Shape::List(&HOOK, false)),
        ("pre_start", Shape::List(&PRE_START_HOOK, false)),
        ("pre_stop", Shape::List(&HOOK, false)),
        ("privileged", TEXT_OR_BOOLEAN),
        ("profiles", UNIQUE_TEXTS),
        (
            "provider",
            Shape::Object(&Object {
                fields: &[
                    (
                        "options",
                        Shape::Map(
                            Names::Any,
                            &Shape::Either(&[FILLED_SCALAR, Shape::List(&FILLED_SCALAR, false)]),
                        ),
                    ),
                    ("type", TEXT),
                ],
                required: &["type"],
                ..CLOSED
            }),
        ),
        (
            "pull_policy",
            Shape::Text(
                has_pull_policy,
                "always, never, missing, if_not_present, build, refresh, daily, weekly or every_<time>",
            ),
        ),
        ("pull_refresh_after", TEXT),
        ("read_only", TEXT_OR_BOOLEAN),
        ("restart", TEXT),
        ("runtime", TEXT),
        ("scale", TEXT_OR_INTEGER),
        ("secrets", FILE_MOUNTS),
        ("security_opt", UNIQUE_TEXTS),
        ("shm_size", TEXT_OR_NUMBER),
        ("stdin_open", TEXT_OR_BOOLEAN),
        ("stop_grace_period", TEXT),
        ("stop_signal", TEXT),
        (
            "storage_opt",
            Shape::Object(&Object {
                open: true,
                ..CLOSED
            }),
        ),
        ("sysctls", LIST_OR_DICT),
        ("tmpfs", TEXT_OR_TEXTS),
        ("tty", TEXT_OR_BOOLEAN),
        ("ulimits", ULIMITS),
        ("use_api_socket", BOOLEAN),
        ("user", TEXT),
        ("userns_mode", TEXT),
        ("uts", TEXT),
        ("volumes", VOLUMES),
        ("volumes_from", UNIQUE_TEXTS),
        ("working_dir", TEXT),
        ("x-wharf", WHARF),
    ],
    ..CLOSED
});

fn has_container_name(text: &str) -> bool {
    let follows = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    text.as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.is_ascii_alphanumeric() && follows(*b)))
}

pub(super) fn has_pull_policy(text: &str) -> bool {
    let words = [
        "always",
        "never",
        "build",
        "if_not_present",
        "missing",
        "refresh",
        "daily",
        "weekly",
    ];
    if words.iter().any(|word| text.contains(word)) {
        return true;
    }
    text.split("every_").skip(1).any(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0
            && matches!(
                rest.as_bytes().get(digits),
                Some(b'w' | b'd' | b'h' | b'm' | b's')
            )
    })
}

/// What `x-wharf` may hold in a service.
const WHARF: Shape = Shape::Object(&Object {
    fields: &[
        ("backend", Shape::Word(&["container", "process"])),
        ("conflict", CONFLICT),
        (
            "process",
            Shape::Object(&Object {
                fields: &[
                    ("build", COMMAND),
                    ("command", COMMAND),
                    ("environment", LIST_OR_DICT),
                    ("healthcheck", HEALTHCHECK),
                    ("names", Shape::Word(&["auto", "environment", "off"])),
                    ("user", TEXT),
                    ("working_dir", TEXT),
                ],
                extensible: false,
                nullable: true,
                ..CLOSED
            }),
        ),
        (
            "ready",
            Shape::Object(&Object {
                fields: &[("path", TEXT), ("timeout", TEXT)],
                extensible: false,
                ..CLOSED
            }),
        ),
    ],
    extensible: false,
    ..CLOSED
});
