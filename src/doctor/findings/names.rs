//! How services reach each other where one is a container and the other a process.

use super::engines::{another, is_virtual};
use crate::backend::process::namespace_probe::{Refusal, Way};
use crate::doctor::Finding;
use crate::doctor::facts::Machine;

pub(super) fn findings(machine: &Machine) -> Vec<Finding> {
    let mut all = vec![
        user_namespaces(machine),
        how_local_services_find_containers(machine),
    ];
    all.extend(how_containers_find_local_services(machine));
    all
}

fn user_namespaces(machine: &Machine) -> Finding {
    const CHECK: &str = "user namespaces";
    let Some(Ok(ways)) = &machine.ways else {
        let why = match &machine.ways {
            Some(Err(why)) => why.as_str(),
            Some(Ok(_)) | None => "no answer within two seconds",
        };
        return Finding::reduced(
            CHECK,
            format!("it could not be tried whether they can be made: {why}"),
            "unshare --user --map-root-user --mount true",
        );
    };
    match ways.namespace {
        Ok(()) => Finding::ok(CHECK, "made without privilege, with a private mount in one"),
        Err(refusal) => {
            let (why, hint) = why(machine, refusal);
            Finding::reduced(CHECK, format!("{refusal}: {why}"), hint)
        }
    }
}

/// What forbids it, most probable first, and what allows it.
fn why(machine: &Machine, refusal: Refusal) -> (String, String) {
    let settings = &machine.settings;
    if settings.max_user_namespaces == Some(0) {
        return (
            "user.max_user_namespaces is 0".to_owned(),
            "sudo sysctl -w user.max_user_namespaces=15000".to_owned(),
        );
    }
    if settings.userns_clone == Some(0) {
        return (
            "kernel.unprivileged_userns_clone is 0".to_owned(),
            "sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned(),
        );
    }
    if settings.apparmor_restricts.is_some_and(|value| value != 0) {
        return (
            "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns) to programs with a profile"
                .to_owned(),
            profile(machine),
        );
    }
    if refusal.is_without_target() {
        return (
            "there is no /etc/hosts to put another one over".to_owned(),
            "echo '127.0.0.1 localhost' | sudo tee /etc/hosts".to_owned(),
        );
    }
    (
        "no setting of the kernel forbids it, so a container's seccomp profile or SELinux does".to_owned(),
        "docker run --security-opt seccomp=unconfined --cap-add SYS_ADMIN …   # if this is a container"
            .to_owned(),
    )
}

/// Gives wharf, and nothing else, what the restriction takes away.
fn profile(machine: &Machine) -> String {
    let path = machine.executable.as_ref().map_or_else(
        || "/usr/local/bin/wharf".to_owned(),
        |path| path.display().to_string(),
    );
    format!(
        "printf 'abi <abi/4.0>,\\nprofile wharf \"{path}\" flags=(unconfined) {{\\n  userns,\\n}}\\n' | \
         sudo tee /etc/apparmor.d/wharf && sudo apparmor_parser -r /etc/apparmor.d/wharf"
    )
}

/// The rung of the ladder that local services are on.
pub(in crate::doctor) fn how_local_services_find_containers(machine: &Machine) -> Finding {
    const CHECK: &str = "container names in local services";
    let best = match &machine.ways {
        Some(Ok(ways)) => ways.best(),
        Some(Err(_)) | None => None,
    };
    match best {
        Some(Way::Namespace) => Finding::ok(
            CHECK,
            "namespace: a private /etc/hosts in a user and mount namespace",
        ),
        Some(Way::AsRoot) => Finding::ok(
            CHECK,
            "mount namespace as root: a private /etc/hosts, by wharf's own privilege",
        ),
        None => Finding::reduced(
            CHECK,
            "environment rewriting: names are replaced in the values of `environment:`; a name in a \
             configuration file of the service is not found",
            match &machine.ways {
                Some(Ok(ways)) => match ways.namespace {
                    Err(refusal) => why(machine, refusal).1,
                    Ok(()) => String::new(),
                },
                Some(Err(_)) | None => "unshare --user --map-root-user --mount true".to_owned(),
            },
        ),
    }
}

fn how_containers_find_local_services(machine: &Machine) -> Option<Finding> {
    const CHECK: &str = "local services in containers";
    let (engine, abilities) = machine.engine()?;
    let same_kernel = abilities.kernel.is_empty() || abilities.kernel == machine.kernel;
    let why = if !engine.local {
        "it is on another machine"
    } else if !engine.unix {
        "it is not reached over a unix socket"
    } else if is_virtual(abilities) || !same_kernel {
        "it is in a virtual machine"
    } else if abilities.rootless {
        "it is rootless"
    } else if abilities.remapped {
        "its user ids are others (userns-remap)"
    } else {
        return Some(Finding::ok(
            CHECK,
            "unix socket, mounted into a relay container: the engine shares this machine's files",
        ));
    };
    Some(Finding::reduced(
        CHECK,
        format!("engine exec stream, because {why}: slower, and otherwise the same"),
        format!("{}   # a rootful engine of this machine", another(engine)),
    ))
}

#[cfg(test)]
mod tests {
    use nix::libc::{EACCES, ENOSPC, EPERM};

    use super::super::tests::{fit, only};
    use super::*;
    use crate::backend::container::Answer;
    use crate::backend::process::namespace_probe::{Stage, Ways};
    use crate::doctor::State;

    fn refusing(stage: Stage, errno: i32) -> Machine {
        let refusal = Refusal { stage, errno };
        let mut machine = fit();
        machine.ways = Some(Ok(Ways {
            namespace: Err(refusal),
            as_root: Err(Refusal {
                stage: Stage::Unshare,
                errno: EPERM,
            }),
        }));
        machine
    }

    #[test]
    fn ubuntus_restriction_is_lifted_for_wharf_alone() {
        let mut machine = refusing(Stage::Propagation, EACCES);
        machine.settings.apparmor_restricts = Some(1);
        let finding = only(&machine, "user namespaces");
        assert_eq!(finding.state, State::Reduced);
        assert!(finding.detail.contains("AppArmor"), "{finding:?}");
        let hint = finding.hint.unwrap();
        assert!(
            hint.contains("profile wharf \"/usr/local/bin/wharf\""),
            "{hint}"
        );
        assert!(hint.contains("apparmor_parser -r"), "{hint}");
        let names = only(&machine, "container names in local services");
        assert_eq!(names.state, State::Reduced);
        assert!(
            names.detail.starts_with("environment rewriting"),
            "{names:?}"
        );
        assert_eq!(names.hint, Some(hint));
    }

    #[test]
    fn a_setting_counts_only_where_the_trial_failed() {
        let mut machine = fit();
        machine.settings.apparmor_restricts = Some(1);
        machine.settings.userns_clone = Some(0);
        assert_eq!(only(&machine, "user namespaces").state, State::Ok);
    }

    #[test]
    fn sysctls_that_forbid_are_named() {
        let mut machine = refusing(Stage::Unshare, ENOSPC);
        machine.settings.max_user_namespaces = Some(0);
        let hint = only(&machine, "user namespaces").hint.unwrap();
        assert_eq!(hint, "sudo sysctl -w user.max_user_namespaces=15000");
        let mut machine = refusing(Stage::Unshare, EPERM);
        machine.settings.userns_clone = Some(0);
        let hint = only(&machine, "user namespaces").hint.unwrap();
        assert_eq!(hint, "sudo sysctl -w kernel.unprivileged_userns_clone=1");
        let finding = only(&refusing(Stage::Unshare, EPERM), "user namespaces");
        assert!(finding.detail.contains("seccomp"), "{finding:?}");
    }

    #[test]
    fn root_needs_no_user_namespace() {
        let mut machine = refusing(Stage::Unshare, EPERM);
        if let Some(Ok(ways)) = &mut machine.ways {
            ways.as_root = Ok(());
        }
        let names = only(&machine, "container names in local services");
        assert_eq!(names.state, State::Ok);
        assert!(
            names.detail.starts_with("mount namespace as root"),
            "{names:?}"
        );
    }

    #[test]
    fn containers_take_the_stream_where_files_are_not_shared() {
        const CHECK: &str = "local services in containers";
        assert!(only(&fit(), CHECK).detail.starts_with("unix socket"));
        let changed = |change: &dyn Fn(&mut Machine)| {
            let mut machine = fit();
            change(&mut machine);
            let finding = only(&machine, CHECK);
            assert_eq!(finding.state, State::Reduced);
            assert!(
                finding.detail.starts_with("engine exec stream"),
                "{finding:?}"
            );
            finding.detail
        };
        let remote = changed(&|machine| machine.engines[0].local = false);
        assert!(remote.contains("another machine"), "{remote}");
        let other = changed(&|machine| "5.15.0-lima".clone_into(&mut machine.kernel));
        assert!(other.contains("virtual machine"), "{other}");
        let rootless = changed(&|machine| {
            if let Answer::Engine(abilities) = &mut machine.engines[0].answer {
                abilities.rootless = true;
            }
        });
        assert!(rootless.contains("rootless"), "{rootless}");
        // No choice of a context changes what the environment says.
        let hint = |found: &str| {
            let mut machine = fit();
            machine.engines[0].local = false;
            machine.engines[0].found = vec![found.to_owned()];
            only(&machine, CHECK).hint.unwrap()
        };
        assert!(hint("DOCKER_HOST").starts_with("unset DOCKER_HOST"));
        assert!(hint("context `far`").starts_with("docker context use"));
        let mut machine = fit();
        machine.engines.clear();
        assert!(how_containers_find_local_services(&machine).is_none());
    }
}
