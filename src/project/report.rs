//! Collects what a load finds wrong, so that all of it is told at once.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::diagnostic::{Diagnostic, Severity};
use super::tree::Node;

/// How many findings are told; the others are only counted.
const LIMIT: usize = 100;

/// The findings so far, each once.
#[derive(Debug, Default)]
pub(crate) struct Report {
    found: Vec<Diagnostic>,
    seen: BTreeSet<(String, String, usize)>,
    errors: usize,
    untold: usize,
}

impl Report {
    /// Adds a finding, unless it was made already.
    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        if self.is_full() {
            self.untold += 1;
            self.errors += usize::from(diagnostic.severity == Severity::Error);
            return;
        }
        let start = diagnostic.place.as_ref().map_or(0, |place| place.start);
        if !self
            .seen
            .insert((diagnostic.message.clone(), diagnostic.key.clone(), start))
        {
            return;
        }
        if diagnostic.severity == Severity::Error {
            self.errors += 1;
        }
        self.found.push(diagnostic);
    }

    /// An error about a value.
    pub(crate) fn error(&mut self, node: &Node, key: impl Display, message: impl Into<String>) {
        self.add(
            Diagnostic::error(message)
                .at(node.place())
                .key(key.to_string()),
        );
    }

    /// Whether further findings are only counted, so that they need no words.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= LIMIT
    }

    /// How many errors there are.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// The findings, in reading order: those without a place first, then by file and line.
    pub(crate) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found;
        let mut files = Vec::new();
        for diagnostic in &found {
            if let Some(place) = &diagnostic.place
                && !files.contains(&place.source.path)
            {
                files.push(place.source.path.clone());
            }
        }
        found.sort_by_key(|diagnostic| {
            diagnostic.place.as_ref().map(|place| {
                let file = files.iter().position(|path| *path == place.source.path);
                (file, place.start)
            })
        });
        if self.untold > 0 {
            found.push(Diagnostic {
                severity: if self.errors > 0 {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                ..Diagnostic::error(format!("{} more of this kind are not shown", self.untold))
            });
        }
        found
    }
}
