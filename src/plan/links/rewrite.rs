//! Service names in the values of an environment, replaced by addresses: for local processes that cannot have a
//! hosts file of their own.
//!
//! Only what is clearly a host is replaced: with a port (`db:5432`), in an address with a scheme
//! (`postgres://user:pw@db/x`), in a connection string of pairs (`Host=db;Port=5432`), or as the whole value, or a list
//! that is the whole value, of a variable that says it is a host (`DB_HOST`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use super::pairs::{self, Host};
use crate::naming::Forward;

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

/// Ports of schemes whose addresses often go without one.
const DEFAULT_PORTS: &[(&str, u16)] = &[
    ("amqp", 5672),
    ("amqps", 5671),
    ("ftp", 21),
    ("http", 80),
    ("https", 443),
    ("ldap", 389),
    ("mariadb", 3306),
    ("memcached", 11211),
    ("mongodb", 27017),
    ("mqtt", 1883),
    ("mssql", 1433),
    ("mysql", 3306),
    ("nats", 4222),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("rediss", 6379),
    ("smtp", 25),
    ("sqlserver", 1433),
    ("ws", 80),
    ("wss", 443),
];

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
        let default = DEFAULT_PORTS
            .iter()
            .find(|(name, _)| scheme.eq_ignore_ascii_case(name))
            .map(|(_, port)| *port);
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

/// What names of services and hosts consist of.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// What may follow a host without a port; the semicolon as in `jdbc:sqlserver://db;databaseName=x`.
const ENDS: [char; 9] = ['/', '?', '#', ',', ' ', '"', '\'', ')', ';'];

/// What stands between the addresses of a value.
const BETWEEN: [char; 11] = [',', ';', ' ', '\t', '\n', '=', '(', '[', '"', '\'', '|'];

/// Whether a host may begin after this text.
fn begins(before: &str) -> bool {
    if let Some(head) = before.strip_suffix("//") {
        return head.ends_with(':') || begins(head);
    }
    if before.ends_with('@') {
        return !is_in_path(before);
    }
    // After one slash comes the segment of a path.
    before.is_empty() || before.ends_with(BETWEEN)
}

/// Whether a text ends in the path (or what follows it) of an address with a scheme.
fn is_in_path(before: &str) -> bool {
    let last = before.rsplit(BETWEEN).next().unwrap_or(before);
    let authority = last.rsplit_once("://").map(|(_, rest)| rest);
    authority.is_some_and(|rest| rest.contains(['/', '?', '#']))
}

/// The scheme of the address in whose host part a text ends: `scheme://`, `scheme://user:pw@`, and further hosts
/// after commas.
fn scheme(before: &str) -> Option<&str> {
    let (head, authority) = before.rsplit_once("://")?;
    if authority.contains(['/', '?', '#', ' ', '"', '\'']) {
        return None;
    }
    if !authority.is_empty() && !authority.ends_with(['@', ',']) {
        return None;
    }
    let begin = head
        .rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
        .map_or(0, |at| at + 1);
    // `postgresql+asyncpg`, `jdbc:mysql`: the last word before a plus says what is spoken.
    let scheme = head.get(begin..)?;
    let scheme = scheme.split('+').next().unwrap_or(scheme);
    (!scheme.is_empty()).then_some(scheme)
}

/// The query of a database's address whose value of `host` begins after this text, and the database's usual port:
/// `postgresql://u@/x?host=`.
fn query_host(before: &str) -> Option<(&str, u16)> {
    let (head, query) = before.rsplit_once('?')?;
    let is_part = |c: char| matches!(c, ' ' | '"' | '\'' | '#');
    let values = query.strip_prefix("host=").or_else(|| {
        let (_, values) = query.rsplit_once("&host=")?;
        Some(values)
    })?;
    if query.contains(is_part)
        || values.contains('&')
        || !(values.is_empty() || values.ends_with(','))
    {
        return None;
    }
    let (head, rest) = head.rsplit_once("://")?;
    if rest.contains(is_part) {
        return None;
    }
    let mut words = head.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+');
    let scheme = words.next()?.split('+').next()?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "postgres" | "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        _ => return None,
    };
    Some((query, port))
}

/// `:5432`, and how many digits it has.
fn port(after: &str) -> Option<(u16, usize)> {
    let rest = after.strip_prefix(':')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let port = rest.get(..digits)?.parse().ok().filter(|port| *port != 0)?;
    Some((port, digits))
}

/// Whether a variable says by what names a service is called, or whose requests it answers: `HOSTNAME`,
/// `VIRTUAL_HOST`, `SERVER_NAME`, `ALLOWED_HOSTS`, `CORS_ORIGINS`, `KAFKA_ADVERTISED_LISTENERS`. Others know it by
/// those, so they stay as they are.
fn says_who_i_am(variable: &str) -> bool {
    const BEGINS: [&str; 7] = [
        "ALLOW",
        "TRUST",
        "PERMIT",
        "DENY",
        "VIRTUAL",
        "CORS",
        "ADVERTISE",
    ];
    let upper = variable.to_ascii_uppercase();
    let mut words = upper.split(['_', '.', '-']);
    upper == "HOSTNAME"
        || words.any(|word| BEGINS.iter().any(|begin| word.starts_with(begin)))
        || ["SERVER_NAME", "SERVER_NAMES", "ORIGIN", "ORIGINS"]
            .iter()
            .any(|end| is_last_word(&upper, end))
}

/// `DB_HOST`, `PGHOST`, `REDIS_HOSTNAME`, `MYSQL_SERVER` …
fn is_host_variable(variable: &str) -> bool {
    let ends = ["HOST", "HOSTNAME", "SERVER", "ADDR", "ADDRESS", "ENDPOINT"];
    let upper = variable.to_ascii_uppercase();
    upper.ends_with("HOST") || ends.iter().any(|end| is_last_word(&upper, end))
}

/// `DB_HOSTS`, `MEMCACHED_SERVERS` … but not those that say whose requests are answered (`ACCEPTED_HOSTS`).
fn is_hosts_variable(variable: &str) -> bool {
    let ends = [
        "HOSTS",
        "HOSTNAMES",
        "SERVERS",
        "ENDPOINTS",
        "BROKERS",
        "NODES",
    ];
    let guards = ["ACCEPT", "ORIGIN"];
    let upper = variable.to_ascii_uppercase();
    ends.iter().any(|end| is_last_word(&upper, end))
        && !guards.iter().any(|guard| upper.contains(guard))
}

fn is_last_word(variable: &str, word: &str) -> bool {
    let rest = variable.strip_suffix(word);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '.', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<String, Mentioned> {
        let one = |service: &str, last, ports: &[u16]| Mentioned {
            service: Some(service.to_owned()),
            address: Ipv4Addr::new(127, 77, 0, last),
            ports: ports.to_vec(),
        };
        BTreeMap::from([
            ("db".to_owned(), one("db", 1, &[5432])),
            ("database".to_owned(), one("db", 1, &[5432])),
            ("proxy".to_owned(), one("proxy", 2, &[80, 443])),
            ("api.v2".to_owned(), one("api.v2", 3, &[8080])),
            ("kafka".to_owned(), one("kafka", 4, &[])),
        ])
    }

    fn value(variable: &str, value: &str, first_port: u16) -> (String, Vec<String>) {
        let environment = BTreeMap::from([(variable.to_owned(), value.to_owned())]);
        let outcome = rewrite(&environment, &names(), first_port);
        let to = outcome.values.first().map(|value| value.to.clone());
        let leads = outcome.forwards.iter();
        (
            to.unwrap_or_else(|| value.to_owned()),
            leads
                .map(|lead| format!("{} {}:{}", lead.listen, lead.service, lead.port))
                .collect(),
        )
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(value("X", text, 1024).0, expected, "{text}");
    }

    #[test]
    fn hosts_are_replaced_where_they_are_hosts() {
        check("db:5432", "127.77.0.1:5432");
        check("database:5432", "127.77.0.1:5432");
        check(
            "postgres://user:pw@db:5432/x",
            "postgres://user:pw@127.77.0.1:5432/x",
        );
        check("postgres://user:pw@db/x", "postgres://user:pw@127.77.0.1/x");
        check("http://proxy/", "http://127.77.0.2:20080/");
        check("http://proxy", "http://127.77.0.2:20080");
        check("https://proxy?x=1", "https://127.77.0.2:20443?x=1");
        check("grpc://api.v2/x", "grpc://127.77.0.3:8080/x");
        check("http://api.v2:8080", "http://127.77.0.3:8080");
        check("kafka:9092,db:9093", "127.77.0.4:9092,127.77.0.1:9093");
        check(
            "mongodb://u:p@db:27017,kafka:27018/x?replicaSet=r",
            "mongodb://u:p@127.77.0.1:27017,127.77.0.4:27018/x?replicaSet=r",
        );
        check(
            "user:pw@tcp(db:3306)/shop",
            "user:pw@tcp(127.77.0.1:3306)/shop",
        );
        check(
            "host=x servers=db:5001,db:5002",
            "host=x servers=127.77.0.1:5001,127.77.0.1:5002",
        );
        check(
            "postgresql+asyncpg://db/x",
            "postgresql+asyncpg://127.77.0.1/x",
        );
        check("jdbc:mysql://db/x", "jdbc:mysql://127.77.0.1/x");
        check("//db:5432/x", "//127.77.0.1:5432/x");
        check("user@db:5432", "user@127.77.0.1:5432");
        check(
            "http://example.com/?peer=db:5432",
            "http://example.com/?peer=127.77.0.1:5432",
        );
        check(
            r#"["http://db:5001","http://kafka:5002"]"#,
            r#"["http://127.77.0.1:5001","http://127.77.0.4:5002"]"#,
        );
    }

    #[test]
    fn a_dot_at_the_end_is_part_of_no_name() {
        check("db.:5432", "127.77.0.1:5432");
        check("http://proxy./x", "http://127.77.0.2:20080/x");
        check("Host=db.;Port=5432", "Host=127.77.0.1;Port=5432");
        assert_eq!(value("DB_HOST", "db.", 1024).0, "127.77.0.1");
        check("db..:5432", "db..:5432");
        check("db.x:5432", "db.x:5432");
    }

    #[test]
    fn an_address_of_the_files_own_is_where_it_is() {
        let given = Mentioned {
            service: None,
            address: Ipv4Addr::new(127, 0, 0, 8),
            ports: Vec::new(),
        };
        let names = BTreeMap::from([("db".to_owned(), given)]);
        for (variable, text, expected) in [
            ("X", "db:80", "127.0.0.8:80"),
            ("X", "http://db/", "http://127.0.0.8/"),
            ("X", "host=db port=81", "host=127.0.0.8 port=81"),
            ("DB_HOST", "db", "127.0.0.8"),
        ] {
            let environment = BTreeMap::from([(variable.to_owned(), text.to_owned())]);
            let outcome = rewrite(&environment, &names, 1024);
            assert_eq!(outcome.values[0].to, expected);
            assert_eq!(
                (outcome.forwards.len(), outcome.refused.len()),
                (0, 0),
                "{text}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        for text in [
            "db",
            "the db is down",
            "mydb:5432",
            "db.example.com:5432",
            "db-2:5432",
            "https://example.com/db:5432x",
            "postgres://db:1234@example.com/db",
            "postgres://example.com/db",
            "db:latest",
            "db:5432abc",
            "db:0",
            "db:70000",
            "amqp://example.com:5672/db",
            "http://db.example.com/db:5432",
            "http://example.com/x/db:5432/y",
            "http://example.com/@db:5432",
            "/srv/db:5432",
            "registry.example.com/db:15",
            "file:///db:5432",
            "",
            "://db",
            "é db: ü",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_name_alone_cannot_carry_another_port_so_what_is_not_ours_is_told() {
        let environment = BTreeMap::from([
            ("PROXY_HOST".to_owned(), "proxy".to_owned()),
            ("PROXY_URL".to_owned(), "http://proxy/".to_owned()),
            ("DB_HOST".to_owned(), "db".to_owned()),
        ]);
        let refused = |first_port| rewrite(&environment, &names(), first_port).refused;
        let proxy = |port| ("proxy".to_owned(), port);
        assert_eq!(refused(1024), BTreeSet::from([proxy(80), proxy(443)]));
        assert_eq!(refused(443), BTreeSet::from([proxy(80)]));
        assert_eq!(refused(0), BTreeSet::new());
    }

    #[test]
    fn a_name_alone_counts_where_the_variable_says_host() {
        let db = (
            "127.77.0.1".to_owned(),
            vec!["127.77.0.1:5432 db:5432".to_owned()],
        );
        for variable in ["DB_HOST", "PGHOST", "HOST", "db_hostname", "MYSQL_SERVER"] {
            assert_eq!(value(variable, "db", 1024), db, "{variable}");
        }
        for variable in ["DB", "APP_NAME", "HOSTS", "GHOSTS_OF"] {
            assert_eq!(value(variable, "db", 1024).0, "db", "{variable}");
        }
    }

    #[test]
    fn connection_strings_of_pairs_have_hosts() {
        check(
            "Host=db;Port=5432;Database=db",
            "Host=127.77.0.1;Port=5432;Database=db",
        );
        check(
            "host=db port=5432 user=db",
            "host=127.77.0.1 port=5432 user=db",
        );
        check("Host=proxy;Port=80", "Host=127.77.0.2;Port=20080");
        check(
            "host=db,kafka port=5432",
            "host=127.77.0.1,127.77.0.4 port=5432",
        );
        check(
            "Server=tcp:db,1433;Database=x",
            "Server=tcp:127.77.0.1,1433;Database=x",
        );
        check("Host=db:5432;User=db", "Host=127.77.0.1:5432;User=db");
        check(
            "jdbc:sqlserver://db;databaseName=x",
            "jdbc:sqlserver://127.77.0.1;databaseName=x",
        );
        let leads = value("X", "host=db port=6432", 1024).1;
        assert_eq!(leads, ["127.77.0.1:6432 db:6432"]);
        let leads = value("X", "Host=db;Database=x", 1024).1;
        assert_eq!(leads, ["127.77.0.1:5432 db:5432"]);
        for text in ["the host=db is down", "a host=db", "name=db;kind=db"] {
            check(text, text);
        }
    }

    #[test]
    fn lists_of_hosts_count_where_the_variable_says_so() {
        let both = "127.77.0.1,127.77.0.4";
        for variable in ["PGHOST", "DB_HOSTS", "MEMCACHED_SERVERS", "kafka.brokers"] {
            assert_eq!(value(variable, "db,kafka", 1024).0, both, "{variable}");
        }
        let mixed = value("DB_HOSTS", "db, other,kafka:9092", 1024).0;
        assert_eq!(mixed, "127.77.0.1, other,127.77.0.4:9092");
        for variable in ["ALLOWED_HOSTS", "TRUSTED_HOSTS", "NAMES", "SERVICES"] {
            assert_eq!(
                value(variable, "db,kafka", 1024).0,
                "db,kafka",
                "{variable}"
            );
        }
    }

    #[test]
    fn what_a_service_is_called_stays() {
        for (variable, text) in [
            ("HOSTNAME", "db"),
            ("VIRTUAL_HOST", "db"),
            ("ALLOWED_HOST", "db"),
            ("DJANGO_ALLOWED_HOSTS", "db,localhost"),
            ("SERVER_NAME", "http://db:5432"),
            ("CORS_ALLOW_ORIGIN", "http://proxy:3000"),
            ("ORIGIN", "http://proxy:3000"),
            ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://kafka:9092"),
            ("TRUSTED_PROXIES", "proxy:80"),
        ] {
            assert_eq!(value(variable, text, 1024).0, text, "{variable}");
        }
        let url = value("ORIGIN_URL", "http://kafka:3000", 1024).0;
        assert_eq!(url, "http://127.77.0.4:3000");
    }

    #[test]
    fn addresses_stand_beside_the_names_that_no_proxy_is_asked_for() {
        for variable in ["NO_PROXY", "no_proxy"] {
            let (to, leads) = value(variable, "db, database,example.com,localhost", 1024);
            assert_eq!(to, "db, database,example.com,localhost,127.77.0.1");
            assert_eq!(leads, Vec::<String>::new());
        }
        assert_eq!(value("NO_PROXY", "localhost,", 1024).0, "localhost,");
    }

    #[test]
    fn hosts_in_quotes_in_queries_and_in_capitals_are_found() {
        check(
            "host=db user=db password='a host=db b' dbname=db",
            "host=127.77.0.1 user=db password='a host=db b' dbname=db",
        );
        check(
            r"password='it\'s host=kafka' host='db'",
            r"password='it\'s host=kafka' host='127.77.0.1'",
        );
        check(
            "Password=\"a;Host=kafka\";Host=db",
            "Password=\"a;Host=kafka\";Host=127.77.0.1",
        );
        check("HOST=DB;PORT=5432", "HOST=127.77.0.1;PORT=5432");
        check("postgres://DB/x", "postgres://127.77.0.1/x");
        check(
            "postgresql://u@/x?host=db",
            "postgresql://u@/x?host=127.77.0.1",
        );
        let leads = value(
            "X",
            "postgresql+psycopg://u@/x?user=u&host=db&port=6432",
            1024,
        );
        assert_eq!(
            leads.0,
            "postgresql+psycopg://u@/x?user=u&host=127.77.0.1&port=6432"
        );
        assert_eq!(leads.1, ["127.77.0.1:6432 db:6432"]);
        check(
            "postgresql:///x?host=db,kafka",
            "postgresql:///x?host=127.77.0.1,127.77.0.4",
        );
        let both = value("MEMCACHED_SERVERS", "db kafka", 1024).0;
        assert_eq!(both, "127.77.0.1 127.77.0.4");
        for text in [
            "http://example.com/?host=db",
            "postgresql:///x?host=db.example.com",
            "postgresql:///x?myhost=db",
            "DB:5432",
            "host=db password='open",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_port_below_the_first_is_another_one_at_the_address() {
        let leads = value("X", "http://proxy/", 1024).1;
        assert_eq!(leads, ["127.77.0.2:20080 proxy:80"]);
        let (to, leads) = value("X", "http://proxy/", 0);
        assert_eq!(to, "http://127.77.0.2/");
        assert_eq!(leads, ["127.77.0.2:80 proxy:80"]);
    }
}
