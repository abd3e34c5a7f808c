//! What stands in the files and is not done, or has no effect: said once, where something is made or started.

use crate::plan::decide::Decided;
use crate::plan::pre_start::{is_first_run, preparations};
use crate::plan::up::Planner;
use crate::project::model::{Project, StoreMount, StoreSource};
use crate::state::BackendKind;

impl Planner<'_> {
    /// Says so of every service that is concerned.
    pub(super) fn without_effect(&mut self) {
        let project = self.inputs.project;
        let renewed = self.decided.iter();
        for (name, decided) in renewed.filter(|(_, decided)| decided.renews()) {
            let notes = [
                unheard(decided),
                unprepared(project, decided),
                unowned(project, decided),
            ];
            for note in notes.into_iter().flatten() {
                self.plan.notes.push(format!("service `{name}`: {note}"));
            }
        }
    }
}

fn unheard(decided: &Decided<'_>) -> Option<String> {
    let all = &decided.service.unheard;
    (!all.is_empty()).then(|| {
        let verb = if all.len() > 1 { "have" } else { "has" };
        format!("{} {verb} no effect here", all.join(", "))
    })
}

/// The commands of `pre_start` that are for another image.
fn unprepared(project: &Project, decided: &Decided<'_>) -> Option<String> {
    if !is_first_run(decided) {
        return None;
    }
    let all = preparations(project, &decided.service);
    let left_out = all.iter().filter(|it| !it.runs_as(decided.backend)).count();
    (left_out > 0).then(|| {
        format!(
            "{left_out} of its pre_start commands are for an image of their own, so they are not run for a local \
             process"
        )
    })
}

/// Secrets and configs with an owner or permissions of their own that are files of the host: those are bound into the
/// container as they are.
fn unowned(project: &Project, decided: &Decided<'_>) -> Option<String> {
    if decided.backend != BackendKind::Container {
        return None;
    }
    let service = &decided.service;
    let of = |mount: &StoreMount, what: &str| {
        let stores = if what == "secret" {
            &project.secrets
        } else {
            &project.configs
        };
        let store = stores.get(&mount.source)?;
        let is_owned = mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
        (is_owned && matches!(store.source, StoreSource::File(_)))
            .then(|| format!("{what} `{}`", mount.source))
    };
    let secrets = service.secrets.iter().filter_map(|it| of(it, "secret"));
    let configs = service.configs.iter().filter_map(|it| of(it, "config"));
    let all: Vec<String> = secrets.chain(configs).collect();
    (!all.is_empty()).then(|| {
        format!(
            "uid, gid and mode of {} have no effect: a file of this machine is bound into the container as it is",
            all.join(", ")
        )
    })
}
