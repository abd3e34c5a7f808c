//! Values → YAML text, as Compose's writer lays it out.
//!
//! Which values there are, and in which order, is `render`'s business; reading is `node`'s.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::scalar;
use super::tree::Value;

/// Values as the text that Compose's YAML writer gives: indented by two, quoted where the text
/// would read as something else.
pub(crate) fn to_yaml(value: &Json) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(map) => {
            for (index, (key, child)) in map.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(&text(key, None));
                out.push(':');
                entry(child, indent, out);
            }
        }
        Json::Array(list) => {
            for (index, child) in list.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str("- ");
                match child {
                    Json::Object(map) if !map.is_empty() => block(child, indent + 2, out),
                    Json::Array(inner) if !inner.is_empty() => block(child, indent + 2, out),
                    Json::Null
                    | Json::Bool(_)
                    | Json::Number(_)
                    | Json::String(_)
                    | Json::Array(_)
                    | Json::Object(_) => {
                        out.push_str(&inline(child, indent));
                        out.push('\n');
                    }
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            out.push_str(&inline(value, indent));
            out.push('\n');
        }
    }
}

/// What follows a key's colon.
fn entry(child: &Json, indent: usize, out: &mut String) {
    let nested = match child {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    };
    if nested {
        out.push('\n');
        block(child, indent + 2, out);
    } else {
        out.push(' ');
        out.push_str(&inline(child, indent));
        out.push('\n');
    }
}

fn inline(value: &Json, indent: usize) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(value)) if number.as_u64().is_none() => scalar::float(value),
            _ => number.to_string(),
        },
        Json::String(content) => text(content, Some(indent)),
        Json::Array(_) => "[]".to_owned(),
        Json::Object(_) => "{}".to_owned(),
    }
}

/// A text: in several lines where it has some, plain where that reads as the same text, else in
/// single quotes, else in double quotes. A key (no `indent`) stays on its line.
fn text(content: &str, indent: Option<usize>) -> String {
    // The writer knows the characters of the basic plane only.
    let printable = |c: char| !c.is_control() && c != '\u{feff}' && u32::from(c) < 0xfffe;
    if let Some(indent) = indent
        && content.contains('\n')
        && content
            .chars()
            .all(|c| c == '\n' || c == '\t' || printable(c))
        && !content.ends_with(' ')
        && !content.contains(" \n")
    {
        return literal(content, indent);
    }
    if reads_as_other(content) || legacy_boolean(content) || !content.chars().all(printable) {
        return double_quoted(content);
    }
    if plain_is_fine(content) {
        content.to_owned()
    } else {
        format!("'{}'", content.replace('\'', "''"))
    }
}

/// A literal block, `|`.
fn literal(content: &str, indent: usize) -> String {
    let mut out = String::from("|");
    if content.starts_with([' ', '\n']) {
        out.push('2');
    }
    if content == "\n" || content.ends_with("\n\n") {
        out.push('+');
    } else if !content.ends_with('\n') {
        out.push('-');
    }
    let body = content.strip_suffix('\n').unwrap_or(content);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent + 2));
            out.push_str(line);
        }
    }
    out
}

fn reads_as_other(content: &str) -> bool {
    content == "<<" || !matches!(scalar::plain(content), Value::Text(_)) || is_sexagesimal(content)
}

/// `y`, `no`, `on` and their like, which older readers take for booleans.
fn legacy_boolean(content: &str) -> bool {
    matches!(
        content,
        "y" | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "off"
            | "Off"
            | "OFF"
    )
}

/// `1:30`, which YAML 1.1 reads as a number of base 60.
fn is_sexagesimal(content: &str) -> bool {
    let content = content.strip_prefix(['-', '+']).unwrap_or(content);
    let (whole, fraction) = content.split_once('.').unwrap_or((content, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let digits = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    let rest: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && digits(fraction)
        && !rest.is_empty() && rest.iter().all(|part| {
        matches!(part.as_bytes(), [a] if a.is_ascii_digit())
            || matches!(part.as_bytes(), [a, b] if (b'0'..=b'5').contains(a) && b.is_ascii_digit())
    })
}

fn plain_is_fine(content: &str) -> bool {
    let Some(first) = content.chars().next() else {
        return false;
    };
    if content.starts_with(' ') || content.ends_with(' ') {
        return false;
    }
    if content.starts_with("---") || content.starts_with("...") {
        return false;
    }
    let second = content.chars().nth(1);
    let second_is_blank = second.is_none_or(|c| c == ' ' || c == '\t');
    match first {
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
        | '@' | '`' => return false,
        '-' | '?' | ':' if second_is_blank => return false,
        _ => {}
    }
    !content.contains(": ")
        && !content.ends_with(':')
        && !content.contains(" #")
        && !content.contains('\t')
}

fn double_quoted(content: &str) -> String {
    let mut out = String::from("\"");
    for c in content.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{feff}' => out.push_str("\\uFEFF"),
            '\u{fffe}' => out.push_str("\\uFFFE"),
            '\u{ffff}' => out.push_str("\\uFFFF"),
            '\u{85}' => out.push_str("\\N"),
            c if c.is_control() => {
                let _written = write!(out, "\\x{:02X}", u32::from(c));
            }
            c if u32::from(c) > 0xffff => {
                let _written = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
