//! Service names in the values of an environment, replaced by addresses: for local processes that cannot have a
//! hosts file of their own.
//!
//! Only what is clearly a host is replaced: with a port (`db:5432`), in an address with a scheme
//! (`postgres://user:pw@db/x`), or as the whole value of a variable that says it is a host (`DB_HOST`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::naming::Forward;

/// A service as an environment may mention it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mentioned {
    /// The service.
    pub service: String,
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
    ("mysql", 3306),
    ("nats", 4222),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("rediss", 6379),
    ("smtp", 25),
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
        let mut scan = Scan {
            variable,
            text: value,
            names,
            first_port,
            forwards: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        let to = scan.whole().unwrap_or_else(|| scan.parts());
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
    text: &'a str,
    names: &'a BTreeMap<String, Mentioned>,
    first_port: u16,
    forwards: BTreeSet<Forward>,
    refused: BTreeSet<(String, u16)>,
}

impl Scan<'_> {
    /// A value that is a name and nothing else, where the variable says that it is a host.
    fn whole(&mut self) -> Option<String> {
        let mentioned = self.names.get(self.text)?.clone();
        if !is_host_variable(self.variable) {
            return None;
        }
        // Its port is in another variable, so all of them must be there, under their own numbers.
        for port in &mentioned.ports {
            self.lead(&mentioned, *port, *port);
            if *port < self.first_port {
                self.refused.insert((mentioned.service.clone(), *port));
            }
        }
        Some(mentioned.address.to_string())
    }

    /// Names with a port, and names in addresses with a scheme.
    fn parts(&mut self) -> String {
        let text = self.text;
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
        let mentioned = self.names.get(word)?.clone();
        let scheme = scheme(before);
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
        let scheme = scheme?;
        let ends = after.is_empty() || after.starts_with(['/', '?', '#', ',', ' ', '"', '\'', ')']);
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

    /// The port at the address that leads to a service's port.
    fn listen(&mut self, mentioned: &Mentioned, port: u16) -> u16 {
        let listen = if port < self.first_port {
            port.saturating_add(ABOVE)
        } else {
            port
        };
        self.lead(mentioned, listen, port);
        listen
    }

    fn lead(&mut self, mentioned: &Mentioned, listen: u16, port: u16) {
        self.forwards.insert(Forward {
            listen: SocketAddr::new(IpAddr::V4(mentioned.address), listen),
            service: mentioned.service.clone(),
            port,
        });
    }
}

/// What names of services and hosts consist of.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

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

/// `:5432`, and how many digits it has.
fn port(after: &str) -> Option<(u16, usize)> {
    let rest = after.strip_prefix(':')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let port = rest.get(..digits)?.parse().ok().filter(|port| *port != 0)?;
    Some((port, digits))
}

/// `DB_HOST`, `PGHOST`, `REDIS_HOSTNAME`, `MYSQL_SERVER` …
fn is_host_variable(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    ["HOST", "HOSTNAME", "SERVER", "ADDR", "ADDRESS", "ENDPOINT"]
        .iter()
        .any(|end| {
            upper
                .strip_suffix(end)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '.', '-']))
                || *end == "HOST" && upper.ends_with("HOST")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<String, Mentioned> {
        let one = |service: &str, last, ports: &[u16]| Mentioned {
            service: service.to_owned(),
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
    fn a_port_below_the_first_is_another_one_at_the_address() {
        let leads = value("X", "http://proxy/", 1024).1;
        assert_eq!(leads, ["127.77.0.2:20080 proxy:80"]);
        let (to, leads) = value("X", "http://proxy/", 0);
        assert_eq!(to, "http://127.77.0.2/");
        assert_eq!(leads, ["127.77.0.2:80 proxy:80"]);
    }
}
