//! `--format`: Go templates over the rows of a list, as Docker's commands take them, and JSON as Go writes it.
//! Knows rows and heads, not what they are about.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{FuncMap, MissingKey, Template, TemplateError, Value as Go};
use serde_json::{Map, Value};

use super::table::Table;

/// A row of a list: its fields by name.
pub type Fields = Map<String, Value>;

/// The field that `.Label "name"` looks names up in; no output shows it.
pub const LABELS: &str = "\u{0}labels";

/// What `--format` asks for.
pub enum Format {
    /// The list's own table.
    Table,
    /// One JSON object a line.
    Json,
    /// A template for each row.
    Each(Box<Template>),
    /// A template for each row, whose tabs are columns, under a line of heads.
    Columns {
        /// For the rows.
        rows: Box<Template>,
        /// For the heads.
        heads: Box<Template>,
    },
}

/// A template that cannot be read, or does not fit the rows.
#[derive(Debug, thiserror::Error)]
#[error("--format is not a template for this list")]
pub struct FormatError(#[source] TemplateError);

impl Format {
    /// Reads the value of `--format`.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        match text.trim() {
            "" | "table" => return Ok(Self::Table),
            "json" => return Ok(Self::Json),
            _ => {}
        }
        let source = |text: &str| {
            let text = text.trim_matches(' ');
            labels_as_function(&text.replace("\\t", "\t").replace("\\n", "\n"))
        };
        let rows = |text: &str| {
            Template::new("")
                .funcs(functions())
                .missing_key(MissingKey::Error)
                .parse(text)
                .map(Box::new)
                .map_err(FormatError)
        };
        let Some(columns) = text.strip_prefix("table") else {
            return Ok(Self::Each(rows(&source(text))?));
        };
        let columns = source(columns);
        let heads = Template::new("")
            .funcs(functions_of_heads())
            .parse(&columns);
        Ok(Self::Columns {
            rows: rows(&columns)?,
            heads: heads.map(Box::new).map_err(FormatError)?,
        })
    }

    /// Whether rows are shown with this field, or may be.
    pub fn shows(&self, text: &str, field: &str) -> bool {
        match self {
            Self::Table => false,
            Self::Json => true,
            Self::Each(_) | Self::Columns { .. } => text.contains(field) || text.contains("json"),
        }
    }

    /// The lines of a list. `heads` are the names of columns by field, for templates of a table; `table` is
    /// the list's own.
    pub fn lines(
        &self,
        heads: &[(&str, &str)],
        rows: &[Fields],
        table: impl FnOnce() -> Table,
    ) -> Result<Vec<String>, FormatError> {
        let each = |template: &Template| {
            rows.iter()
                .map(|row| execute(template, row))
                .collect::<Result<Vec<String>, _>>()
        };
        match self {
            Self::Table => Ok(table().lines()),
            Self::Json => Ok(rows
                .iter()
                .map(|row| json(&Value::Object(shown(row))))
                .collect()),
            Self::Each(template) => each(template),
            Self::Columns {
                rows: template,
                heads: head,
            } => {
                let names: Fields = heads
                    .iter()
                    .map(|(field, name)| ((*field).to_owned(), Value::from(*name)))
                    .collect();
                let mut lines = vec![execute(head, &names)?];
                lines.extend(each(template)?);
                Ok(Table::of_lines(&lines.join("\n")).lines())
            }
        }
    }
}

/// JSON as Go writes it: without blanks, and with three characters escaped that mean something in HTML.
pub fn json(value: &Value) -> String {
    // They can only be inside strings, where an escape means the same.
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn shown(row: &Fields) -> Fields {
    let mut row = row.clone();
    drop(row.shift_remove(LABELS));
    row
}

fn execute(template: &Template, row: &Fields) -> Result<String, FormatError> {
    let data = gotmpl::to_value(row).map_err(FormatError)?;
    template.execute_to_string(&data).map_err(FormatError)
}

/// `.Label "x"` is a method of Docker's rows; here it is a function of the row.
fn labels_as_function(text: &str) -> String {
    text.replace(".Label \"", "label $ \"")
        .replace(".Label `", "label $ `")
}

fn text(value: Option<&Go>) -> String {
    match value {
        Some(Go::String(text)) => text.to_string(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn number(value: Option<&Go>) -> usize {
    value
        .and_then(|value| match value {
            Go::Uint(number) => usize::try_from(*number).ok(),
            Go::Int(number) => usize::try_from(*number).ok(),
            Go::Nil
            | Go::Bool(_)
            | Go::Float(_)
            | Go::String(_)
            | Go::List(_)
            | Go::Map(_)
            | Go::Function(_) => None,
        })
        .unwrap_or(0)
}

fn of_text(function: fn(&str) -> String) -> gotmpl::ValueFunc {
    Arc::new(move |arguments| Ok(Go::String(function(&text(arguments.first())).into())))
}

/// The functions that Docker adds to Go's own.
fn functions() -> FuncMap {
    let mut map = FuncMap::new();
    let mut add = |name: &str, function: gotmpl::ValueFunc| {
        map.insert(name.to_owned(), function);
    };
    add("lower", of_text(str::to_lowercase));
    add("upper", of_text(str::to_uppercase));
    add("title", of_text(title));
    add(
        "json",
        Arc::new(|arguments| {
            let argument = arguments.first();
            let value = argument.map_or(Value::Null, value);
            // A whole row writes itself, as Go's `Marshal` does; of a single value nothing is escaped.
            let row = argument.is_some_and(|value| value.field(LABELS).is_some());
            let text = if row { json(&value) } else { value.to_string() };
            Ok(Go::String(text.into()))
        }),
    );
    add(
        "split",
        Arc::new(|arguments| {
            let (text, by) = (text(arguments.first()), text(arguments.get(1)));
            let parts: Vec<Go> = if by.is_empty() {
                text.chars()
                    .map(|c| Go::String(c.to_string().into()))
                    .collect()
            } else {
                text.split(&by)
                    .map(|part| Go::String(part.into()))
                    .collect()
            };
            Ok(Go::List(parts.into()))
        }),
    );
    add(
        "join",
        Arc::new(|arguments| {
            let by = text(arguments.get(1));
            let parts: Vec<String> = match arguments.first() {
                Some(Go::List(list)) => list.iter().map(|part| text(Some(part))).collect(),
                other => vec![text(other)],
            };
            Ok(Go::String(parts.join(&by).into()))
        }),
    );
    add(
        "pad",
        Arc::new(|arguments| {
            let (before, after) = (number(arguments.get(1)), number(arguments.get(2)));
            let text = text(arguments.first());
            let padded = if text.is_empty() {
                text
            } else {
                format!(
                    "{}{text}{}",
                    " ".repeat(before.min(9999)),
                    " ".repeat(after.min(9999))
                )
            };
            Ok(Go::String(padded.into()))
        }),
    );
    add(
        "truncate",
        Arc::new(|arguments| {
            let kept: String = text(arguments.first())
                .chars()
                .take(number(arguments.get(1)))
                .collect();
            Ok(Go::String(kept.into()))
        }),
    );
    add(
        "label",
        Arc::new(|arguments| {
            let name = text(arguments.get(1));
            let labels = arguments.first().and_then(|row| row.field(LABELS));
            let found = labels.and_then(|labels| labels.field(&name));
            Ok(Go::String(text(found).into()))
        }),
    );
    map
}

/// For a line of heads, every function leaves its first argument as it is.
fn functions_of_heads() -> FuncMap {
    let mut map: FuncMap = functions()
        .into_keys()
        .map(|name| {
            let same: gotmpl::ValueFunc =
                Arc::new(|arguments| Ok(arguments.first().cloned().unwrap_or(Go::Nil)));
            (name, same)
        })
        .collect();
    // The head of a label's column is the label's name.
    map.insert(
        "label".to_owned(),
        Arc::new(|arguments| Ok(arguments.get(1).cloned().unwrap_or(Go::Nil))),
    );
    map
}

fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .flat_map(|c| {
            let first = !inside;
            inside = c.is_alphanumeric() || c == '_' || c == '\'';
            if first {
                c.to_uppercase().collect::<Vec<char>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// A template's value as JSON.
fn value(of: &Go) -> Value {
    match of {
        Go::Nil | Go::Function(_) => Value::Null,
        Go::Bool(yes) => Value::from(*yes),
        Go::Int(number) => Value::from(*number),
        Go::Uint(number) => Value::from(*number),
        Go::Float(number) => Value::from(*number),
        Go::String(text) => Value::from(text.to_string()),
        Go::List(list) => list.iter().map(value).collect(),
        Go::Map(map) => Value::Object(entries(map)),
    }
}

fn entries(map: &BTreeMap<Arc<str>, Go>) -> Fields {
    map.iter()
        .filter(|(name, _)| &***name != LABELS)
        .map(|(name, of)| (name.to_string(), value(of)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Fields {
        let mut row = Fields::new();
        row.insert("Name".to_owned(), json!("p-web-1"));
        row.insert("Ports".to_owned(), json!("1->2"));
        row.insert("ExitCode".to_owned(), json!(3));
        row.insert(
            "Publishers".to_owned(),
            json!([{"URL": "::", "TargetPort": 80}]),
        );
        row.insert(LABELS.to_owned(), json!({"a.b": "c,d"}));
        row
    }

    fn shown(format: &str) -> Result<Vec<String>, FormatError> {
        let heads = [("Name", "NAME"), ("Ports", "PORTS")];
        Format::parse(format)?.lines(&heads, &[row()], || Table::new(["X"]))
    }

    #[test]
    fn fields_functions_and_conditions_are_dockers() {
        for (format, expected) in [
            ("{{.Name}}\\t{{.Ports}}", "p-web-1\t1->2"),
            (
                "{{json .}}",
                r#"{"ExitCode":3,"Name":"p-web-1","Ports":"1-\u003e2","Publishers":[{"TargetPort":80,"URL":"::"}]}"#,
            ),
            (
                "{{upper .Name}} {{join (split .Name \"-\") \"+\"}}",
                "P-WEB-1 p+web+1",
            ),
            (
                "{{title \"abc de\"}} {{pad .Name 2 3}}| {{truncate .Name 3}}",
                "Abc De   p-web-1   | p-w",
            ),
            ("{{if eq .ExitCode 3}}yes{{else}}no{{end}}", "yes"),
            ("{{range .Publishers}}{{.TargetPort}};{{end}}", "80;"),
            ("{{.Label \"a.b\"}} {{.Label \"none\"}}!", "c,d !"),
            ("{{println .Name}}x", "p-web-1\nx"),
            ("{{json .Ports}}", "\"1->2\""),
            ("raw text", "raw text"),
        ] {
            assert_eq!(shown(format).unwrap(), [expected], "{format}");
        }
    }

    #[test]
    fn a_table_of_columns_has_heads() {
        assert_eq!(
            shown("table {{.Name}}\\t{{lower .Ports}}\\t{{.Label \"x\"}}").unwrap(),
            ["NAME      PORTS     x", "p-web-1   1->2      "]
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for format in [
            "{{",
            "{{.Nope}}",
            "{{nope .Name}}",
            "table {{.Name}}\\t{{.Nope}}",
        ] {
            assert!(shown(format).is_err(), "{format}");
        }
    }
}
