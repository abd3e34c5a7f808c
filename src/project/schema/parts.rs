//! The attributes of a service that are mappings or lists of mappings.

use super::{
    BOOLEAN, CLOSED, COMMAND, DRIVER_OPTS, EXTRA_HOSTS, LIST_OR_DICT, NUMBER, Names, Object, Shape,
    TEXT, TEXT_OR_BOOLEAN, TEXT_OR_INTEGER, TEXT_OR_NUMBER, TEXT_OR_TEXTS, TEXTS, ULIMITS,
    UNIQUE_TEXTS,
};

pub(super) const BUILD: Shape = Shape::Object(&Object {
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
        ("no_cache_filter", TEXT_OR_TEXTS),
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

pub(super) const BLKIO_LIMIT: Shape = Shape::List(
    &Shape::Object(&Object {
        fields: &[("path", TEXT), ("rate", TEXT_OR_INTEGER)],
        extensible: false,
        ..CLOSED
    }),
    false,
);
pub(super) const BLKIO: Shape = Shape::Object(&Object {
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

pub(super) const FILE_MOUNTS: Shape = Shape::List(
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

pub(super) const DEPENDS_ON: Shape = Shape::Either(&[
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

pub(super) const UPDATE: Shape = Shape::Object(&Object {
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
pub(super) const DEVICE_FIELDS: &[(&str, Shape)] = &[
    ("capabilities", UNIQUE_TEXTS),
    ("count", TEXT_OR_INTEGER),
    ("device_ids", UNIQUE_TEXTS),
    ("driver", TEXT),
    ("options", LIST_OR_DICT),
];
pub(super) const DEPLOY: Shape = Shape::Object(&Object {
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
pub(super) const GENERIC_RESOURCES: Shape = Shape::List(
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

pub(super) const GPUS: Shape = Shape::Either(&[
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

pub(super) const DEVELOP: Shape = Shape::Object(&Object {
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

pub(super) const HOOK: Shape = Shape::Object(&Object {
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
pub(super) const PRE_START_HOOK: Shape = Shape::Object(&Object {
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

pub(super) const DEVICES: Shape = Shape::List(
    &Shape::Either(&[
        TEXT,
        Shape::Object(&Object {
            fields: &[("permissions", TEXT), ("source", TEXT), ("target", TEXT)],
            required: &["source", "target"],
            ..CLOSED
        }),
    ]),
    false,
);

pub(super) const ENV_FILE: Shape = Shape::Either(&[
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

pub(super) const EXTENDS: Shape = Shape::Either(&[
    TEXT,
    Shape::Object(&Object {
        fields: &[("file", TEXT), ("service", TEXT)],
        required: &["service"],
        extensible: false,
        ..CLOSED
    }),
]);

pub(super) const HEALTHCHECK: Shape = Shape::Object(&Object {
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

pub(super) const SERVICE_MODELS: Shape = Shape::Either(&[
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

pub(super) const SERVICE_NETWORKS: Shape = Shape::Either(&[
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

pub(super) const PORTS: Shape = Shape::List(
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
            required: &["target"],
            ..CLOSED
        }),
    ]),
    true,
);

pub(super) const VOLUMES: Shape = Shape::List(
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
            required: &["type", "target"],
            ..CLOSED
        }),
    ]),
    true,
);
