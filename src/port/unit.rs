//! systemd units that hold ports: which `.socket` unit listens, and stopping a unit.
//!
//! Speaks to systemd through `systemctl` alone, and only where systemd runs and a unit is in question.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::port::cgroup::{self, Tenant};
use crate::port::claim::Protocol;
use crate::port::handle::Handle;
use crate::port::holder::{Holder, ListeningSocket, ProcessFacts, Who};
use crate::port::process::{self, Table, pids, process_facts};
use crate::port::release::Stopped;
use crate::port::{PortError, describe, protect, steward, work};

/// Exists while systemd is the service manager (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// How long systemd gets for an answer: one that hangs must not hang a look-up.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a unit gets to stop: its own limit, 90 s unless it says otherwise, and what comes after it.
const STOP: Duration = Duration::from_mins(2);

/// No table of sockets is longer, in bytes.
const MOST_PRINTED: u64 = 1 << 20;

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

/// The command that starts a unit again; `None` for one that is made while it runs and gone with its end.
/// To be asked before it is stopped.
pub fn how_started(name: &str, main: Option<&ProcessFacts>) -> Option<String> {
    let of_user = is_of_user(name, main);
    let uid = main.map_or(0, |facts| facts.uid);
    let place = if of_user {
        format!("/run/user/{uid}/systemd/transient/{name}")
    } else {
        format!("/run/systemd/transient/{name}")
    };
    (!Path::new(&place).exists()).then(|| command("start", name, main))
}

/// The command that has the service manager of a unit do something with it.
pub(crate) fn command(verb: &str, name: &str, main: Option<&ProcessFacts>) -> String {
    let manager = manager(is_of_user(name, main), main);
    let is_anothers = manager.len() > 1;
    let own = runtime_of(&manager);
    let mut words = vec!["systemctl".to_owned()];
    words.extend(manager);
    words.extend([verb.to_owned(), shell_words::quote(name).into_owned()]);
    if is_anothers && !rustix::process::geteuid().is_root() {
        words.insert(0, "sudo".to_owned());
    }
    if let Some(place) = own {
        words.insert(0, format!("XDG_RUNTIME_DIR={}", place.display()));
    }
    words.join(" ")
}

/// Where our own service manager is met, if that is whom these words mean and the environment does not tell: not after
/// `su`, nor in a job of cron's.
fn runtime_of(manager: &[String]) -> Option<PathBuf> {
    if manager != ["--user"] {
        return None;
    }
    let uid = rustix::process::geteuid().as_raw();
    let is_ours =
        |path: &Path| fs::metadata(path).is_ok_and(|facts| facts.is_dir() && facts.uid() == uid);
    let told = process::variable(Path::new("/proc/self"), b"XDG_RUNTIME_DIR=");
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let is_told = told.is_some_and(|told| is_ours(Path::new(&told)));
    (!is_told && is_ours(&usual)).then_some(usual)
}

/// What tells `systemctl` whose service manager is meant: the system's, our own, or that of the user as whom
/// `process` runs.
fn manager(of_user: bool, process: Option<&ProcessFacts>) -> Vec<String> {
    if !of_user {
        return Vec::new();
    }
    let mut words = vec!["--user".to_owned()];
    let other = process.filter(|facts| facts.uid != rustix::process::geteuid().as_raw());
    if let Some(facts) = other {
        let user = facts.user.clone().unwrap_or_else(|| facts.uid.to_string());
        words.extend(["-M".to_owned(), format!("{user}@")]);
    }
    words
}

/// The processes of the unit that one of them is in; none where it is in none.
pub(super) fn members(main: &ProcessFacts) -> BTreeSet<u32> {
    let unit = cgroup::tenant_of(main.pid);
    if !matches!(unit, Tenant::Service { .. }) {
        return BTreeSet::new();
    }
    let mut all: BTreeSet<u32> = pids().into_iter().collect();
    all.retain(|pid| cgroup::tenant_of(*pid) == unit);
    all
}

/// Why a unit must not be stopped as a whole: what runs in it beside what has the port. A supervisor's other programs
/// are work that nobody has asked about, and it stops a single one.
pub(crate) fn protected_inside(name: &str, main: Option<&ProcessFacts>) -> Option<String> {
    let main = main?;
    let members = members(main);
    let protected = members.iter().copied().filter_map(process_facts);
    let protected = protected.filter_map(|facts| {
        let reason = protect::reason(&facts)?;
        let who = &facts.name;
        Some(format!(
            "{who} (pid {}) runs in {name}, and {reason}",
            facts.pid
        ))
    });
    let mut reasons = protected.chain(
        steward::of_unit(&Table::read(), main, &members)
            .map(|(who, command)| format!("{who}; {name} would stop them all: {command}")),
    );
    reasons.next()
}

/// What ends with a unit beside the process that has the port, in words: what runs that, too.
pub(super) fn ends_with_it(
    table: &Table,
    name: &str,
    main: &ProcessFacts,
    members: &BTreeSet<u32>,
) -> Option<String> {
    let others = members.iter().filter(|pid| **pid != main.pid);
    let others = work::in_words(others.filter_map(|pid| table.get(*pid)));
    (!others.is_empty()).then(|| format!("{name} ends as a whole, with {}", others.join(", ")))
}

pub(crate) fn is_socket(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, kind)| kind == "socket")
}

/// The `.socket` unit for which a service manager listens on `socket`; `manager` is the system's if absent.
pub(crate) fn listening_for(
    socket: &ListeningSocket,
    manager: Option<&ProcessFacts>,
) -> Option<String> {
    if !Path::new(BOOTED).exists() {
        return None;
    }
    let of_user = manager.is_some_and(|manager| manager.pid != 1);
    let words = [
        "list-sockets",
        "--all",
        "--full",
        "--plain",
        "--no-legend",
        "--show-types",
    ];
    let answer = systemctl(&self::manager(of_user, manager), &words, ANSWER).ok()?;
    find_socket_unit(&answer.printed, socket.address, socket.protocol)
}

/// What `systemctl` answered.
struct Answer {
    status: ExitStatus,
    printed: String,
    /// On its standard error.
    complained: String,
}

impl Answer {
    /// Why it did not do what it was to do.
    fn reason(&self) -> String {
        let mut lines = self.complained.lines().map(str::trim);
        let said = lines.find(|line| !line.is_empty());
        said.map_or_else(
            || format!("systemctl said nothing ({})", self.status),
            |said| describe::one_line(said.trim_end_matches('.')),
        )
    }
}

/// Runs `systemctl`.
///
/// # Errors
/// It cannot be run, or has not ended in time (`TimedOut`).
fn systemctl(manager: &[String], words: &[&str], patience: Duration) -> io::Result<Answer> {
    let mut command = Command::new("systemctl");
    if let Some(place) = runtime_of(manager) {
        command.env("XDG_RUNTIME_DIR", place);
    }
    let mut child = command
        .args(manager)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (printed, complained) = (read(child.stdout.take()), read(child.stderr.take()));
    // Not reaped yet, so the number is still its own.
    if let Some(handle) = Handle::open(child.id())
        && Handle::wait(&[&handle], patience) != [true]
    {
        handle.signal(Signal::KILL)?;
        child.wait()?;
        return Err(io::ErrorKind::TimedOut.into());
    }
    let status = child.wait()?;
    let text = |bytes: mpsc::Receiver<Vec<u8>>| {
        let bytes = bytes.recv_timeout(ANSWER).map_err(io::Error::other)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Answer {
        status,
        printed: text(printed)?,
        complained: text(complained)?,
    })
}

/// Reads a stream to its end, beside the other one.
fn read(stream: Option<impl io::Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What was read until it broke off is as good as it gets.
            drop(stream.take(MOST_PRINTED).read_to_end(&mut bytes));
        }
        drop(sender.send(bytes));
    });
    receiver
}

/// Reads the table of `systemctl list-sockets`: address, type, unit, what it activates. Before version 215
/// there is no type.
fn find_socket_unit(table: &str, address: SocketAddr, protocol: Protocol) -> Option<String> {
    let other = match protocol {
        Protocol::Tcp => "Datagram",
        Protocol::Udp => "Stream",
    };
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let unit = words.iter().skip(1).find(|word| is_socket(word))?;
        let fits = parse_listen(words.first()?)? == (address.ip(), address.port());
        (fits && !words.contains(&other)).then(|| (*unit).to_owned())
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
/// [`PortError::UnitRefused`] with the command to give where systemd refuses or does not know the unit,
/// [`PortError::NoServiceManager`] where it does not run; [`PortError::Protected`] for what is never stopped.
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
        .or_else(|| protect::reason_of_unit(name));
    if let Some(reason) = reason {
        return Err(PortError::Protected {
            who: holder.describe(),
            reason,
        });
    }
    if !Path::new(BOOTED).exists() {
        return Err(PortError::NoServiceManager {
            name: name.clone(),
            command: main.as_ref().map(|facts| {
                let sudo = if facts.signalable { "" } else { "sudo " };
                format!("{sudo}kill {}", facts.pid)
            }),
        });
    }
    let manager = manager(is_of_user(name, main.as_deref()), main.as_deref());
    let reason = match systemctl(&manager, &["--no-ask-password", "stop", "--", name], STOP) {
        Ok(answer) if answer.status.success() => None,
        Ok(answer) => Some(answer.reason()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(PortError::StillStopping {
                name: name.clone(),
                command: command("status", name, main.as_deref()),
                seconds: STOP.as_secs(),
            });
        }
        Err(error) => Some(format!("systemctl cannot be run: {error}")),
    };
    if let Some(reason) = reason {
        return Err(PortError::UnitRefused {
            who: holder.describe(),
            reason,
            command: describe::how_released(holder),
        });
    }
    Ok(Stopped {
        who: holder.describe(),
        supervisor: None,
        pids: main.iter().map(|facts| facts.pid).collect(),
        killed: false,
        late: None,
        lives: false,
        took: begin.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
/run/dbus/system_bus_socket Stream   dbus.socket                dbus.service
0.0.0.0:22                  Stream   ssh.socket                 ssh.service
[::]:22                     Stream   ssh.socket                 ssh.service
127.0.0.1%lo:631            Stream   cups.socket                cups.service
[::]:9090                   Stream   cockpit.socket             -
0.0.0.0:69                  Datagram tftp.socket                tftp.service
0.0.0.0:70                  old.socket                          old.service
";

    #[test]
    fn the_unit_is_found_by_address_port_and_type() {
        let unit = |address: &str| find_socket_unit(TABLE, address.parse().unwrap(), Protocol::Tcp);
        assert_eq!(unit("0.0.0.0:22").as_deref(), Some("ssh.socket"));
        assert_eq!(unit("[::]:9090").as_deref(), Some("cockpit.socket"));
        assert_eq!(unit("127.0.0.1:631").as_deref(), Some("cups.socket"));
        assert_eq!(unit("0.0.0.0:70").as_deref(), Some("old.socket"));
        assert_eq!(unit("127.0.0.2:631"), None);
        assert_eq!(unit("0.0.0.0:2"), None);
        assert_eq!(unit("0.0.0.0:69"), None);
        let datagrams = find_socket_unit(TABLE, "0.0.0.0:69".parse().unwrap(), Protocol::Udp);
        assert_eq!(datagrams.as_deref(), Some("tftp.socket"));
    }
}
