//! `services.*.volumes`, and how secrets and configs are mounted.

use std::collections::BTreeMap;
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
    /// `consistent`, `cached` or `delegated`; engines on Linux ignore it.
    pub consistency: Option<String>,
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
        /// `disabled`, `writable` or `readonly`: what becomes of mounts below it.
        recursive: Option<String>,
    },
    /// A volume of the project (its key), or an anonymous one.
    Volume {
        /// The key in `volumes:`; `None`: anonymous.
        source: Option<String>,
        /// Do not copy the image's files into a new volume.
        nocopy: bool,
        /// A path inside the volume.
        subpath: Option<String>,
        /// Labels of an anonymous volume.
        labels: BTreeMap<String, String>,
    },
    /// The files of an image.
    Image {
        /// The reference.
        source: String,
        /// A path inside the image.
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

/// The config that holds the credentials for registries, for a service with `use_api_socket`. No file can
/// name one so.
pub const SOCKET_CONFIG: &str = "#apisocket";

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
