//! The stack as a picture: one model, drawn as a text tree, as Mermaid and as SVG. Pure: what is known comes in,
//! text goes out.

mod layout;
mod mermaid;
mod model;
mod svg;
mod tree;

pub use mermaid::mermaid;
pub use model::{Edge, Graph, Node, PortLine, PortState};
pub use svg::svg;
pub use tree::tree;

/// Shortens a text to so many characters, the last of which then says that there was more.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}
