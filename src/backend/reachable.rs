//! Waiting until containers reach local services by their names, which both backends have a part in: the forwarder
//! says when they do, and relays are containers.

use std::time::Duration;

use futures_util::future::join_all;

use crate::backend::BackendError;
use crate::backend::process::NamesWanted;
use crate::backend::router::Backends;

/// How often it is looked whether the relays that are waited for still run.
const GLANCE: Duration = Duration::from_millis(500);

/// After how many looks a relay that runs is taken for one that does not find the forwarder.
const STRANGERS: u32 = 6;

impl Backends {
    /// Returns when containers reach these local services.
    ///
    /// A relay may end although it was seen running: by a stop that a command had asked the engine for before it
    /// was cut off. No restart policy covers that, so it is started again here. One that runs and does not come may
    /// look for the forwarder in a directory that was removed and made again: a restart mounts it anew.
    ///
    /// # Errors
    /// When they do not for some seconds, with what is missing.
    pub async fn await_reachable(
        &self,
        project: &str,
        services: &[String],
    ) -> Result<(), BackendError> {
        if services.is_empty() {
            return Ok(());
        }
        let wanted = NamesWanted {
            reachable: services.to_vec(),
            ..NamesWanted::default()
        };
        let mut waiting = std::pin::pin!(self.processes.sync_names(project, wanted));
        for glance in 1_u32.. {
            tokio::select! {
                outcome = &mut waiting => return outcome,
                () = tokio::time::sleep(GLANCE) => {
                    if glance == STRANGERS {
                        let missing = self.unreachable(project, services).await;
                        self.containers.restart_relays(project, &missing).await?;
                    } else {
                        self.containers.rouse_relays(project, services).await?;
                    }
                }
            }
        }
        waiting.await
    }

    /// Those of these services that containers do not reach now.
    async fn unreachable(&self, project: &str, services: &[String]) -> Vec<String> {
        let asked = services.iter().map(|service| async move {
            let wanted = NamesWanted {
                reachable: vec![service.clone()],
                ..NamesWanted::default()
            };
            let told = self.processes.sync_names(project, wanted);
            let told = tokio::time::timeout(GLANCE, told).await;
            (!matches!(told, Ok(Ok(())))).then(|| service.clone())
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}
