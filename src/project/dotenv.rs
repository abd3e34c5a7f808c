//! The grammar of `.env` and `env_file` files.
//!
//! `KEY=value` and `KEY: value`, an optional `export`, single quotes for text as it is, double
//! quotes for text with escapes and variables, values over several lines in quotes, ` #` for a
//! comment, and a bare `KEY` that takes its value from the environment. Reads nothing itself.

use std::collections::BTreeMap;

use super::interpolate::{self, Lookup, Wrong};

/// A mistake in such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The first byte concerned.
    pub(crate) start: usize,
    /// One past the last byte concerned.
    pub(crate) end: usize,
    pub(crate) message: String,
    pub(crate) label: &'static str,
}

/// The variables that a text sets, and the names in it that are not set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) unset: Vec<String>,
}

/// Reads a text. Variables in values are looked up with `lookup`, then among those set above.
pub(crate) fn parse(text: &str, lookup: &Lookup<'_>) -> Result<Variables, Mistake> {
    let text_start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut reader = Reader {
        text,
        at: text_start,
        lookup,
        out: Variables::default(),
        grown: 0,
    };
    while reader.next_statement() {
        reader.statement()?;
    }
    Ok(reader.out)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    lookup: &'a Lookup<'a>,
    out: Variables,
    /// Bytes of values with variables in them.
    grown: usize,
}

/// How many bytes the values of a file may grow to through variables.
const GROWTH_LIMIT: usize = 32 << 20;

/// White space within a line.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}'
    )
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Moves over white space and comments; whether something is left.
    fn next_statement(&mut self) -> bool {
        loop {
            let rest = self.rest();
            let skipped = rest.len() - rest.trim_start().len();
            self.at += skipped;
            let rest = self.rest();
            if !rest.starts_with('#') {
                return !rest.is_empty();
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn mistake(&self, start: usize, end: usize, message: String, label: &'static str) -> Mistake {
        Mistake {
            start: start.min(self.text.len()),
            end: end.min(self.text.len()),
            message,
            label,
        }
    }

    fn statement(&mut self) -> Result<(), Mistake> {
        if let Some(rest) = self.rest().strip_prefix("export") {
            let trimmed = rest.trim_start();
            if trimmed.len() < rest.len() {
                self.at = self.text.len() - trimmed.len();
            }
        }
        let start = self.at;
        let mut ending = None;
        for (offset, c) in self.rest().char_indices() {
            if is_blank(c) {
                continue;
            }
            match c {
                '=' | ':' | '\n' => {
                    ending = Some((offset, c));
                    break;
                }
                '_' | '.' | '-' | '[' | ']' => {}
                _ if c.is_alphanumeric() => {}
                _ => {
                    let at = start + offset;
                    return Err(self.mistake(
                        at,
                        at + c.len_utf8(),
                        format!("`{c}` cannot stand in the name of a variable"),
                        "here",
                    ));
                }
            }
        }
        let (length, ended_by) = match ending {
            Some((offset, c)) => (offset, Some(c)),
            None => (self.rest().len(), None),
        };
        let name = self.rest().get(..length).unwrap_or_default().trim_end();
        if name.contains(' ') {
            return Err(self.mistake(
                start,
                start + name.len(),
                format!("the name `{name}` contains a space"),
                "here",
            ));
        }
        if ended_by.is_none() {
            // Compose takes a bare name without a line end for the value of nothing.
            let value = self.value()?;
            self.out.values.insert(String::new(), value);
            return Ok(());
        }
        let name = name.to_owned();
        self.at = start + length + 1;
        if ended_by == Some('\n') {
            if let Some(value) = (self.lookup)(&name) {
                self.out.values.insert(name, value);
            }
            return Ok(());
        }
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_blank).len();
        let value = self.value()?;
        self.out.values.insert(name, value);
        Ok(())
    }

    fn value(&mut self) -> Result<String, Mistake> {
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let Some(quote @ ('"' | '\'')) = rest.chars().next() else {
            let line = rest.split('\n').next().unwrap_or_default();
            let next = start + line.len();
            let value = line.split(" #").next().unwrap_or_default().trim_end();
            let value = self.expand(value, start, next)?;
            self.at = next;
            return Ok(value);
        };
        let mut value = String::new();
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            if c == quote && !escaped {
                self.at = start + offset + 1;
                return if quote == '"' {
                    let end = self.at;
                    self.expand(&unescape(&value), start, end)
                } else {
                    Ok(value)
                };
            }
            if c == '\\' && !escaped {
                escaped = true;
                continue;
            }
            if escaped && c != quote {
                value.push('\\');
            }
            escaped = false;
            value.push(c);
        }
        let line = rest.split('\n').next().unwrap_or_default().len();
        Err(self.mistake(
            start,
            start + line,
            "this quoted value has no end".to_owned(),
            "opened here",
        ))
    }

    fn expand(&mut self, value: &str, start: usize, end: usize) -> Result<String, Mistake> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        let mut unset = Vec::new();
        let result = {
            let lookup =
                |name: &str| (self.lookup)(name).or_else(|| self.out.values.get(name).cloned());
            interpolate::substitute(value, &lookup, &mut unset)
        };
        self.out.unset.append(&mut unset);
        if let Ok(value) = &result {
            self.grown += value.len();
        }
        let result = if self.grown > GROWTH_LIMIT {
            Err(Wrong::TooLong)
        } else {
            result
        };
        result.map_err(|wrong| match wrong {
            Wrong::TooLong => self.mistake(
                start,
                end,
                "the values grow too long with their variables in them".to_owned(),
                "in this value",
            ),
            Wrong::Malformed(_) => self.mistake(
                start,
                end,
                "not a valid variable expression".to_owned(),
                "in this value",
            ),
            Wrong::Missing(name, message) => self.mistake(
                start,
                end,
                format!("the required variable `{name}` has no value: {message}"),
                "required here",
            ),
        })
    }
}

/// The escapes of double quotes: `\n` and its like, `\\`, `\"`, `\$`, and `\0` with octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        let Some(c) = after.chars().next() else {
            rest = after;
            out.push('\\');
            break;
        };
        let (replacement, length) = match c {
            'a' => (Some('\u{7}'), 1),
            'b' => (Some('\u{8}'), 1),
            'f' => (Some('\u{c}'), 1),
            'n' => (Some('\n'), 1),
            'r' => (Some('\r'), 1),
            't' => (Some('\t'), 1),
            'v' => (Some('\u{b}'), 1),
            '"' => (Some('"'), 1),
            '\\' => (Some('\\'), 1),
            '$' => {
                out.push('$');
                (Some('$'), 1)
            }
            '0' => {
                let digits: String = after
                    .chars()
                    .skip(1)
                    .take(3)
                    .take_while(char::is_ascii_digit)
                    .collect();
                let read = (digits.len() == 3)
                    .then(|| u8::from_str_radix(&digits, 8).ok())
                    .flatten();
                (read.map(char::from), 1 + digits.len())
            }
            _ => (None, c.len_utf8()),
        };
        if let Some(replacement) = replacement {
            out.push(replacement);
        } else {
            out.push('\\');
            out.push_str(after.get(..length).unwrap_or_default());
        }
        rest = after.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let lookup = |name: &str| (name == "OUTER").then(|| "outer".to_owned());
        parse(text, &lookup).unwrap().values.into_iter().collect()
    }

    fn one(text: &str) -> String {
        read(text).remove(0).1
    }

    #[test]
    fn values_are_read_in_every_form() {
        for (text, value) in [
            ("A=plain", "plain"),
            ("A = spaced out  # comment", "spaced out"),
            ("A=no#comment", "no#comment"),
            ("A: yaml style", "yaml style"),
            ("export A=exported", "exported"),
            ("A='single $OUTER \\n'", "single $OUTER \\n"),
            ("A='it\\'s'", "it's"),
            ("A=\"double $OUTER\\n\"", "double outer\n"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=\"\\$OUTER\"", "$OUTER"),
            ("A=${NOPE:-default}", "default"),
            ("A=", ""),
            ("A=\r\n", ""),
            ("\u{feff}A=bom", "bom"),
            ("A=a=b", "a=b"),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
    }

    #[test]
    fn a_bare_name_takes_the_outer_value() {
        assert_eq!(
            read("OUTER\nNOPE\n"),
            [("OUTER".to_owned(), "outer".to_owned())]
        );
    }

    #[test]
    fn later_values_see_earlier_ones() {
        assert_eq!(read("A=1\nB=${A}2\n")[1].1, "12");
    }

    #[test]
    fn mistakes_have_a_place() {
        let lookup = |_: &str| None;
        let wrong = parse("A=1\nB=\"open\nC=2", &lookup).unwrap_err();
        assert_eq!((wrong.start, wrong.end), (6, 11));
        let wrong = parse("A B=1", &lookup).unwrap_err();
        assert_eq!(wrong.message, "the name `A B` contains a space");
        assert!(parse("A$=1", &lookup).is_err());
    }
}
