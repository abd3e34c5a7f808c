//! wharf and Docker Compose on the same files, in one run: `up` with nothing to do, `ps`, `up` from
//! nothing, and waits for health.
//!
//! Run it with `cargo bench --bench compose` where an engine answers. `DOCKER_COMPOSE` names the other
//! tool (else the one on the PATH), `WHARF_BIN` another wharf, such as the file that ships (`./dev static`,
//! `compose/bin/wharf`). Times are of the tools alone; memory is told by GNU time (the Debian package `time`)
//! in rounds of their own. It prints medians and ratios; nothing here passes or fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of what takes milliseconds; the first is not counted.
const QUICK: usize = 21;

/// Rounds of what takes seconds.
const SLOW: usize = 3;

/// Rounds in which memory is told.
const MEMORY: usize = 3;

/// The image of all services, made here from a static busybox.
const IMAGE: &str = "wharf-bench-busybox";

fn main() {
    let directory = std::env::temp_dir().join(format!("wharf-bench-{}", std::process::id()));
    fs::create_dir_all(directory.join("image")).unwrap();
    let bench = Bench {
        wharf: given("WHARF_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_wharf").into()),
        compose: given("DOCKER_COMPOSE").unwrap_or_else(|| "docker-compose".into()),
        project: format!("wharfbench{}", std::process::id()),
        directory,
    };
    bench.image();
    println!("{:<46}{:>12}{:>12}{:>8}", "", "wharf", "compose", "ratio");
    for services in [1, 10, 30] {
        bench.write(&sleepers(services));
        bench.run(&bench.wharf, &["up", "-d"]);
        bench.compare(
            &format!("up -d, nothing to do, {services} services"),
            QUICK,
            &["up", "-d"],
        );
        bench.compare(&format!("ps, {services} services"), QUICK, &["ps"]);
        bench.run(&bench.wharf, &["down", "-t", "0"]);
    }
    bench.compare_anew("up -d from nothing, 30 services");
    bench.write(&chain(2, ""));
    bench.compare_anew("service_healthy, default interval, 2 services");
    bench.write(&chain(5, "interval: 1s"));
    bench.compare_anew("service_healthy, interval 1 s, chain of 5");
    fs::remove_dir_all(&bench.directory).unwrap();
}

fn given(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable)?);
    Some(path.canonicalize().unwrap_or(path))
}

/// Services that sleep.
fn sleepers(count: usize) -> String {
    let mut text = "services:\n".to_owned();
    for number in 0..count {
        writeln!(
            text,
            "  s{number}: {{image: {IMAGE}, command: sleep 6000, init: true}}"
        )
        .unwrap();
    }
    text
}

/// Services that each wait until the one before is healthy.
fn chain(length: usize, check: &str) -> String {
    let mut text = "services:\n".to_owned();
    for number in 0..length {
        let after = match number {
            0 => String::new(),
            _ => format!(
                "depends_on: {{s{}: {{condition: service_healthy}}}}",
                number - 1
            ),
        };
        writeln!(
            text,
            "  s{number}: {{image: {IMAGE}, command: sleep 6000, init: true, \
             healthcheck: {{test: ['CMD', 'true'], {check}}}, {after}}}"
        )
        .unwrap();
    }
    text
}

struct Bench {
    wharf: PathBuf,
    compose: PathBuf,
    project: String,
    directory: PathBuf,
}

impl Bench {
    fn image(&self) {
        let directory = self.directory.join("image");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"];
        let busybox = busybox.into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.unwrap(), directory.join("busybox")).unwrap();
        let recipe = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
        fs::write(directory.join("Dockerfile"), recipe).unwrap();
        let built = Command::new("docker")
            .args(["build", "-q", "-t", IMAGE, "."])
            .env("DOCKER_BUILDKIT", "0")
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(built.unwrap().success(), "the image cannot be built");
    }

    fn write(&self, text: &str) {
        fs::write(self.directory.join("compose.yaml"), text).unwrap();
    }

    /// How long a command takes.
    fn run(&self, tool: &Path, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        self.finish(&mut Command::new(tool), arguments);
        began.elapsed()
    }

    /// The most memory that a command has resident at once, in KiB.
    fn memory(&self, tool: &Path, arguments: &[&str]) -> u64 {
        let report = self.directory.join("time");
        let mut command = Command::new("time");
        command.args(["-f", "%M", "-o"]).arg(&report).arg(tool);
        self.finish(&mut command, arguments);
        fs::read_to_string(report).unwrap().trim().parse().unwrap()
    }

    fn finish(&self, command: &mut Command, arguments: &[&str]) {
        let status = command
            .args(["-p", &self.project])
            .args(arguments)
            .current_dir(&self.directory)
            .env("XDG_STATE_HOME", self.directory.join("state"))
            .env("XDG_RUNTIME_DIR", self.directory.join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }

    /// A command that leaves everything as it is, by both tools in turn.
    fn compare(&self, what: &str, rounds: usize, arguments: &[&str]) {
        let mut taken = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            for (tool, all) in self.tools().into_iter().zip(&mut taken) {
                let wall = self.run(tool, arguments);
                if round > 0 {
                    all.push(wall);
                }
            }
        }
        let memory = self.tools().map(|tool| {
            let all = (0..MEMORY).map(|_| kib(self.memory(tool, arguments)));
            median(all)
        });
        show(what, &taken);
        show_memory(what, memory);
    }

    fn tools(&self) -> [&Path; 2] {
        [&self.wharf, &self.compose]
    }

    /// `up -d` of a project of which nothing exists, by both tools in turn.
    fn compare_anew(&self, what: &str) {
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..SLOW {
            for (tool, all) in self.tools().into_iter().zip(&mut taken) {
                all.push(self.run(tool, &["up", "-d"]));
                self.run(&self.wharf, &["down", "-t", "0"]);
            }
        }
        show(what, &taken);
    }
}

fn show(what: &str, taken: &[Vec<Duration>; 2]) {
    let milliseconds = |all: &Vec<Duration>| median(all.iter().map(|one| one.as_secs_f64() * 1e3));
    line(what, "ms", milliseconds(&taken[0]), milliseconds(&taken[1]));
}

fn show_memory(what: &str, kib: [f64; 2]) {
    line(what, "MB", kib[0] / 1024.0, kib[1] / 1024.0);
}

fn line(what: &str, unit: &str, ours: f64, theirs: f64) {
    println!(
        "{what:<46}{ours:>9.1} {unit}{theirs:>9.1} {unit}{:>8.3}",
        ours / theirs
    );
}

fn kib(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
