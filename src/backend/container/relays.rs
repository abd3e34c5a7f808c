//! What the engine offers to relays: whether it shares this machine's files, and the image they are made of.

use std::{fs, io};

use bollard::query_parameters::RestartContainerOptionsBuilder;

use super::reply::Info;
use super::{Containers, RelayImage, start};
use crate::backend::BackendError;
use crate::naming::{Reach, Role};
use crate::state::{Instance, Status};

/// Set to `socket` or `stream`, it decides how relays are reached.
const ASKED: &str = "WHARF_RELAY";

/// What relays need to know of the engine.
#[derive(Clone, Debug)]
pub struct Relays {
    /// How they can be reached.
    pub reach: Reach,
    /// The engine's address.
    pub endpoint: String,
    /// The image to make them of.
    pub image: String,
}

impl Containers {
    /// Finds out how relays can be reached.
    ///
    /// # Errors
    /// The engine does not answer, or this executable cannot be read.
    pub async fn relays(&self) -> Result<Relays, BackendError> {
        let engine = self.engine().await?;
        let reach = match self.shared.env.get(ASKED) {
            Some("socket") => Reach::Socket,
            Some("stream") => Reach::Stream,
            Some(_) | None if engine.info.endpoint.starts_with("unix://") => {
                let info: Info = engine
                    .get("/info")
                    .await
                    .map_err(|error| engine.refused("describe itself", error))?;
                reach(&info)
            }
            Some(_) | None => Reach::Stream,
        };
        let image = RelayImage::own().map_err(unreadable)?;
        Ok(Relays {
            reach,
            endpoint: engine.info.endpoint.clone(),
            image: image.name().to_owned(),
        })
    }

    /// Starts those relays of these services again that have ended.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn rouse_relays(
        &self,
        project: &str,
        services: &[String],
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        for relay in self.relays_of(project, services).await? {
            if matches!(relay.status, Status::Exited { .. }) {
                start::container(engine, &relay.id.0, &relay.name).await?;
            }
        }
        Ok(())
    }

    async fn relays_of(
        &self,
        project: &str,
        services: &[String],
    ) -> Result<Vec<Instance>, BackendError> {
        let mut all = self.outlines(project).await?;
        all.retain(|it| it.role() == Some(Role::Relay) && services.contains(&it.service));
        Ok(all)
    }

    /// Restarts the running relays of these services, which mounts their directories anew.
    ///
    /// # Errors
    /// As [`Containers::rouse_relays`].
    pub async fn restart_relays(
        &self,
        project: &str,
        services: &[String],
    ) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        for relay in self.relays_of(project, services).await? {
            if relay.status == Status::Running {
                let options = RestartContainerOptionsBuilder::new().t(1).build();
                let restarted = engine
                    .docker
                    .restart_container(&relay.id.0, Some(options))
                    .await;
                restarted
                    .map_err(|error| engine.refused(format!("restart {}", relay.name), error))?;
            }
        }
        Ok(())
    }
}

/// A failure to look at the executable that relays run.
pub(super) fn unreadable(source: io::Error) -> BackendError {
    BackendError::State {
        action: "cannot look at wharf's own executable".to_owned(),
        source,
    }
}

/// A socket may lead into a virtual machine, a container or to another machine: then the engine does not have our
/// files. With user namespaces of its own it could not open what is only for us.
fn reach(info: &Info) -> Reach {
    let own = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let same = |said: &str, path: &str| !said.is_empty() && said == own(path).trim();
    let apart = info
        .security_options
        .iter()
        .any(|option| option.contains("name=rootless") || option.contains("name=userns"));
    let here = same(&info.kernel_version, "/proc/sys/kernel/osrelease")
        && same(&info.name, "/proc/sys/kernel/hostname");
    if here && !apart {
        Reach::Socket
    } else {
        Reach::Stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_of_this_machine_shares_files() {
        let own = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
        let here = || Info {
            kernel_version: own("/proc/sys/kernel/osrelease"),
            name: own("/proc/sys/kernel/hostname"),
            ..Info::default()
        };
        assert_eq!(reach(&here()), Reach::Socket);
        let rootless = Info {
            security_options: vec!["name=seccomp".to_owned(), "name=rootless".to_owned()],
            ..here()
        };
        assert_eq!(reach(&rootless), Reach::Stream);
        let elsewhere = Info {
            name: "docker-desktop".to_owned(),
            ..here()
        };
        assert_eq!(reach(&elsewhere), Reach::Stream);
        assert_eq!(reach(&Info::default()), Reach::Stream);
    }
}
