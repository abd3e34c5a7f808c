//! Who else keeps many processes. Each is started on the services of a project, measured until all have said that they
//! are up, and ended.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::figures::{children_of, children_of_all, cpu_of, cpu_of_all};
use crate::{Kind, Measured, SERVICES, last_of, name};

/// How long all of a peer's processes may take to be up, and to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor that is installed.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    how: How,
}

enum How {
    /// Writes what it reads to its own output.
    Honcho(PathBuf),
    /// A directory for each service with a program `run`: daemontools' way, which runit and s6 go. Without the name of
    /// a logger's program all output is that of the supervisor itself, and nobody keeps it.
    Directories {
        command: &'static [&'static str],
        logger: Option<&'static str>,
        end: Signal,
    },
    /// One process, and a log for each service.
    Supervisord,
}

impl Peer {
    /// Those that this machine has.
    pub(crate) fn installed() -> Vec<Self> {
        let mut all = Vec::new();
        match std::env::var_os("HONCHO") {
            Some(path) => all.push(Self {
                name: "honcho",
                how: How::Honcho(path.into()),
            }),
            None => println!("honcho                left out: HONCHO names no program"),
        }
        let mut directories = |names: [&'static str; 2], command, logger, end| {
            for (name, logger) in names.into_iter().zip([None, Some(logger)]) {
                let how = How::Directories {
                    command,
                    logger,
                    end,
                };
                all.push(Self { name, how });
            }
        };
        if is_found("runsvdir") {
            let names = ["runit, no logs", "runit and svlogd"];
            directories(names, &["runsvdir"], "svlogd", Signal::HUP);
        }
        if is_found("s6-svscan") {
            let names = ["s6, no logs", "s6 and s6-log"];
            directories(names, &["s6-svscan", "-c", "500"], "s6-log", Signal::TERM);
        }
        if is_found("supervisord") {
            all.push(Self {
                name: "supervisord",
                how: How::Supervisord,
            });
        }
        all
    }

    pub(crate) fn measure(&self, kind: &Kind) -> Measured {
        let root = tempfile::tempdir_in(memory()).unwrap();
        let root = root.path();
        match &self.how {
            How::Honcho(honcho) => honcho_start(root, honcho, kind),
            How::Directories {
                command,
                logger,
                end,
            } => directories(root, command, *logger, *end, kind),
            How::Supervisord => supervisord(root, kind),
        }
    }
}

/// Where a file costs the least.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

fn is_found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !is_found {
        println!("{program:<21} left out: it is not in PATH");
    }
    is_found
}

fn honcho_start(root: &Path, honcho: &Path, kind: &Kind) -> Measured {
    let mut procfile = String::new();
    for at in 0..SERVICES {
        writeln!(procfile, "{}: {}", name(at), kind.line).unwrap();
    }
    fs::write(root.join("Procfile"), procfile).unwrap();
    let mut command = Command::new(honcho);
    command.arg("start");
    let (mut child, begun) = start(root, &mut command, Stdio::piped());
    let wall = await_lines(&mut child, "| up", begun);
    // Honcho has a process of its own for each service, between itself and the shell.
    let aside = children_of(child.id());
    let own = cpu_of(child.id()) + cpu_of_all(&aside);
    let services = children_of_all(&aside);
    let measured = Measured::new(wall, own, &services);
    end(child, Signal::TERM, &services);
    measured
}

fn directories(
    root: &Path,
    command: &[&str],
    logger: Option<&str>,
    signal: Signal,
    kind: &Kind,
) -> Measured {
    let program = |path: PathBuf, text: &str| {
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let all: Vec<PathBuf> = (0..SERVICES)
        .map(|at| root.join("services").join(name(at)))
        .collect();
    for dir in &all {
        fs::create_dir_all(dir).unwrap();
        program(dir.join("run"), &kind.line);
        if let Some(logger) = logger {
            fs::create_dir_all(dir.join("log/main")).unwrap();
            program(dir.join("log/run"), &format!("exec {logger} ./main"));
        }
    }
    let mut command_line = Command::new(command[0]);
    command_line.args(&command[1..]).arg(root.join("services"));
    let output = logger.map_or_else(Stdio::piped, |_| Stdio::null());
    let (mut child, begun) = start(root, &mut command_line, output);
    let wall = if logger.is_some() {
        let logs = all.iter().map(|dir| dir.join("log/main/current"));
        await_logs(&logs.collect::<Vec<_>>(), kind, begun)
    } else {
        await_lines(&mut child, "up", begun)
    };
    // Loggers are the supervisor's own, as wharf's keepers are.
    let (own, services) = tell_apart(child.id());
    let measured = Measured::new(wall, cpu_of_all(&own), &services);
    let all: Vec<u32> = own.into_iter().skip(1).chain(services).collect();
    end(child, signal, &all);
    measured
}

/// All below a supervisor of directories by their names: itself, what keeps a service or its log, and the services.
fn tell_apart(top: u32) -> (Vec<u32>, Vec<u32>) {
    let keepers = children_of(top);
    let (loggers, services): (Vec<u32>, Vec<u32>) =
        children_of_all(&keepers).into_iter().partition(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            directory.ends_with("log") || ["svlogd", "s6-log"].contains(&name.trim())
        });
    let own = [top].into_iter().chain(keepers).chain(loggers);
    (own.collect(), services)
}

fn supervisord(root: &Path, kind: &Kind) -> Measured {
    let dir = root.display();
    let mut text = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={dir}/pid\n"
    );
    let logs: Vec<PathBuf> = (0..SERVICES)
        .map(|at| root.join("logs").join(name(at)))
        .collect();
    for (at, log) in logs.iter().enumerate() {
        writeln!(
            text,
            "[program:{}]\ncommand=sh -c \"{}\"\nstdout_logfile={}\nstdout_logfile_maxbytes=0",
            name(at),
            kind.line,
            log.display()
        )
        .unwrap();
    }
    fs::create_dir(root.join("logs")).unwrap();
    fs::write(root.join("supervisord.conf"), text).unwrap();
    let mut command = Command::new("supervisord");
    command.args(["-c", "supervisord.conf"]);
    let (child, begun) = start(root, &mut command, Stdio::null());
    let wall = await_logs(&logs, kind, begun);
    let services = children_of(child.id());
    let measured = Measured::new(wall, cpu_of(child.id()), &services);
    end(child, Signal::TERM, &services);
    measured
}

fn start(root: &Path, command: &mut Command, output: Stdio) -> (Child, SystemTime) {
    let begun = SystemTime::now();
    let child = command
        .current_dir(root)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, begun)
}

/// Until that has come out of the supervisor for each service.
fn await_lines(child: &mut Child, end: &str, begun: SystemTime) -> Duration {
    let output = child.stdout.as_mut().unwrap();
    let lines = BufReader::new(output).lines().map(Result::unwrap);
    let up = lines.filter(|line| line.ends_with(end)).take(SERVICES);
    assert_eq!(up.count(), SERVICES);
    begun.elapsed().unwrap()
}

/// Until each log has it all: when the last of them was written, not when somebody has looked for it.
fn await_logs(logs: &[PathBuf], kind: &Kind, begun: SystemTime) -> Duration {
    let since = Instant::now();
    loop {
        if let Some(last) = last_of(logs, kind.says) {
            return last.duration_since(begun).unwrap();
        }
        assert!(since.elapsed() < PATIENCE, "the services are not up");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a supervisor, and sees that its processes end with it.
fn end(mut child: Child, signal: Signal, all: &[u32]) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    // What it still says must not keep it from ending.
    if let Some(mut output) = child.stdout.take() {
        io::copy(&mut output, &mut io::sink()).unwrap();
    }
    child.wait().unwrap();
    let since = Instant::now();
    while all.iter().any(|pid| is_there(*pid)) {
        if since.elapsed() >= PATIENCE {
            let _ = kill_process_group(pid, Signal::KILL);
            panic!("something is left of a supervisor that was told to end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there, and no zombie that nobody waits for.
fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| !matches!(state, "Z" | "X"))
}
