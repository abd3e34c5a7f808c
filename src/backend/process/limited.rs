//! Which limits of a service have no effect, and why. Its control group is made by the project's supervisor, in the place
//! where that is: in another session than this command, perhaps. Looks; makes nothing.

use super::cgroup::{Place, Resources, View, controllers};
use super::dirs::ProjectDir;
use super::meeting;

/// Why they have none where nothing is delegated.
const NOTHING: &str = "no control group (version 2) is delegated to us";

/// Those of an instance that is made now; `None` when all have an effect.
pub(super) fn without_effect(resources: &Resources, dir: &ProjectDir) -> Option<String> {
    let wanted = controllers(&resources.settings());
    if wanted.is_empty() {
        return None;
    }
    let here = View::new().find(&wanted);
    let supervisor = meeting::present(dir);
    let there = supervisor.and_then(|id| Some((id.pid, View::of(id.pid)?.find(&wanted))));
    let there = there.as_ref().map(|(pid, place)| (*pid, place.as_ref()));
    explained(resources, here.as_ref(), there)
}

/// `here` is the place of this command, `there` that of the supervisor with this pid.
fn explained(
    resources: &Resources,
    here: Option<&Place>,
    there: Option<(u32, Option<&Place>)>,
) -> Option<String> {
    let place = there.map_or(here, |(_, place)| place);
    let lost = lost(resources, place);
    if lost.is_empty() {
        return None;
    }
    let why = place.and_then(|place| place.lacks.as_deref());
    let why = match there {
        Some((pid, _)) if self::lost(resources, here).len() < lost.len() => format!(
            "the project's supervisor, pid {pid}, was started where {}; after `wharf down`, `wharf up` starts one here",
            why.unwrap_or(NOTHING)
        ),
        _ => why.map_or_else(
            || format!("{NOTHING}; `wharf doctor` says what helps"),
            str::to_owned,
        ),
    };
    let lost = lost.join(", ");
    Some(format!("these limits have no effect: {lost} ({why})"))
}

/// The attributes of these limits for which a place has no controller.
fn lost(resources: &Resources, place: Option<&Place>) -> Vec<&'static str> {
    let has = |controller| place.is_some_and(|place| place.controllers.contains(controller));
    let mut lost: Vec<&str> = resources
        .settings()
        .iter()
        .filter(|setting| !has(setting.controller))
        .map(|setting| setting.attribute)
        .collect();
    // The swap that a memory limit implies is not something that the service says.
    lost.retain(|name| *name != "memswap_limit" || resources.memory_swap.is_some());
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        Resources {
            nano_cpus: Some(500_000_000),
            memory: Some(1 << 20),
            pids: Some(10),
            ..Resources::default()
        }
    }

    fn place() -> Place {
        Place {
            dir: "/g".into(),
            controllers: ["cpu", "memory", "pids"].into(),
            lacks: None,
        }
    }

    #[test]
    fn limits_without_their_controller_are_named_with_the_reason() {
        let mut place = place();
        assert_eq!(explained(&resources(), Some(&place), None), None);
        place.controllers.remove("memory");
        place.lacks = Some("/g has no controller memory".into());
        assert_eq!(
            explained(&resources(), Some(&place), None).as_deref(),
            Some("these limits have no effect: mem_limit (/g has no controller memory)")
        );
        assert_eq!(
            explained(&resources(), None, None).as_deref(),
            Some(
                "these limits have no effect: cpus, mem_limit, pids_limit (no control group (version 2) is \
                 delegated to us; `wharf doctor` says what helps)"
            )
        );
        assert_eq!(explained(&Resources::default(), None, None), None);
    }

    #[test]
    fn it_is_the_place_of_the_supervisor_that_counts() {
        let place = place();
        // Of another session than this command.
        assert_eq!(explained(&resources(), None, Some((7, Some(&place)))), None);
        assert_eq!(
            explained(&resources(), Some(&place), Some((7, None))).as_deref(),
            Some(
                "these limits have no effect: cpus, mem_limit, pids_limit (the project's supervisor, pid 7, was started \
                 where no control group (version 2) is delegated to us; after `wharf down`, `wharf up` starts one here)"
            )
        );
        // Another one would do no better.
        let said = explained(&resources(), None, Some((7, None))).unwrap();
        assert!(!said.contains("pid 7"), "{said}");
    }
}
