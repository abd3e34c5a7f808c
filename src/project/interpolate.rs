//! Variables: `$NAME`, `${NAME}`, and `${NAME` with one of `:-` `-` `:+` `+` `:?` `?` and a word.
//!
//! Applied to the values of each file before files are merged, then values whose place asks for a
//! number or a boolean are cast (`TABLE`). Reads variables through a function only; compose
//! specification, section "interpolation".

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::diagnostic::Diagnostic;
use super::report::Report;
use super::tree::{Node, Table, Trail, Value};

/// Gives the value of a variable.
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Why a text cannot be interpolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The expression that starts at this byte is malformed.
    Malformed(usize),
    /// The result is beyond all measure.
    TooLong,
    /// A required variable is missing: its name and the message asked for.
    Missing(String, String),
}

/// Replaces the expressions in a text; names of unset variables go to `unset`.
pub(crate) fn substitute(
    text: &str,
    lookup: &Lookup<'_>,
    unset: &mut Vec<String>,
) -> Result<String, Wrong> {
    substitute_within(text, lookup, unset, 0)
}

/// How deep expressions may be nested in each other's words.
const NESTING_LIMIT: usize = 64;
/// How many bytes a text may grow to.
const LENGTH_LIMIT: usize = 16 << 20;

fn substitute_within(
    text: &str,
    lookup: &Lookup<'_>,
    unset: &mut Vec<String>,
    level: usize,
) -> Result<String, Wrong> {
    if level > NESTING_LIMIT {
        return Err(Wrong::Malformed(0));
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('$')) {
        let dollar = at + found;
        out.push_str(text.get(at..dollar).unwrap_or_default());
        if out.len() > LENGTH_LIMIT {
            return Err(Wrong::TooLong);
        }
        let rest = text.get(dollar + 1..).unwrap_or_default();
        if rest.starts_with('$') {
            out.push('$');
            at = dollar + 2;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let (expression, length) = braced(inner).ok_or(Wrong::Malformed(dollar))?;
            out.push_str(&expression.value(lookup, unset, level, dollar)?);
            at = dollar + 2 + length;
        } else {
            let name = name_at(rest);
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&plain_value(name, lookup, unset));
            }
            at = dollar + 1 + name.len();
        }
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Ok(out)
}

/// `[_a-zA-Z][_a-zA-Z0-9]*` at the start of a text.
fn name_at(text: &str) -> &str {
    let mut length = 0;
    for (index, byte) in text.bytes().enumerate() {
        let fits =
            byte == b'_' || byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit());
        if !fits {
            break;
        }
        length = index + 1;
    }
    text.get(..length).unwrap_or_default()
}

fn plain_value(name: &str, lookup: &Lookup<'_>, unset: &mut Vec<String>) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

/// What stands between the braces.
#[derive(Debug, PartialEq, Eq)]
struct Braced<'a> {
    name: &'a str,
    /// `:-`, `-`, `:+`, `+`, `:?`, `?` or nothing.
    operator: &'a str,
    word: &'a str,
}

/// Reads `NAME}` or `NAME<operator>word}`; the second value is the length with the brace.
fn braced(text: &str) -> Option<(Braced<'_>, usize)> {
    let name = name_at(text);
    if name.is_empty() {
        return None;
    }
    let rest = text.get(name.len()..)?;
    if rest.starts_with('}') {
        let expression = Braced {
            name,
            operator: "",
            word: "",
        };
        return Some((expression, name.len() + 1));
    }
    let operator = [":-", ":+", ":?", "-", "+", "?"]
        .into_iter()
        .find(|operator| rest.starts_with(operator))?;
    let word_start = name.len() + operator.len();
    let length = closing_brace(text.get(word_start..)?)?;
    let word = text.get(word_start..word_start + length)?;
    // Compose's grammar does not look past the end of a line.
    if word.contains('\n') {
        return None;
    }
    let expression = Braced {
        name,
        operator: rest.get(..operator.len())?,
        word,
    };
    Some((expression, word_start + length + 1))
}

/// Where the brace is that closes an expression whose word starts here: only `${` opens another.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut open, mut at) = (1usize, 0);
    while at < bytes.len() {
        match bytes.get(at) {
            Some(b'}') => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            Some(b'$') if bytes.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

impl Braced<'_> {
    fn value(
        &self,
        lookup: &Lookup<'_>,
        unset: &mut Vec<String>,
        level: usize,
        start: usize,
    ) -> Result<String, Wrong> {
        if self.operator.is_empty() {
            return Ok(plain_value(self.name, lookup, unset));
        }
        // The word is worked out even where it is not used: a mistake in it is one.
        let word = substitute_within(self.word, lookup, unset, level + 1).map_err(|wrong| {
            if let Wrong::Malformed(_) = wrong {
                Wrong::Malformed(start)
            } else {
                wrong
            }
        })?;
        let value = lookup(self.name);
        let empty_counts_as_unset = self.operator.starts_with(':');
        let given = value.filter(|value| !(empty_counts_as_unset && value.is_empty()));
        match (self.operator.trim_start_matches(':'), given) {
            ("-" | "?", Some(value)) => Ok(value),
            ("-", None) | ("+", Some(_)) => Ok(word),
            ("+", None) => Ok(String::new()),
            (_, _) => Err(Wrong::Missing(self.name.to_owned(), word)),
        }
    }
}

/// A variable that a compose file uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) required: bool,
    pub(crate) default: String,
    pub(crate) alternate: String,
}

/// The variables in every value of a tree.
pub(crate) fn variables(node: &Node, found: &mut BTreeMap<String, Variable>) {
    match &node.value {
        Value::Map(map) => map.values().for_each(|node| variables(node, found)),
        Value::List(list) => list.iter().for_each(|node| variables(node, found)),
        Value::Text(text) => variables_of_text(text, found, 0),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Date(_) => {}
    }
}

fn variables_of_text(text: &str, found: &mut BTreeMap<String, Variable>, level: usize) {
    if level > NESTING_LIMIT {
        return;
    }
    let mut at = 0;
    while let Some(dollar) = text.get(at..).and_then(|rest| rest.find('$')) {
        let start = at + dollar + 1;
        let rest = text.get(start..).unwrap_or_default();
        if rest.starts_with('$') {
            at = start + 1;
        } else if let Some((expression, length)) = rest.strip_prefix('{').and_then(braced) {
            let variable = Variable {
                required: expression.operator.ends_with('?'),
                default: if expression.operator.ends_with('-') {
                    expression.word.to_owned()
                } else {
                    String::new()
                },
                alternate: if expression.operator.ends_with('+') {
                    expression.word.to_owned()
                } else {
                    String::new()
                },
            };
            variables_of_text(expression.word, found, level + 1);
            found.insert(expression.name.to_owned(), variable);
            at = start + 1 + length;
        } else {
            let name = name_at(rest);
            if !name.is_empty() {
                found.entry(name.to_owned()).or_default();
            }
            at = start + name.len();
        }
    }
}

/// What a value at some place is cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cast {
    Integer,
    Number,
    Boolean,
}

fn casts() -> &'static Table<Cast> {
    static TABLE: OnceLock<Table<Cast>> = OnceLock::new();
    TABLE.get_or_init(|| {
        use Cast::{Boolean, Integer, Number};
        Table::new(&[
            ("services.*.configs.*.mode", Integer),
            ("services.*.cpu_count", Integer),
            ("services.*.cpu_percent", Number),
            ("services.*.cpu_period", Integer),
            ("services.*.cpu_quota", Integer),
            ("services.*.cpu_rt_period", Integer),
            ("services.*.cpu_rt_runtime", Integer),
            ("services.*.cpu_shares", Integer),
            ("services.*.cpus", Number),
            ("services.*.depends_on.*.required", Boolean),
            ("services.*.depends_on.*.restart", Boolean),
            ("services.*.deploy.placement.max_replicas_per_node", Integer),
            ("services.*.deploy.replicas", Integer),
            ("services.*.deploy.restart_policy.max_attempts", Integer),
            (
                "services.*.deploy.rollback_config.max_failure_ratio",
                Number,
            ),
            ("services.*.deploy.rollback_config.parallelism", Integer),
            ("services.*.deploy.update_config.max_failure_ratio", Number),
            ("services.*.deploy.update_config.parallelism", Integer),
            ("services.*.healthcheck.disable", Boolean),
            ("services.*.healthcheck.retries", Integer),
            ("services.*.init", Boolean),
            ("services.*.oom_kill_disable", Boolean),
            ("services.*.oom_score_adj", Integer),
            ("services.*.pids_limit", Integer),
            ("services.*.ports.*.target", Integer),
            ("services.*.privileged", Boolean),
            ("services.*.read_only", Boolean),
            ("services.*.scale", Integer),
            ("services.*.stdin_open", Boolean),
            ("services.*.tty", Boolean),
            ("services.*.ulimits.*", Integer),
            ("services.*.ulimits.*.hard", Integer),
            ("services.*.ulimits.*.soft", Integer),
            ("services.*.volumes.*.read_only", Boolean),
            ("services.*.volumes.*.volume.nocopy", Boolean),
            ("networks.*.attachable", Boolean),
            ("networks.*.enable_ipv4", Boolean),
            ("networks.*.enable_ipv6", Boolean),
            ("networks.*.external", Boolean),
            ("networks.*.internal", Boolean),
            ("volumes.*.external", Boolean),
            ("secrets.*.external", Boolean),
            ("configs.*.external", Boolean),
        ])
    })
}

/// Reads a boolean as the words of YAML 1.1 give it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Interpolates and casts every value of a file's tree.
pub(crate) fn interpolate(node: &mut Node, lookup: &Lookup<'_>, report: &mut Report) {
    walk(node, Some(casts()), &Trail::default(), lookup, report);
}

fn walk(
    node: &mut Node,
    table: Option<&Table<Cast>>,
    trail: &Trail<'_>,
    lookup: &Lookup<'_>,
    report: &mut Report,
) {
    let text = match &mut node.value {
        Value::Map(map) => {
            for (key, child) in map.iter_mut() {
                let below = table.and_then(|table| table.key(key));
                walk(child, below, &trail.key(key), lookup, report);
            }
            return;
        }
        Value::List(list) => {
            for (index, child) in list.iter_mut().enumerate() {
                let below = table.and_then(Table::item);
                walk(child, below, &trail.index(index), lookup, report);
            }
            return;
        }
        Value::Text(text) => std::mem::take(text),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Large(_)
        | Value::Float(_)
        | Value::Date(_) => return,
    };
    let replaced = if text.contains('$') {
        match replace(&text, node, trail, lookup, report) {
            Some(replaced) => replaced,
            None => text,
        }
    } else {
        text
    };
    let cast = table.and_then(|table| table.here);
    node.value = match cast.map(|cast| (cast, cast.apply(&replaced))) {
        None => Value::Text(replaced),
        Some((_, Some(value))) => value,
        Some((cast, None)) => {
            report.add(
                Diagnostic::error(format!("`{replaced}` is not {}", cast.wanted()))
                    .at(node.place())
                    .key(trail.to_string())
                    .label(format!("{} is expected here", cast.wanted())),
            );
            Value::Text(replaced)
        }
    };
}

fn replace(
    text: &str,
    node: &Node,
    trail: &Trail<'_>,
    lookup: &Lookup<'_>,
    report: &mut Report,
) -> Option<String> {
    let mut unset = Vec::new();
    let result = substitute(text, lookup, &mut unset);
    unset.sort();
    unset.dedup();
    for name in unset {
        report.add(
            Diagnostic::warning(format!("the variable `{name}` is not set"))
                .at(node.place())
                .label("an empty text is used")
                .hint(format!(
                    "set {name} in the environment or in .env, or write ${{{name}:-}}"
                )),
        );
    }
    match result {
        Ok(replaced) => Some(replaced),
        Err(Wrong::Malformed(at)) => {
            let shown: String = text
                .get(at..)
                .unwrap_or_default()
                .chars()
                .take(40)
                .collect();
            report.add(
                Diagnostic::error(format!("`{shown}` is not a valid variable expression"))
                    .at(node.place())
                    .key(trail.to_string())
                    .label("here")
                    .hint("write $$ for a dollar sign that is meant as it is"),
            );
            None
        }
        Err(Wrong::TooLong) => {
            report.add(
                Diagnostic::error("this value grows too long with its variables in it")
                    .at(node.place())
                    .key(trail.to_string())
                    .label("here"),
            );
            None
        }
        Err(Wrong::Missing(name, message)) => {
            let why = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            report.add(
                Diagnostic::error(format!("the required variable `{name}` has no value{why}"))
                    .at(node.place())
                    .key(trail.to_string())
                    .label("required here")
                    .hint(format!("set {name} in the environment or in .env")),
            );
            None
        }
    }
}

impl Cast {
    fn apply(self, text: &str) -> Option<Value> {
        match self {
            Cast::Integer => text.parse().ok().map(Value::Int),
            Cast::Number => text.parse().ok().map(Value::Float),
            Cast::Boolean => boolean(text).map(Value::Bool),
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Cast::Integer => "an integer",
            Cast::Number => "a number",
            Cast::Boolean => "a boolean",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "S" => Some("set".into()),
            "E" => Some(String::new()),
            _ => None,
        }
    }

    fn value(text: &str) -> Result<String, Wrong> {
        substitute(text, &lookup, &mut Vec::new())
    }

    #[test]
    fn operators_follow_the_specification() {
        for (text, expected) in [
            ("$S|${S}|$U|${U}", "set|set||"),
            (
                "${U:-d}|${U-d}|${E:-d}|${E-d}|${S:+p}|${E:+p}|${E+p}",
                "d|d|d||p||p",
            ),
            ("$$S $1 $ {a}", "$S $1 $ {a}"),
            ("${U:-a}b}", "ab}"),
            ("${U:-${S}-${U-x}}", "set-x"),
            ("${U:-{a}}", "{a}"),
            ("${U:-a$$b}", "a$b"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn malformed_expressions_are_refused() {
        for text in ["${U/x/y}", "${U", "${}", "${1}", "${S:-${U}", "${S:-a\nb}"] {
            assert!(matches!(value(text), Err(Wrong::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_required_variable_says_its_message() {
        assert_eq!(
            value("${U:?need $S}"),
            Err(Wrong::Missing("U".into(), "need set".into()))
        );
        assert_eq!(value("${E?x}").as_deref(), Ok(""));
        assert!(value("${S:-${U?x}}").is_err());
    }
}
