//! `wharf server status`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::backend::Backend as _;
use crate::cli::context::Context;
use crate::cli::row;
use crate::cli::server::model;
use crate::error::{Error, Result};
use crate::port::claim::Claim;
use crate::port::owner::Depth;
use crate::port::report::HolderReport;
use crate::probe;
use crate::state::{Instance, ProbeKind, Status};
use crate::ui::question;
use crate::ui::table::Table;
use crate::ui::time::age;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// List the servers: pid, age, command line, port, health, open connections
///
/// Exits with 1 if none runs.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only this port; also says who holds it otherwise [default: all servers, and port 8003]
    #[arg(long)]
    port: Option<u16>,
    /// Address whose port is looked at [default: all]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// `table` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// One server as it is now.
struct Server {
    name: String,
    pid: Option<u32>,
    age: Option<u64>,
    port: Option<u16>,
    state: &'static str,
    health: String,
    details: Option<Value>,
    connections: usize,
    command: String,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<()> {
    let backends = context.backends()?;
    let mut instances = backends.processes.observe(model::PROJECT).await?;
    instances.retain(|instance| args.port.is_none() || model::port_of(instance) == args.port);
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    let servers = futures_util::future::join_all(instances.iter().map(Server::of)).await;
    let port = args.port.unwrap_or(8003);
    let mut claim = model::claim(args.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port);
    if args.host.is_none() {
        claim.addresses = Claim::any_address();
    }
    let held = backends.held(Depth::Everybody, &[claim]).await?;
    let holders: Vec<String> = held
        .iter()
        .flat_map(|held| question::plain(&held.holders))
        .collect();
    if args.format == "json" {
        let list: Vec<Value> = servers.iter().map(Server::json).collect();
        let holders = held.iter().flat_map(|held| &held.holders);
        let reports: Vec<HolderReport> = holders.map(HolderReport::of).collect();
        let port = json!({ "port": port, "available": held.is_empty(), "holders": reports });
        context
            .ui
            .data(json!({ "servers": list, "port": port }).to_string());
    } else {
        if servers.is_empty() {
            context.ui.data("no servers");
        } else {
            let mut table = Table::new([
                "NAME",
                "PID",
                "AGE",
                "PORT",
                "STATE",
                "HEALTH",
                "CONNECTIONS",
                "COMMAND",
            ]);
            for server in &servers {
                table.row(server.cells());
            }
            table.lines().iter().for_each(|line| context.ui.data(line));
        }
        if held.is_empty() {
            context.ui.data(format!("port {port} is available"));
        }
        for line in &holders {
            // What is known of a holder stands below it.
            if line.starts_with(' ') {
                context.ui.data(line);
            } else {
                context.ui.data(format!("port {port} is {line}"));
            }
        }
    }
    if servers.iter().any(|server| server.state == "running") {
        Ok(())
    } else {
        // For scripts: nothing runs. The answer itself was printed.
        Err(Error::service(1))
    }
}

impl Server {
    async fn of(instance: &Instance) -> Self {
        let now = jiff::Timestamp::now().as_second();
        let started = instance.started.filter(|_| instance.status.is_alive());
        let connections = row::connections(instance);
        let (health, details) = health(instance).await;
        Self {
            name: instance.name.clone(),
            pid: instance.pid.filter(|_| instance.status.is_alive()),
            age: started.and_then(|started| u64::try_from(now - started).ok()),
            port: model::port_of(instance),
            state: instance.status.word(),
            health,
            details,
            connections,
            command: instance.command.join(" "),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "pid": self.pid, "age_seconds": self.age, "port": self.port,
            "state": self.state, "health": self.health, "details": self.details,
            "connections": self.connections, "command": self.command,
        })
    }

    fn cells(&self) -> [String; 8] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.name.clone(),
            or_dash(self.pid.map(|pid| pid.to_string())),
            or_dash(self.age.map(age)),
            or_dash(self.port.map(|port| port.to_string())),
            self.state.to_owned(),
            self.health.clone(),
            self.connections.to_string(),
            self.command.clone(),
        ]
    }
}

/// What `/health` says where there is one, else whether a WebSocket handshake succeeds.
async fn health(instance: &Instance) -> (String, Option<Value>) {
    let (Status::Running, Some(port)) = (instance.status, model::port_of(instance)) else {
        return ("-".to_owned(), None);
    };
    let recorded = instance.readiness.as_ref();
    let ip = recorded.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |readiness| {
        readiness.address.ip()
    });
    let address = SocketAddr::new(ip, port);
    if let Some(details) = probe::health(address, PATIENCE).await {
        let word = details
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or("answers")
            .to_owned();
        return (word, Some(details));
    }
    let kind = match recorded.map(|readiness| &readiness.probe) {
        Some(kind @ ProbeKind::WebSocket { .. }) => kind.clone(),
        _ => ProbeKind::WebSocket {
            path: "/".to_owned(),
        },
    };
    match probe::attempt(&kind, address, PATIENCE).await {
        Ok(answer) => (answer.what, None),
        Err(miss) => (miss.to_string(), None),
    }
}
