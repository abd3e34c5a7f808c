//! Which containers are on their way to their end: the engine was asked to stop them, perhaps by a command that was
//! cut off since, and does so in its own time. Its lists show them as running; its events tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use super::{Containers, observe};
use crate::backend::BackendError;
use crate::backend::happening::{Happening, Span};

/// How far back a stop may have begun; few grace periods are longer.
const BACK: Duration = Duration::from_mins(1);

/// How long the engine may take to tell. One whose clock is behind ours would go on until it is no more.
const PATIENCE: Duration = Duration::from_millis(250);

/// What is asked for. Nothing starts that has not ended, so a start tells nothing that its end did not; and where a
/// stack has just come up, there is one for each container.
const ACTIONS: [&str; 3] = ["kill", "die", "stop"];

/// Signals that end a container, as events have them: KILL, TERM.
const ENDING: [&str; 2] = ["9", "15"];

/// Those that do where they are the container's own stop signal; elsewhere they are for a reload, a dump of threads,
/// a log.
const OWN: [(&str, &str); 6] = [
    ("1", "HUP"),
    ("2", "INT"),
    ("3", "QUIT"),
    ("10", "USR1"),
    ("12", "USR2"),
    ("28", "WINCH"),
];

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
        let mut told = std::pin::pin!(self.happenings_of(project, span, &ACTIONS).await?);
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
        let mut found = BTreeSet::new();
        for (id, signal) in ending(&all) {
            if ENDING.contains(&signal) || self.stops_by(id, signal).await {
                found.insert(id.to_owned());
            }
        }
        Ok(found)
    }

    /// Whether a signal, as events have it, is a container's own stop signal.
    async fn stops_by(&self, id: &str, signal: &str) -> bool {
        let Ok(engine) = self.engine().await else {
            return false;
        };
        let inspected = observe::inspect(engine, id).await;
        let Ok(Some(inspected)) = inspected else {
            return false;
        };
        let own = inspected.config.stop_signal.to_ascii_uppercase();
        let own = own.strip_prefix("SIG").unwrap_or(&own);
        own == signal || OWN.contains(&(signal, own))
    }
}

/// The containers that were last heard to be sent a signal that ends them, or may, with the signal.
fn ending(happenings: &[Happening]) -> BTreeMap<&str, &str> {
    let mut ending = BTreeMap::new();
    for happening in happenings {
        let signal = happening.attributes.get("signal").map(String::as_str);
        match (happening.action.as_str(), signal) {
            // One that surely ends it is not made doubtful by another.
            ("kill", Some(_))
                if ending
                    .get(happening.id.as_str())
                    .is_some_and(|it| ENDING.contains(it)) => {}
            ("kill", Some(signal)) => {
                ending.insert(happening.id.as_str(), signal);
            }
            ("die" | "stop", _) => drop(ending.remove(happening.id.as_str())),
            _ => {}
        }
    }
    ending
}

#[cfg(test)]
mod tests {
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
            told("d", "kill", "15"),
            told("d", "kill", "3"),
        ];
        assert_eq!(
            ending(&all),
            BTreeMap::from([("a", "15"), ("c", "1"), ("d", "15")])
        );
    }
}
