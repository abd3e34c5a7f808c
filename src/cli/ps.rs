//! `wharf ps`

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::port::claim::Protocol;
use crate::port::sockets;
use crate::probe;
use crate::state::{BackendKind, Health, Instance, Publisher, Status};
use crate::ui::table::Table;
use crate::ui::time::docker_age;

/// How long a server may take to say that it is ready.
const PROBE: Duration = Duration::from_millis(500);

/// List the instances of the services
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Services to list [default: all]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Ended instances too
    #[arg(short, long)]
    all: bool,
    /// Ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Names of services alone
    #[arg(long = "services")]
    only_services: bool,
    /// Only instances in these states
    #[arg(long, value_name = "STATE")]
    status: Vec<String>,
    /// `table` or `json` (one object a line)
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Do not shorten long values
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let named = context.name_or_project()?;
    let backends = context.backends()?;
    let mut instances = named.instances(context.ui, &backends).await?;
    named.check_services(&args.services, &instances)?;
    instances.retain(|instance| {
        let asked = args.services.is_empty() || args.services.contains(&instance.service);
        let state = if args.status.is_empty() {
            args.all || instance.status.is_alive()
        } else {
            args.status
                .iter()
                .any(|word| word == instance.status.word())
        };
        asked && state
    });
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    if args.quiet {
        for instance in &instances {
            context.ui.data(&instance.id.0);
        }
        return Ok(());
    }
    if args.only_services {
        let mut names: Vec<&str> = instances
            .iter()
            .map(|instance| instance.service.as_str())
            .collect();
        names.dedup();
        for name in names {
            context.ui.data(name);
        }
        return Ok(());
    }
    let rows = futures_util::future::join_all(instances.iter().map(Row::of)).await;
    if args.format == "json" {
        for row in &rows {
            context
                .ui
                .data(serde_json::to_string(&row.json()).map_err(Error::failed)?);
        }
        return Ok(());
    }
    let mut table = Table::new([
        "NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS",
    ]);
    for row in &rows {
        table.row(row.cells(args.no_trunc));
    }
    table.lines().iter().for_each(|line| context.ui.data(line));
    Ok(())
}

/// An instance as `ps` shows it: what was observed, and what its port says now.
#[derive(Debug)]
pub(super) struct Row<'a> {
    instance: &'a Instance,
    /// Whether it answers; `None` where it declares no protocol or is not running.
    ready: Option<bool>,
    /// Open connections to its published TCP ports.
    connections: usize,
    now: i64,
}

impl<'a> Row<'a> {
    pub(super) async fn of(instance: &'a Instance) -> Self {
        // Counted before the probe, which is a connection too.
        let connections = connections(instance);
        let ready = match &instance.readiness {
            Some(readiness) if instance.status == Status::Running => {
                let address = address(instance, readiness.address, readiness.target);
                Some(
                    probe::attempt(&readiness.probe, address, PROBE)
                        .await
                        .is_ok(),
                )
            }
            _ => None,
        };
        let now = jiff::Timestamp::now().as_second();
        Self {
            instance,
            ready,
            connections,
            now,
        }
    }

    fn json(&self) -> Value {
        let instance = self.instance;
        let mut labels: Vec<String> = instance
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        labels.sort();
        let code = if let Status::Exited { code } = instance.status {
            code
        } else {
            0
        };
        let health = match instance.health {
            None => "",
            Some(Health::Starting) => "starting",
            Some(Health::Healthy) => "healthy",
            Some(Health::Unhealthy) => "unhealthy",
        };
        let publishers: Vec<Value> = instance
            .publishers
            .iter()
            .map(|port| {
                json!({
                    "URL": port.ip.map(|ip| ip.to_string()).unwrap_or_default(),
                    "TargetPort": port.target,
                    "PublishedPort": port.published,
                    "Protocol": port.protocol.to_string(),
                })
            })
            .collect();
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
        put("Backend", json!(instance.backend));
        put("Command", json!(self.command(true)));
        put("Connections", json!(self.connections));
        put("CreatedAt", json!(created_at(instance.created)));
        put("ExitCode", json!(code));
        put("Health", json!(health));
        put("ID", json!(instance.id.short()));
        put("Image", json!(instance.image));
        put("Labels", json!(labels.join(",")));
        put("LocalVolumes", json!("0"));
        put("Mounts", json!(""));
        put("Name", json!(instance.name));
        put("Names", json!(instance.name));
        put("Networks", json!(instance.networks.join(",")));
        put(
            "Pid",
            json!(instance.pid.filter(|_| instance.status.is_alive())),
        );
        put("Ports", json!(ports(&instance.publishers)));
        put("Project", json!(instance.project));
        put("Publishers", json!(publishers));
        put("Ready", json!(self.ready));
        put(
            "RunningFor",
            json!(format!("{} ago", docker_age(self.since(instance.created)))),
        );
        put("Service", json!(instance.service));
        put("Size", json!("0B"));
        put("State", json!(instance.status.word()));
        put("Status", json!(self.status()));
        Value::Object(object)
    }

    fn cells(&self, full: bool) -> [String; 7] {
        let instance = self.instance;
        let image = match instance.backend {
            BackendKind::Container => instance.image.clone(),
            BackendKind::Process => "(process)".to_owned(),
        };
        [
            instance.name.clone(),
            image,
            self.command(full),
            instance.service.clone(),
            format!("{} ago", docker_age(self.since(instance.created))),
            self.status(),
            ports(&instance.publishers),
        ]
    }

    fn since(&self, moment: i64) -> u64 {
        u64::try_from(self.now - moment).unwrap_or(0)
    }

    fn command(&self, full: bool) -> String {
        let joined = self.instance.command.join(" ");
        let mut shown: String = joined
            .chars()
            .take(if full { usize::MAX } else { 20 })
            .collect();
        if shown.len() < joined.len() {
            shown.pop();
            shown.push('…');
        }
        format!("\"{shown}\"")
    }

    /// Docker's words, then what only wharf knows.
    fn status(&self) -> String {
        let instance = self.instance;
        let up = || docker_age(self.since(instance.started.unwrap_or(instance.created)));
        let mut text = match instance.status {
            Status::Created => "Created".to_owned(),
            Status::Running => format!("Up {}", up()),
            Status::Paused => format!("Up {} (Paused)", up()),
            Status::Restarting => format!("Restarting ({})", up()),
            Status::Removing => "Removal In Progress".to_owned(),
            Status::Dead => "Dead".to_owned(),
            Status::Exited { code } => {
                let ago = self.since(instance.finished.unwrap_or(instance.created));
                format!("Exited ({code}) {} ago", docker_age(ago))
            }
        };
        match instance.health {
            Some(Health::Starting) => text.push_str(" (health: starting)"),
            Some(Health::Healthy) => text.push_str(" (healthy)"),
            Some(Health::Unhealthy) => text.push_str(" (unhealthy)"),
            None => {}
        }
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

/// Where an instance answers; the engine may have chosen the port.
pub(super) fn address(instance: &Instance, recorded: SocketAddr, target: u16) -> SocketAddr {
    if recorded.port() != 0 {
        return recorded;
    }
    let published = instance
        .publishers
        .iter()
        .find(|port| port.target == target && port.published != 0);
    SocketAddr::new(recorded.ip(), published.map_or(0, |port| port.published))
}

/// Open connections to the published TCP ports of an instance, seen from this host.
pub(super) fn connections(instance: &Instance) -> usize {
    if !instance.status.is_alive() {
        return 0;
    }
    let mut ports: Vec<u16> = instance
        .publishers
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp && port.published != 0)
        .map(|port| port.published)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let any = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    // A count that the kernel does not give is no reason to fail a list.
    ports
        .iter()
        .filter_map(|port| sockets::established(any, *port).ok())
        .sum()
}

/// `127.0.0.1:8003->8003/tcp, 9000/tcp`
fn ports(publishers: &[Publisher]) -> String {
    let one = |port: &Publisher| match port.ip {
        Some(ip) if port.published != 0 => {
            format!(
                "{}->{}/{}",
                SocketAddr::new(ip, port.published),
                port.target,
                port.protocol
            )
        }
        _ => format!("{}/{}", port.target, port.protocol),
    };
    publishers.iter().map(one).collect::<Vec<_>>().join(", ")
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
