//! The one renderer of errors: heading, place with its source line, causes, details, hints.

use std::io::Write as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::error::Error;
use crate::project::diagnostic::{Diagnostic, Severity};
use crate::ui::{BAD, DIM, NAME};

/// Prints an error to stderr.
pub fn error(error: &Error) {
    if error.is_silent() {
        return;
    }
    let mut out = anstream::stderr().lock();
    if error.diagnostics.is_empty() {
        drop(writeln!(out, "{BAD}error:{BAD:#} {}", error.source));
        let mut cause = error.source.source();
        while let Some(source) = cause {
            drop(writeln!(out, "  caused by: {source}"));
            cause = source.source();
        }
    } else {
        for finding in &error.diagnostics {
            drop(writeln!(out, "{}", rendered(finding)));
        }
    }
    for detail in &error.details {
        drop(writeln!(out, "  {DIM}|{DIM:#} {detail}"));
    }
    for hint in error.advice() {
        drop(writeln!(out, "{NAME}hint:{NAME:#} {hint}"));
    }
}

/// Prints an error to stderr as an object, in Docker Compose's form; what it does not have are `details` and
/// `hints`.
pub fn object(error: &Error) {
    if error.is_silent() {
        return;
    }
    let mut message = error.source.to_string();
    let mut cause = error.source.source();
    while let Some(source) = cause {
        message = format!("{message}: {source}");
        cause = source.source();
    }
    let (mut details, mut hints) = (error.details.clone(), error.advice());
    if !error.diagnostics.is_empty() {
        let titles: Vec<String> = error.diagnostics.iter().map(title).collect();
        message = titles.join("\n");
        for finding in &error.diagnostics {
            details.extend(finding.place.as_ref().map(|place| {
                let (line, column) = place.line_and_column();
                format!("{}:{line}:{column}", place.source.path.display())
            }));
            hints.extend(finding.hint.clone());
        }
    }
    let mut object = serde_json::json!({ "error": true, "message": message });
    for (key, lines) in [("details", details), ("hints", hints)] {
        if !lines.is_empty() {
            object[key] = serde_json::json!(lines);
        }
    }
    drop(writeln!(anstream::stderr(), "{object}"));
}

/// Prints a finding to stderr.
pub fn diagnostic(finding: &Diagnostic) {
    drop(writeln!(anstream::stderr(), "{}", rendered(finding)));
}

fn title(finding: &Diagnostic) -> String {
    if finding.key.is_empty() {
        finding.message.clone()
    } else {
        format!("{}: {}", finding.key, finding.message)
    }
}

/// A finding as text, with escape codes.
pub fn rendered(finding: &Diagnostic) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(title(finding)));
    let path = finding
        .place
        .as_ref()
        .map(|place| place.source.path.display().to_string());
    if let (Some(place), Some(path)) = (&finding.place, &path) {
        let end = place.end.max(place.start).min(place.source.text.len());
        let start = place.start.min(end);
        let mut mark = AnnotationKind::Primary.span(start..end);
        if !finding.label.is_empty() {
            mark = mark.label(&finding.label);
        }
        group = group.element(
            Snippet::source(place.source.text.as_str())
                .path(path.as_str())
                .annotation(mark),
        );
    }
    for note in &finding.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    if let Some(hint) = &finding.hint {
        group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
    }
    Renderer::styled().render(&[group])
}
