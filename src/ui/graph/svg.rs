//! The stack as an SVG: one file, nothing fetched, readable on light and on dark pages.

use std::fmt::Write as _;

use super::layout::{Layout, Pass, Place, Size, lay_out};
use super::model::{Graph, Node};
use super::shortened;
use crate::state::BackendKind;

/// Around everything.
const MARGIN: i64 = 24;

/// Above the boxes, for the project's name.
const HEAD: i64 = 34;

/// Below the boxes, for what colours and lines mean.
const FOOT: i64 = 40;

/// Inside a box.
const PADDING: i64 = 12;

/// From line to line.
const LINE: i64 = 18;

/// The most characters of a line; what is longer is shortened, and in full where the mouse rests.
const LONGEST: usize = 46;

/// The most ports of a service that are listed.
const PORTS: usize = 8;

const STYLE: &str = "\
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#334155}
.page{fill:#ffffff}
.title{font-size:15px;font-weight:bold;fill:#0f172a}
.name{font-size:14px;font-weight:bold;fill:#0f172a}
.box{stroke-width:1.5}
.container{fill:#eff6ff;stroke:#2563eb}
.process{fill:#f0fdf4;stroke:#16a34a}
.absent{fill:#f8fafc;stroke:#94a3b8;stroke-dasharray:5 4}
.taken{stroke:#dc2626;stroke-width:2.5}
.rule{stroke:#94a3b8;stroke-width:1}
.bad{fill:#b91c1c}
.edge{fill:none;stroke:#64748b;stroke-width:1.5}
.optional{stroke-dasharray:5 4}
.tip{fill:#64748b}
@media (prefers-color-scheme:dark){
text{fill:#cbd5e1}
.page{fill:#0f172a}
.title,.name{fill:#f8fafc}
.container{fill:#172554;stroke:#60a5fa}
.process{fill:#052e16;stroke:#4ade80}
.absent{fill:#1e293b;stroke:#64748b}
.taken{stroke:#f87171}
.rule{stroke:#475569}
.bad{fill:#fca5a5}
.edge{stroke:#94a3b8}
.tip{fill:#94a3b8}
}";

/// Draws it.
pub fn svg(graph: &Graph) -> String {
    let cards: Vec<Card> = graph.services.iter().map(Card::of).collect();
    let sizes: Vec<Size> = cards.iter().map(Card::size).collect();
    let edges = edges(graph);
    let ends: Vec<(usize, usize)> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let layout = lay_out(&sizes, &ends);
    let title = shortened(&graph.project, 60);
    let legend = legend_width();
    let content = layout.width.max(legend).max(width(&title, 9));
    let (wide, high) = (
        content + 2 * MARGIN,
        layout.height + 2 * MARGIN + HEAD + FOOT,
    );
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" \
         viewBox=\"0 0 {wide} {high}\" role=\"img\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"wharf-tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" \
         markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
         <path class=\"tip\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect class=\"page\" width=\"{wide}\" height=\"{high}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}</text>\n\
         <g transform=\"translate({MARGIN} {})\">\n",
        escaped(&format!("Services of {}", graph.project)),
        MARGIN + 14,
        escaped(&title),
        MARGIN + HEAD,
    );
    let rows = rows(&edges, &layout);
    for (number, edge) in edges.iter().enumerate() {
        draw_edge(&mut text, edge, number, &rows, &cards, &layout);
    }
    for (number, card) in cards.iter().enumerate() {
        if let Some(place) = layout.places.get(number) {
            let own: Vec<&str> = rows
                .iter()
                .filter(|(from, _)| *from == number)
                .flat_map(|(_, numbers)| numbers)
                .filter_map(|number| edges.get(*number))
                .map(|edge| edge.row.as_str())
                .collect();
            card.draw(&mut text, place, &own);
        }
    }
    text += "</g>\n";
    draw_legend(&mut text, high - MARGIN);
    text += "</svg>\n";
    text
}

/// A dependency, between the numbers of services.
struct Drawn {
    from: usize,
    to: usize,
    /// Its line in the box it starts from.
    row: String,
    title: String,
    is_optional: bool,
}

fn edges(graph: &Graph) -> Vec<Drawn> {
    let number_of = |name: &str| graph.services.iter().position(|node| node.name == name);
    let mut edges = Vec::new();
    for (from, node) in graph.services.iter().enumerate() {
        for edge in &node.depends_on {
            if let Some(to) = number_of(&edge.service) {
                edges.push(Drawn {
                    from,
                    to,
                    row: row(&edge.service, &edge.words()),
                    title: format!("{} needs {}: {}", node.name, edge.service, edge.words()),
                    is_optional: edge.optional,
                });
            }
        }
    }
    edges
}

/// A dependency's line.
fn row(service: &str, words: &str) -> String {
    format!("{}: {words}", shortened(service, 24))
}

/// The edges of every box, from top to bottom by where they lead: fewer of them cross.
fn rows(edges: &[Drawn], layout: &Layout) -> Vec<(usize, Vec<usize>)> {
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for (number, edge) in edges.iter().enumerate() {
        match rows.last_mut() {
            Some((from, numbers)) if *from == edge.from => numbers.push(number),
            _ => rows.push((edge.from, vec![number])),
        }
    }
    let heads_for = |number: &usize| {
        let pass = layout.passes.get(*number).and_then(|passes| passes.first());
        let to = edges
            .get(*number)
            .and_then(|edge| layout.places.get(edge.to));
        pass.map(|pass| pass.y).or_else(|| to.map(Place::middle))
    };
    for (_, numbers) in &mut rows {
        numbers.sort_by_key(heads_for);
    }
    rows
}

fn draw_edge(
    text: &mut String,
    edge: &Drawn,
    number: usize,
    rows: &[(usize, Vec<usize>)],
    cards: &[Card],
    layout: &Layout,
) {
    let (Some(from), Some(to), Some(card)) = (
        layout.places.get(edge.from),
        layout.places.get(edge.to),
        cards.get(edge.from),
    ) else {
        return;
    };
    let position = rows
        .iter()
        .find(|(from, _)| *from == edge.from)
        .and_then(|(_, numbers)| (0..).zip(numbers).find(|(_, other)| **other == number))
        .map_or(0, |(position, _)| position);
    let mut at = (
        from.x + from.width,
        from.y + card.rows_from() + position * LINE - LINE / 3,
    );
    let mut path = format!("M{} {}", at.0, at.1);
    let mut curve = |to: (i64, i64)| {
        let turn = at.0.midpoint(to.0);
        let _ = write!(path, "C{turn} {} {turn} {} {} {}", at.1, to.1, to.0, to.1);
        at = to;
    };
    for Pass { left, right, y } in layout.passes.get(number).into_iter().flatten() {
        curve((*left, *y));
        curve((*right, *y));
    }
    curve((to.x - 1, to.middle()));
    let kind = if edge.is_optional { " optional" } else { "" };
    let _ = writeln!(
        text,
        "<path class=\"edge{kind}\" d=\"{path}\" marker-end=\"url(#wharf-tip)\"><title>{}</title></path>",
        escaped(&edge.title)
    );
}

/// The lines of one box.
struct Card {
    name: String,
    title: String,
    class: &'static str,
    is_taken: bool,
    /// Text, and whether it is bad news.
    lines: Vec<(String, bool)>,
    dependencies: i64,
    /// The longest line of dependencies.
    longest_row: usize,
}

impl Card {
    fn of(node: &Node) -> Self {
        let mut lines = vec![(
            match node.state.as_str() {
                "-" => node.placed(),
                state if node.backend.is_none() => state.to_owned(),
                state => format!("{} · {state}", node.placed()),
            },
            false,
        )];
        for port in node.ports.iter().take(PORTS) {
            let taken = port.state.is_conflict();
            lines.push((port.words(), taken));
            if taken {
                lines.push((format!("  {}", port.conflict()), true));
            }
        }
        if node.ports.len() > PORTS {
            lines.push((format!("and {} more", node.ports.len() - PORTS), false));
        }
        if !node.networks.is_empty() {
            lines.push((format!("in {}", node.networks.join(", ")), false));
        }
        let title = std::iter::once(node.name.clone())
            .chain(lines.iter().map(|(line, _)| line.clone()))
            .collect::<Vec<_>>()
            .join("\n");
        for (line, _) in &mut lines {
            *line = shortened(line, LONGEST);
        }
        let rows = node
            .depends_on
            .iter()
            .map(|edge| row(&edge.service, &edge.words()).chars().count());
        Self {
            name: shortened(&node.name, LONGEST - 6),
            title,
            class: match node.backend {
                Some(BackendKind::Container) => "container",
                Some(BackendKind::Process) => "process",
                None => "absent",
            },
            is_taken: node.ports.iter().any(|port| port.state.is_conflict()),
            lines,
            dependencies: i64::try_from(node.depends_on.len()).unwrap_or_default(),
            longest_row: rows.max().unwrap_or_default(),
        }
    }

    fn size(&self) -> Size {
        let lines = self.lines.iter().map(|(line, _)| width(line, 7));
        let row = i64::try_from(self.longest_row).unwrap_or_default() * 29 / 4;
        let widest = lines.chain([width(&self.name, 8), row]).max();
        let rows = if self.dependencies > 0 {
            self.dependencies * LINE + LINE / 2
        } else {
            0
        };
        Size {
            width: widest.unwrap_or_default() + 2 * PADDING,
            height: self.rows_from() - LINE + LINE / 3 + rows,
        }
    }

    /// The baseline of the first dependency, from the top of the box.
    fn rows_from(&self) -> i64 {
        let lines = i64::try_from(self.lines.len()).unwrap_or_default();
        PADDING + 12 + lines * LINE + LINE + LINE / 2
    }

    fn draw(&self, text: &mut String, place: &Place, rows: &[&str]) {
        let Place {
            x,
            y,
            width,
            height,
        } = place;
        let taken = if self.is_taken { " taken" } else { "" };
        let left = x + PADDING;
        let mut line = y + PADDING + 12;
        // Processes are rounder, for those who do not see the colours.
        let round = if self.class == "process" { 14 } else { 3 };
        let _ = write!(
            text,
            "<g class=\"service\"><title>{}</title>\
             <rect class=\"box {}{taken}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{round}\"/>\
             <text class=\"name\" x=\"{left}\" y=\"{line}\">{}</text>",
            escaped(&self.title),
            self.class,
            escaped(&self.name),
        );
        for (words, is_bad) in &self.lines {
            line += LINE;
            let class = if *is_bad { " class=\"bad\"" } else { "" };
            let _ = write!(
                text,
                "<text{class} x=\"{left}\" y=\"{line}\" xml:space=\"preserve\">{}</text>",
                escaped(words)
            );
        }
        if !rows.is_empty() {
            let rule = line + LINE / 2;
            let _ = write!(text, "<path class=\"rule\" d=\"M{x} {rule}h{width}\"/>");
            line = y + self.rows_from();
            for row in rows {
                let _ = write!(
                    text,
                    "<text x=\"{left}\" y=\"{line}\">{}</text>",
                    escaped(row)
                );
                line += LINE;
            }
        }
        *text += "</g>\n";
    }
}

/// What colours and lines mean.
const LEGEND: [(&str, &str); 4] = [
    ("box container", "container"),
    ("box process", "process"),
    ("box absent", "not enabled"),
    ("box container taken", "a port is taken"),
];

fn legend_width() -> i64 {
    LEGEND
        .iter()
        .map(|(_, words)| 24 + width(words, 7) + 20)
        .sum::<i64>()
        + 24
        + width("optional", 7)
}

fn draw_legend(text: &mut String, y: i64) {
    let mut x = MARGIN;
    let top = y - 11;
    for (class, words) in LEGEND {
        let round = if class.contains("process") { 6 } else { 2 };
        let _ = writeln!(
            text,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"16\" height=\"12\" rx=\"{round}\"/>\
             <text x=\"{}\" y=\"{y}\">{words}</text>",
            x + 24,
        );
        x += 24 + width(words, 7) + 20;
    }
    let _ = writeln!(
        text,
        "<path class=\"rule optional\" d=\"M{x} {}h18\"/><text x=\"{}\" y=\"{y}\">optional</text>",
        y - 4,
        x + 24,
    );
}

/// How wide a text is in a monospaced font whose letters are so many units and a quarter wide.
fn width(text: &str, letter: i64) -> i64 {
    let count = i64::try_from(text.chars().count()).unwrap_or_default();
    count * (letter * 4 + 1) / 4
}

/// For text and attributes of XML 1.0, which has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            '\n' => safe.push('\n'),
            character
                if character.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&character) =>
            {
                safe.push(' ');
            }
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::tests::{any_graph, node, shop};
    use super::*;

    /// Whether elements are nested properly, attributes quoted, and nothing is left unescaped; the reason if
    /// not.
    fn fault(text: &str) -> Option<String> {
        nested(text).err()
    }

    fn nested(text: &str) -> Result<(), String> {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            let (words, tag) = rest.split_at(start);
            entities(words)?;
            let (tag, after) = tag.split_once('>').ok_or("a tag does not end")?;
            let inside = &tag[1..];
            rest = after;
            if let Some(name) = inside.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("</{name}> closes nothing"));
                }
                continue;
            }
            let name = inside.split([' ', '/']).next().unwrap_or_default();
            let attributes = inside[name.len()..].trim_end_matches('/');
            let parts: Vec<&str> = attributes.split('"').collect();
            if parts.len().is_multiple_of(2) {
                return Err(format!("attributes of <{inside}>"));
            }
            for (index, part) in parts.iter().enumerate() {
                let (part, is_name) = (part.trim(), index % 2 == 0);
                if is_name && !(part.is_empty() || part.ends_with('=')) {
                    return Err(format!("`{part}` in <{inside}>"));
                }
                entities(part)?;
            }
            if !inside.ends_with('/') {
                open.push(name);
            }
        }
        if open.is_empty() {
            Ok(())
        } else {
            Err(format!("{open:?} are left open"))
        }
    }

    fn entities(words: &str) -> Result<(), String> {
        for rest in words.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
            if !known.iter().any(|entity| rest.starts_with(entity)) {
                return Err(format!("`&{rest}`"));
            }
        }
        Ok(())
    }

    #[test]
    fn a_stack_is_a_picture() {
        let text = svg(&shop());
        assert_eq!(fault(&text), None, "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_check_of_the_tests_finds_faults() {
        for text in [
            "<a><b></a>",
            "<a",
            "<a x=\"1></a>",
            "<a>&x</a>",
            "<a b></a>",
            "<a>",
        ] {
            assert!(fault(text).is_some(), "{text}");
        }
        assert_eq!(fault("<a x=\"1\"><b/>t &lt; &amp;</a>\n"), None);
    }

    #[test]
    fn names_are_escaped_and_shortened() {
        let name = format!("</text><script>alert('{}')", "x".repeat(200));
        let mut graph = shop();
        graph.services.push(node(&name, &[("db", "healthy")]));
        let text = svg(&graph);
        assert_eq!(fault(&text), None, "{text}");
        assert!(!text.contains("<script"), "{text}");
    }

    #[test]
    fn nothing_is_fetched() {
        let text = svg(&shop());
        let without_name = text.replace("http://www.w3.org/2000/svg", "");
        for word in ["http", "href", "@import", "<script", "url(http"] {
            assert!(!without_name.contains(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn it_is_well_formed_whatever_the_names_are(graph in any_graph()) {
            let text = svg(&graph);
            prop_assert_eq!(fault(&text), None, "{}", text);
        }
    }
}
