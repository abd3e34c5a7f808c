//! Relays that are reached through the engine: for each of their containers a command that runs in it, which is
//! started again when it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::reach::Reach;
use super::stream::Relay;
use super::{Event, say};
use crate::backend::container::Containers;

/// The first and the longest pause before a relay is called again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// One task for each container, by its id.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: BTreeMap<String, Call>,
}

#[derive(Debug)]
struct Call(JoinHandle<()>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Calls {
    /// Keeps up a call to each of these containers, and to no others: their ids, with service and name.
    pub(super) fn set(
        &mut self,
        relays: BTreeMap<String, (String, String)>,
        containers: &Containers,
        events: &UnboundedSender<Event>,
    ) {
        self.open.retain(|id, _| relays.contains_key(id));
        for (id, (service, name)) in relays {
            self.open.entry(id).or_insert_with_key(|id| {
                let call = keep_up(
                    containers.clone(),
                    id.clone(),
                    service,
                    name,
                    events.clone(),
                );
                Call(tokio::spawn(call))
            });
        }
    }
}

async fn keep_up(
    containers: Containers,
    id: String,
    service: String,
    name: String,
    events: UnboundedSender<Event>,
) {
    let mut pause = PAUSES.0;
    let mut said = String::new();
    loop {
        match Relay::open(&containers, &id, &name).await {
            Ok(relay) => {
                pause = PAUSES.0;
                said.clear();
                let met = Event::Met {
                    service: service.clone(),
                    reach: Reach::Stream(relay.clone()),
                };
                if events.send(met).is_err() {
                    return;
                }
                relay.gone().await;
            }
            Err(error) => {
                // Once for each trouble, however long it lasts.
                let text = error.to_string();
                if text != said {
                    say(format_args!(
                        "the relay of {service} cannot be reached: {text}"
                    ));
                    said = text;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
