//! Which keys and kinds of values a compose file may have where: the compose specification's schema
//! as a table.
//!
//! Only data; `validate` walks it. Fields are in alphabetical order of their section.

/// The kinds of scalars that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) text: bool,
    pub(crate) integer: bool,
    pub(crate) number: bool,
    pub(crate) boolean: bool,
    pub(crate) null: bool,
}

/// What the keys of a mapping may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Letters, digits, `.`, `_` and `-`.
    Identifier,
    /// The same; other keys are allowed and not looked at.
    IdentifierOrOther,
    /// Anything.
    Any,
    /// Lower-case letters; other keys are allowed and not looked at.
    Limit,
}

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A scalar of some kinds.
    Scalar(Kinds),
    /// An integer within limits.
    Within(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text that passes a check, with the words for it.
    Text(fn(&str) -> bool, &'static str),
    /// A list; `true`: nothing twice.
    List(&'static Shape, bool),
    /// A mapping with keys of the user's choice.
    Map(Names, &'static Shape),
    /// A mapping with known keys.
    Object(&'static Object),
    /// One of several; told apart by the kind of value.
    Either(&'static [Shape]),
}

/// A mapping with known keys.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) fields: &'static [(&'static str, Shape)],
    pub(crate) required: &'static [&'static str],
    /// Keys that start with `x-` are allowed.
    pub(crate) extensible: bool,
    /// Other keys are allowed too.
    pub(crate) open: bool,
    /// Nothing in its place is allowed.
    pub(crate) nullable: bool,
}

const NONE: Kinds = Kinds {
    text: false,
    integer: false,
    number: false,
    boolean: false,
    null: false,
};
const TEXT: Shape = Shape::Scalar(Kinds { text: true, ..NONE });
const INTEGER: Shape = Shape::Scalar(Kinds {
    integer: true,
    ..NONE
});
const NUMBER: Shape = Shape::Scalar(Kinds {
    integer: true,
    number: true,
    ..NONE
});
const BOOLEAN: Shape = Shape::Scalar(Kinds {
    boolean: true,
    ..NONE
});
const TEXT_OR_BOOLEAN: Shape = Shape::Scalar(Kinds {
    text: true,
    boolean: true,
    ..NONE
});
const TEXT_OR_INTEGER: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    ..NONE
});
const TEXT_OR_NUMBER: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    number: true,
    ..NONE
});
const TEXT_OR_NULL: Shape = Shape::Scalar(Kinds {
    text: true,
    null: true,
    ..NONE
});
const NULL: Shape = Shape::Scalar(Kinds { null: true, ..NONE });
const SCALAR: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    number: true,
    boolean: true,
    null: true,
});
const FILLED_SCALAR: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    number: true,
    boolean: true,
    null: false,
});
const TEXTS: Shape = Shape::List(&TEXT, false);
const UNIQUE_TEXTS: Shape = Shape::List(&TEXT, true);
const TEXT_OR_TEXTS: Shape = Shape::Either(&[TEXT, UNIQUE_TEXTS]);
const LIST_OR_DICT: Shape = Shape::Either(&[Shape::Map(Names::Any, &SCALAR), UNIQUE_TEXTS]);
const COMMAND: Shape = Shape::Either(&[NULL, TEXT, TEXTS]);
const EXTRA_HOSTS: Shape = Shape::Either(&[
    Shape::Map(Names::Any, &Shape::Either(&[TEXT, TEXTS])),
    UNIQUE_TEXTS,
]);
const DRIVER_OPTS: Shape = Shape::Map(Names::Any, &TEXT_OR_NUMBER);
const ULIMITS: Shape = Shape::Map(
    Names::Limit,
    &Shape::Either(&[
        TEXT_OR_INTEGER,
        Shape::Object(&Object {
            fields: &[("hard", TEXT_OR_INTEGER), ("soft", TEXT_OR_INTEGER)],
            required: &["soft", "hard"],
            ..CLOSED
        }),
    ]),
);

const CLOSED: Object = Object {
    fields: &[],
    required: &[],
    extensible: true,
    open: false,
    nullable: false,
};

/// A whole compose file.
pub(crate) const FILE: Shape = Shape::Object(&Object {
    fields: &[
        ("configs", Shape::Map(Names::Identifier, &CONFIG)),
        (
            "include",
            Shape::List(
                &Shape::Either(&[
                    TEXT,
                    Shape::Object(&Object {
                        fields: &[
                            ("env_file", TEXT_OR_TEXTS),
                            ("path", TEXT_OR_TEXTS),
                            ("project_directory", TEXT),
                        ],
                        extensible: false,
                        ..CLOSED
                    }),
                ]),
                false,
            ),
        ),
        ("models", Shape::Map(Names::IdentifierOrOther, &MODEL)),
        ("name", TEXT),
        ("networks", Shape::Map(Names::IdentifierOrOther, &NETWORK)),
        ("secrets", Shape::Map(Names::Identifier, &SECRET)),
        ("services", Shape::Map(Names::Identifier, &SERVICE)),
        ("version", TEXT),
        ("volumes", Shape::Map(Names::Identifier, &VOLUME)),
        (
            "x-wharf",
            Shape::Object(&Object {
                fields: &[("conflict", CONFLICT)],
                extensible: false,
                ..CLOSED
            }),
        ),
    ],
    ..CLOSED
});

const CONFLICT: Shape = Shape::Word(&["ask", "replace", "move", "fail"]);

const SERVICE: Shape = Shape::Object(&Object {
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

fn has_pull_policy(text: &str) -> bool {
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
                    ("command", COMMAND),
                    ("environment", LIST_OR_DICT),
                    ("healthcheck", HEALTHCHECK),
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

const BUILD: Shape = Shape::Object(&Object {
    fields: &[
        ("additional_contexts", LIST_OR_DICT),
        ("args", LIST_OR_DICT),
        ("cache_from", TEXTS),
        ("cache_to", TEXTS),
        ("context", TEXT),
        ("dockerfile", TEXT),
        ("dockerfile_inline", TEXT),
        ("entitlements", TEXTS),
        ("extra_hosts", EXTRA_HOSTS),
        ("isolation", TEXT),
        ("labels", LIST_OR_DICT),
        ("network", TEXT),
        ("no_cache", TEXT_OR_BOOLEAN),
        ("platforms", TEXTS),
        ("privileged", TEXT_OR_BOOLEAN),
        ("provenance", TEXT_OR_BOOLEAN),
        ("pull", TEXT_OR_BOOLEAN),
        ("sbom", TEXT_OR_BOOLEAN),
        ("secrets", FILE_MOUNTS),
        ("shm_size", TEXT_OR_INTEGER),
        ("ssh", LIST_OR_DICT),
        ("tags", TEXTS),
        ("target", TEXT),
        ("ulimits", ULIMITS),
    ],
    ..CLOSED
});

const BLKIO_LIMIT: Shape = Shape::List(
    &Shape::Object(&Object {
        fields: &[("path", TEXT), ("rate", TEXT_OR_INTEGER)],
        extensible: false,
        ..CLOSED
    }),
    false,
);
const BLKIO: Shape = Shape::Object(&Object {
    fields: &[
        ("device_read_bps", BLKIO_LIMIT),
        ("device_read_iops", BLKIO_LIMIT),
        ("device_write_bps", BLKIO_LIMIT),
        ("device_write_iops", BLKIO_LIMIT),
        ("weight", TEXT_OR_INTEGER),
        (
            "weight_device",
            Shape::List(
                &Shape::Object(&Object {
                    fields: &[("path", TEXT), ("weight", TEXT_OR_INTEGER)],
                    extensible: false,
                    ..CLOSED
                }),
                false,
            ),
        ),
    ],
    extensible: false,
    ..CLOSED
});

const FILE_MOUNTS: Shape = Shape::List(
    &Shape::Either(&[
        TEXT,
        Shape::Object(&Object {
            fields: &[
                ("gid", TEXT),
                ("mode", TEXT_OR_NUMBER),
                ("source", TEXT),
                ("target", TEXT),
                ("uid", TEXT),
            ],
            ..CLOSED
        }),
    ]),
    false,
);

const DEPENDS_ON: Shape = Shape::Either(&[
    UNIQUE_TEXTS,
    Shape::Map(
        Names::Identifier,
        &Shape::Object(&Object {
            fields: &[
                (
                    "condition",
                    Shape::Word(&[
                        "service_started",
                        "service_healthy",
                        "service_completed_successfully",
                    ]),
                ),
                ("required", BOOLEAN),
                ("restart", TEXT_OR_BOOLEAN),
            ],
            required: &["condition"],
            ..CLOSED
        }),
    ),
]);

const UPDATE: Shape = Shape::Object(&Object {
    fields: &[
        ("delay", TEXT),
        ("failure_action", TEXT),
        ("max_failure_ratio", TEXT_OR_NUMBER),
        ("monitor", TEXT),
        ("order", Shape::Word(&["start-first", "stop-first"])),
        ("parallelism", TEXT_OR_INTEGER),
    ],
    ..CLOSED
});
const DEVICE_FIELDS: &[(&str, Shape)] = &[
    ("capabilities", UNIQUE_TEXTS),
    ("count", TEXT_OR_INTEGER),
    ("device_ids", UNIQUE_TEXTS),
    ("driver", TEXT),
    ("options", LIST_OR_DICT),
];
const DEPLOY: Shape = Shape::Object(&Object {
    fields: &[
        ("endpoint_mode", TEXT),
        ("labels", LIST_OR_DICT),
        ("mode", TEXT),
        (
            "placement",
            Shape::Object(&Object {
                fields: &[
                    ("constraints", TEXTS),
                    ("max_replicas_per_node", TEXT_OR_INTEGER),
                    (
                        "preferences",
                        Shape::List(
                            &Shape::Object(&Object {
                                fields: &[("spread", TEXT)],
                                ..CLOSED
                            }),
                            false,
                        ),
                    ),
                ],
                ..CLOSED
            }),
        ),
        ("replicas", TEXT_OR_INTEGER),
        (
            "resources",
            Shape::Object(&Object {
                fields: &[
                    (
                        "limits",
                        Shape::Object(&Object {
                            fields: &[
                                ("cpus", TEXT_OR_NUMBER),
                                ("memory", TEXT),
                                ("pids", TEXT_OR_INTEGER),
                            ],
                            ..CLOSED
                        }),
                    ),
                    (
                        "reservations",
                        Shape::Object(&Object {
                            fields: &[
                                ("cpus", TEXT_OR_NUMBER),
                                (
                                    "devices",
                                    Shape::List(
                                        &Shape::Object(&Object {
                                            fields: DEVICE_FIELDS,
                                            required: &["capabilities"],
                                            ..CLOSED
                                        }),
                                        false,
                                    ),
                                ),
                                ("generic_resources", GENERIC_RESOURCES),
                                ("memory", TEXT),
                            ],
                            ..CLOSED
                        }),
                    ),
                ],
                ..CLOSED
            }),
        ),
        (
            "restart_policy",
            Shape::Object(&Object {
                fields: &[
                    ("condition", TEXT),
                    ("delay", TEXT),
                    ("max_attempts", TEXT_OR_INTEGER),
                    ("window", TEXT),
                ],
                ..CLOSED
            }),
        ),
        ("rollback_config", UPDATE),
        ("update_config", UPDATE),
    ],
    nullable: true,
    ..CLOSED
});
const GENERIC_RESOURCES: Shape = Shape::List(
    &Shape::Object(&Object {
        fields: &[(
            "discrete_resource_spec",
            Shape::Object(&Object {
                fields: &[("kind", TEXT), ("value", TEXT_OR_NUMBER)],
                ..CLOSED
            }),
        )],
        ..CLOSED
    }),
    false,
);

const GPUS: Shape = Shape::Either(&[
    Shape::Word(&["all"]),
    Shape::List(
        &Shape::Object(&Object {
            fields: DEVICE_FIELDS,
            open: true,
            ..CLOSED
        }),
        false,
    ),
]);

const DEVELOP: Shape = Shape::Object(&Object {
    fields: &[(
        "watch",
        Shape::List(
            &Shape::Object(&Object {
                fields: &[
                    (
                        "action",
                        Shape::Word(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
                    ),
                    ("exec", HOOK),
                    ("ignore", TEXT_OR_TEXTS),
                    ("include", TEXT_OR_TEXTS),
                    ("initial_sync", BOOLEAN),
                    ("path", TEXT),
                    ("target", TEXT),
                ],
                required: &["path", "action"],
                ..CLOSED
            }),
            false,
        ),
    )],
    nullable: true,
    ..CLOSED
});

const HOOK: Shape = Shape::Object(&Object {
    fields: &[
        ("command", COMMAND),
        ("environment", LIST_OR_DICT),
        ("privileged", TEXT_OR_BOOLEAN),
        ("user", TEXT),
        ("working_dir", TEXT),
    ],
    required: &["command"],
    ..CLOSED
});
const PRE_START_HOOK: Shape = Shape::Object(&Object {
    fields: &[
        ("command", COMMAND),
        ("environment", LIST_OR_DICT),
        ("image", TEXT),
        ("per_replica", TEXT_OR_BOOLEAN),
        ("privileged", TEXT_OR_BOOLEAN),
        ("user", TEXT),
        ("working_dir", TEXT),
    ],
    ..CLOSED
});

const DEVICES: Shape = Shape::List(
    &Shape::Either(&[
        TEXT,
        Shape::Object(&Object {
            fields: &[("permissions", TEXT), ("source", TEXT), ("target", TEXT)],
            required: &["source"],
            ..CLOSED
        }),
    ]),
    false,
);

const ENV_FILE: Shape = Shape::Either(&[
    TEXT,
    Shape::List(
        &Shape::Either(&[
            TEXT,
            Shape::Object(&Object {
                fields: &[
                    ("format", TEXT),
                    ("path", TEXT),
                    ("required", TEXT_OR_BOOLEAN),
                ],
                required: &["path"],
                extensible: false,
                ..CLOSED
            }),
        ]),
        false,
    ),
]);

const EXTENDS: Shape = Shape::Either(&[
    TEXT,
    Shape::Object(&Object {
        fields: &[("file", TEXT), ("service", TEXT)],
        required: &["service"],
        extensible: false,
        ..CLOSED
    }),
]);

const HEALTHCHECK: Shape = Shape::Object(&Object {
    fields: &[
        ("disable", TEXT_OR_BOOLEAN),
        ("interval", TEXT),
        ("retries", TEXT_OR_NUMBER),
        ("start_interval", TEXT),
        ("start_period", TEXT),
        ("test", Shape::Either(&[TEXT, TEXTS])),
        ("timeout", TEXT),
    ],
    ..CLOSED
});

const SERVICE_MODELS: Shape = Shape::Either(&[
    UNIQUE_TEXTS,
    Shape::Map(
        Names::IdentifierOrOther,
        &Shape::Object(&Object {
            fields: &[("endpoint_var", TEXT), ("model_var", TEXT)],
            nullable: true,
            ..CLOSED
        }),
    ),
]);

const SERVICE_NETWORKS: Shape = Shape::Either(&[
    UNIQUE_TEXTS,
    Shape::Map(
        Names::Identifier,
        &Shape::Object(&Object {
            fields: &[
                ("aliases", UNIQUE_TEXTS),
                ("driver_opts", DRIVER_OPTS),
                ("gw_priority", NUMBER),
                ("interface_name", TEXT),
                ("ipv4_address", TEXT),
                ("ipv6_address", TEXT),
                ("link_local_ips", UNIQUE_TEXTS),
                ("mac_address", TEXT),
                ("priority", NUMBER),
            ],
            nullable: true,
            ..CLOSED
        }),
    ),
]);

const PORTS: Shape = Shape::List(
    &Shape::Either(&[
        TEXT_OR_NUMBER,
        Shape::Object(&Object {
            fields: &[
                ("app_protocol", TEXT),
                ("host_ip", TEXT),
                ("mode", TEXT),
                ("name", TEXT),
                ("protocol", TEXT),
                ("published", TEXT_OR_INTEGER),
                ("target", TEXT_OR_INTEGER),
            ],
            ..CLOSED
        }),
    ]),
    true,
);

const VOLUMES: Shape = Shape::List(
    &Shape::Either(&[
        TEXT,
        Shape::Object(&Object {
            fields: &[
                (
                    "bind",
                    Shape::Object(&Object {
                        fields: &[
                            ("create_host_path", TEXT_OR_BOOLEAN),
                            ("propagation", TEXT),
                            (
                                "recursive",
                                Shape::Word(&["enabled", "disabled", "writable", "readonly"]),
                            ),
                            ("selinux", Shape::Word(&["z", "Z"])),
                        ],
                        ..CLOSED
                    }),
                ),
                ("consistency", TEXT),
                (
                    "image",
                    Shape::Object(&Object {
                        fields: &[("subpath", TEXT)],
                        ..CLOSED
                    }),
                ),
                ("read_only", TEXT_OR_BOOLEAN),
                ("source", TEXT),
                ("target", TEXT),
                (
                    "tmpfs",
                    Shape::Object(&Object {
                        fields: &[
                            ("mode", TEXT_OR_NUMBER),
                            ("size", Shape::Either(&[Shape::Within(0, i64::MAX), TEXT])),
                        ],
                        ..CLOSED
                    }),
                ),
                (
                    "type",
                    Shape::Word(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
                ),
                (
                    "volume",
                    Shape::Object(&Object {
                        fields: &[
                            ("labels", LIST_OR_DICT),
                            ("nocopy", TEXT_OR_BOOLEAN),
                            ("subpath", TEXT),
                        ],
                        ..CLOSED
                    }),
                ),
            ],
            required: &["type"],
            ..CLOSED
        }),
    ]),
    true,
);

const EXTERNAL: Shape = Shape::Either(&[
    TEXT_OR_BOOLEAN,
    Shape::Object(&Object {
        fields: &[("name", TEXT)],
        ..CLOSED
    }),
]);
const OPEN_EXTERNAL: Shape = Shape::Either(&[
    TEXT_OR_BOOLEAN,
    Shape::Object(&Object {
        fields: &[("name", TEXT)],
        open: true,
        ..CLOSED
    }),
]);

const NETWORK: Shape = Shape::Object(&Object {
    fields: &[
        ("attachable", TEXT_OR_BOOLEAN),
        ("driver", TEXT),
        ("driver_opts", DRIVER_OPTS),
        ("enable_ipv4", TEXT_OR_BOOLEAN),
        ("enable_ipv6", TEXT_OR_BOOLEAN),
        ("external", EXTERNAL),
        ("internal", TEXT_OR_BOOLEAN),
        (
            "ipam",
            Shape::Object(&Object {
                fields: &[
                    (
                        "config",
                        Shape::List(
                            &Shape::Object(&Object {
                                fields: &[
                                    ("aux_addresses", Shape::Map(Names::Any, &TEXT)),
                                    ("gateway", TEXT),
                                    ("ip_range", TEXT),
                                    ("subnet", TEXT),
                                ],
                                ..CLOSED
                            }),
                            false,
                        ),
                    ),
                    ("driver", TEXT),
                    ("options", Shape::Map(Names::Any, &TEXT)),
                ],
                ..CLOSED
            }),
        ),
        ("labels", LIST_OR_DICT),
        ("name", TEXT),
    ],
    nullable: true,
    ..CLOSED
});

const VOLUME: Shape = Shape::Object(&Object {
    fields: &[
        ("driver", TEXT),
        ("driver_opts", DRIVER_OPTS),
        ("external", EXTERNAL),
        ("labels", LIST_OR_DICT),
        ("name", TEXT),
    ],
    nullable: true,
    ..CLOSED
});

const SECRET: Shape = Shape::Object(&Object {
    fields: &[
        ("driver", TEXT),
        ("driver_opts", DRIVER_OPTS),
        ("environment", TEXT),
        ("external", OPEN_EXTERNAL),
        ("file", TEXT),
        ("labels", LIST_OR_DICT),
        ("name", TEXT),
        ("template_driver", TEXT),
    ],
    ..CLOSED
});

const CONFIG: Shape = Shape::Object(&Object {
    fields: &[
        ("content", TEXT),
        ("environment", TEXT),
        ("external", OPEN_EXTERNAL),
        ("file", TEXT),
        ("labels", LIST_OR_DICT),
        ("name", TEXT),
        ("template_driver", TEXT),
    ],
    ..CLOSED
});

const MODEL: Shape = Shape::Object(&Object {
    fields: &[
        ("context_size", INTEGER),
        ("model", TEXT),
        ("name", TEXT),
        ("runtime_flags", TEXTS),
    ],
    required: &["model"],
    ..CLOSED
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_of_the_specification_is_known() {
        let Shape::Object(service) = &SERVICE else {
            panic!("a service is an object")
        };
        // 93 of the specification, and x-wharf.
        assert_eq!(service.fields.len(), 94);
    }

    #[test]
    fn pull_policies_with_a_time_are_known() {
        assert!(has_pull_policy("every_12h"));
        assert!(!has_pull_policy("every_day_"));
        assert!(!has_pull_policy("sometimes"));
    }
}
