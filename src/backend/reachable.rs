//! Waiting until containers reach local services by their names, which both backends have a part in: the forwarder
//! says when they do, and relays are containers.

use std::time::Duration;

use crate::backend::BackendError;
use crate::backend::process::NamesWanted;
use crate::backend::router::Backends;

/// How often it is looked whether the relays that are waited for still run.
const GLANCE: Duration = Duration::from_millis(500);

impl Backends {
    /// Returns when containers reach these local services.
    ///
    /// A relay may end although it was seen running: by a stop that a command had asked the engine for before it
    /// was cut off. No restart policy covers that, so it is started again here. One that runs and does not come is the
    /// forwarder's to mend.
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
        loop {
            tokio::select! {
                outcome = &mut waiting => return outcome,
                () = tokio::time::sleep(GLANCE) => {
                    self.containers.rouse_relays(project, services).await?;
                }
            }
        }
    }
}
