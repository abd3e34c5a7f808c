//! What happens to instances, as `events` tells it: the engine's events, and the same words for processes.
//! Pure data.

use std::collections::BTreeMap;

use crate::state::BackendKind;

/// One thing that happened to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When, in nanoseconds since the Unix epoch.
    pub time: i64,
    /// Where the instance lives.
    pub backend: BackendKind,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Whether it was made by `run`.
    pub one_off: bool,
    /// `create`, `start`, `die`, `health_status: healthy` …
    pub action: String,
    /// More about it: `name`, `image`, `exitCode` …
    pub attributes: BTreeMap<String, String>,
}

/// Which of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Nothing earlier, in nanoseconds since the Unix epoch; `None`: from now on.
    pub since: Option<i64>,
    /// Until then, in nanoseconds since the Unix epoch; `None`: for ever.
    pub until: Option<i64>,
}
