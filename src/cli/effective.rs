//! `wharf config --effective SERVICE`: a service as it runs, in contrast to what its file says.

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::naming::Way;
use crate::observe::linkage;
use crate::plan::Inputs;
use crate::plan::links::{Effective, effective, may_name};
use crate::plan::placement::Wishes;
use crate::plan::policy::Policy;
use crate::port::release::first_permitted;
use crate::state::Observed;

/// Prints one service as YAML or JSON.
pub(super) async fn run(context: &Context, service: &str, json: bool) -> Result<()> {
    let project = context.load(&[], false)?;
    let Some(asked) = project.services.get(service) else {
        return Err(
            Error::usage(format!("no such service: {service}")).hint("wharf config --services")
        );
    };
    let backends = context.backends()?;
    let wishes = Wishes::default();
    let placement = context.place(&project, &wishes, &backends).await?;
    let mut observed = Observed {
        first_port: first_permitted(),
        ..Observed::default()
    };
    let policy = Policy::default();
    if may_name(&project, &placement) {
        observed.linkage = linkage(&backends, &project, &placement).await?;
    }
    let found = effective(
        &Inputs {
            project: &project,
            placement: &placement,
            observed: &observed,
            policy: &policy,
        },
        asked,
    );
    let document = document(&found);
    if json {
        context.ui.data(document.to_string());
    } else {
        context.ui.lines(yaml(&document, 0));
    }
    Ok(())
}

fn document(found: &Effective) -> Value {
    let service = &found.service;
    let argv = [&service.entrypoint, &service.command];
    let command: Vec<&String> = argv.into_iter().flatten().flatten().collect();
    let rewritten: Vec<Value> = found
        .rewritten
        .iter()
        .map(|value| json!({"variable": value.variable, "from": value.from, "to": value.to}))
        .collect();
    json!({
        "service": service.name,
        "backend": found.backend,
        "command": command,
        "working_dir": service.working_dir,
        "user": service.user,
        "environment": found.environment,
        "names": match found.way {
            Way::Hosts => "hosts",
            Way::Environment => "environment",
            Way::Off => "off",
        },
        "rewritten": rewritten,
    })
}

/// As YAML, strings in the form that JSON and YAML share (YAML 1.2.2 §7.3.1).
fn yaml(value: &Value, indent: usize) -> Vec<String> {
    let blank = " ".repeat(indent);
    let inline = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    };
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let key = key_text(key);
                if inline(value) {
                    vec![format!("{blank}{key}: {value}")]
                } else {
                    let mut lines = vec![format!("{blank}{key}:")];
                    lines.extend(yaml(value, indent + 2));
                    lines
                }
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .flat_map(|value| {
                let mut lines = yaml(value, indent + 2);
                if let Some(first) = lines.first_mut() {
                    first.replace_range(indent..indent + 2, "- ");
                }
                lines
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            vec![format!("{blank}{value}")]
        }
    }
}

/// A key, in quotes where it could be read as something else.
fn key_text(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !matches!(
            key,
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain {
        key.to_owned()
    } else {
        json!(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_are_indented() {
        let document = json!({
            "a": "x: y", "b": ["1", "2"], "c": {}, "d": {"e": null},
            "f": [{"g": 1, "h": [2]}],
        });
        let expected = "a: \"x: y\"\nb:\n  - \"1\"\n  - \"2\"\nc: {}\nd:\n  e: null\nf:\n  - g: 1\n    h:\n      - 2";
        assert_eq!(yaml(&document, 0).join("\n"), expected);
    }
}
