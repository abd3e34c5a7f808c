//! The stack as a Mermaid flowchart (<https://mermaid.js.org/syntax/flowchart.html>).

use std::fmt::Write as _;

use super::model::{Graph, Node};
use super::shortened;
use crate::state::BackendKind;

/// The most characters of a sentence about a holder.
const LONGEST: usize = 60;

/// Colours that are readable on a light and on a dark page.
const CLASSES: &str = "  classDef container fill:#dbeafe,stroke:#1d4ed8,color:#0f172a
  classDef process fill:#dcfce7,stroke:#15803d,color:#0f172a
  classDef absent fill:#f1f5f9,stroke:#64748b,color:#334155,stroke-dasharray:4
  classDef conflict stroke:#dc2626,stroke-width:3px
";

/// Draws it.
pub fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart TD\n");
    // Writing to a string cannot fail.
    for (number, node) in graph.services.iter().enumerate() {
        let (open, close) = shape(node);
        let label = label(node);
        let _ = writeln!(text, "  s{number}{open}\"{label}\"{close}");
    }
    let number_of = |name: &str| graph.services.iter().position(|node| node.name == name);
    for (number, node) in graph.services.iter().enumerate() {
        for edge in &node.depends_on {
            let Some(to) = number_of(&edge.service) else {
                continue;
            };
            let arrow = if edge.optional { "-.->" } else { "-->" };
            let words = edge.words();
            let _ = writeln!(text, "  s{number} {arrow}|\"{words}\"| s{to}");
        }
    }
    text += CLASSES;
    let mut class = |name: &str, belongs: &dyn Fn(&Node) -> bool| {
        let members: Vec<String> = graph
            .services
            .iter()
            .enumerate()
            .filter(|(_, node)| belongs(node))
            .map(|(number, _)| format!("s{number}"))
            .collect();
        if !members.is_empty() {
            let _ = writeln!(text, "  class {} {name}", members.join(","));
        }
    };
    class("container", &|node| {
        node.backend == Some(BackendKind::Container)
    });
    class("process", &|node| {
        node.backend == Some(BackendKind::Process)
    });
    class("absent", &|node| node.backend.is_none());
    class("conflict", &|node| {
        node.ports.iter().any(|port| port.state.is_conflict())
    });
    text
}

/// Rectangles are containers, rounded ones processes.
fn shape(node: &Node) -> (&'static str, &'static str) {
    match node.backend {
        Some(BackendKind::Process) => ("([", "])"),
        Some(BackendKind::Container) | None => ("[", "]"),
    }
}

fn label(node: &Node) -> String {
    let mut lines = vec![format!("<b>{}</b>", escaped(&node.name))];
    lines.push(match node.state.as_str() {
        "-" => escaped(&node.placed()),
        state => escaped(&format!("{} · {state}", node.placed())),
    });
    for port in &node.ports {
        lines.push(escaped(&port.words()));
        if port.state.is_conflict() {
            lines.push(escaped(&shortened(&port.conflict(), LONGEST)));
        }
    }
    if !node.networks.is_empty() {
        lines.push(escaped(&format!("networks: {}", node.networks.join(", "))));
    }
    lines.join("<br/>")
}

/// As entities, all that Mermaid, its Markdown or HTML could read as something else.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' | '*' | '_' | ';' | '$' | '{' | '}' | '['
            | ']' | '|' => {
                let _ = write!(safe, "#{};", u32::from(character));
            }
            character if character.is_control() => safe.push(' '),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{node, shop};
    use super::*;

    #[test]
    fn a_stack_is_a_flowchart() {
        insta::assert_snapshot!(mermaid(&shop()));
    }

    #[test]
    fn names_cannot_break_the_syntax() {
        let graph = Graph {
            project: "p".to_owned(),
            services: vec![node("a\"]; click x \"`**<script>#", &[])],
        };
        let text = mermaid(&graph);
        let label = text.lines().nth(1).unwrap();
        assert_eq!(label.matches('"').count(), 2, "{label}");
        assert!(
            !label.contains("<script") && !label.contains('`'),
            "{label}"
        );
        assert!(label.ends_with("\"]"), "{label}");
    }
}
