//! Follows the engine: keeps the picture of who is on the project's networks true, over restarts of the engine.
//! While it is away, the picture stays as it was.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::{relay_containers, say};
use crate::backend::container::{Acquaintances, Containers, Neighbourhood};
use crate::backend::{BackendError, in_one_line};

/// The first and the longest pause before an engine that went away is looked for again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What no event tells is seen by then: this machine's own addresses.
const REGULARLY: Duration = Duration::from_mins(1);

/// Somebody who waits for a new look at a set of networks.
struct Ask {
    networks: BTreeSet<String>,
    answer: oneshot::Sender<Result<(), String>>,
}

/// The way to the task that follows the engine.
#[derive(Debug)]
pub(super) struct Engine {
    asks: mpsc::UnboundedSender<Ask>,
    seen: watch::Receiver<Neighbourhood>,
}

impl Engine {
    /// Begins to follow.
    pub(super) fn follow(containers: Containers, project: String) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        let (shown, seen) = watch::channel(Neighbourhood::default());
        let follower = Follower {
            containers,
            project,
            was_away: false,
            acquaintances: Acquaintances::default(),
            networks: BTreeSet::new(),
            asked,
            shown,
        };
        tokio::spawn(follower.follow());
        Self { asks, seen }
    }

    /// The picture as it is.
    pub(super) fn picture(&self) -> Neighbourhood {
        self.seen.borrow().clone()
    }

    /// Returns when the picture has changed.
    pub(super) async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Looks at these networks from now on, and now; tells when the picture is up to date, or why it is not.
    pub(super) fn look(&self, networks: BTreeSet<String>) -> oneshot::Receiver<Result<(), String>> {
        let (answer, answered) = oneshot::channel();
        // The task lives as long as the forwarder.
        drop(self.asks.send(Ask { networks, answer }));
        answered
    }
}

struct Follower {
    containers: Containers,
    project: String,
    /// Whether its events ended since the last look.
    was_away: bool,
    acquaintances: Acquaintances,
    networks: BTreeSet<String>,
    asked: mpsc::UnboundedReceiver<Ask>,
    shown: watch::Sender<Neighbourhood>,
}

impl Follower {
    async fn follow(mut self) {
        let mut pause = PAUSES.0;
        let mut said = false;
        loop {
            match self.attend(&mut pause, &mut said).await {
                // Nobody asks any more.
                Ok(()) => return,
                Err(error) => {
                    self.was_away = true;
                    if !said {
                        say(format_args!("{}", in_one_line(&error)));
                        said = true;
                    }
                    if !self.refuse_for(pause, &error).await {
                        return;
                    }
                }
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Follows one stream of events until it ends, which is an error.
    async fn attend(&mut self, pause: &mut Duration, said: &mut bool) -> Result<(), BackendError> {
        let containers = self.containers.clone();
        let stirrings = containers.stirrings().await?;
        let mut stirrings = std::pin::pin!(stirrings);
        if std::mem::take(&mut self.was_away) {
            self.rouse().await;
        }
        self.look().await?;
        (*pause, *said) = (PAUSES.0, false);
        loop {
            tokio::select! {
                stirring = stirrings.next() => {
                    let ended = || BackendError::State {
                        action: "the engine's events ended".to_owned(),
                        source: std::io::ErrorKind::UnexpectedEof.into(),
                    };
                    stirring.ok_or_else(ended)??;
                    // One look for all that have come by now.
                    while let Some(Some(Ok(()))) = stirrings.next().now_or_never() {}
                    self.look().await?;
                }
                ask = self.asked.recv() => {
                    let Some(ask) = ask else { return Ok(()) };
                    self.networks = ask.networks;
                    let outcome = self.look().await;
                    let told = outcome.as_ref().copied().map_err(|error| in_one_line(error));
                    drop(ask.answer.send(told));
                    outcome?;
                }
                () = tokio::time::sleep(REGULARLY) => self.look().await?,
            }
        }
    }

    /// Starts the project's relays that were there when the engine went away and have ended since. One that was killed
    /// ends what its containers left when it comes back, and takes that for the wish of a user.
    async fn rouse(&self) {
        let relays = relay_containers(&self.shown.borrow(), &self.project);
        let services: Vec<String> = relays.into_values().map(|(service, _)| service).collect();
        if services.is_empty() {
            return;
        }
        // Whatever fails here leaves names as they are: the next command looks again.
        if let Err(error) = self.containers.rouse_relays(&self.project, &services).await {
            say(format_args!("relays stay away: {}", in_one_line(&error)));
        }
    }

    async fn look(&mut self) -> Result<(), BackendError> {
        let found = self
            .containers
            .neighbourhood(&self.networks, &mut self.acquaintances)
            .await?;
        self.shown.send_if_modified(|shown| {
            let is_new = *shown != found;
            if is_new {
                *shown = found;
            }
            is_new
        });
        Ok(())
    }

    /// Tells everybody who asks that there is no engine, for so long; whether anybody may ask again.
    async fn refuse_for(&mut self, pause: Duration, error: &BackendError) -> bool {
        let end = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return true,
                ask = self.asked.recv() => {
                    let Some(ask) = ask else { return false };
                    self.networks = ask.networks;
                    drop(ask.answer.send(Err(in_one_line(error))));
                }
            }
        }
    }
}
