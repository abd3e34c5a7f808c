//! Waiting for the end of an instance, wherever it lives.

use crate::backend::BackendError;
use crate::backend::router::Backends;
use crate::state::{BackendKind, Instance};

impl Backends {
    /// Waits until an instance has ended; its exit code.
    pub async fn ended(&self, instance: &Instance) -> Result<i32, BackendError> {
        match instance.backend {
            BackendKind::Container => {
                self.containers
                    .wait_end(&instance.id.0, &instance.name)
                    .await
            }
            BackendKind::Process => {
                self.processes
                    .wait_end(&instance.project, &instance.name, &instance.id)
                    .await
            }
        }
    }
}
