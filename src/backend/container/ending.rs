//! Which containers are on their way to their end: the engine was asked to stop them, perhaps by a command that was
//! cut off since, and does so in its own time. Its lists show them as running; its events tell.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use super::Containers;
use crate::backend::BackendError;
use crate::backend::happening::{Happening, Span};

/// How far back a stop may have begun; few grace periods are longer.
const BACK: Duration = Duration::from_mins(1);

/// How long the engine may take to tell. One whose clock is behind ours would go on until it is no more.
const PATIENCE: Duration = Duration::from_millis(250);

/// Signals that end a container, as events have them: INT, QUIT, KILL, TERM. Others are often for a reload.
const ENDING: [&str; 4] = ["2", "3", "9", "15"];

impl Containers {
    /// The containers of a project that are about to end, by id.
    ///
    /// # Errors
    /// When the engine does not answer, or refuses.
    pub async fn about_to_end(&self, project: &str) -> Result<BTreeSet<String>, BackendError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let span = Span {
            since: Some(nanoseconds(now.saturating_sub(BACK))),
            until: Some(nanoseconds(now)),
        };
        let mut told = std::pin::pin!(self.happenings(project, span).await?);
        let mut all = Vec::new();
        // What has not been told by then is left out, as is the rest after something unreadable.
        drop(
            tokio::time::timeout(PATIENCE, async {
                while let Some(Ok(happening)) = told.next().await {
                    all.push(happening);
                }
            })
            .await,
        );
        Ok(ending(&all).into_iter().map(str::to_owned).collect())
    }
}

/// The containers that were last heard to be sent a signal that ends them.
fn ending(happenings: &[Happening]) -> BTreeSet<&str> {
    let mut ending = BTreeSet::new();
    for happening in happenings {
        let signal = happening.attributes.get("signal").map(String::as_str);
        match happening.action.as_str() {
            "kill" if signal.is_some_and(|signal| ENDING.contains(&signal)) => {
                ending.insert(happening.id.as_str());
            }
            "die" | "stop" | "start" | "restart" => drop(ending.remove(happening.id.as_str())),
            _ => {}
        }
    }
    ending
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::state::BackendKind;

    fn told(id: &str, action: &str, signal: &str) -> Happening {
        Happening {
            time: 0,
            backend: BackendKind::Container,
            id: id.to_owned(),
            name: id.to_owned(),
            service: id.to_owned(),
            one_off: false,
            action: action.to_owned(),
            attributes: BTreeMap::from([("signal".to_owned(), signal.to_owned())]),
        }
    }

    #[test]
    fn what_was_told_to_end_and_has_not_is_ending() {
        let all = [
            told("a", "start", ""),
            told("a", "kill", "15"),
            told("b", "kill", "15"),
            told("b", "die", ""),
            told("b", "start", ""),
            told("c", "kill", "1"),
        ];
        assert_eq!(ending(&all), BTreeSet::from(["a"]));
    }
}
