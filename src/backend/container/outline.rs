//! A project's containers by one list request: what a plan is made from, without an inspection of each.
//!
//! What only an inspection tells (the process, exact times, the whole command line, how its ports were asked
//! for) is left out, so these instances are for plans and not for people.

use super::observe::{self, address, located, protocol, verdict};
use super::reply::{Listed, State};
use super::{Containers, labels};
use crate::backend::BackendError;
use crate::state::{BackendKind, Fingerprint, Instance, InstanceId, Publisher, Readiness};

impl Containers {
    /// The containers of a project in outline, its relays among them: no process, no times, no command line, no
    /// grace period.
    ///
    /// # Errors
    /// When the engine does not answer, or refuses.
    pub async fn outlines(&self, project: &str) -> Result<Vec<Instance>, BackendError> {
        let engine = self.engine().await?;
        let of_project = format!("{}={project}", labels::PROJECT);
        let listed = observe::list(engine, &[&of_project, labels::CONFIG_HASH])
            .await
            .map_err(|error| engine.refused("list containers", error))?;
        let mut instances: Vec<Instance> = listed.into_iter().map(outline).collect();
        instances
            .sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
        Ok(instances)
    }
}

fn outline(entry: Listed) -> Instance {
    let label = |name: &str| entry.labels.get(name).cloned();
    let status = observe::status(&State {
        status: entry.state.clone(),
        running: entry.state == "running",
        restarting: entry.state == "restarting",
        pid: 0,
        exit_code: exit_code(&entry.status),
        started_at: String::new(),
        finished_at: String::new(),
        health: None,
    });
    let mut publishers: Vec<Publisher> = entry
        .ports
        .iter()
        .filter_map(|port| {
            Some(Publisher {
                ip: address(&port.ip).filter(|_| port.public_port != 0),
                target: port.private_port,
                published: port.public_port,
                protocol: protocol(&port.protocol)?,
            })
        })
        .collect();
    publishers.sort();
    publishers.dedup();
    let readiness = label(labels::READY)
        .and_then(|text| serde_json::from_str::<Readiness>(&text).ok())
        .map(|ready| located(ready, &publishers));
    // Links add further names with a slash inside.
    let mut names = entry.names.iter().map(|name| name.trim_start_matches('/'));
    let name = names.find(|name| !name.contains('/')).unwrap_or_default();
    Instance {
        id: InstanceId(entry.id.clone()),
        name: name.to_owned(),
        project: label(labels::PROJECT).unwrap_or_default(),
        service: label(labels::SERVICE).unwrap_or_default(),
        number: label(labels::NUMBER)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        backend: BackendKind::Container,
        fingerprint: label(labels::CONFIG_HASH).map(Fingerprint),
        status,
        health: health(&entry.status).filter(|_| status.is_alive()),
        pid: None,
        image: entry.image.clone(),
        command: Vec::new(),
        created: entry.created,
        started: None,
        finished: None,
        publishers,
        asked_ports: Vec::new(),
        last_code: None,
        survivors: None,
        ending: false,
        networks: entry.network_settings.networks.keys().cloned().collect(),
        shares_network_of: observe::home(&entry.host_config.network_mode),
        volumes: entry
            .mounts
            .iter()
            .filter(|mount| mount.kind == "volume")
            .map(|mount| mount.name.clone())
            .collect(),
        one_off: label(labels::ONE_OFF).is_some_and(|value| value == "True"),
        stop_grace: None,
        readiness,
        labels: entry.labels,
    }
}

/// Reads `Exited (137) 3 minutes ago`.
fn exit_code(status: &str) -> i64 {
    bracketed(status)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Reads `Up 3 minutes (healthy)` and `Up 2 seconds (health: starting)`.
fn health(status: &str) -> Option<crate::state::Health> {
    let word = bracketed(status)?;
    verdict(word.strip_prefix("health: ").unwrap_or(word))
}

fn bracketed(status: &str) -> Option<&str> {
    let (_, rest) = status.split_once('(')?;
    rest.split_once(')').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Health, Status};

    #[test]
    fn an_entry_of_the_list_is_enough_for_a_plan() {
        let text = r#"{
            "Id": "f00d", "Names": ["/p-web-1", "/p-other-1/web"], "Image": "busy",
            "Command": "httpd -f", "Created": 7, "State": "running",
            "Status": "Up 3 minutes (health: starting)",
            "Ports": [{"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                      {"PrivatePort": 53, "Type": "udp"}],
            "Labels": {"com.docker.compose.project": "p", "com.docker.compose.service": "web",
                       "com.docker.compose.container-number": "1",
                       "com.docker.compose.config-hash": "abc"},
            "HostConfig": {"NetworkMode": "container:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
            "NetworkSettings": {"Networks": {"p_default": {"IPAddress": "172.18.0.2"}}},
            "Mounts": [{"Type": "volume", "Name": "p_data", "Destination": "/d"},
                       {"Type": "bind", "Destination": "/b"}]
        }"#;
        let instance = outline(serde_json::from_str(text).unwrap());
        assert_eq!(instance.name, "p-web-1");
        assert_eq!((instance.service.as_str(), instance.number), ("web", 1));
        assert_eq!(instance.status, Status::Running);
        assert_eq!(instance.health, Some(Health::Starting));
        assert_eq!(instance.fingerprint, Some(Fingerprint("abc".into())));
        assert_eq!(instance.networks, ["p_default"]);
        let home = "00112233445566778899aabbccddeeff".repeat(2);
        assert_eq!(instance.shares_network_of, Some(InstanceId(home)));
        assert_eq!(instance.volumes, ["p_data"]);
        let ports: Vec<_> = instance
            .publishers
            .iter()
            .map(|port| {
                (
                    port.ip.map(|ip| ip.to_string()),
                    port.target,
                    port.published,
                )
            })
            .collect();
        let expected = [(None, 53, 0), (Some("127.0.0.1".to_owned()), 80, 8080)];
        assert_eq!(ports, expected);
    }

    #[test]
    fn the_words_of_a_state_tell_code_and_health() {
        assert_eq!(exit_code("Exited (137) 3 minutes ago"), 137);
        assert_eq!(exit_code("Created"), 0);
        assert_eq!(health("Up 3 minutes (unhealthy)"), Some(Health::Unhealthy));
        assert_eq!(health("Up 3 minutes"), None);
        assert_eq!(health("Up 3 minutes (Paused)"), None);
    }
}
