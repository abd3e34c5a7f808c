//! Who has a port, on a busy machine: 20,000 sockets, 400 processes, 50,000 open descriptors. The look-up alone,
//! and `wharf who` side by side with what people use for it: `ss`, `lsof`, `fuser` and `killport`, as far as
//! they are installed.
//!
//! Run it with `cargo bench --bench ports`; as root it works in a network namespace of its own. It prints
//! medians and ratios; nothing here passes or fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use wharf::port::claim::{Claim, Protocol};
use wharf::port::owner::look_up;
use wharf::port::sockets::listeners;

/// Bystanders, and what each has open.
const PROCESSES: usize = 400;
const CONNECTIONS: usize = 25;
const FILES: usize = 75;

/// Rounds of a measurement; the first is not counted.
const ROUNDS: usize = 12;
/// Rounds of what takes microseconds.
const MANY: usize = 200;

/// Says to this program that it is a bystander.
const BYSTANDER: &str = "WHARF_BENCH_BYSTANDER";
/// Says to this program that it is the server, and in which cgroup.
const SERVER: &str = "WHARF_BENCH_SERVER";
/// Says to this program that it is in a namespace of its own.
const APART: &str = "WHARF_BENCH_APART";

fn main() {
    if std::env::var_os(BYSTANDER).is_some() {
        return stand_by();
    }
    if let Some(cgroup) = std::env::var_os(SERVER) {
        return serve(&PathBuf::from(cgroup));
    }
    if std::env::var_os(APART).is_none() && rustix::process::geteuid().is_root() {
        let script = "ip link set lo up && exec \"$0\"";
        let apart = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(APART, "1")
            .status();
        if apart.is_ok_and(|status| status.success()) {
            return;
        }
        println!("no network namespace of its own: measured among the sockets of this machine");
    }
    let _crowd: Vec<Bystander> = (0..PROCESSES).map(|_| Bystander::start()).collect();
    println!(
        "{PROCESSES} processes, {} sockets, {} descriptors",
        PROCESSES * CONNECTIONS * 2,
        PROCESSES * (2 * CONNECTIONS + FILES)
    );

    println!("the server among all others, in one cgroup:");
    let server = Bystander::serving(Path::new(""));
    measure(server.said.trim().parse().unwrap());
    drop(server);
    match Cgroup::make() {
        Some(cgroup) => {
            println!("the server in a cgroup of its own, as service managers start them:");
            let server = Bystander::serving(&cgroup.0);
            measure(server.said.trim().parse().unwrap());
        }
        None => println!("no cgroup of its own can be made for the server: not measured"),
    }
}

fn measure(port: u16) {
    let claim = Claim {
        service: String::new(),
        number: 1,
        addresses: Claim::any_address(),
        port,
        protocol: Protocol::Tcp,
    };
    say(
        "in process: the sockets on one port",
        median(MANY, || {
            drop(black_box(listeners(port, Protocol::Tcp).unwrap()));
        }),
        None,
    );
    say(
        "in process: those and all their holders",
        median(ROUNDS, || {
            drop(black_box(look_up(std::slice::from_ref(&claim)).unwrap()));
        }),
        None,
    );

    let text = port.to_string();
    let filter = format!("sport = :{port}");
    let (lsof, fuser) = (format!("-iTCP:{port}"), format!("{port}/tcp"));
    let tools: [(&str, &[&str]); 4] = [
        ("ss", &["-ltnpH", &filter]),
        ("lsof", &["-nP", &lsof, "-sTCP:LISTEN"]),
        ("fuser", &[&fuser]),
        ("killport", &["--dry-run", &text]),
    ];
    let wharf = wharf();
    let who = ["who", text.as_str()];
    for (tool, words) in tools {
        if run(tool.into(), words).is_none() {
            println!("{tool:<44}   not installed");
            continue;
        }
        // In turns, so that both meet the same machine.
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            own.extend(run(wharf.clone(), &who));
            other.extend(run(tool.into(), words));
        }
        let (own, other) = (middle(own), middle(other));
        say(&format!("{tool} {}", words.join(" ")), other, None);
        say(
            "  wharf who, in turns with it",
            own,
            Some(ms(other) / ms(own)),
        );
    }
}

/// The wharf to measure: `WHARF_BIN`, or the one built for this run.
fn wharf() -> PathBuf {
    std::env::var_os("WHARF_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_wharf")),
        |path| PathBuf::from(path).canonicalize().unwrap(),
    )
}

/// How long a command takes; `None` if there is none of that name.
fn run(program: PathBuf, words: &[&str]) -> Option<Duration> {
    let begin = Instant::now();
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.ok().map(|_| begin.elapsed())
}

fn median(rounds: usize, mut work: impl FnMut()) -> Duration {
    let times = (0..rounds).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    });
    middle(times.collect())
}

/// The median, without the first.
fn middle(mut times: Vec<Duration>) -> Duration {
    times.remove(0);
    times.sort();
    times.get(times.len() / 2).copied().unwrap()
}

fn say(what: &str, time: Duration, ratio: Option<f64>) {
    let ratio = ratio.map_or_else(String::new, |ratio| {
        format!("   {ratio:>6.1} times as fast")
    });
    println!("{what:<44} {:>9.3} ms{ratio}", ms(time));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A cgroup of version 2, removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let name = format!("wharf-bench-{}.scope", std::process::id());
        let path = Path::new(line.split(' ').nth(4)?).join(name);
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A dead process leaves its cgroup a moment after it was reaped.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What the server does: enters its cgroup, if it has one, and listens.
fn serve(cgroup: &Path) {
    if !cgroup.as_os_str().is_empty() {
        std::fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    drop(std::io::stdin().read(&mut [0]));
}

/// One process beside this one; ends when its standard input does.
struct Bystander {
    child: Child,
    stdin: Option<ChildStdin>,
    said: String,
}

impl Bystander {
    fn start() -> Self {
        let bystander = Self::run(BYSTANDER, Path::new("1"));
        assert_eq!(bystander.said, "ready\n");
        bystander
    }

    fn serving(cgroup: &Path) -> Self {
        Self::run(SERVER, cgroup)
    }

    fn run(role: &str, value: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(role, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        Self { child, stdin, said }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

/// What a bystander does: keeps connections with itself and files open.
fn stand_by() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut ends = Vec::new();
    for _ in 0..CONNECTIONS {
        ends.push(TcpStream::connect(address).unwrap());
        ends.push(listener.accept().unwrap().0);
    }
    drop(listener);
    let files: Vec<File> = (0..FILES)
        .map(|_| File::open("/dev/null").unwrap())
        .collect();
    println!("ready");
    std::io::stdout().flush().unwrap();
    drop(std::io::stdin().read(&mut [0]));
    drop((ends, files));
}
