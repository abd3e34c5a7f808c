//! The stack as a text tree: from the services that nobody depends on to those that depend on nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Edge, Graph, Node};

/// A terminal that nobody made wider.
const WIDTH: usize = 80;

/// The widest column of names; a longer one has the line for itself.
const WIDEST_NAME: usize = 40;

/// The narrowest column of ports.
const NARROWEST_PORTS: usize = 18;

/// Between columns.
const GAP: usize = 2;

/// One service at one place of the tree.
struct Line<'a> {
    /// The branches and the name.
    label: String,
    /// What stands below the label where the line is continued.
    guide: String,
    node: &'a Node,
    /// Whether it is shown in full elsewhere.
    is_reference: bool,
}

/// Draws it.
pub fn tree(graph: &Graph) -> String {
    let mut lines = Vec::new();
    let mut shown = BTreeSet::new();
    for root in graph.roots() {
        lines.push(Line {
            label: root.name.clone(),
            guide: below("", root),
            node: root,
            is_reference: false,
        });
        branch(graph, root, "", &mut shown, &mut lines);
    }
    let mut text = columns(&lines);
    let conflicts: Vec<String> = graph
        .conflicts()
        .map(|(node, port)| {
            let words = port.words();
            let words = words.trim_end_matches(" !");
            format!("{words} of {}: {}", node.name, port.conflict())
        })
        .collect();
    if !conflicts.is_empty() {
        text += "\nPorts that are taken (!):\n";
        for line in conflicts {
            sentence(&mut text, &line);
        }
    }
    let networks = networks(graph);
    if !networks.is_empty() {
        text += "\nNetworks:\n";
        for (network, services) in networks {
            wrapped(&mut text, &format!("  {network}: "), &services);
        }
    }
    text
}

fn branch<'a>(
    graph: &'a Graph,
    node: &'a Node,
    before: &str,
    shown: &mut BTreeSet<&'a str>,
    lines: &mut Vec<Line<'a>>,
) {
    let count = node.depends_on.len();
    for (index, edge) in node.depends_on.iter().enumerate() {
        let Some(below_it) = graph.node(&edge.service) else {
            continue;
        };
        let is_last = index + 1 == count;
        let (turn, bar) = if is_last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        let before_it = format!("{before}{bar}");
        let is_reference = !shown.insert(&below_it.name);
        lines.push(Line {
            label: format!("{before}{turn}{}", with_condition(edge)),
            guide: if is_reference {
                before_it.clone()
            } else {
                below(&before_it, below_it)
            },
            node: below_it,
            is_reference,
        });
        if !is_reference {
            branch(graph, below_it, &before_it, shown, lines);
        }
    }
}

fn with_condition(edge: &Edge) -> String {
    format!("{} ({})", edge.service, edge.words())
}

/// What stands below a service where its line is continued.
fn below(before: &str, node: &Node) -> String {
    if node.depends_on.is_empty() {
        before.to_owned()
    } else {
        format!("{before}│")
    }
}

/// All lines in columns.
fn columns(lines: &[Line<'_>]) -> String {
    let length = |text: &str| text.chars().count();
    let widest = |least: usize, most: usize, of: &dyn Fn(&Line<'_>) -> usize| {
        lines
            .iter()
            .map(of)
            .filter(|width| *width <= most)
            .fold(least, usize::max)
    };
    let names = widest(7, WIDEST_NAME, &|line| length(&line.label));
    let in_full = |line: &Line<'_>, text: &str| {
        if line.is_reference { 0 } else { length(text) }
    };
    let backends = widest(7, WIDTH, &|line| in_full(line, &line.node.placed()));
    let states = widest(5, WIDTH, &|line| in_full(line, &line.node.state));
    let left = WIDTH.saturating_sub(names + backends + states + 3 * GAP);
    let ports = left.max(NARROWEST_PORTS);
    let row = |cells: [&str; 4]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip([names, backends, states, 0]) {
            text += cell;
            text.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(length(cell)) + GAP,
            ));
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = row(["SERVICE", "BACKEND", "STATE", "PORTS"]);
    for line in lines {
        let mut label = line.label.as_str();
        if length(label) > names {
            text += label;
            text.push('\n');
            label = &line.guide;
        }
        if line.is_reference {
            text += &row([label, "see above", "", ""]);
            continue;
        }
        let words: Vec<String> = line
            .node
            .ports
            .iter()
            .map(super::model::PortLine::words)
            .collect();
        let mut rows = filled(&words, ports).into_iter();
        let first = rows.next().unwrap_or_default();
        text += &row([label, &line.node.placed(), &line.node.state, &first]);
        for more in rows {
            text += &row([&line.guide, "", "", &more]);
        }
    }
    text
}

/// Words with commas between them, in lines of at most `width` characters where words are not longer.
fn filled(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 == words.len() { "" } else { "," };
        let word = format!("{word}{comma}");
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                *line += &word;
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// The services of every network, where services are told apart by networks.
fn networks(graph: &Graph) -> BTreeMap<&str, Vec<String>> {
    let mut networks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in &graph.services {
        for network in &node.networks {
            networks.entry(network).or_default().push(node.name.clone());
        }
    }
    networks
}

/// A sentence below the tree, continued further in.
fn sentence(text: &mut String, words: &str) {
    let mut width = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if width == 0 {
            text.push_str("  ");
            width = 2 + length;
        } else if width + 1 + length > WIDTH {
            text.push_str("\n      ");
            width = 6 + length;
        } else {
            text.push(' ');
            width += 1 + length;
        }
        text.push_str(word);
    }
    text.push('\n');
}

fn wrapped(text: &mut String, head: &str, words: &[String]) {
    let width = WIDTH.saturating_sub(head.chars().count()).max(20);
    let indent = " ".repeat(head.chars().count());
    for (index, line) in filled(words, width).iter().enumerate() {
        *text += if index == 0 { head } else { &indent };
        *text += line;
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{chain, node, port, shop};
    use super::*;

    #[test]
    fn a_stack_is_a_tree() {
        insta::assert_snapshot!(tree(&shop()));
    }

    #[test]
    fn long_names_and_many_ports_are_continued_below() {
        let mut graph = shop();
        let long = "a-service-with-a-name-that-nobody-would-want-to-type";
        let mut wide = node(long, &[("api", "started"), ("cache", "healthy")]);
        wide.ports = (8000..8012).map(|number| port(number, number)).collect();
        graph.services.push(wide);
        graph.services.sort_by(|a, b| a.name.cmp(&b.name));
        let text = tree(&graph);
        insta::assert_snapshot!(text);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn a_long_sentence_is_continued_further_in() {
        let mut text = String::new();
        sentence(&mut text, &"word ".repeat(40));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() > 2, "{text}");
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert!(
            lines
                .iter()
                .skip(1)
                .all(|line| line.starts_with("      word")),
            "{text}"
        );
    }

    #[test]
    fn a_diamond_is_shown_once() {
        let text = tree(&chain(&["a>b", "a>c", "b>d", "c>d", "d>e"]));
        insta::assert_snapshot!(text);
    }
}
