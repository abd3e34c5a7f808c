//! `services.*.volumes`, and how secrets and configs are mounted.

use std::path::PathBuf;

/// One mount, long form (compose specification, 05-services, section `volumes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where, inside the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute.
        source: PathBuf,
        /// Make the directory when it is missing.
        create_host_path: bool,
        /// For example `rshared`.
        propagation: Option<String>,
        /// `z` or `Z`.
        selinux: Option<String>,
    },
    /// A volume of the project (its key), or an anonymous one.
    Volume {
        /// The key in `volumes:`; `None`: anonymous.
        source: Option<String>,
        /// Do not copy the image's files into a new volume.
        nocopy: bool,
        /// A path inside the volume.
        subpath: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<i64>,
        /// Permission bits.
        mode: Option<u32>,
    },
}

/// A secret or config of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMount {
    /// The key in the top-level section.
    pub source: String,
    /// The file's name or path in the container.
    pub target: Option<String>,
    /// Owner.
    pub uid: Option<String>,
    /// Group.
    pub gid: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
}
