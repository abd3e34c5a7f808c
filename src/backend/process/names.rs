//! Asking the forwarder.

use super::Processes;
use crate::backend::BackendError;

impl Processes {
    /// Returns when the forwarder has caught up with the ledger and the engine.
    pub async fn sync_names(
        &self,
        _project: &str,
        _reachable: &[String],
    ) -> Result<(), BackendError> {
        std::future::ready(Ok(())).await
    }
}
