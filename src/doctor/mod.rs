//! WHAT THIS MACHINE CAN DO: facts are gathered, findings made from them, and a project held against them.
//!
//! `gather` is the only part with effects, and they are gone when it returns; `findings` and `needs` are pure, so
//! that a machine that nobody has here is a value in a test.

pub mod api;
pub mod facts;
pub mod findings;
pub mod gather;
pub mod needs;

use serde::Serialize;

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it stands.
    pub state: State,
    /// What it means here.
    pub detail: String,
    /// What to do about it: a command to paste, or a line for a file. Always there unless the state is `ok`.
    pub hint: Option<String>,
    /// The services of the project that need it; empty: it is about the machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All there.
    Ok,
    /// It works, with less.
    Reduced,
    /// Not there.
    Missing,
}

impl State {
    /// Its word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Reduced => "reduced",
            Self::Missing => "missing",
        }
    }
}

impl Finding {
    /// All is well.
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            state: State::Ok,
            detail: detail.into(),
            hint: None,
            services: Vec::new(),
        }
    }

    /// It works, with less.
    pub fn reduced(
        check: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Reduced,
            hint: Some(hint.into()),
            ..Self::ok(check, detail)
        }
    }

    /// It is not there.
    fn missing(
        check: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Missing,
            ..Self::reduced(check, detail, hint)
        }
    }

    fn of(mut self, services: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.services = services.into_iter().map(Into::into).collect();
        self
    }
}
