//! Which keys and kinds of values a compose file may have where: the compose specification's schema
//! as a table.
//!
//! Only data; `validate` walks it. Fields are in alphabetical order of their section. Here are the
//! shapes and the top level; a service's attributes are in `service` and `parts`.

mod parts;
mod service;

use service::SERVICE;

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

pub(super) const NONE: Kinds = Kinds {
    text: false,
    integer: false,
    number: false,
    boolean: false,
    null: false,
};
pub(super) const TEXT: Shape = Shape::Scalar(Kinds { text: true, ..NONE });
pub(super) const INTEGER: Shape = Shape::Scalar(Kinds {
    integer: true,
    ..NONE
});
pub(super) const NUMBER: Shape = Shape::Scalar(Kinds {
    integer: true,
    number: true,
    ..NONE
});
pub(super) const BOOLEAN: Shape = Shape::Scalar(Kinds {
    boolean: true,
    ..NONE
});
pub(super) const TEXT_OR_BOOLEAN: Shape = Shape::Scalar(Kinds {
    text: true,
    boolean: true,
    ..NONE
});
pub(super) const TEXT_OR_INTEGER: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    ..NONE
});
pub(super) const TEXT_OR_NUMBER: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    number: true,
    ..NONE
});
pub(super) const TEXT_OR_NULL: Shape = Shape::Scalar(Kinds {
    text: true,
    null: true,
    ..NONE
});
pub(super) const NULL: Shape = Shape::Scalar(Kinds { null: true, ..NONE });
pub(super) const SCALAR: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    number: true,
    boolean: true,
    null: true,
});
pub(super) const FILLED_SCALAR: Shape = Shape::Scalar(Kinds {
    text: true,
    integer: true,
    number: true,
    boolean: true,
    null: false,
});
pub(super) const TEXTS: Shape = Shape::List(&TEXT, false);
pub(super) const UNIQUE_TEXTS: Shape = Shape::List(&TEXT, true);
pub(super) const TEXT_OR_TEXTS: Shape = Shape::Either(&[TEXT, UNIQUE_TEXTS]);
pub(super) const LIST_OR_DICT: Shape =
    Shape::Either(&[Shape::Map(Names::Any, &SCALAR), UNIQUE_TEXTS]);
pub(super) const COMMAND: Shape = Shape::Either(&[NULL, TEXT, TEXTS]);
pub(super) const EXTRA_HOSTS: Shape = Shape::Either(&[
    Shape::Map(Names::Any, &Shape::Either(&[TEXT, TEXTS])),
    UNIQUE_TEXTS,
]);
pub(super) const DRIVER_OPTS: Shape = Shape::Map(Names::Any, &TEXT_OR_NUMBER);
pub(super) const ULIMITS: Shape = Shape::Map(
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

pub(super) const CLOSED: Object = Object {
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

pub(super) const CONFLICT: Shape = Shape::Word(&["ask", "replace", "move", "fail"]);

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
    use super::service::has_pull_policy;
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
