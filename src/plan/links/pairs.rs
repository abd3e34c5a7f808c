//! Connection strings of pairs, `Host=db;Port=5432` (ADO.NET, ODBC) and `host=db port=5432` (libpq), and lists of hosts
//! without ports (`db1,db2`). Pure: where in a text the hosts are, and which ports go with them.

use std::ops::Range;

/// The keys whose values are hosts, in lower case and without what separates their words.
const HOSTS: [&str; 9] = [
    "host",
    "hostname",
    "server",
    "datasource",
    "addr",
    "address",
    "networkaddress",
    "contactpoints",
    "endpoint",
];

/// One host of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Where its name stands.
    pub name: Range<usize>,
    /// Its port, and where that stands, if the value says it.
    pub port: Option<(u16, Range<usize>)>,
}

/// The hosts that a string of pairs names; none where the text is anything else, since a `host=` in a sentence may
/// mean anything.
pub(super) fn hosts(text: &str) -> Vec<Host> {
    let is_ado = text.contains(';');
    let separated = |c: char| {
        if is_ado {
            c == ';'
        } else {
            c.is_ascii_whitespace()
        }
    };
    let mut pairs: Vec<(String, Range<usize>)> = Vec::new();
    let Some(all) = unquoted(text, separated) else {
        return Vec::new();
    };
    for part in all {
        let Some(text) = text.get(part.clone()) else {
            return Vec::new();
        };
        let Some((key, value)) = text.split_once('=') else {
            return Vec::new();
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.');
        if key.trim().is_empty() || !key.chars().all(is_word) {
            return Vec::new();
        }
        let key = key.chars().filter(char::is_ascii_alphanumeric);
        let begin = part.end - value.len();
        pairs.push((
            key.collect::<String>().to_ascii_lowercase(),
            trimmed(value, begin),
        ));
    }
    let ports = pairs.iter().find(|(key, _)| key == "port");
    let ports: Vec<Option<(u16, Range<usize>)>> = ports
        .map(|(_, value)| parts(text, value.clone(), |c| c == ','))
        .into_iter()
        .flatten()
        .map(|range| Some((number(text, &range)?, range)))
        .collect();
    let mut found = Vec::new();
    for (key, value) in &pairs {
        if HOSTS.contains(&key.as_str()) {
            found.extend(of_value(text, value.clone(), is_ado, &ports));
        }
    }
    found
}

/// The hosts of one value: `db`, `db1,db2`, and, among semicolons, `db,1433` and `tcp:db,1433`.
fn of_value(
    text: &str,
    value: Range<usize>,
    is_ado: bool,
    ports: &[Option<(u16, Range<usize>)>],
) -> Vec<Host> {
    let named = parts(text, value, |c| c == ',');
    if let (true, [host, port]) = (is_ado, named.as_slice())
        && let Some(number) = number(text, port)
    {
        let name = without_protocol(text, host);
        let port = Some((number, port.clone()));
        return vec![Host { name, port }];
    }
    let places = named.into_iter().enumerate();
    places
        .map(|(at, host)| Host {
            name: without_protocol(text, &host),
            // One port is that of all.
            port: match ports {
                [one] => one.clone(),
                several => several.get(at).cloned().flatten(),
            },
        })
        .collect()
}

/// The hosts of a list that has nothing else in it.
pub(super) fn list(text: &str) -> Vec<Host> {
    let named = parts(text, 0..text.len(), |c| c == ',');
    named
        .into_iter()
        .map(|name| Host { name, port: None })
        .collect()
}

/// The same, between spaces.
pub(super) fn words(text: &str) -> Vec<Host> {
    let named = parts(text, 0..text.len(), |c| c.is_ascii_whitespace());
    named
        .into_iter()
        .map(|name| Host { name, port: None })
        .collect()
}

/// The pairs of a text: what separates them does not count in a value between quotes. `None`: one is left open.
fn unquoted(text: &str, separates: impl Fn(char) -> bool) -> Option<Vec<Range<usize>>> {
    let mut quote = None;
    let mut begin = 0;
    let mut all = Vec::new();
    let mut before = '\0';
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open && before != '\\' => quote = None,
            None if matches!(c, '\'' | '"') && before == '=' => quote = Some(c),
            None if separates(c) => {
                all.push(begin..at);
                begin = at + c.len_utf8();
            }
            Some(_) | None => {}
        }
        // Around the sign of a pair there may be space.
        if before != '=' || !c.is_whitespace() {
            before = c;
        }
    }
    all.push(begin..text.len());
    let is_something = |range: &Range<usize>| {
        let text = text.get(range.clone());
        text.is_some_and(|text| !text.trim().is_empty())
    };
    all.retain(is_something);
    let trim = |range: Range<usize>| {
        let piece = text.get(range.clone()).unwrap_or_default();
        let begin = range.start + (piece.len() - piece.trim_start().len());
        begin..begin + piece.trim().len()
    };
    quote.is_none().then(|| all.into_iter().map(trim).collect())
}

/// `tcp:db` of SQL Server.
fn without_protocol(text: &str, host: &Range<usize>) -> Range<usize> {
    const TCP: &str = "tcp:";
    let head = text.get(host.start..host.start + TCP.len());
    let has_protocol = head.is_some_and(|head| head.eq_ignore_ascii_case(TCP));
    let skipped = if has_protocol { TCP.len() } else { 0 };
    host.start + skipped..host.end
}

/// The pieces of a part of a text, without the space around them; empty ones are left out.
fn parts(text: &str, within: Range<usize>, separates: impl Fn(char) -> bool) -> Vec<Range<usize>> {
    let mut at = within.start;
    let mut all = Vec::new();
    for piece in text.get(within).unwrap_or_default().split(separates) {
        let range = trimmed(piece, at);
        // Separators are of one byte.
        at += piece.len() + 1;
        if !range.is_empty() {
            all.push(range);
        }
    }
    all
}

/// Where a piece that begins at `at` is, without spaces and the quotes around it.
fn trimmed(piece: &str, at: usize) -> Range<usize> {
    let is_around = |c: char| c.is_whitespace() || matches!(c, '\'' | '"');
    let begin = at + (piece.len() - piece.trim_start_matches(is_around).len());
    let inner = piece.trim_matches(is_around);
    begin..begin + inner.len()
}

fn number(text: &str, range: &Range<usize>) -> Option<u16> {
    let port = text.get(range.clone())?.parse().ok()?;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Vec<(&str, Option<u16>)> {
        let found = hosts(text).into_iter();
        found
            .map(|host| (&text[host.name], host.port.map(|(port, _)| port)))
            .collect()
    }

    #[test]
    fn pairs_name_their_hosts_and_ports() {
        assert_eq!(seen("Host=db;Port=5432;Database=x"), [("db", Some(5432))]);
        assert_eq!(seen("host=db port=5432 dbname=x"), [("db", Some(5432))]);
        assert_eq!(seen("host='db' user=u"), [("db", None)]);
        assert_eq!(seen("Server = db ; Uid=u;"), [("db", None)]);
        assert_eq!(seen("Server=tcp:db,1433;Database=x"), [("db", Some(1433))]);
        assert_eq!(seen("Data Source=db,1433;User Id=sa"), [("db", Some(1433))]);
        assert_eq!(seen("host=a,b port=1,2"), [("a", Some(1)), ("b", Some(2))]);
        assert_eq!(seen("host=a,b port=7"), [("a", Some(7)), ("b", Some(7))]);
        assert_eq!(seen("host=db"), [("db", None)]);
    }

    #[test]
    fn what_is_no_string_of_pairs_names_none() {
        for text in [
            "",
            "db",
            "the host=db is down",
            "http://x/?host=db&port=1",
            "user=u dbname=db",
            "a;b;host=db",
            "=db",
            "é=1 host=db",
            "host=",
        ] {
            assert_eq!(seen(text), [], "{text}");
        }
    }

    #[test]
    fn a_text_of_anything_is_cut_at_characters() {
        for text in ["host=é;port=ü", "host= db", "host=a\u{2003}port=1", ";;=;"] {
            for host in hosts(text) {
                assert!(text.get(host.name.clone()).is_some(), "{text}");
            }
        }
    }
}
