//! Service names in the values of an environment, replaced by addresses: for local processes that cannot have a
//! hosts file of their own.
//!
//! Only what is clearly a host is replaced: with a port (`db:5432`), in an address with a scheme
//! (`postgres://user:pw@db/x`), in a connection string of pairs (`Host=db;Port=5432`), or as the whole value, or a list
//! that is the whole value, of a variable that says it is a host (`DB_HOST`).

mod authority;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use super::pairs::{self, Host};
use crate::naming::Forward;
use authority::{ENDS, begins, default_port, is_name, port, query_host, scheme};
use variables::{is_host_variable, is_hosts_variable, is_version_variable, says_who_i_am};

/// A service as an environment may mention it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mentioned {
    /// The service; `None` of an address that the file gives, where nothing is to be forwarded.
    pub service: Option<String>,
    /// What stands for it.
    pub address: Ipv4Addr,
    /// The TCP ports that its file declares.
    pub ports: Vec<u16>,
}

/// One value that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The variable.
    pub variable: String,
    /// What the compose file says.
    pub from: String,
    /// What the process gets.
    pub to: String,
}

/// What is different about an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub values: Vec<Rewritten>,
    /// Where the new values lead to.
    pub forwards: BTreeSet<Forward>,
    /// Services by name alone, whose port this user may not listen on.
    pub refused: BTreeSet<(String, u16)>,
}

/// Added to a port that this user may not listen on.
const ABOVE: u16 = 20_000;

/// Replaces names by addresses; `first_port` is the first that we may listen on.
pub(super) fn rewrite(
    environment: &BTreeMap<String, String>,
    names: &BTreeMap<String, Mentioned>,
    first_port: u16,
) -> Outcome {
    let mut outcome = Outcome::default();
    for (variable, value) in environment {
        if says_who_i_am(variable) {
            continue;
        }
        let mut scan = Scan {
            variable,
            names,
            first_port,
            forwards: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        let to = if variable.eq_ignore_ascii_case("NO_PROXY") {
            scan.beside(value)
        } else {
            let named = scan.named(value);
            scan.parts(named.as_deref().unwrap_or(value))
        };
        if to != *value {
            outcome.values.push(Rewritten {
                variable: variable.clone(),
                from: value.clone(),
                to,
            });
            outcome.forwards.extend(scan.forwards);
            outcome.refused.extend(scan.refused);
        }
    }
    outcome
}

/// One value on its way.
struct Scan<'a> {
    variable: &'a str,
    names: &'a BTreeMap<String, Mentioned>,
    first_port: u16,
    forwards: BTreeSet<Forward>,
    refused: BTreeSet<(String, u16)>,
}

impl Scan<'_> {
    /// What a name stands for; hosts are the same in any case.
    fn find(&self, name: &str) -> Option<&Mentioned> {
        let found = self.exactly(name);
        found.or_else(|| self.exactly(&name.to_ascii_lowercase()))
    }

    /// What a name as it is written stands for; a dot at its end says that it is the whole name.
    fn exactly(&self, name: &str) -> Option<&Mentioned> {
        self.names.get(name.strip_suffix('.').unwrap_or(name))
    }

    /// A list of hosts that no proxy is asked for, with the addresses beside the names that other values have now.
    fn beside(&self, text: &str) -> String {
        let listed = pairs::list(text);
        let mut to = text.trim_end_matches([',', ' ']).to_owned();
        let named = listed.iter().filter_map(|host| text.get(host.name.clone()));
        let addresses: BTreeSet<Ipv4Addr> = named
            .filter_map(|name| self.find(name))
            .map(|mentioned| mentioned.address)
            .collect();
        if addresses.is_empty() {
            return text.to_owned();
        }
        for address in addresses {
            to.push(',');
            to.push_str(&address.to_string());
        }
        to
    }

    /// The value with addresses for names that stand without a port: a list of hosts in a variable that says so, or
    /// a string of pairs.
    fn named(&mut self, text: &str) -> Option<String> {
        let mut listed = pairs::list(text);
        if listed.len() == 1 && is_hosts_variable(self.variable) {
            listed = pairs::words(text);
        }
        let is_hosts = if listed.len() == 1 {
            is_host_variable(self.variable)
        } else {
            is_host_variable(self.variable) || is_hosts_variable(self.variable)
        };
        let is_mentioned = |host: &Host| {
            let name = text.get(host.name.clone());
            name.is_some_and(|name| self.find(name).is_some())
        };
        let found = if is_hosts && listed.iter().any(is_mentioned) {
            listed
        } else {
            pairs::hosts(text)
        };
        let is_of_several = found.len() > 1;
        let mut changes: Vec<(Range<usize>, String)> = Vec::new();
        for Host { name, port } in found {
            let mentioned = text.get(name.clone()).and_then(|name| self.find(name));
            let Some(mentioned) = mentioned.cloned() else {
                continue;
            };
            match port {
                // Another port would be that of the others, too.
                Some((port, _)) if is_of_several && port < self.first_port => {
                    self.lead(&mentioned, port, port);
                    self.refuse(&mentioned, port);
                }
                Some((port, place)) => {
                    let to = self.listen(&mentioned, port);
                    changes.push((place, to.to_string()));
                }
                None => self.lead_all(&mentioned),
            }
            changes.push((name, mentioned.address.to_string()));
        }
        changes.sort_by_key(|(place, _)| place.start);
        // One port may be that of several hosts.
        changes.dedup();
        let mut to = String::with_capacity(text.len());
        let mut at = 0;
        for (place, new) in changes {
            to.push_str(text.get(at..place.start)?);
            to.push_str(&new);
            at = place.end;
        }
        to.push_str(text.get(at..)?);
        Some(to)
    }

    /// The port is said elsewhere, so all of them must be there, under their own numbers.
    fn lead_all(&mut self, mentioned: &Mentioned) {
        for port in &mentioned.ports {
            self.lead(mentioned, *port, *port);
            if *port < self.first_port {
                self.refuse(mentioned, *port);
            }
        }
    }

    /// Names with a port, and names in addresses with a scheme.
    fn parts(&mut self, text: &str) -> String {
        let mut to = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let word = rest
                .find(|c: char| !is_name(c))
                .map_or(rest, |end| rest.get(..end).unwrap_or(rest));
            if word.is_empty() {
                let step = rest.chars().next().map_or(1, char::len_utf8);
                to.push_str(rest.get(..step).unwrap_or_default());
                at += step;
                continue;
            }
            let after = rest.get(word.len()..).unwrap_or_default();
            let before = text.get(..at).unwrap_or_default();
            at += word.len();
            if let Some((new, eaten)) = self.host(before, word, after) {
                to.push_str(&new);
                at += eaten;
            } else {
                to.push_str(word);
            }
        }
        to
    }

    /// What stands for a word, and how much of the text after it that replaces.
    fn host(&mut self, before: &str, word: &str, after: &str) -> Option<(String, usize)> {
        let scheme = scheme(before);
        let (in_query, default) = query_host(before).unzip();
        let mentioned = if scheme.is_some() || in_query.is_some() {
            self.find(word)?.clone()
        } else {
            self.exactly(word)?.clone()
        };
        if let Some((port, digits)) = port(after) {
            let end = after.get(1 + digits..).unwrap_or_default();
            // `scheme://db:1234@host`: a user and a password.
            let is_credential = scheme.is_some() && end.starts_with('@');
            if is_credential || !begins(before) || end.starts_with(|c: char| is_name(c)) {
                return None;
            }
            // `REDIS_IMAGE: redis:7`
            let is_declared = mentioned.ports.contains(&port);
            if scheme.is_none() && !is_declared && is_version_variable(self.variable) {
                return None;
            }
            let to = self.listen(&mentioned, port);
            return Some((format!("{}:{to}", mentioned.address), 1 + digits));
        }
        if let (Some(query), Some(default)) = (in_query, default) {
            return self.in_query(&mentioned, query, after, default);
        }
        let scheme = scheme?;
        let ends = after.is_empty() || after.starts_with(ENDS);
        if !ends {
            return None;
        }
        let default = default_port(scheme);
        let port = default.or(match mentioned.ports.as_slice() {
            [one] => Some(*one),
            _ => None,
        })?;
        let to = self.listen(&mentioned, port);
        let address = mentioned.address;
        if default == Some(to) {
            Some((address.to_string(), 0))
        } else {
            Some((format!("{address}:{to}"), 0))
        }
    }

    /// `?host=db` of an address of a database, whose port is said elsewhere or is the usual one.
    fn in_query(
        &mut self,
        mentioned: &Mentioned,
        query: &str,
        after: &str,
        default: u16,
    ) -> Option<(String, usize)> {
        if !(after.is_empty() || after.starts_with(['&', ',', '#', ' ', '"', '\''])) {
            return None;
        }
        let ends = |c: char| matches!(c, '#' | ' ' | '"' | '\'');
        let rest = after.split(ends).next().unwrap_or_default();
        let mut said = query.split('&').chain(rest.split('&'));
        let port = said.find_map(|pair| pair.strip_prefix("port=")?.parse().ok());
        let port = port.unwrap_or(default);
        self.lead(mentioned, port, port);
        if port < self.first_port {
            self.refuse(mentioned, port);
        }
        Some((mentioned.address.to_string(), 0))
    }

    /// The port at the address that leads to a service's port.
    fn listen(&mut self, mentioned: &Mentioned, port: u16) -> u16 {
        let listen = if port < self.first_port && mentioned.service.is_some() {
            port.saturating_add(ABOVE)
        } else {
            port
        };
        self.lead(mentioned, listen, port);
        listen
    }

    fn lead(&mut self, mentioned: &Mentioned, listen: u16, port: u16) {
        let Some(service) = mentioned.service.clone() else {
            return;
        };
        self.forwards.insert(Forward {
            listen: SocketAddr::new(IpAddr::V4(mentioned.address), listen),
            service,
            port,
        });
    }

    fn refuse(&mut self, mentioned: &Mentioned, port: u16) {
        let service = mentioned.service.clone();
        self.refused.extend(service.map(|service| (service, port)));
    }
}
