//! Holders that belong to containers and units: told by cgroup and by what the engine publishes.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use wharf::port::PortError;
use wharf::port::attribute::attribute;
use wharf::port::claim::{Claim, Protocol};
use wharf::port::holder::{ContainerFacts, Holder, Published, Who};
use wharf::port::owner::{Depth, disown, look_up, look_up_to};
use wharf::port::release::{await_free, consequences, how_released, stop_process, stop_unit};

use super::stage::{Actor, claim, free_port, holders, is_root, pids, script};

/// Long enough that no test passes by waiting it out.
const LONG: std::time::Duration = std::time::Duration::from_mins(1);

const ID: &str = "9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e7d6c5b4a9f8e";

fn container(id: &str, name: &str) -> ContainerFacts {
    ContainerFacts {
        id: id.into(),
        name: name.into(),
        image: "nginx".into(),
        command: "nginx".into(),
        project: Some("shop".into()),
        service: Some("web".into()),
        created: 0,
        engine: "unix:///var/run/docker.sock".into(),
        removal: None,
    }
}

fn published(name: &str, ip: &str, port: u16) -> Published {
    Published {
        container: container(&format!("{name:0<64}"), name),
        ip: ip.parse::<IpAddr>().unwrap(),
        port,
        protocol: Protocol::Tcp,
        kept: None,
        forwarded: false,
    }
}

fn names(holders: &[Holder]) -> Vec<String> {
    holders
        .iter()
        .map(|holder| match &holder.who {
            Who::Container(facts) => facts.name.clone(),
            Who::Process(facts) => facts.pid.to_string(),
            Who::Unit { name, .. } => name.clone(),
            Who::Unknown { uid, .. } => format!("uid {uid}"),
            Who::Kernel => "kernel".into(),
        })
        .collect()
}

#[test]
fn a_proxy_stands_for_the_container_that_publishes_there() {
    let port = free_port();
    let text = port.to_string();
    let _v4 = Actor::play_as("docker-proxy", &["serve", "0.0.0.0", &text]);
    let _v6 = Actor::play_as("docker-proxy", &["serve", "::", &text]);
    let wanted = claim(port, &["0.0.0.0", "::"]);
    let found = look_up(std::slice::from_ref(&wanted)).unwrap();
    assert!(found.needs_engine);
    let held = attribute(
        found,
        &[
            published("web-1", "0.0.0.0", port),
            published("web-1", "::", port),
        ],
        &[],
    );
    let holders = &held.first().unwrap().holders;
    assert_eq!(names(holders), ["web-1"]);
    let holder = holders.first().unwrap();
    assert_eq!(holder.sockets.len(), 2);
    assert_eq!(holder.protected, None);
    assert_eq!(
        holder.describe(),
        "container web-1 (web-10000000, image nginx, project shop, service web)"
    );
    assert_eq!(how_released(holder), "docker stop web-1");
    let of = |engine: &str| {
        let mut other = holder.clone();
        if let Who::Container(facts) = &mut other.who {
            engine.clone_into(&mut facts.engine);
        }
        how_released(&other)
    };
    assert_eq!(
        of("unix:///run/user/1000/podman/podman.sock"),
        "podman stop web-1"
    );
    assert_eq!(
        of("unix:///tmp/podman.sock"),
        "podman --url unix:///tmp/podman.sock stop web-1"
    );
    assert_eq!(
        of("unix:///tmp/engine.sock"),
        "docker -H unix:///tmp/engine.sock stop web-1"
    );
}

#[test]
fn the_container_on_another_address_is_not_the_holder() {
    let port = free_port();
    let text = port.to_string();
    let server = Actor::play(&["serve", "127.0.0.1", &text]);
    let _proxy = Actor::play_as("docker-proxy", &["serve", "127.0.0.2", &text]);
    let publishes = [published("web-1", "127.0.0.2", port)];

    let near = claim(port, &["127.0.0.1"]);
    let held = attribute(look_up(&[near]).unwrap(), &publishes, &[]);
    assert_eq!(
        names(&held.first().unwrap().holders),
        [server.pid().to_string()]
    );

    let both = claim(port, &["0.0.0.0"]);
    let held = attribute(look_up(&[both]).unwrap(), &publishes, &[]);
    let mut found = names(&held.first().unwrap().holders);
    found.sort();
    let mut expected = [server.pid().to_string(), "web-1".to_owned()];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn another_protocol_or_port_is_not_the_holder() {
    let port = free_port();
    let proxy = Actor::play_as("docker-proxy", &["serve", "127.0.0.1", &port.to_string()]);
    let mut udp = published("web-1", "127.0.0.1", port);
    udp.protocol = Protocol::Udp;
    let next = published("web-2", "127.0.0.1", port + 1);
    let wanted = claim(port, &["127.0.0.1"]);
    let held = attribute(look_up(&[wanted]).unwrap(), &[udp, next], &[]);
    let holder = held.first().unwrap().holders.first().unwrap().clone();
    assert_eq!(
        names(std::slice::from_ref(&holder)),
        [proxy.pid().to_string()]
    );
    assert!(holder.protected.is_some(), "a proxy is never signalled");
}

#[test]
fn a_container_that_publishes_without_a_proxy_is_a_holder() {
    let port = free_port();
    let wanted = claim(port, &["0.0.0.0"]);
    let found = look_up(std::slice::from_ref(&wanted)).unwrap();
    assert_eq!(found.held, []);
    let held = attribute(found, &[published("web-1", "127.0.0.1", port)], &[]);
    assert_eq!(held.first().map(|held| held.claim.clone()), Some(wanted));
    assert_eq!(names(&held.first().unwrap().holders), ["web-1"]);
}

#[test]
fn the_daemons_own_port_stays_the_daemons() {
    let (own, published_port) = (free_port(), free_port());
    let daemon = Actor::play_as("dockerd", &["serve", "127.0.0.1", &own.to_string()]);
    let held = attribute(
        look_up(&[claim(own, &["127.0.0.1"])]).unwrap(),
        &[published("web-1", "127.0.0.1", published_port)],
        &[],
    );
    assert_eq!(
        names(&held.first().unwrap().holders),
        [daemon.pid().to_string()]
    );
}

/// A cgroup below the v2 mount, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))?
            .split(' ')
            .nth(4)?;
        let path = PathBuf::from(mount)
            .join(format!("wharf-test-{}-{}", std::process::id(), free_port()))
            .join(name);
        fs::create_dir_all(&path)
            .map_err(|error| println!("skipped: no cgroup can be made: {error}"))
            .ok()?;
        Some(Self(path))
    }

    fn procs(&self) -> String {
        self.0.join("cgroup.procs").display().to_string()
    }

    /// An actor that lives in the cgroup from the start: its sockets are made there.
    fn play(&self, words: &[&str]) -> Actor {
        self.play_in(words, None)
    }

    /// As [`Cgroup::play`], with a run id of wharf's in its environment.
    fn play_in(&self, words: &[&str], run: Option<&str>) -> Actor {
        let procs = self.0.join("cgroup.procs");
        let mut command = Command::new("setsid");
        command
            .args(["sh", "-c", "echo $$ > \"$0\" && exec perl \"$@\""])
            .arg(procs)
            .arg(script())
            .args(words)
            .envs(run.map(|run| ("WHARF_RUN_ID", run)));
        Actor::start(command)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A dead process leaves its cgroup a moment after it was reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if let Some(parent) = self.0.parent() {
            let _removed = fs::remove_dir(parent);
        }
    }
}

#[test]
fn a_container_on_the_hosts_network_is_told_by_its_cgroup() {
    if !is_root("making a cgroup") {
        return;
    }
    let Some(cgroup) = Cgroup::make(&format!("docker-{ID}.scope")) else {
        return;
    };
    let port = free_port();
    let server = cgroup.play(&["serve", "127.0.0.1", &port.to_string()]);
    let found = look_up(&[claim(port, &["127.0.0.1"])]).unwrap();
    assert!(found.needs_engine);
    assert_eq!(found.container_ids(), [ID.to_owned()].into());
    let holder = found.held.first().unwrap().holders.first().unwrap().clone();
    assert_eq!(pids(std::slice::from_ref(&holder)), [server.pid()]);
    assert!(
        holder.protected.is_some(),
        "an engine would only start it again"
    );

    let held = attribute(found.clone(), &[], &[container(ID, "web-1")]);
    assert_eq!(names(&held.first().unwrap().holders), ["web-1"]);
    // An engine that does not know it leaves the process, protected.
    let held = attribute(found, &[], &[]);
    assert_eq!(held.first().unwrap().holders, [holder]);
}

#[test]
fn a_container_with_a_run_id_in_its_environment_is_a_container() {
    if !is_root("making a cgroup") {
        return;
    }
    let Some(cgroup) = Cgroup::make(&format!("docker-{ID}.scope")) else {
        return;
    };
    let port = free_port();
    let _server = cgroup.play_in(&["serve", "127.0.0.1", &port.to_string()], Some("a-run"));
    let found = look_up(&[claim(port, &["127.0.0.1"])]).unwrap();
    assert_eq!(found.container_ids(), [ID.to_owned()].into());
    let held = attribute(found, &[], &[container(ID, "web-1")]);
    assert_eq!(names(&held.first().unwrap().holders), ["web-1"]);
}

#[test]
fn a_run_id_that_no_ledger_knows_says_nothing() {
    if !is_root("making a cgroup") {
        return;
    }
    let Some(cgroup) = Cgroup::make("nginx.service") else {
        return;
    };
    let port = free_port();
    let words = ["prefork", "127.0.0.1", &port.to_string(), "2"];
    let master = cgroup.play_in(&words, Some("a-run"));
    let mut held = look_up(&[claim(port, &["127.0.0.1"])]).unwrap().held;
    assert_eq!(held.first().unwrap().holders.len(), 3);
    disown(&mut held, |run| run == "a-run");
    assert_eq!(held.first().unwrap().holders.len(), 3);
    disown(&mut held, |_| false);
    let found = &held.first().unwrap().holders;
    assert_eq!(names(found), ["nginx.service"]);
    assert_eq!(pids(found), [master.pid()]);
}

#[test]
fn holders_of_one_socket_in_two_cgroups_are_all_named() {
    if !is_root("making a cgroup") {
        return;
    }
    let (Some(one), Some(other)) = (Cgroup::make("one"), Cgroup::make("other")) else {
        return;
    };
    let port = free_port();
    let master = one.play(&["prefork", "127.0.0.1", &port.to_string(), "2"]);
    let moved = master.words.first().unwrap();
    fs::write(other.procs(), moved.to_string()).unwrap();
    let mut expected = vec![master.pid()];
    expected.extend(&master.words);
    for depth in [Depth::Everybody, Depth::Bound] {
        let found = look_up_to(depth, &[claim(port, &["127.0.0.1"])]).unwrap();
        let held = found.held.first().unwrap();
        assert_eq!(pids(&held.holders), expected, "{depth:?}");
    }
}

#[test]
fn a_service_is_told_by_its_cgroup() {
    if !is_root("making a cgroup") {
        return;
    }
    let Some(cgroup) = Cgroup::make("nginx.service") else {
        return;
    };
    let port = free_port();
    let master = cgroup.play(&["prefork", "127.0.0.1", &port.to_string(), "2"]);
    let found = holders(&claim(port, &["127.0.0.1"]));
    assert_eq!(names(&found), ["nginx.service"]);
    assert_eq!(pids(&found), [master.pid()]);
    assert_eq!(
        how_released(found.first().unwrap()),
        "sudo systemctl stop nginx.service"
    );
}

#[test]
fn the_owner_is_named_where_its_process_cannot_be_seen() {
    if !is_root("looking as another user") {
        return;
    }
    let (Some(service), Some(in_container)) = (
        Cgroup::make("nginx.service"),
        Cgroup::make(&format!("libpod-{ID}.scope")),
    ) else {
        return;
    };
    let (one, two) = (free_port(), free_port());
    let _server = service.play(&["serve", "127.0.0.1", &one.to_string()]);
    let _contained = in_container.play(&["serve", "127.0.0.1", &two.to_string()]);
    // Credentials belong to the thread in Linux: the test process itself stays root.
    let found = std::thread::spawn(move || {
        let nobody = rustix::thread::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        look_up(&[claim(one, &["127.0.0.1"]), claim(two, &["127.0.0.1"])]).unwrap()
    })
    .join()
    .unwrap();
    let all: Vec<Holder> = found
        .held
        .iter()
        .flat_map(|held| held.holders.clone())
        .collect();
    assert_eq!(names(&all), ["nginx.service", "uid 0"]);
    let held = attribute(found, &[], &[container(ID, "web-1")]);
    assert_eq!(names(&held.last().unwrap().holders), ["web-1"]);
}

/// What stands for systemd here: the table of its sockets, and a stop that ends who listens for them.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/asked"
case "$*" in
--user*) [ -d "$XDG_RUNTIME_DIR" ] || { echo 'Failed to connect to bus: No medium found' >&2; exit 1; } ;;
esac
case "$*" in
*list-sockets*) cat "$here/table" ;;
*stop*web.socket) kill $(cat "$here/pids") ;;
*) echo 'Failed to stop web.service: Unit web.service not loaded.' >&2; exit 5 ;;
esac
"#;

#[test]
fn a_socket_unit_is_named_before_its_service_and_stopped_by_its_manager() {
    const INSIDE: &str = "WHARF_TEST_SYSTEMCTL";
    const NAME: &str =
        "port::containers::a_socket_unit_is_named_before_its_service_and_stopped_by_its_manager";
    if let Some(directory) = std::env::var_os(INSIDE) {
        return activated(&PathBuf::from(directory));
    }
    if !is_root("a mount namespace and a cgroup") {
        return;
    }
    let directory = std::env::temp_dir().join(format!("wharf-systemctl-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("systemctl");
    fs::write(&file, SYSTEMCTL).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        // systemd is running where this directory exists.
        .arg("mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/user/0 && export PATH=\"$0:$PATH\" && exec \"$@\"")
        .arg(&directory)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, &directory)
        // As after `su -`, or from cron.
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn activated(directory: &std::path::Path) {
    let (Some(manager), Some(service)) = (Cgroup::make("init.scope"), Cgroup::make("web.service"))
    else {
        return;
    };
    let port = free_port();
    let text = port.to_string();
    let actor = manager.play(&["manager", "127.0.0.1", &text, &service.procs()]);
    let mut neighbour = Actor::play(&["serve", "127.0.0.2", &text]);
    let table = format!(
        "127.0.0.1:{port} Stream web.socket web.service\n127.0.0.2:{port} Stream other.socket -\n"
    );
    fs::write(directory.join("table"), table).unwrap();
    let pids = format!("{} {}", actor.pid(), actor.words.first().unwrap());
    fs::write(directory.join("pids"), pids).unwrap();

    let wanted = claim(port, &["127.0.0.1"]);
    let found = holders(&wanted);
    assert_eq!(names(&found), ["web.socket", "web.service"]);
    let [socket, service_holder] = found.as_slice() else {
        panic!("{found:?}");
    };
    // The shell that this is pasted into knows as little of the place as we do.
    assert_eq!(
        how_released(socket),
        "XDG_RUNTIME_DIR=/run/user/0 systemctl --user stop web.socket"
    );
    // Its manager is never signalled, and no unit is stopped without a person's word.
    assert!(socket.obstacle(false).is_some() && socket.obstacle(true).is_none());
    assert!(stop_process(socket, &wanted, LONG).is_err());
    // Whoever cannot see the manager is told the unit all the same.
    let asked = wanted.clone();
    let seen = std::thread::spawn(move || {
        let nobody = rustix::thread::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        names(&look_up(&[asked]).unwrap().held.first().unwrap().holders)
    });
    assert_eq!(seen.join().unwrap(), ["uid 0"], "this is no pid 1");

    // A unit that systemd does not know is left to the person.
    let error = stop_unit(service_holder).unwrap_err();
    assert!(matches!(error, PortError::UnitRefused { .. }), "{error:?}");
    let said = " was not stopped: Failed to stop web.service: Unit web.service not loaded";
    assert!(error.to_string().ends_with(said), "{error}");
    stop_unit(socket).unwrap();
    await_free(&wanted, &found, LONG).unwrap();
    let log = fs::read_to_string(directory.join("asked")).unwrap();
    assert!(
        log.lines().any(|line| line.ends_with("stop -- web.socket")),
        "{log}"
    );
    assert!(neighbour.is_alive());
}

#[test]
fn what_an_engine_forwards_from_its_own_namespace_is_where_a_socket_is() {
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let rootless = Published {
        forwarded: true,
        ..published("web-1", "127.0.0.1", port)
    };
    let named = || {
        let found = look_up(std::slice::from_ref(&wanted)).unwrap();
        attribute(found, std::slice::from_ref(&rootless), &[])
    };
    assert!(named().is_empty(), "a bind works");
    {
        let proxy = Actor::play_as("docker-proxy", &["serve", "127.0.0.1", &port.to_string()]);
        let held = named();
        // Of an engine in this namespace.
        assert_eq!(
            names(&held.first().unwrap().holders),
            [proxy.pid().to_string()]
        );
    }
    let _forwarder = Actor::play_as("rootlesskit", &["serve", "127.0.0.1", &port.to_string()]);
    let held = named();
    assert_eq!(names(&held.first().unwrap().holders), ["web-1"]);
}

#[test]
fn a_supervisor_in_a_unit_is_not_stopped_for_one_of_its_programs() {
    let Some(unit) = Cgroup::make("supervisor.service") else {
        return;
    };
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let words = ["programs", "127.0.0.1", &port.to_string(), "supervisord"];
    let supervisor = unit.play(&words);
    let found = holders(&wanted);
    assert_eq!(names(&found), ["supervisor.service"]);
    let reason = found.first().unwrap().protected.clone().unwrap();
    assert!(
        reason.contains(&format!("supervisord (pid {})", supervisor.pid()))
            && reason.contains("sleep (pid")
            && reason.contains("supervisorctl stop PROGRAM"),
        "{reason}"
    );
    let error = stop_unit(found.first().unwrap()).unwrap_err();
    assert!(matches!(error, PortError::Protected { .. }), "{error:?}");
}

#[test]
fn the_unit_of_a_steward_is_not_stopped_for_its_only_program() {
    for (name, command) in [
        ("supervisord", "supervisorctl stop PROGRAM"),
        ("PM2 v5.3.0: God Daemon", "pm2 stop NAME"),
        ("circusd", "circusctl stop NAME"),
    ] {
        let Some(unit) = Cgroup::make("steward.service") else {
            return;
        };
        let port = free_port();
        let wanted = claim(port, &["127.0.0.1"]);
        let steward = unit.play(&["watch", "127.0.0.1", &port.to_string(), name]);
        is_refused(&wanted, "steward.service", steward.pid(), command);
    }
    // monit starts daemons: they are beside it.
    let Some(unit) = Cgroup::make("monit.service") else {
        return;
    };
    let (port, other) = (free_port(), free_port());
    let wanted = claim(port, &["127.0.0.1"]);
    let _daemon = unit.play(&["serve", "127.0.0.1", &port.to_string()]);
    let monit = unit.play(&["watch", "127.0.0.1", &other.to_string(), "monit"]);
    is_refused(&wanted, "monit.service", monit.pid(), "monit stop NAME");
}

fn is_refused(wanted: &Claim, unit: &str, steward: u32, command: &str) {
    let found = holders(wanted);
    assert_eq!(names(&found), [unit]);
    let holder = found.first().unwrap();
    let reason = holder.obstacle(true).unwrap();
    assert!(
        reason.contains(&format!("(pid {steward})")) && reason.contains(command),
        "{reason}"
    );
    let error = stop_unit(holder).unwrap_err();
    assert!(matches!(error, PortError::Protected { .. }), "{error:?}");
}

#[test]
fn who_runs_the_holder_is_said_to_end_with_its_unit() {
    let Some(unit) = Cgroup::make("web.service") else {
        return;
    };
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let master = unit.play(&["watch", "127.0.0.1", &port.to_string(), "gunicorn"]);
    let said = consequences(&holders(&wanted), &wanted).concat();
    assert!(
        said.starts_with("web.service ends as a whole, with ")
            && said.contains(&format!("gunicorn (pid {})", master.pid())),
        "{said}"
    );
}

#[test]
fn what_ends_with_a_unit_is_said_beforehand() {
    let Some(unit) = Cgroup::make("web.service") else {
        return;
    };
    let port = free_port();
    let wanted = claim(port, &["127.0.0.1"]);
    let _server = unit.play(&["serve", "127.0.0.1", &port.to_string()]);
    let other = unit.play(&["idle"]);
    let said = consequences(&holders(&wanted), &wanted);
    let expected = format!(
        "web.service ends as a whole, with perl (pid {})",
        other.pid()
    );
    assert_eq!(said, [expected]);
}
