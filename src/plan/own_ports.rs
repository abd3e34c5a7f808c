//! The healthcheck of a container, made right for a process: in a container `localhost:80` is the service itself, on this
//! machine it is whoever listens there. Where the process was told another port, its test asks at that one.
//!
//! Only what is certainly an address is changed: a loopback host before `:PORT`, before a word that is the port, in
//! `/dev/tcp/HOST/PORT`, or with the port that `http://` and `https://` imply.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::step::SettledPort;
use crate::port::claim::Protocol;
use crate::project::model::{HealthTest, Service};

/// How a container calls itself.
const HOSTS: [&str; 4] = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"];

/// The service with a test that finds the process where it was told to listen.
pub(super) fn checked_where_it_listens(
    service: &Arc<Service>,
    ports: &[SettledPort],
) -> Arc<Service> {
    let form = service.wharf.process.as_ref();
    let test = service
        .healthcheck
        .as_ref()
        .and_then(|check| check.test.as_ref());
    let (None, Some(test)) = (form.and_then(|form| form.healthcheck.as_ref()), test) else {
        // What was written for the process means this machine.
        return Arc::clone(service);
    };
    let places = Places::of(service, ports);
    let Some(test) = places.test(test) else {
        return Arc::clone(service);
    };
    let mut local = Service::clone(service);
    if let Some(check) = &mut local.healthcheck {
        check.test = Some(test);
    }
    Arc::new(local)
}

/// Where the process listens instead, by the port in the container.
struct Places(BTreeMap<u16, u16>);

impl Places {
    fn of(service: &Service, ports: &[SettledPort]) -> Self {
        let form = service.wharf.process.as_ref();
        let is_forms = form.is_some_and(|form| form.environment.contains_key("PORT"));
        // A number that the container is given too is not why the process listens somewhere else.
        let given = service.environment.get("PORT").filter(|_| !is_forms);
        let given: Option<u16> = given.and_then(|text| text.trim().parse().ok());
        let mut places = BTreeMap::new();
        let tcp = |port: &&SettledPort| port.protocol == Protocol::Tcp;
        for port in ports.iter().filter(tcp) {
            if let Some(published) = port.published {
                places.entry(port.target).or_insert(published);
            }
        }
        places.retain(|target, published| target != published && given != Some(*published));
        Self(places)
    }

    /// The test as it is here; `None`: as it is.
    fn test(&self, test: &HealthTest) -> Option<HealthTest> {
        let local = match test {
            HealthTest::None => return None,
            HealthTest::Shell(line) => HealthTest::Shell(self.text(line)),
            HealthTest::Command(words) => HealthTest::Command(self.words(words)),
        };
        (local != *test).then_some(local)
    }

    fn words(&self, words: &[String]) -> Vec<String> {
        let mut local: Vec<String> = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| words.get(at));
            let is_after_host = before.is_some_and(|before| HOSTS.contains(&before.as_str()));
            let port = word.parse().ok().filter(|_| is_after_host);
            let place = port.and_then(|port: u16| self.0.get(&port));
            local.push(place.map_or_else(|| self.text(word), u16::to_string));
        }
        local
    }

    fn text(&self, text: &str) -> String {
        let mut done = String::new();
        let mut rest = text;
        while let Some((at, host)) = first_host(rest) {
            let before = rest.get(..at).unwrap_or_default();
            let after = rest.get(at + host.len()..).unwrap_or_default();
            done.push_str(before);
            let begins = !done.ends_with(is_of_name);
            done.push_str(host);
            rest = after;
            if !begins {
                continue;
            }
            let Some((between, port, length)) = port_after(&done, after) else {
                continue;
            };
            if let Some(place) = self.0.get(&port) {
                done.push_str(between);
                done.push_str(&place.to_string());
                rest = after.get(length..).unwrap_or_default();
            }
        }
        done.push_str(rest);
        done
    }
}

fn first_host(text: &str) -> Option<(usize, &'static str)> {
    let found = HOSTS
        .iter()
        .filter_map(|host| Some((text.find(host)?, *host)));
    found.min()
}

/// Part of a longer name or address.
fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// The port that belongs to a host: what stands between, its number, and the length of both in `after`.
fn port_after<'a>(up_to: &str, after: &'a str) -> Option<(&'a str, u16, usize)> {
    let number = |skip: usize| {
        let digits = after.get(skip..)?;
        let length = digits.find(|c: char| !c.is_ascii_digit());
        let length = length.unwrap_or(digits.len());
        let (digits, rest) = digits.split_at(length);
        (!rest.starts_with(is_of_name)).then_some(())?;
        Some((after.get(..skip)?, digits.parse().ok()?, skip + length))
    };
    let host = HOSTS.iter().find(|host| up_to.ends_with(*host))?;
    let before = up_to.strip_suffix(host)?;
    match after.chars().next() {
        Some(':') => number(1),
        Some('/') if before.ends_with("/dev/tcp/") => number(1),
        Some(' ' | '\t') if !before.ends_with('/') => {
            number(after.len() - after.trim_start_matches([' ', '\t']).len())
        }
        Some(c) if is_of_name(c) => None,
        _ if before.ends_with("http://") => Some((":", 80, 0)),
        _ if before.ends_with("https://") => Some((":", 443, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{HealthTest, Places};

    fn places() -> Places {
        Places([(80, 8080), (443, 8443), (5432, 5433)].into())
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(places().text(text), expected, "{text}");
    }

    #[test]
    fn a_service_asks_itself_where_it_listens() {
        check(
            "curl -f http://localhost/",
            "curl -f http://localhost:8080/",
        );
        check("curl http://localhost", "curl http://localhost:8080");
        check(
            "curl 'https://127.0.0.1?a'",
            "curl 'https://127.0.0.1:8443?a'",
        );
        check("wget http://[::1]:80/x", "wget http://[::1]:8080/x");
        check(
            "nc -z localhost 5432 || exit 1",
            "nc -z localhost 5433 || exit 1",
        );
        check("</dev/tcp/127.0.0.1/5432", "</dev/tcp/127.0.0.1/5433");
        check(
            "x --at=localhost:80,0.0.0.0:443",
            "x --at=localhost:8080,0.0.0.0:8443",
        );
        check("http://u:p@localhost:80", "http://u:p@localhost:8080");
        check(
            "pg://localhost:5432/localhost",
            "pg://localhost:5433/localhost",
        );
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "curl http://localhost:3000/",
            "curl http://localhost:8080/80",
            "curl http://localhost:800",
            "curl http://localhost:80a",
            "curl http://localhost:${PORT:-80}/",
            "curl http://localhost.test/",
            "curl http://my-localhost:80/",
            "curl http://api:80/",
            "curl http://127.0.0.10:80/ http://1127.0.0.1:80",
            "curl ftp://localhost/",
            "ping localhost",
            "echo localhost",
            "nc localhost -p 80",
            "x https://localhost:99999/ é localhost:",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_command_has_host_and_port_as_words_of_their_own() {
        let command = |words: &[&str]| {
            HealthTest::Command(words.iter().map(|word| (*word).to_owned()).collect())
        };
        let test = command(&["nc", "-z", "localhost", "80", "443", "localhost:443"]);
        let local = command(&["nc", "-z", "localhost", "8080", "443", "localhost:8443"]);
        assert_eq!(places().test(&test), Some(local));
        assert_eq!(places().test(&command(&["pg_isready", "-p", "5432"])), None);
        assert_eq!(places().test(&HealthTest::None), None);
    }
}
