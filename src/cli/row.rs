//! One instance as the listing commands show it: the fields of `docker compose ps`, and on top of them what
//! only wharf knows. Containers come from the engine's list, processes from the ledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::container::Listing;
use crate::backend::router::Backends;
use crate::cli::context::{Context, Named};
use crate::cli::sight::Rest;
use crate::error::{Error, Result};
use crate::port::claim::Protocol;
use crate::port::sockets;
use crate::probe;
use crate::state::{BackendKind, Health, Instance, Readiness, Status};
use crate::ui::template::{Fields, LABELS};
use crate::ui::time::docker_age;

/// How long a server may take to say that it is ready.
const PROBE: Duration = Duration::from_millis(500);

/// One instance.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) backend: BackendKind,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) project: String,
    pub(super) service: String,
    pub(super) one_off: bool,
    /// The engine's word.
    pub(super) state: String,
    pub(super) pid: Option<u32>,
    pub(super) labels: BTreeMap<String, String>,
    image: String,
    image_id: String,
    command: String,
    created: i64,
    status: String,
    exit_code: i32,
    health: &'static str,
    /// Address, port, published port, protocol.
    ports: Vec<(String, u16, u16, String)>,
    networks: Vec<String>,
    mounts: Vec<String>,
    local_volumes: usize,
    readiness: Option<Readiness>,
    /// Whether it answers; `None` where it declares no protocol or is not running.
    ready: Option<bool>,
    /// Open connections to its published TCP ports.
    connections: usize,
    /// It runs where it does because a command line said so.
    chosen: bool,
}

/// The instances of a project, by name, and what is out of sight of these services (none: all).
pub(super) async fn rows(
    named: &Named,
    context: &Context,
    backends: &Backends,
    services: &[String],
) -> Result<(Vec<Row>, Rest)> {
    use crate::backend::Backend as _;
    let processes = backends.processes.observe(named.name()).await?;
    context.ui.warn_all(backends.processes.take_notes());
    let mut rows: Vec<Row> = processes.iter().map(Row::of_process).collect();
    let rest = named
        .rest(context.ui, backends, services, &processes)
        .await?;
    if rest.in_engine {
        let containers = backends.containers.listed(Some(named.name())).await?;
        rows.extend(containers.into_iter().map(Row::of_container));
    }
    let choices = backends.processes.choices(named.name())?;
    for row in &mut rows {
        row.chosen = choices.get(&row.service) == Some(&row.backend);
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((rows, rest))
}

/// Fails on a service that neither the files nor the instances know; without files every name is fine.
pub(super) fn check_services(named: &Named, services: &[String], rows: &[Row]) -> Result<()> {
    let Some(project) = named.project() else {
        return Ok(());
    };
    for name in services {
        let declared = project.services.contains_key(name) || project.disabled.contains(name);
        if !declared && !rows.iter().any(|row| row.service == *name) {
            return Err(
                Error::usage(format!("no such service: {name}")).hint("wharf config --services")
            );
        }
    }
    Ok(())
}

impl Row {
    pub(super) fn of_container(listing: Listing) -> Self {
        let code = listing.status.strip_prefix("Exited (");
        let code = code.and_then(|rest| rest.split(')').next()?.parse().ok());
        let health = [
            ("(healthy)", "healthy"),
            ("(unhealthy)", "unhealthy"),
            ("(health: starting)", "starting"),
        ];
        let health = health
            .into_iter()
            .find(|(words, _)| listing.status.ends_with(words));
        Self {
            backend: BackendKind::Container,
            id: listing.id,
            name: listing.name,
            project: listing.project,
            service: listing.service,
            one_off: listing.one_off,
            state: listing.state,
            pid: None,
            labels: listing.labels,
            image: listing.image,
            image_id: listing.image_id,
            command: listing.command,
            created: listing.created,
            status: listing.status,
            exit_code: code.unwrap_or(0),
            health: health.map_or("", |(_, word)| word),
            ports: listing.ports,
            networks: listing.networks,
            mounts: listing.mounts,
            local_volumes: listing.local_volumes,
            readiness: listing.readiness,
            ready: None,
            connections: 0,
            chosen: false,
        }
    }

    pub(super) fn of_process(instance: &Instance) -> Self {
        // As with a container: what has ended has no ports.
        let is_alive = instance.status.is_alive();
        let ports = instance.published().filter(|_| is_alive).map(|port| {
            let ip = port.ip.map(|ip| ip.to_string()).unwrap_or_default();
            (ip, port.target, port.published, port.protocol.to_string())
        });
        Self {
            backend: BackendKind::Process,
            id: instance.id.0.clone(),
            name: instance.name.clone(),
            project: instance.project.clone(),
            service: instance.service.clone(),
            one_off: instance.one_off,
            state: instance.status.word().to_owned(),
            pid: instance.pid.filter(|_| is_alive),
            labels: instance.labels.clone(),
            image: String::new(),
            image_id: String::new(),
            command: engines_words(&instance.command),
            created: instance.created,
            status: status(instance),
            exit_code: match instance.status {
                Status::Exited { code } => code,
                Status::Created
                | Status::Running
                | Status::Paused
                | Status::Restarting
                | Status::Removing
                | Status::Dead => 0,
            },
            health: match instance.health {
                None => "",
                Some(Health::Starting) => "starting",
                Some(Health::Healthy) => "healthy",
                Some(Health::Unhealthy) => "unhealthy",
            },
            ports: ports.collect(),
            networks: Vec::new(),
            mounts: Vec::new(),
            local_volumes: 0,
            readiness: instance.readiness.clone(),
            ready: None,
            connections: 0,
            chosen: false,
        }
    }

    /// Whether processes of it may exist.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }

    /// Its id as it is shown.
    pub(super) fn id(&self, full: bool) -> &str {
        if full {
            &self.id
        } else {
            self.id.get(..12).unwrap_or(&self.id)
        }
    }

    /// The image as it was asked for, and its id.
    pub(super) fn image(&self) -> (&str, &str) {
        (&self.image, &self.image_id)
    }

    /// Finds out what its ports say now.
    pub(super) async fn ask(mut self) -> Self {
        // Counted before the probe, which is a connection too.
        let published = self.ports.iter().filter(|port| port.3 == "tcp");
        if self.is_alive() {
            self.connections = established(published.map(|port| port.2));
        }
        if self.state == "running"
            && let Some(readiness) = &self.readiness
            && readiness.address.port() != 0
        {
            let answer = probe::attempt(&readiness.probe, readiness.address, PROBE).await;
            self.ready = Some(answer.is_ok());
        }
        self
    }

    /// As an object with the names of `docker compose ps --format json`.
    pub(super) fn fields(&self, full: bool) -> Fields {
        let mut labels: Vec<String> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        labels.sort();
        let publishers: Vec<Value> = self
            .ports
            .iter()
            .map(|(url, target, published, protocol)| {
                json!({
                    "URL": url, "TargetPort": target, "PublishedPort": published,
                    "Protocol": protocol,
                })
            })
            .collect();
        let width = if full { usize::MAX } else { 15 };
        let mounts: Vec<String> = self.mounts.iter().map(|name| cut(name, width)).collect();
        let mut fields = Fields::new();
        let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        put("Backend", json!(self.backend));
        if self.chosen {
            put("Chosen", json!(true));
        }
        put("Chosen", json!(self.chosen));
        put("Command", json!(self.command(full)));
        put("Connections", json!(self.connections));
        put("CreatedAt", json!(created_at(self.created)));
        put("ExitCode", json!(self.exit_code));
        put("Health", json!(self.health));
        put("ID", json!(self.id(full)));
        put("Image", json!(self.shown_image()));
        put("Labels", json!(labels.join(",")));
        put("LocalVolumes", json!(self.local_volumes.to_string()));
        put("Mounts", json!(mounts.join(",")));
        put("Name", json!(self.name));
        put("Names", json!(self.name));
        put("Networks", json!(self.networks.join(",")));
        put("Pid", json!(self.pid));
        put("Ports", json!(ports(&self.ports)));
        put("Project", json!(self.project));
        put("Publishers", json!(publishers));
        put("Ready", json!(self.ready));
        put("RunningFor", json!(self.running_for()));
        put("Service", json!(self.service));
        put("Size", json!("0B"));
        put("State", json!(self.state));
        put("Status", json!(self.status()));
        put(LABELS, json!(self.labels));
        fields
    }

    /// As a row of `docker compose ps`.
    pub(super) fn cells(&self, full: bool) -> [String; 7] {
        let image = match (self.backend, self.chosen) {
            (BackendKind::Container, false) => self.shown_image().to_owned(),
            (BackendKind::Container, true) => format!("{} (--container)", self.shown_image()),
            (BackendKind::Process, false) => "(process)".to_owned(),
            (BackendKind::Process, true) => "(process, --local)".to_owned(),
        };
        [
            self.name.clone(),
            image,
            self.command(full),
            self.service.clone(),
            self.running_for(),
            self.status(),
            ports(&self.ports),
        ]
    }

    fn running_for(&self) -> String {
        format!("{} ago", docker_age(since(self.created)))
    }

    fn command(&self, full: bool) -> String {
        quoted(&cut(&self.command, if full { usize::MAX } else { 20 }))
    }

    fn shown_image(&self) -> &str {
        &self.image
    }

    /// Docker's words, then what only wharf knows.
    fn status(&self) -> String {
        let mut text = self.status.clone();
        match self.ready {
            Some(true) => {
                let ending = if self.connections == 1 { "" } else { "s" };
                let _: std::fmt::Result =
                    write!(text, " (ready, {} connection{ending})", self.connections);
            }
            Some(false) => text.push_str(" (not ready)"),
            None => {}
        }
        text
    }
}

fn status(instance: &Instance) -> String {
    let up = || docker_age(since(instance.started.unwrap_or(instance.created)));
    let mut text = match instance.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", up()),
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => {
            let ago = since(instance.finished.unwrap_or(instance.created));
            let code = instance.last_code.unwrap_or_default();
            format!("Restarting ({code}) {} ago", docker_age(ago))
        }
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited { code } => {
            let ago = since(instance.finished.unwrap_or(instance.created));
            format!("Exited ({code}) {} ago", docker_age(ago))
        }
    };
    match instance.health {
        Some(Health::Starting) => text.push_str(" (health: starting)"),
        Some(Health::Healthy) => text.push_str(" (healthy)"),
        Some(Health::Unhealthy) => text.push_str(" (unhealthy)"),
        None => {}
    }
    text
}

/// Seconds since a moment given in seconds since the Unix epoch.
fn since(moment: i64) -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second() - moment).unwrap_or(0)
}

/// Open connections to the published TCP ports of an instance, seen from this host.
pub(super) fn connections(instance: &Instance) -> usize {
    if !instance.status.is_alive() {
        return 0;
    }
    let published = instance
        .published()
        .filter(|port| port.protocol == Protocol::Tcp);
    established(published.map(|port| port.published))
}

fn established(ports: impl Iterator<Item = u16>) -> usize {
    let mut ports: Vec<u16> = ports.filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    let any = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    // A count that the kernel does not give is no reason to fail a list.
    ports
        .iter()
        .filter_map(|port| sockets::established(any, *port).ok())
        .sum()
}

/// As the engine writes a command line: arguments with blanks in single quotes, whatever else is in them.
fn engines_words(command: &[String]) -> String {
    let mut words = command.iter();
    let first = words.next().cloned();
    let rest = words.map(|word| {
        if word.contains(' ') {
            format!("'{word}'")
        } else {
            word.clone()
        }
    });
    first.into_iter().chain(rest).collect::<Vec<_>>().join(" ")
}

/// The first characters, the last of them an ellipsis if there are more.
fn cut(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// A string as Go quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _: std::fmt::Result = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Ports as Docker shows them: `80/tcp` where they are not published, ranges where they go by the same
/// number on both sides (`0.0.0.0:81-82->81-82/tcp`), then the others (`127.0.0.1:8003->80/tcp`).
fn ports(all: &[(String, u16, u16, String)]) -> String {
    let mut all: Vec<(u16, &str, u16, &str)> = all
        .iter()
        .map(|(ip, target, published, protocol)| {
            (*target, ip.as_str(), *published, protocol.as_str())
        })
        .collect();
    all.sort_unstable();
    // Address and protocol, first and last port; complete ones in the order they were completed.
    let mut ranges: Vec<(&str, &str, u16, u16)> = Vec::new();
    let mut texts = Vec::new();
    let mut mapped = Vec::new();
    for (target, ip, published, protocol) in all {
        if !ip.is_empty() && published != target {
            mapped.push(format!("{}->{target}/{protocol}", joined(ip, published)));
            continue;
        }
        let open = ranges
            .iter_mut()
            .find(|range| (range.0, range.1) == (ip, protocol));
        match open {
            None => ranges.push((ip, protocol, target, target)),
            Some(range) if range.3.checked_add(1) == Some(target) => range.3 = target,
            Some(range) => {
                texts.push(shown_range(range));
                *range = (ip, protocol, target, target);
            }
        }
    }
    texts.extend(ranges.iter().map(shown_range));
    texts.extend(mapped);
    texts.join(", ")
}

fn shown_range((ip, protocol, first, last): &(&str, &str, u16, u16)) -> String {
    let numbers = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    if ip.is_empty() {
        format!("{numbers}/{protocol}")
    } else {
        format!("{}->{numbers}/{protocol}", joined(ip, &numbers))
    }
}

/// `127.0.0.1:80`, `[::]:80`
fn joined(ip: &str, port: impl std::fmt::Display) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

/// Go's default layout of a time, which `docker compose ps --format json` prints.
fn created_at(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S %z %Z")
                .to_string()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, target: u16, published: u16, protocol: &str) -> (String, u16, u16, String) {
        (ip.to_owned(), target, published, protocol.to_owned())
    }

    #[test]
    fn ports_are_put_together_as_docker_does() {
        let all = [
            port("127.0.0.1", 80, 8080, "tcp"),
            port("", 7000, 0, "tcp"),
            port("0.0.0.0", 81, 81, "tcp"),
            port("::", 81, 81, "tcp"),
            port("0.0.0.0", 82, 82, "tcp"),
            port("::", 82, 82, "tcp"),
            port("0.0.0.0", 85, 85, "udp"),
            port("0.0.0.0", 90, 90, "tcp"),
        ];
        assert_eq!(
            ports(&all),
            "0.0.0.0:81-82->81-82/tcp, 0.0.0.0:90->90/tcp, [::]:81-82->81-82/tcp, \
             0.0.0.0:85->85/udp, 7000/tcp, 127.0.0.1:8080->80/tcp"
        );
    }

    #[test]
    fn a_command_is_quoted_and_cut_as_docker_does() {
        let command = ["sh", "-c", "echo \"x\"; exec sleep 1000"].map(str::to_owned);
        let words = engines_words(&command);
        assert_eq!(words, "sh -c 'echo \"x\"; exec sleep 1000'");
        assert_eq!(quoted(&cut(&words, 20)), "\"sh -c 'echo \\\"x\\\"; ex…\"");
        assert_eq!(cut("short", 5), "short");
    }
}
