//! What the engine says about containers, as far as wharf reads it.
//!
//! Own structs in place of bollard's: every word of the engine stays a string here, so a state that a
//! newer engine (or Podman) invents does not make the whole list unreadable.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};

/// `GET /info`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Info {
    /// Of its machine.
    #[serde(default)]
    pub name: String,
    /// As `uname -r` has it.
    #[serde(default)]
    pub kernel_version: String,
    #[serde(default)]
    pub operating_system: String,
    /// As `uname -m` has it.
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub cgroup_version: String,
    #[serde(default)]
    pub cgroup_driver: String,
    #[serde(default, deserialize_with = "or_default")]
    pub security_options: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub driver_status: Vec<(String, String)>,
}

/// One entry of `GET /containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub image: String,
    #[serde(rename = "ImageID", default, deserialize_with = "or_default")]
    pub image_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub command: String,
    #[serde(default)]
    pub created: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub state: String,
    /// The state in words, with the exit code and the verdict on health in brackets.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub mounts: Vec<Mounted>,
    #[serde(default, deserialize_with = "or_default")]
    pub network_settings: NetworkSettings,
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<ListedPort>,
    #[serde(default, deserialize_with = "or_default")]
    pub host_config: HostConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

/// A port of a list entry.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedPort {
    #[serde(rename = "IP", default, deserialize_with = "or_default")]
    pub ip: String,
    #[serde(default, deserialize_with = "or_default")]
    pub private_port: u16,
    #[serde(default, deserialize_with = "or_default")]
    pub public_port: u16,
    #[serde(rename = "Type", default, deserialize_with = "or_default")]
    pub protocol: String,
}

/// `GET /containers/ID/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub created: String,
    #[serde(default)]
    pub path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<String>,
    pub state: State,
    pub config: Config,
    #[serde(default, deserialize_with = "or_default")]
    pub host_config: HostConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub mounts: Vec<Mounted>,
    #[serde(default, deserialize_with = "or_default")]
    pub network_settings: NetworkSettings,
}

/// `State` of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub running: bool,
    #[serde(default)]
    pub restarting: bool,
    #[serde(default)]
    pub pid: u32,
    #[serde(default)]
    pub exit_code: i64,
    #[serde(default)]
    pub started_at: String,
    #[serde(default)]
    pub finished_at: String,
    pub health: Option<HealthState>,
}

/// `State.Health`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HealthState {
    #[serde(default)]
    pub status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub log: Vec<HealthLog>,
}

/// One run of a healthcheck.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HealthLog {
    #[serde(default)]
    pub output: String,
}

/// `Config` of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    #[serde(default)]
    pub image: String,
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    pub stop_timeout: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub stop_signal: String,
    pub healthcheck: Option<Healthcheck>,
    #[serde(default, deserialize_with = "or_default")]
    pub shell: Vec<String>,
}

/// `HostConfig` of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    /// As they were asked for.
    #[serde(default, deserialize_with = "or_default")]
    pub port_bindings: BTreeMap<String, Option<Vec<Binding>>>,
    /// `container:ID`, or another kind of network.
    #[serde(default, deserialize_with = "or_default")]
    pub network_mode: String,
}

/// `Config.Healthcheck`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Healthcheck {
    #[serde(default, deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Nanoseconds.
    #[serde(default)]
    pub timeout: i64,
}

/// One of `Mounts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Mounted {
    #[serde(rename = "Type", default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub destination: String,
    #[serde(default)]
    pub driver: String,
}

/// `NetworkSettings` of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    #[serde(default, deserialize_with = "or_default")]
    pub ports: BTreeMap<String, Option<Vec<Binding>>>,
    #[serde(default, deserialize_with = "or_default")]
    pub networks: BTreeMap<String, Joined>,
}

/// A place on the host for a port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Binding {
    #[serde(default)]
    pub host_ip: String,
    #[serde(default)]
    pub host_port: String,
}

/// A container's place in a network.
#[derive(Debug, Deserialize)]
pub(super) struct Joined {
    /// Empty until the container has run.
    #[serde(rename = "NetworkID", default)]
    pub network_id: String,
    #[serde(rename = "IPAddress", default)]
    pub ip: String,
}

/// `GET /images/REF/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Image {
    pub id: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: String,
    #[serde(default, deserialize_with = "or_default")]
    pub config: ImageConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: ImageMetadata,
}

/// `Metadata` of an image.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ImageMetadata {
    /// When its name was last given to it here: by a pull, a build or a tag.
    #[serde(default, deserialize_with = "or_default")]
    pub last_tag_time: String,
}

/// `Config` of an image.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ImageConfig {
    #[serde(default, deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// One entry of `GET /networks`, or of `Volumes` in `GET /volumes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Named {
    /// Volumes have none.
    #[serde(default)]
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub created: String,
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

impl Named {
    /// Whether it has the project's label.
    pub(super) fn is_of(&self, project: &str) -> bool {
        self.labels.get(super::labels::PROJECT).map(String::as_str) == Some(project)
    }
}

/// `GET /volumes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Volumes {
    #[serde(default, deserialize_with = "or_default")]
    pub volumes: Vec<Named>,
}

/// Go encodes an empty slice or map as `null`.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Unix time in seconds of the engine's timestamps; `None` for Go's zero time.
pub(super) fn unix_seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_second)
        .filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_lists_are_empty() {
        let listed: Vec<Listed> =
            serde_json::from_str(r#"[{"Id":"a","Ports":null,"State":"melting"}]"#).unwrap();
        assert!(listed[0].ports.is_empty());
        assert!(listed[0].names.is_empty());
    }

    #[test]
    fn the_zero_time_is_no_time() {
        assert_eq!(unix_seconds("0001-01-01T00:00:00Z"), None);
        assert_eq!(
            unix_seconds("2024-05-01T00:00:01.123456789Z"),
            Some(1_714_521_601)
        );
        assert_eq!(
            unix_seconds("2024-05-01T02:00:01+02:00"),
            Some(1_714_521_601)
        );
    }
}
