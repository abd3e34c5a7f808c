//! systemd units that hold ports: which `.socket` unit listens, and stopping a unit.
//!
//! Speaks to systemd through `systemctl` alone, and only where systemd runs and a unit is in question.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::port::cgroup::{self, Tenant};
use crate::port::holder::{Holder, ProcessFacts, Who};
use crate::port::release::Stopped;
use crate::port::{PortError, describe};

/// Exists while systemd is the service manager (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// Whether a unit belongs to a user's service manager; `main` is one of its processes, or the manager
/// itself for a `.socket` unit.
pub(crate) fn is_of_user(name: &str, main: Option<&ProcessFacts>) -> bool {
    main.is_some_and(|facts| {
        if is_socket(name) {
            return facts.pid != 1;
        }
        matches!(
            cgroup::tenant_of(facts.pid),
            Tenant::Service { of_user: true, .. }
        )
    })
}

pub(crate) fn is_socket(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, kind)| kind == "socket")
}

/// The `.socket` unit for which a service manager listens on `address`.
pub(crate) fn listening_for(address: SocketAddr, manager: &ProcessFacts) -> Option<String> {
    if !Path::new(BOOTED).exists() {
        return None;
    }
    let mut command = Command::new("systemctl");
    if manager.pid != 1 {
        command.arg("--user");
    }
    let output = command
        .args(["list-sockets", "--all", "--full", "--plain", "--no-legend"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    find_socket_unit(&String::from_utf8_lossy(&output.stdout), address)
}

/// Reads the table of `systemctl list-sockets`: address, unit, what it activates.
fn find_socket_unit(table: &str, address: SocketAddr) -> Option<String> {
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let listen = columns.next()?;
        let unit = columns.find(|column| is_socket(column))?;
        (parse_listen(listen)? == (address.ip(), address.port())).then(|| unit.to_owned())
    })
}

/// `127.0.0.53%lo:53`, `[::]:22`.
fn parse_listen(text: &str) -> Option<(std::net::IpAddr, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.split('%').next()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.parse().ok()?, port.parse().ok()?))
}

/// Stops a unit through its service manager, which waits as long as the unit's own settings say.
///
/// [`PortError::NotPermitted`] with the command to give where systemd refuses, does not know the unit or
/// does not run; [`PortError::Protected`] for what is never stopped.
pub fn stop_unit(holder: &Holder) -> Result<Stopped, PortError> {
    let begin = Instant::now();
    let refused = || PortError::NotPermitted {
        who: holder.describe(),
        command: describe::how_released(holder),
    };
    let Who::Unit { name, main } = &holder.who else {
        return Err(refused());
    };
    let reason = holder
        .protected
        .clone()
        .or_else(|| crate::port::protect::reason_of_unit(name));
    if let Some(reason) = reason {
        return Err(PortError::Protected {
            who: holder.describe(),
            reason,
        });
    }
    if !Path::new(BOOTED).exists() {
        return Err(refused());
    }
    let mut command = Command::new("systemctl");
    if is_of_user(name, main.as_deref()) {
        command.arg("--user");
    }
    let status = command
        .args(["--no-ask-password", "stop", "--", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(refused());
    }
    Ok(Stopped {
        who: holder.describe(),
        pids: main.iter().map(|facts| facts.pid).collect(),
        killed: false,
        took: begin.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
/run/dbus/system_bus_socket dbus.socket                dbus.service
0.0.0.0:22                  ssh.socket                 ssh.service
[::]:22                     ssh.socket                 ssh.service
127.0.0.1%lo:631            cups.socket                cups.service
[::]:9090                   cockpit.socket             -
";

    #[test]
    fn the_unit_is_found_by_address_and_port() {
        let unit = |address: &str| find_socket_unit(TABLE, address.parse().unwrap());
        assert_eq!(unit("0.0.0.0:22").as_deref(), Some("ssh.socket"));
        assert_eq!(unit("[::]:9090").as_deref(), Some("cockpit.socket"));
        assert_eq!(unit("127.0.0.1:631").as_deref(), Some("cups.socket"));
        assert_eq!(unit("127.0.0.2:631"), None);
        assert_eq!(unit("0.0.0.0:2"), None);
    }
}
