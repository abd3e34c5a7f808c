//! Engines: which answer, what they can do, what keeps us from them; `BuildKit`, credential helpers, the plug-in.

use super::listed;
use crate::backend::container::{Abilities, Answer, EngineFacts, SocketFacts};
use crate::doctor::Finding;
use crate::doctor::api::beyond;
use crate::doctor::facts::{Machine, Plugin};

/// Where engines come from.
const INSTALL: &str = "sudo apt-get install docker.io";

/// The Docker Engine that has all that wharf uses.
const NEWEST: &str = "28.1";

/// The API of that engine.
const NEWEST_API: (u32, u32) = (1, 49);

pub(super) fn findings(machine: &Machine) -> Vec<Finding> {
    let mut all: Vec<Finding> = machine.engines.iter().map(engine).collect();
    if machine.engines.is_empty() {
        all.push(Finding::missing(
            "engine",
            "no engine was looked for: containers cannot run",
            INSTALL,
        ));
    }
    all.extend(buildkit(machine));
    all.push(helpers(machine));
    all.push(plugin(machine));
    all
}

fn engine(engine: &EngineFacts) -> Finding {
    let check = format!("engine {}", engine.endpoint);
    let found = engine.found.join(", ");
    let not_current = |finding: Finding| Finding {
        // What commands do not use is missing to nobody.
        state: if engine.current {
            finding.state
        } else {
            finding.state.min(crate::doctor::State::Reduced)
        },
        ..finding
    };
    not_current(match &engine.answer {
        Answer::Engine(abilities) => works(check, engine, abilities, &found),
        Answer::NotPermitted(socket) => closed(check, socket),
        Answer::Absent => Finding::missing(
            check,
            format!("nobody listens there ({found}): services without a process form cannot run"),
            // One that somebody named, and that is nowhere's usual place, is not what a service manager starts.
            if engine.unix && !(is_by_variable(engine) && engine.found.len() == 1) {
                format!("sudo systemctl start docker   # where it is installed, else: {INSTALL}")
            } else {
                another(engine).to_owned()
            },
        ),
        Answer::Silent => Finding::missing(
            check,
            format!("it did not answer within two seconds ({found})"),
            "sudo systemctl restart docker",
        ),
        Answer::TooOld(words) => Finding::missing(check, words.clone(), INSTALL),
        Answer::NotAsked => Finding::ok(
            check,
            format!("on another machine ({found}); not the current one, so it was not asked"),
        ),
        Answer::Failed(words) => {
            Finding::missing(check, format!("{words} ({found})"), another(engine))
        }
    })
}

/// Whether the environment says that it is the current one, which no choice of a context changes.
fn is_by_variable(engine: &EngineFacts) -> bool {
    engine.found.iter().any(|found| found == "DOCKER_HOST")
}

/// What makes another engine the current one.
pub(super) fn another(engine: &EngineFacts) -> &'static str {
    if is_by_variable(engine) {
        "unset DOCKER_HOST"
    } else {
        "docker context use default"
    }
}

fn works(check: String, engine: &EngineFacts, abilities: &Abilities, found: &str) -> Finding {
    let Abilities {
        product,
        version,
        api: (major, minor),
        ..
    } = abilities;
    let mut words = vec![format!(
        "{product} {version}, API {major}.{minor} ({found})"
    )];
    let mut kinds = Vec::new();
    if abilities.rootless {
        kinds.push("rootless");
    }
    if abilities.remapped {
        kinds.push("with its own user ids (userns-remap)");
    }
    if is_virtual(abilities) {
        kinds.push("in a virtual machine");
    }
    if !engine.local {
        kinds.push("on another machine");
    }
    if !kinds.is_empty() {
        words.push(kinds.join(", "));
    }
    let beyond: Vec<&str> = beyond(abilities.api).map(|feature| feature.name).collect();
    if !beyond.is_empty() {
        words.push(format!("too old for {}", listed(&beyond, 8)));
    }
    let mut losses = Vec::new();
    if !engine.local {
        losses.push("ports are published there, so their holders are not looked up");
        losses.push("bind mounts name paths of that machine");
    }
    if abilities.rootless || is_virtual(abilities) || !engine.local {
        losses.push("containers' own addresses cannot be reached from here");
    }
    let is_less = !beyond.is_empty() || !losses.is_empty();
    words.extend(losses.into_iter().map(str::to_owned));
    let detail = words.join("; ");
    if !is_less {
        return Finding::ok(check, detail);
    }
    let hint = if abilities.api < NEWEST_API {
        format!("sudo apt-get install docker-ce   # {NEWEST} or newer has all of it")
    } else {
        let current = another(engine);
        format!("{current}   # a rootful engine of this machine has all of it")
    };
    Finding::reduced(check, detail, hint)
}

/// Whether the engine's containers are behind another kernel than its socket.
pub(super) fn is_virtual(abilities: &Abilities) -> bool {
    abilities.operating_system.contains("Docker Desktop")
}

/// A socket that is there and closed.
fn closed(check: String, socket: &SocketFacts) -> Finding {
    let SocketFacts {
        path,
        mode,
        owner,
        group,
        user,
        ..
    } = socket;
    let shown = path.display();
    if group == "?" {
        return Finding::missing(
            check,
            format!("permission denied: a directory above {shown} is closed to {user}"),
            format!("namei -l {shown}"),
        );
    }
    let what =
        format!("permission denied: {shown} belongs to {owner}:{group} with mode {mode:04o}");
    if group == "root" && !socket.in_group {
        // Opening it to that group would open it to nobody. The engine gives its socket to the group `docker`
        // where there is one when it starts.
        Finding::missing(
            check,
            format!("{what}, and only root is in that group"),
            format!(
                "sudo groupadd -f docker && sudo usermod -aG docker {user} && sudo systemctl restart \
                 docker.socket docker   # then log in again; members of that group are as good as root"
            ),
        )
    } else if mode & 0o020 == 0 {
        Finding::missing(
            check,
            format!("{what}, which closes it to its group, too"),
            format!("sudo chmod g+rw {shown}"),
        )
    } else if socket.in_group {
        Finding::missing(
            check,
            format!(
                "{what}; {user} is in the group, so something else forbids it (SELinux, AppArmor)"
            ),
            format!("ls -lZ {shown}"),
        )
    } else if socket.listed {
        Finding::missing(
            check,
            format!("{what}; {user} is in the group since after this login"),
            format!("newgrp {group}"),
        )
    } else {
        Finding::missing(
            check,
            format!("{what}, and {user} is not in that group (its members are as good as root)"),
            format!("sudo usermod -aG {group} {user} && newgrp {group}"),
        )
    }
}

fn buildkit(machine: &Machine) -> Option<Finding> {
    let (_, abilities) = machine.engine()?;
    Some(match (abilities.buildkit, abilities.containerd_store) {
        (false, _) => Finding::reduced(
            "BuildKit",
            "the engine has none: images are built by the classic builder, without secrets, ssh, named \
             contexts and cache exports",
            INSTALL,
        ),
        (true, true) => Finding::ok(
            "BuildKit",
            "with the containerd image store: all of `build:`",
        ),
        (true, false) => Finding::ok(
            "BuildKit",
            "without the containerd image store: images for one platform, without attestations",
        ),
    })
}

fn helpers(machine: &Machine) -> Finding {
    const CHECK: &str = "credential helpers";
    if machine.helpers.is_empty() {
        return Finding::ok(CHECK, "the Docker configuration names none");
    }
    let missing: Vec<String> = machine
        .helpers
        .iter()
        .filter(|helper| !helper.found)
        .map(|helper| {
            let registries = helper.registries.join(", ");
            let registries = if registries == "*" {
                "all registries"
            } else {
                registries.as_str()
            };
            format!("{} (for {registries})", helper.program)
        })
        .collect();
    if missing.is_empty() {
        let names: Vec<&str> = machine
            .helpers
            .iter()
            .map(|helper| helper.program.as_str())
            .collect();
        return Finding::ok(CHECK, names.join(", "));
    }
    Finding::reduced(
        CHECK,
        format!(
            "not in PATH: {}: images are pulled without credentials",
            missing.join(", ")
        ),
        "${EDITOR:-vi} ~/.docker/config.json   # take credsStore and credHelpers out, or install them",
    )
}

fn plugin(machine: &Machine) -> Finding {
    const CHECK: &str = "docker compose";
    let link = "mkdir -p ~/.docker/cli-plugins && ln -sf \"$(command -v wharf)\" \
                ~/.docker/cli-plugins/docker-compose";
    match &machine.plugin {
        Plugin::None => Finding::ok(CHECK, "no plug-in: `docker compose` is not there"),
        Plugin::Wharf(path) => Finding::ok(CHECK, format!("runs wharf, by {}", path.display())),
        Plugin::Other(path) => Finding::ok(CHECK, format!("runs {}, not wharf", path.display())),
        Plugin::Broken(path) => Finding::reduced(
            CHECK,
            format!("{} is a link to nothing", path.display()),
            link,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::tests::{engine as facts, fit, only};
    use crate::backend::container::{Answer, Helper, SocketFacts};
    use crate::doctor::State;
    use crate::doctor::facts::{Machine, Plugin};

    const ENGINE: &str = "engine unix:///var/run/docker.sock";

    fn with(answer: Answer) -> Machine {
        let mut machine = fit();
        machine.engines[0].answer = answer;
        machine
    }

    fn closed(change: impl Fn(&mut SocketFacts)) -> (State, String, String) {
        let mut socket = SocketFacts {
            path: PathBuf::from("/var/run/docker.sock"),
            mode: 0o660,
            owner: "root".to_owned(),
            group: "docker".to_owned(),
            in_group: false,
            listed: false,
            user: "ann".to_owned(),
        };
        change(&mut socket);
        let finding = only(&with(Answer::NotPermitted(socket)), ENGINE);
        (finding.state, finding.detail, finding.hint.unwrap())
    }

    #[test]
    fn a_closed_socket_is_opened_by_what_is_hinted() {
        let (state, detail, hint) = closed(|_| {});
        assert_eq!(state, State::Missing);
        assert!(detail.contains("root:docker with mode 0660"), "{detail}");
        assert_eq!(hint, "sudo usermod -aG docker ann && newgrp docker");
        assert_eq!(closed(|socket| socket.listed = true).2, "newgrp docker");
        let (_, _, hint) = closed(|socket| socket.mode = 0o600);
        assert_eq!(hint, "sudo chmod g+rw /var/run/docker.sock");
        for mode in [0o660, 0o755] {
            let (_, _, hint) = closed(|socket| {
                "root".clone_into(&mut socket.group);
                socket.mode = mode;
            });
            assert!(hint.contains("groupadd"), "{hint}");
            assert!(hint.contains("usermod -aG docker ann"), "{hint}");
        }
        let (_, detail, _) = closed(|socket| socket.in_group = true);
        assert!(detail.contains("SELinux"), "{detail}");
        let (_, _, hint) = closed(|socket| "?".clone_into(&mut socket.group));
        assert_eq!(hint, "namei -l /var/run/docker.sock");
    }

    #[test]
    fn an_old_engine_says_what_it_is_too_old_for() {
        let mut machine = fit();
        machine.engines = vec![facts((1, 41), "20.10.24")];
        let finding = only(&machine, ENGINE);
        assert_eq!(finding.state, State::Reduced);
        assert!(
            finding
                .detail
                .starts_with("Docker 20.10.24, API 1.41 (the current context)")
        );
        for name in [
            "volume.subpath",
            "healthcheck.start_interval",
            "interface_name",
        ] {
            assert!(finding.detail.contains(name), "{finding:?}");
        }
        assert!(finding.hint.unwrap().contains("28.1"));
    }

    #[test]
    fn rootless_virtual_and_remote_engines_say_what_is_lost() {
        let change = |change: &dyn Fn(&mut Machine)| {
            let mut machine = fit();
            change(&mut machine);
            only(&machine, ENGINE)
        };
        let abilities =
            |machine: &mut Machine, change: &dyn Fn(&mut crate::backend::container::Abilities)| {
                if let Answer::Engine(abilities) = &mut machine.engines[0].answer {
                    change(abilities);
                }
            };
        let rootless = change(&|machine| abilities(machine, &|engine| engine.rootless = true));
        assert!(
            rootless
                .detail
                .contains("rootless; containers' own addresses"),
            "{rootless:?}"
        );
        let desktop = change(&|machine| {
            abilities(machine, &|engine| {
                "Docker Desktop".clone_into(&mut engine.operating_system);
            });
        });
        assert!(
            desktop.detail.contains("in a virtual machine"),
            "{desktop:?}"
        );
        let remote = change(&|machine| machine.engines[0].local = false);
        assert!(
            remote
                .detail
                .contains("bind mounts name paths of that machine"),
            "{remote:?}"
        );
        for finding in [rootless, desktop, remote] {
            assert_eq!(finding.state, State::Reduced);
        }
    }

    #[test]
    fn what_commands_do_not_use_is_missing_to_nobody() {
        assert_eq!(only(&with(Answer::Silent), ENGINE).state, State::Missing);
        let mut machine = with(Answer::Absent);
        machine.engines[0].current = false;
        assert_eq!(only(&machine, ENGINE).state, State::Reduced);
        machine.engines[0].answer = Answer::NotAsked;
        assert_eq!(only(&machine, ENGINE).state, State::Ok);
    }

    #[test]
    fn an_engine_that_the_environment_names_is_left_by_changing_the_environment() {
        let hint = |endpoint: &str, found: &[&str]| {
            let mut machine = with(Answer::Absent);
            machine.engines[0].endpoint = endpoint.to_owned();
            machine.engines[0].unix = endpoint.starts_with("unix");
            machine.engines[0].found = found.iter().map(|it| (*it).to_owned()).collect();
            only(&machine, &format!("engine {endpoint}")).hint.unwrap()
        };
        let by_variable = ["DOCKER_HOST"];
        assert_eq!(hint("tcp://127.0.0.1:1", &by_variable), "unset DOCKER_HOST");
        assert_eq!(hint("unix:///x.sock", &by_variable), "unset DOCKER_HOST");
        let usual = ["DOCKER_HOST", "its usual socket"];
        let starts = |hint: &str| hint.starts_with("sudo systemctl start docker");
        assert!(starts(&hint("unix:///var/run/docker.sock", &usual)));
        let by_context = ["the current context"];
        assert_eq!(
            hint("tcp://127.0.0.1:1", &by_context),
            "docker context use default"
        );
    }

    #[test]
    fn a_helper_that_is_not_there_and_a_broken_link_are_found() {
        let mut machine = fit();
        machine.helpers = vec![Helper {
            program: "docker-credential-desktop".to_owned(),
            registries: vec!["*".to_owned()],
            found: false,
        }];
        machine.plugin =
            Plugin::Broken(PathBuf::from("/home/a/.docker/cli-plugins/docker-compose"));
        let helpers = only(&machine, "credential helpers");
        assert_eq!(helpers.state, State::Reduced);
        assert!(
            helpers
                .detail
                .contains("docker-credential-desktop (for all registries)")
        );
        let plugin = only(&machine, "docker compose");
        assert_eq!(plugin.state, State::Reduced);
        assert!(plugin.hint.unwrap().contains("ln -sf"));
    }
}
