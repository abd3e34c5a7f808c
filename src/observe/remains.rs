//! What an engine may have of a project that is to end: asked only where there is reason to, and of an engine that may
//! be away.

use crate::backend::BackendError;
use crate::backend::router::Backends;
use crate::state::Instance;

/// What is known of a project before its engine is asked.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// The project.
    pub project: &'a str,
    /// Some of its services can be containers, or nobody can say.
    pub may_have_containers: bool,
    /// Instances that are known of are containers.
    pub has_containers: bool,
    /// Relays are among them. Where none is, what knew of them here may be gone.
    pub has_relays: bool,
    /// What nobody knows of is wanted, too.
    pub thoroughly: bool,
}

/// What an engine that answers has beyond what is known.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// Containers of services.
    pub instances: Vec<Instance>,
    /// Relays.
    pub relays: Vec<Instance>,
}

/// Whether an engine that answers may have something of a project, and what of it is not known here. An engine is not
/// waited for where only an earlier version of the files may have left something there.
///
/// # Errors
/// The engine refuses.
pub async fn remains(
    backends: &Backends,
    known: Knowledge<'_>,
) -> Result<Option<Remains>, BackendError> {
    let (processes, containers) = (&backends.processes, &backends.containers);
    let has_traces = processes.has_traces(known.project);
    let is_unknown = known.thoroughly && !known.may_have_containers && !has_traces;
    let answers = if known.may_have_containers || known.has_containers {
        containers.reachable().await.is_ok()
    } else {
        (has_traces || is_unknown) && containers.answers_soon().await
    };
    if !answers {
        return Ok(None);
    }
    let mut found = Remains::default();
    if is_unknown || !known.has_relays {
        let all = containers.outlines(known.project).await?;
        (found.relays, found.instances) = all
            .into_iter()
            .partition(|instance| instance.role().is_some());
        if !is_unknown {
            found.instances.clear();
        }
        if known.has_relays {
            found.relays.clear();
        }
    }
    Ok(Some(found))
}
