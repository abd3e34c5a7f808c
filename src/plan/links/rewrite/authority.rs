//! Where hosts stand in addresses with a scheme (RFC 3986 §3.2), in their queries, and in lists of addresses.

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

/// The usual port of a scheme.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    let mut all = DEFAULT_PORTS.iter();
    let found = all.find(|(name, _)| scheme.eq_ignore_ascii_case(name));
    found.map(|(_, port)| *port)
}

/// What names of services and hosts consist of.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// What may follow a host without a port; the semicolon as in `jdbc:sqlserver://db;databaseName=x`.
pub(super) const ENDS: [char; 9] = ['/', '?', '#', ',', ' ', '"', '\'', ')', ';'];

/// What stands between the addresses of a value.
const BETWEEN: [char; 11] = [',', ';', ' ', '\t', '\n', '=', '(', '[', '"', '\'', '|'];

/// Whether a host may begin after this text.
pub(super) fn begins(before: &str) -> bool {
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
pub(super) fn scheme(before: &str) -> Option<&str> {
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
pub(super) fn query_host(before: &str) -> Option<(&str, u16)> {
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
pub(super) fn port(after: &str) -> Option<(u16, usize)> {
    let rest = after.strip_prefix(':')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let port = rest.get(..digits)?.parse().ok().filter(|port| *port != 0)?;
    Some((port, digits))
}
