//! What changed files ask for, less what is put off because it would be done again and again.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::watch::batch::Changes;
use crate::watch::pace::{LONGEST, Pace, Step};
use crate::watch::rules::{Rule, Work, work};

/// What is put off.
pub(super) struct Backlog {
    began: Instant,
    pace: Pace,
    later: Work,
}

impl Backlog {
    /// With nothing in it.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            pace: Pace::default(),
            later: Work::default(),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What is to be done now for these changes, and what is to be said about the rest.
    pub(super) fn sift(&mut self, rules: &[Rule], changes: &Changes) -> (Work, Vec<String>) {
        let now = self.now();
        let mut todo = work(rules, changes);
        let mut lines = Vec::new();
        let renewed: Vec<String> = todo.restart.union(&todo.rebuild).cloned().collect();
        for service in renewed {
            let Step::Later { first_after } = self.pace.changed(&service, now) else {
                continue;
            };
            if let Some(times) = first_after {
                lines.push(format!(
                    "{service}: {times} restarts in a row, each followed at once by a change of {}: if a service writes that (a log, a database), name it in `ignore`; until it rests, restarts of {service} wait for up to {} s",
                    cause(rules, changes, &service),
                    LONGEST.as_secs()
                ));
            }
            if todo.rebuild.remove(&service) {
                self.later.restart.remove(&service);
                self.later.rebuild.insert(service);
            } else if todo.restart.remove(&service) && !self.later.rebuild.contains(&service) {
                self.later.restart.insert(service);
            }
        }
        (todo, lines)
    }

    /// What was put off, when it is due.
    pub(super) async fn due(&mut self) -> Work {
        match self.pace.due_at() {
            Some(due) => sleep_until(self.began + due).await,
            None => pending().await,
        }
        let due = self.pace.due(self.now());
        let mut todo = Work::default();
        for (later, now) in [
            (&mut self.later.restart, &mut todo.restart),
            (&mut self.later.rebuild, &mut todo.rebuild),
        ] {
            now.extend(later.extract_if(.., |service| due.contains(service)));
        }
        todo
    }

    /// These services have been started anew.
    pub(super) fn done(&mut self, services: &[String]) {
        let now = self.now();
        for service in services {
            self.pace.started(service, now);
        }
    }
}

/// What has changed for a service, by one path.
fn cause(rules: &[Rule], changes: &Changes, service: &str) -> String {
    let concerns = |(path, change): &(_, _)| {
        let alone = Changes::from([(Clone::clone(*path), Clone::clone(*change))]);
        let work = work(rules, &alone);
        work.restart.contains(service) || work.rebuild.contains(service)
    };
    let mut causes = changes.iter().filter(concerns);
    causes.next().map_or_else(
        || "something".to_owned(),
        |(path, _)| path.display().to_string(),
    )
}
