//! A hundred local services side by side with honcho and with a bare loop of fork and exec; what the
//! supervisor and the keepers take; how fast output reaches the log.
//!
//! Run it with `cargo bench --bench processes`; `HONCHO` names honcho's program (`pip install honcho`),
//! without which that part is left out with a line that says so. It prints what it measured; nothing here
//! passes or fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Services.
const SERVICES: usize = 100;
/// Rounds per measurement, in which all take turns; the median counts.
const ROUNDS: usize = 7;
/// Bytes written for the throughput.
const BYTES: u64 = 1_000_000_000;
/// Makes this program one of the services.
const AS_SERVICE: &str = "--as-service";

/// What a service is. The less it costs by itself, the more weighs who starts it.
#[derive(Clone, Debug)]
struct Kind {
    name: &'static str,
    command: Vec<String>,
    /// The same for the shell that reads a Procfile.
    line: String,
}

impl Kind {
    fn all() -> [Self; 2] {
        let text = "echo up; exec sleep 1000";
        let program = std::env::current_exe().unwrap().display().to_string();
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        [
            Self {
                name: "a shell, which then runs sleep",
                command: words(&["sh", "-c", text]),
                line: text.to_owned(),
            },
            Self {
                name: "one small program",
                command: words(&[&program, AS_SERVICE]),
                line: format!("{program} {AS_SERVICE}"),
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
    let honcho = std::env::var_os("HONCHO").map(PathBuf::from);
    if honcho.is_none() {
        println!("honcho start           left out: HONCHO names no program");
    }
    for kind in Kind::all() {
        compare(&kind, honcho.as_deref());
    }
    let [kind, _] = Kind::all();
    let bench = Bench::new(&kind);
    bench.at_rest();
    bench.throughput();
}

/// All in one run, in turns.
fn compare(kind: &Kind, honcho: Option<&Path>) {
    let bench = Bench::new(kind);
    let mut all: [Vec<Measured>; 4] = Default::default();
    let [bare, wharf, in_memory, other] = &mut all;
    for _ in 0..ROUNDS {
        bare.push(bench.bare(kind));
        wharf.push(bench.wharf_up());
        // A disk charges for each file that a start makes, and more for those that were just removed: ext4 does
        // not use an inode again for minutes, and looks past all of them.
        in_memory.extend(bench.in_memory(Bench::wharf_up));
        other.extend(honcho.map(|honcho| bench.honcho(honcho)));
    }
    let [bare, wharf, in_memory, honcho] = all.map(median);
    println!(
        "{SERVICES} services until all have written their first line; each {} (median of {ROUNDS})",
        kind.name
    );
    println!(
        "                         wall ms   / bare   / honcho   CPU ms without the services' own"
    );
    for (what, measured) in [
        ("bare fork and exec", bare),
        ("wharf up -d", wharf),
        ("  state in memory", in_memory),
        ("honcho start", honcho),
    ] {
        let Some(measured) = measured else { continue };
        let to = |other: Option<Measured>| {
            other.map_or_else(String::new, |other| {
                format!("{:.2}", ratio(measured.wall, other.wall))
            })
        };
        println!(
            "{what:<22} {:>9.1} {:>8} {:>10} {:>8.1}",
            ms(measured.wall),
            to(bare),
            to(honcho),
            ms(measured.cpu)
        );
    }
}

#[derive(Clone, Copy)]
struct Measured {
    wall: Duration,
    cpu: Duration,
}

fn median(mut all: Vec<Measured>) -> Option<Measured> {
    all.sort_by_key(|measured| measured.wall);
    all.get(all.len() / 2).copied()
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
        let (mut compose, mut procfile) = ("services:\n".to_owned(), String::new());
        let command = serde_json::to_string(&kind.command).unwrap();
        for at in 0..SERVICES {
            writeln!(
                compose,
                "  s{at}: {{x-wharf: {{process: {{command: {command}}}}}}}"
            )
            .unwrap();
            writeln!(procfile, "s{at}: {}", kind.line).unwrap();
        }
        fs::write(root.path().join("compose.yaml"), compose).unwrap();
        fs::write(root.path().join("Procfile"), procfile).unwrap();
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
        let (cpu, begun) = (own_cpu(), Instant::now());
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
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap())
                .read_line(&mut line)
                .unwrap();
            assert_eq!(line, "up\n");
        }
        let wall = begun.elapsed();
        let cpu = own_cpu().saturating_sub(cpu);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Measured { wall, cpu }
    }

    fn wharf_up(&self) -> Measured {
        let children = children_cpu();
        let begun = SystemTime::now();
        self.run(&["up", "-d"]);
        let command = children_cpu().saturating_sub(children);
        while self.first_lines().len() < SERVICES {
            std::thread::sleep(Duration::from_millis(1));
        }
        // As for the others: when the last first line was there, not when somebody has looked for it.
        let last = self.first_lines().into_iter().max().unwrap();
        let wall = last.duration_since(begun).unwrap();
        let aside = self.own().into_iter().chain(self.forwarder());
        let aside: Duration = aside.map(cpu_of).sum();
        self.run(&["down"]);
        Measured {
            wall,
            cpu: command + aside,
        }
    }

    /// When the first line of each log was written; asked of the files, since asking wharf would be measured too.
    fn first_lines(&self) -> Vec<SystemTime> {
        fs::read_dir(self.project("bench").join("instances"))
            .unwrap()
            .filter_map(|entry| {
                let log = entry.unwrap().path().join("stdout.log");
                let log = fs::metadata(log).ok().filter(|log| log.len() == 3)?;
                log.modified().ok()
            })
            .collect()
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

    fn honcho(&self, honcho: &Path) -> Measured {
        use std::os::unix::process::CommandExt as _;
        let begun = Instant::now();
        let mut child = Command::new(honcho)
            .arg("start")
            .current_dir(self.root.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut up = 0;
        while up < SERVICES {
            let line = lines.next().unwrap().unwrap();
            up += usize::from(line.ends_with("| up"));
        }
        let wall = begun.elapsed();
        // Honcho has a process of its own for each service, between itself and the shell.
        let aside = children_of(child.id());
        let cpu = [child.id()]
            .iter()
            .chain(&aside)
            .map(|pid| cpu_of(*pid))
            .sum();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        for line in lines {
            line.unwrap();
        }
        child.wait().unwrap();
        let _ = kill_process_group(pid, Signal::KILL);
        Measured { wall, cpu }
    }

    fn at_rest(&self) {
        self.run(&["up", "-d"]);
        let supervisor = self.supervisor();
        let own = self.own();
        let forwarder = self.forwarder();
        let cpu = || -> Duration { own.iter().copied().chain(forwarder).map(cpu_of).sum() };
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

/// `proc_pid_schedstat(5)`: time on a CPU, of all its threads.
fn cpu_of(pid: u32) -> Duration {
    let of = |thread: &Path| {
        let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().and_then(|field| field.parse().ok());
        Duration::from_nanos(first.unwrap_or_default())
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads.map(|thread| of(&thread.path())).sum()
}

fn own_cpu() -> Duration {
    cpu_of(std::process::id())
}

/// Of the children that have been waited for.
fn children_cpu() -> Duration {
    let usage =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap())
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap())
    };
    of(usage.user_time()) + of(usage.system_time())
}

fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Fields of `/proc/PID/smaps_rollup` in KiB.
fn rollup(pid: u32, fields: &[&str]) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}
