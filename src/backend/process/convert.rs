//! `InstanceSpec` → ledger entry. Looks up the user and the running binary, nothing else; starts nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User};

use super::environment::Environment;
use super::ledger::{Account, Check, FORMAT, Record, RestartPolicy, Spec};
use super::{declared, run};
use crate::backend::BackendError;
use crate::backend::container::dependencies;
use crate::plan::step::InstanceSpec;
use crate::project::model::{HealthTest, Healthcheck, Restart, Service};
use crate::state::{Health, Status};
use crate::users;

/// Docker's default `stop_grace_period`.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Variables that somebody meant for wharf itself: `sd_listen_fds(3)`, `sd_notify(3)`.
const NOT_INHERITED: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    run::RUN_ID,
];

/// The entry of an instance that was never started. `base` is wharf's own environment, `binary` the file
/// that the bare command name `wharf` stands for.
pub(super) fn record(
    spec: &InstanceSpec,
    base: &BTreeMap<String, String>,
    binary: &Path,
) -> Result<Record, BackendError> {
    let service = &spec.service;
    let command: Vec<String> = [&service.entrypoint, &service.command]
        .into_iter()
        .flatten()
        .flatten()
        .cloned()
        .collect();
    let Some(first) = command.first() else {
        return Err(BackendError::Unsupported(format!(
            "service {} has no command to run as a process",
            service.name
        )));
    };
    let user = account(service)?;
    let working_dir = service.working_dir.as_ref().map_or_else(
        || spec.project.working_dir.clone(),
        |dir| spec.project.working_dir.join(dir),
    );
    let created_id = run::new_run_id().map_err(|source| BackendError::State {
        action: "cannot make a run id".to_owned(),
        source,
    })?;
    let healthcheck = service.healthcheck.as_ref().and_then(check);
    Ok(Record {
        format: FORMAT,
        created: run::wall_clock(),
        created_id,
        status: Status::Created,
        wanted: false,
        told: None,
        fleeting: spec.one_off.as_ref().is_some_and(|it| it.remove),
        restarts: 0,
        health: healthcheck.as_ref().map(|_| Health::Starting),
        ailment: None,
        run: None,
        past: None,
        spec: Spec {
            project: spec.project.as_ref().clone(),
            service: service.name.clone(),
            name: spec.name.clone(),
            number: spec.number,
            fingerprint: spec.fingerprint.clone(),
            program: (first == "wharf").then(|| binary.to_owned()),
            command,
            environment: environment(spec, base, &working_dir, user.as_ref()),
            working_dir: working_dir.clone(),
            user: user.map(|(account, _)| account),
            stop_signal: service.stop_signal.as_deref().map_or(Ok(15), signal)?,
            stop_grace: service.stop_grace_period.unwrap_or(STOP_GRACE),
            restart: match service.restart {
                Restart::No => RestartPolicy::No,
                Restart::Always => RestartPolicy::Always,
                Restart::OnFailure(max) => RestartPolicy::OnFailure { max },
                Restart::UnlessStopped => RestartPolicy::UnlessStopped,
            },
            healthcheck,
            ports: spec.ports.clone(),
            readiness: spec.readiness.clone(),
            labels: labels(spec),
            attributes: declared::attributes(service, &working_dir)?,
            names: spec.names.clone(),
        },
    })
}

/// wharf's own environment, the service's on top, the planner's on top of that, then wharf's names.
fn environment(
    spec: &InstanceSpec,
    base: &BTreeMap<String, String>,
    working_dir: &Path,
    user: Option<&(Account, Option<User>)>,
) -> Environment {
    let mut all = base.clone();
    for name in NOT_INHERITED {
        all.remove(name);
    }
    // A shell would set it at its start, and some programs trust it.
    all.insert("PWD".to_owned(), working_dir.display().to_string());
    if let Some((account, user)) = user {
        all.extend(identity(account, user.as_ref()));
    }
    all.extend(spec.service.environment.clone());
    all.extend(spec.environment.clone());
    all.insert("WHARF_PROJECT".to_owned(), spec.project.name.clone());
    all.insert("WHARF_SERVICE".to_owned(), spec.service.name.clone());
    Environment::from(&all)
}

/// The variables that say who a process is. An id that no user has is at home where the engine has it, and not where
/// whoever started it is.
pub(super) fn identity(account: &Account, user: Option<&User>) -> [(String, String); 3] {
    let (home, name) = match user {
        Some(user) => (user.dir.display().to_string(), user.name.clone()),
        None => ("/".to_owned(), account.uid.to_string()),
    };
    [("HOME", home), ("USER", name.clone()), ("LOGNAME", name)]
        .map(|(name, value)| (name.to_owned(), value))
}

/// The labels that Docker Compose puts on its containers, so that both backends can be listed alike.
fn labels(spec: &InstanceSpec) -> BTreeMap<String, String> {
    let mut all = spec.service.labels.clone();
    let files: Vec<String> = spec
        .project
        .config_files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let one_off = if spec.number == 0 { "True" } else { "False" };
    all.extend(
        [
            ("project", spec.project.name.clone()),
            ("service", spec.service.name.clone()),
            ("container-number", spec.number.to_string()),
            ("oneoff", one_off.to_owned()),
            ("config-hash", spec.fingerprint.0.clone()),
            ("depends_on", dependencies(&spec.service)),
            (
                "project.working_dir",
                spec.project.working_dir.display().to_string(),
            ),
            ("project.config_files", files.join(",")),
        ]
        .map(|(key, value)| (format!("com.docker.compose.{key}"), value)),
    );
    all
}

/// The defaults are those of the Dockerfile reference, `HEALTHCHECK`.
fn check(check: &Healthcheck) -> Option<Check> {
    let command = match check.test.as_ref()? {
        HealthTest::None => return None,
        HealthTest::Command(argv) => argv.clone(),
        HealthTest::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
    };
    let seconds = Duration::from_secs;
    Some(Check {
        command,
        interval: check.interval.unwrap_or(seconds(30)),
        timeout: check.timeout.unwrap_or(seconds(30)),
        retries: check.retries.filter(|retries| *retries > 0).unwrap_or(3),
        start_period: check.start_period.unwrap_or_default(),
        start_interval: check.start_interval.unwrap_or(seconds(5)),
    })
}

/// The number of a signal given as `SIGTERM`, `term` or `15`.
pub(super) fn signal(word: &str) -> Result<i32, BackendError> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = match upper.parse::<i32>() {
        Ok(number) => run::is_signal(number).then_some(number),
        Err(_) => real_time(name).or_else(|| {
            let named = format!("SIG{name}").parse::<Signal>().ok();
            named.map(|signal| signal as i32)
        }),
    };
    known.ok_or_else(|| {
        BackendError::Unsupported(format!(
            "`{word}` is not a signal that wharf can send to a local process"
        ))
    })
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-2` and the like.
fn real_time(name: &str) -> Option<i32> {
    let (rest, from, step) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (rest.strip_prefix('+'), *run::REAL_TIME.start(), 1),
        (_, Some(rest)) => (rest.strip_prefix('-'), *run::REAL_TIME.end(), -1),
        _ => return None,
    };
    let many = match rest {
        Some(many) => many.parse::<u8>().ok()?,
        None => 0,
    };
    let is_whole = rest.is_some() || name.len() == "RTMIN".len();
    let number = from + step * i32::from(many);
    (is_whole && run::REAL_TIME.contains(&number)).then_some(number)
}

/// Who `user: name|uid[:group|gid]` is. `None` when it is not set or when it is who we are.
fn account(service: &Service) -> Result<Option<(Account, Option<User>)>, BackendError> {
    let text = service.user.as_deref().unwrap_or_default();
    account_of(text, &service.group_add, &service.name)
}

/// As [`account`], by the text itself and further groups; `service` is for the message.
pub(super) fn account_of(
    text: &str,
    group_add: &[String],
    service: &str,
) -> Result<Option<(Account, Option<User>)>, BackendError> {
    if text.is_empty() {
        return Ok(None);
    }
    let unknown = |what: &str, name: &str| {
        BackendError::Unsupported(format!(
            "service {service}: there is no {what} `{name}` on this machine"
        ))
    };
    let (user_part, group_part) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    // As the engine reads a group alone.
    let user_part = if user_part.is_empty() { "0" } else { user_part };
    let (uid, user) = if let Ok(number) = user_part.parse::<u32>() {
        let uid = Uid::from_raw(number);
        (uid, users::user_with_id(uid))
    } else {
        let user = users::user_with_name(user_part).ok_or_else(|| unknown("user", user_part))?;
        (user.uid, Some(user))
    };
    let gid = match group_part.filter(|group| !group.is_empty()) {
        Some(group) => group_id(group).ok_or_else(|| unknown("group", group))?,
        // As the engine does for an id that no user has.
        None => user.as_ref().map_or(Gid::from_raw(0), |user| user.gid),
    };
    if uid == Uid::effective() && group_part.is_none() && group_add.is_empty() {
        return Ok(None);
    }
    if !Uid::effective().is_root() {
        // Ids that say who we are in a container's terms, as `${UID}:${GID}` does; which groups there are besides, only
        // root can say.
        let is_own_group = |gid: Gid| gid == Gid::effective() || has_group(gid);
        let mut added = group_add.iter().map(|group| group_id(group));
        if uid == Uid::effective()
            && (group_part.is_none() || gid == Gid::effective())
            && added.all(|gid| gid.is_some_and(is_own_group))
        {
            return Ok(None);
        }
        return Err(BackendError::Unsupported(format!(
            "service {service} is to run as user `{text}`, which only root can do for a local process: run \
             wharf as root, or set x-wharf.process.user to the user you are"
        )));
    }
    let mut groups = match &user {
        Some(user) => users::groups_of(user, gid),
        None => vec![gid],
    };
    for group in group_add {
        groups.push(group_id(group).ok_or_else(|| unknown("group", group))?);
    }
    let account = Account {
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    };
    Ok(Some((account, user)))
}

/// Who we are, where a service may be somebody else: without root, nothing could be said about it to the system.
pub(super) fn ourselves() -> Option<(Account, Option<User>)> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    if !uid.is_root() {
        return None;
    }
    let user = users::user_with_id(uid);
    let groups = match &user {
        Some(user) => users::groups_of(user, gid),
        None => vec![gid],
    };
    let account = Account {
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    };
    Some((account, user))
}

/// Whether we are in a group besides our own.
fn has_group(gid: Gid) -> bool {
    nix::unistd::getgroups().is_ok_and(|groups| groups.contains(&gid))
}

fn group_id(text: &str) -> Option<Gid> {
    match text.parse::<u32>() {
        Ok(number) => Some(Gid::from_raw(number)),
        Err(_) => users::group_with_name(text).map(|group| group.gid),
    }
}

/// The file this program runs from. After an upgrade the kernel marks the old file as deleted; the new one
/// in its place is what a later start should run.
pub(super) fn own_binary() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    match path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
    {
        Some(text) => PathBuf::from(text),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::naming::Names;
    use crate::plan::step::ProjectIdentity;
    use crate::state::{BackendKind, Fingerprint};

    fn spec(service: Service) -> InstanceSpec {
        InstanceSpec {
            project: Arc::new(ProjectIdentity {
                name: "p".into(),
                working_dir: "/srv/p".into(),
                config_files: vec!["/srv/p/compose.yaml".into()],
                env_files: Vec::new(),
            }),
            service: Arc::new(service),
            backend: BackendKind::Process,
            name: "p-web-1".into(),
            number: 1,
            fingerprint: Fingerprint("f".into()),
            image: String::new(),
            ports: Vec::new(),
            environment: BTreeMap::from([("PORT".into(), "8003".into())]),
            networks: Vec::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            replaces: None,
            inherits: false,
            readiness: None,
            one_off: None,
            names: Names::default(),
        }
    }

    fn web(command: &[&str]) -> Service {
        Service {
            name: "web".into(),
            command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..Service::default()
        }
    }

    fn made(service: Service) -> Record {
        let base = BTreeMap::from([
            ("PATH".into(), "/bin".into()),
            ("DEBUG".into(), "0".into()),
            ("NOTIFY_SOCKET".into(), "/run/x".into()),
        ]);
        record(&spec(service), &base, Path::new("/opt/wharf")).unwrap()
    }

    #[test]
    fn the_planners_variables_win_over_the_services_and_those_over_ours() {
        let mut service = web(&["x"]);
        service.environment =
            BTreeMap::from([("DEBUG".into(), "1".into()), ("PORT".into(), "1".into())]);
        let environment = made(service).spec.environment;
        assert_eq!(environment.get("PATH"), Some("/bin"));
        assert_eq!(environment.get("DEBUG"), Some("1"));
        assert_eq!(environment.get("PORT"), Some("8003"));
        assert_eq!(environment.get("WHARF_SERVICE"), Some("web"));
        assert_eq!(environment.get("PWD"), Some("/srv/p"));
        assert_eq!(environment.get("NOTIFY_SOCKET"), None);
    }

    #[test]
    fn the_entrypoint_comes_before_the_command() {
        let mut service = web(&["-c", "true"]);
        service.entrypoint = Some(vec!["sh".into()]);
        assert_eq!(made(service).spec.command, ["sh", "-c", "true"]);
    }

    #[test]
    fn only_the_bare_name_stands_for_this_binary() {
        assert_eq!(
            made(web(&["wharf", "serve"])).spec.program.as_deref(),
            Some(Path::new("/opt/wharf"))
        );
        assert_eq!(made(web(&["./wharf"])).spec.program, None);
    }

    #[test]
    fn a_relative_directory_is_inside_the_project() {
        let mut service = web(&["x"]);
        service.working_dir = Some("api".into());
        assert_eq!(made(service).spec.working_dir, Path::new("/srv/p/api"));
    }

    #[test]
    fn a_service_without_a_command_is_refused() {
        let service = Service {
            name: "web".into(),
            ..Service::default()
        };
        let error = record(&spec(service), &BTreeMap::new(), Path::new("/w")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "service web has no command to run as a process"
        );
    }

    #[test]
    fn signals_by_name_and_number() {
        for word in ["SIGINT", "int", "2"] {
            assert_eq!(signal(word).unwrap(), 2, "{word}");
        }
        for (word, number) in [
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(signal(word).unwrap(), number, "{word}");
        }
        for word in [
            "SIGFOO", "32", "RTMIN+31", "RTMIN-1", "RTMINx", "RTMIN+", "65",
        ] {
            assert!(signal(word).is_err(), "{word}");
        }
        assert!(signal("0").is_err());
    }

    #[test]
    fn an_unknown_user_is_an_error() {
        let mut service = web(&["x"]);
        service.user = Some("no-such-user-here".into());
        let error = record(&spec(service), &BTreeMap::new(), Path::new("/w")).unwrap_err();
        assert!(error.to_string().contains("no user `no-such-user-here`"));
    }

    #[test]
    fn a_disabled_healthcheck_is_none() {
        let disabled = Healthcheck {
            test: Some(HealthTest::None),
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: None,
        };
        assert_eq!(check(&disabled), None);
        let shell = Healthcheck {
            test: Some(HealthTest::Shell("true".into())),
            ..disabled
        };
        assert_eq!(check(&shell).unwrap().command, ["/bin/sh", "-c", "true"]);
    }
}
