//! A hundred local services side by side with who else keeps processes, and with a bare loop of fork and exec; what
//! the supervisor and the keepers take; how fast output reaches the log.
//!
//! Run it with `cargo bench --bench processes`. `HONCHO` names honcho's program (`pip install honcho`); runit, s6 and
//! supervisord are taken from `PATH`. Who is not there is left out with a line that says so. It prints what it measured;
//! nothing here passes or fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

mod figures;
mod peers;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use figures::{children_cpu, children_of, children_of_all, cpu_of, cpu_of_all, rollup};
use peers::Peer;

/// Services.
const SERVICES: usize = 100;
/// Rounds, in which all take turns; the median counts.
const ROUNDS: usize = 7;
/// Bytes written for the throughput.
const BYTES: u64 = 1_000_000_000;
/// Makes this program one of the services.
const AS_SERVICE: &str = "--as-service";

/// Lines that a talkative service writes before it is up.
const LINES: usize = 60;

/// What a service is. The less it costs by itself, the more weighs who starts it.
#[derive(Clone, Debug)]
struct Kind {
    name: String,
    command: Vec<String>,
    /// The same for a shell.
    line: String,
    /// Bytes that it writes until it is up.
    says: u64,
}

impl Kind {
    fn all() -> [Self; 3] {
        let program = std::env::current_exe().unwrap().display().to_string();
        let shell = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
        let sleeps = "echo up; exec sleep 1000";
        let line = "2026-01-01T00:00:00.000Z INFO what a server says at its start";
        let talks =
            format!("i=0; while [ $i -lt {LINES} ]; do echo {line}; i=$((i+1)); done; {sleeps}");
        let up = "up\n".len();
        let says = |bytes: usize| u64::try_from(bytes).unwrap();
        [
            Self {
                name: "a shell, which then runs sleep".to_owned(),
                command: shell(sleeps),
                line: sleeps.to_owned(),
                says: says(up),
            },
            Self {
                name: "one small program".to_owned(),
                command: vec![program.clone(), AS_SERVICE.to_owned()],
                line: format!("exec {program} {AS_SERVICE}"),
                says: says(up),
            },
            Self {
                name: format!("a shell that says {LINES} lines, then runs sleep"),
                command: shell(&talks),
                line: talks,
                says: says(LINES * (line.len() + 1) + up),
            },
        ]
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(AS_SERVICE) {
        println!("up");
        std::thread::sleep(Duration::from_secs(1000));
        return;
    }
    let peers = Peer::installed();
    for kind in Kind::all() {
        compare(&kind, &peers);
    }
    let [kind, ..] = Kind::all();
    let bench = Bench::new(&kind);
    bench.at_rest();
    bench.throughput();
}

/// All in one run, in turns.
fn compare(kind: &Kind, peers: &[Peer]) {
    let bench = Bench::new(kind);
    let mut all: Vec<(&str, Vec<Measured>)> =
        ["bare fork and exec", "wharf up -d", "  state in memory"]
            .into_iter()
            .chain(peers.iter().map(|peer| peer.name))
            .map(|name| (name, Vec::new()))
            .collect();
    for _ in 0..ROUNDS {
        // A disk charges for each file that a start makes, and more for those that were just removed: ext4 does
        // not use an inode again for minutes, and looks past all of them.
        let ours = [
            Some(bench.bare(kind)),
            Some(bench.wharf_up(kind)),
            bench.in_memory(|bench| bench.wharf_up(kind)),
        ];
        let theirs = peers.iter().map(|peer| Some(peer.measure(kind)));
        for ((_, measured), one) in all.iter_mut().zip(ours.into_iter().chain(theirs)) {
            measured.extend(one);
        }
    }
    println!(
        "\n{SERVICES} services until all have said that they are up; each {} (median of {ROUNDS})",
        kind.name
    );
    println!(
        "                          wall ms   / bare   CPU ms   / bare   without the services' own"
    );
    let bare = Measured::median(&all[0].1);
    for (what, measured) in &all {
        if measured.is_empty() {
            continue;
        }
        let measured = Measured::median(measured);
        println!(
            "{what:<22} {:>10.1} {:>8.2} {:>8.1} {:>8.2} {:>8.1}",
            ms(measured.wall),
            ratio(measured.wall, bare.wall),
            ms(measured.cpu),
            ratio(measured.cpu, bare.cpu),
            ms(measured.own)
        );
    }
}

/// What it took until all were up.
#[derive(Clone, Copy)]
struct Measured {
    wall: Duration,
    /// Of the services, and of whoever keeps them.
    cpu: Duration,
    /// Without the services' own, which begins when they are forked.
    own: Duration,
}

impl Measured {
    fn new(wall: Duration, own: Duration, services: &[u32]) -> Self {
        assert_eq!(services.len(), SERVICES);
        let cpu = own + cpu_of_all(services);
        Self { wall, cpu, own }
    }

    fn median(all: &[Self]) -> Self {
        let of = |field: fn(&Self) -> Duration| {
            let mut all: Vec<Duration> = all.iter().map(field).collect();
            all.sort();
            all[all.len() / 2]
        };
        Self {
            wall: of(|one| one.wall),
            cpu: of(|one| one.cpu),
            own: of(|one| one.own),
        }
    }
}

/// A service's name.
fn name(at: usize) -> String {
    format!("s{at}")
}

/// When the last of these logs was written, if all are as long as that; asked of the files, since asking a supervisor
/// would be measured, too.
fn last_of(logs: &[PathBuf], length: u64) -> Option<SystemTime> {
    let written = |log: &PathBuf| {
        let log = fs::metadata(log).ok().filter(|log| log.len() == length)?;
        log.modified().ok()
    };
    let all: Option<Vec<SystemTime>> = logs.iter().map(written).collect();
    all?.into_iter().max()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

struct Bench {
    root: tempfile::TempDir,
    /// Where wharf's state and sockets are.
    state: RefCell<PathBuf>,
}

impl Bench {
    fn new(kind: &Kind) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut compose = "services:\n".to_owned();
        let command = serde_json::to_string(&kind.command).unwrap();
        let command = command.replace('$', "$$");
        for at in 0..SERVICES {
            writeln!(
                compose,
                "  {}: {{x-wharf: {{process: {{command: {command}}}}}}}",
                name(at)
            )
            .unwrap();
        }
        fs::write(root.path().join("compose.yaml"), compose).unwrap();
        let state = RefCell::new(root.path().to_owned());
        Self { root, state }
    }

    /// The same with wharf's state in memory, where there is a file system for it.
    fn in_memory<T>(&self, measure: impl Fn(&Self) -> T) -> Option<T> {
        let memory = tempfile::tempdir_in("/dev/shm").ok()?;
        self.state.replace(memory.path().to_owned());
        let measured = measure(self);
        self.state.replace(self.root.path().to_owned());
        Some(measured)
    }

    fn project(&self, name: &str) -> PathBuf {
        let state = self.state.borrow();
        state.join("state/wharf/projects").join(name)
    }

    fn wharf(&self, arguments: &[&str]) -> Command {
        let binary = std::env::var_os("WHARF_BIN").map(PathBuf::from);
        let binary = binary.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wharf")));
        let mut command = Command::new(binary);
        command
            .args(arguments)
            .current_dir(self.root.path())
            .env("XDG_STATE_HOME", self.state.borrow().join("state"))
            .env("XDG_RUNTIME_DIR", self.state.borrow().join("run"))
            .env("COMPOSE_PROJECT_NAME", "bench")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.wharf(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    }

    /// The least that anybody can do.
    fn bare(&self, kind: &Kind) -> Measured {
        let (cpu, begun) = (cpu_of(std::process::id()), Instant::now());
        let mut children: Vec<_> = (0..SERVICES)
            .map(|_| {
                Command::new(&kind.command[0])
                    .args(&kind.command[1..])
                    .current_dir(self.root.path())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in &mut children {
            let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "up"));
        }
        let wall = begun.elapsed();
        let own = cpu_of(std::process::id()).saturating_sub(cpu);
        let services: Vec<u32> = children.iter().map(std::process::Child::id).collect();
        let measured = Measured::new(wall, own, &services);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        measured
    }

    fn wharf_up(&self, kind: &Kind) -> Measured {
        let children = children_cpu();
        let begun = SystemTime::now();
        self.run(&["up", "-d"]);
        let command = children_cpu().saturating_sub(children);
        let instances = self.project("bench").join("instances");
        let logs: Vec<PathBuf> = (0..SERVICES)
            .map(|at| instances.join(format!("bench-{}-1/stdout.log", name(at))))
            .collect();
        let last = loop {
            match last_of(&logs, kind.says) {
                Some(last) => break last,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let wall = last.duration_since(begun).unwrap();
        let forwarder = self.forwarder().unwrap();
        let own = self.own();
        let mut services = children_of_all(&own[1..]);
        services.retain(|pid| *pid != forwarder);
        let own = command + cpu_of_all(&own) + cpu_of(forwarder);
        let measured = Measured::new(wall, own, &services);
        self.run(&["down"]);
        measured
    }

    /// The supervisor and its keepers.
    fn own(&self) -> Vec<u32> {
        let supervisor = self.supervisor();
        let keepers = children_of(supervisor);
        [supervisor].into_iter().chain(keepers).collect()
    }

    /// The forwarder, a service of the project to the supervisor.
    fn forwarder(&self) -> Option<u32> {
        let notes = self
            .project("bench")
            .join("instances/bench-wharf-forwarder-1/run");
        let notes = fs::read_to_string(notes).ok()?;
        let main = notes
            .lines()
            .find_map(|line| line.trim().strip_prefix("main "));
        main?.split(' ').next()?.parse().ok()
    }

    fn supervisor(&self) -> u32 {
        let card = self.project("bench").join("supervisor.json");
        let card: serde_json::Value = serde_json::from_slice(&fs::read(card).unwrap()).unwrap();
        u32::try_from(card["process"]["pid"].as_u64().unwrap()).unwrap()
    }

    fn at_rest(&self) {
        self.run(&["up", "-d"]);
        let supervisor = self.supervisor();
        let own = self.own();
        let forwarder = self.forwarder();
        let cpu = || cpu_of_all(&own) + forwarder.map_or(Duration::ZERO, cpu_of);
        // It looks often at runs in their first seconds.
        std::thread::sleep(Duration::from_secs(20));
        let before = cpu();
        let span = Duration::from_secs(5);
        std::thread::sleep(span);
        let after = cpu();
        println!(
            "at rest: CPU {:.3} % (supervisor, {} keepers and the forwarder together)",
            ratio(after.saturating_sub(before), span) * 100.0,
            own.len() - 1
        );
        println!(
            "memory: supervisor {} KiB resident, {} KiB of its own; a keeper {} KiB of its own",
            rollup(supervisor, &["Rss:"]),
            rollup(supervisor, &["Private_Dirty:"]),
            own.iter()
                .skip(1)
                .map(|pid| rollup(*pid, &["Private_Dirty:"]))
                .sum::<u64>()
                / (own.len() as u64 - 1)
        );
        self.run(&["down"]);
    }

    fn throughput(&self) {
        let source = format!("yes 0123456789012345678901234567890123456789 | head -c {BYTES}");
        let file = self.root.path().join("copy");
        let begun = Instant::now();
        let status = Command::new("sh")
            .args(["-c", &format!("{source} | cat > {}", file.display())])
            .status()
            .unwrap();
        assert!(status.success());
        let cat = begun.elapsed();
        fs::remove_file(file).unwrap();
        let text = format!(
            "services:\n  talk: {{x-wharf: {{process: {{command: [sh, -c, '{source}']}}}}}}\n"
        );
        let path = self.root.path().join("talk.yaml");
        fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let begun = Instant::now();
        self.run(&["-f", &path, "-p", "talk", "up", "-d"]);
        let log = self
            .project("talk")
            .join("instances/talk-talk-1/stdout.log");
        while fs::metadata(&log).map_or(0, |log| log.len()) < BYTES {
            std::thread::sleep(Duration::from_millis(1));
        }
        let wharf = begun.elapsed();
        self.run(&["-f", &path, "-p", "talk", "down"]);
        let rate = |span: Duration| {
            f64::from(u32::try_from(BYTES / 1_000_000).unwrap()) / span.as_secs_f64()
        };
        println!(
            "log throughput: {:.0} MB/s; cat to a file {:.0} MB/s",
            rate(wharf),
            rate(cat)
        );
    }
}
