//! `wharf config` side by side with `docker-compose config`: wall time and peak memory on a file of
//! one service and on one of 300, and how long `wharf version` takes, which is what starting costs.
//!
//! Run it with `cargo bench --bench config`. `DOCKER_COMPOSE` names the other program, else it is
//! looked for on `PATH`; without one, wharf is measured alone. `WHARF_BIN` names another wharf than
//! the one just built. Nothing here passes or fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

/// Rounds per measurement; the first is not counted.
const ROUNDS: usize = 21;

/// The first argument of this program where it runs one command and tells what that took.
const MEASURE: &str = "--measure";

const CONFIG: [&str; 3] = ["config", "--format", "json"];

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == MEASURE) {
        measure(&arguments[1], &arguments[2..]);
        return;
    }
    let wharf = std::env::var_os("WHARF_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wharf")), PathBuf::from);
    let other = docker_compose();
    match &other {
        Some(path) => println!("side by side with {}", path.display()),
        None => println!("docker-compose was not found: wharf alone (DOCKER_COMPOSE names one)"),
    }
    let top = tempfile::tempdir().unwrap();
    println!("{:<26}{:>14}{:>14}", "", "wall, median", "peak memory");
    for services in [1, 300] {
        let directory = top.path().join(format!("of-{services}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("compose.yaml"), compose(services)).unwrap();
        let label = if services == 1 {
            "1 service"
        } else {
            "300 services"
        };
        println!("config, {label}");
        let mut tools = vec![("wharf", &wharf)];
        tools.extend(other.as_ref().map(|path| ("docker-compose", path)));
        let costs = alternate(&tools, &CONFIG, &directory);
        for ((name, _), cost) in tools.iter().zip(&costs) {
            print_cost(name, cost);
        }
        if let [ours, theirs] = costs.as_slice() {
            println!(
                "  {:<24}{:>14}{:>14}",
                "one part in",
                format!("{:.1}", theirs.wall / ours.wall),
                format!("{:.1}", theirs.peak / ours.peak)
            );
        }
    }
    for cost in alternate(&[("wharf", &wharf)], &["version"], top.path()) {
        println!("start");
        print_cost("wharf version", &cost);
    }
}

/// What a run took: milliseconds and MiB.
struct Cost {
    wall: f64,
    peak: f64,
}

fn print_cost(name: &str, cost: &Cost) {
    println!(
        "  {name:<24}{:>14}{:>14}",
        format!("{:.2} ms", cost.wall),
        format!("{:.1} MiB", cost.peak)
    );
}

/// The medians of each tool, whose runs take turns, so that a busy machine slows all alike.
fn alternate(tools: &[(&str, &PathBuf)], arguments: &[&str], directory: &Path) -> Vec<Cost> {
    let mut runs: Vec<Vec<Cost>> = tools.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for ((_, program), runs) in tools.iter().zip(&mut runs) {
            let cost = apart(program, arguments, directory);
            if round > 0 {
                runs.push(cost);
            }
        }
    }
    let median = |runs: &[Cost], of: fn(&Cost) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    runs.iter()
        .map(|runs| Cost {
            wall: median(runs, |cost| cost.wall),
            peak: median(runs, |cost| cost.peak),
        })
        .collect()
}

/// Measures one run in a process of its own: the kernel tells the peak of all children together.
fn apart(program: &Path, arguments: &[&str], directory: &Path) -> Cost {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(MEASURE)
        .arg(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let (wall, peak) = text.trim().split_once(' ').unwrap();
    Cost {
        wall: wall.parse().unwrap(),
        peak: peak.parse().unwrap(),
    }
}

/// Runs a command, and prints its milliseconds and its peak in MiB.
fn measure(program: &OsStr, arguments: &[OsString]) {
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let wall = began.elapsed().as_secs_f64() * 1000.0;
    assert!(status.success(), "{status}");
    // In KiB (getrusage(2)), far from where an f64 loses digits.
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    let peak = f64::from(i32::try_from(peak).unwrap()) / 1024.0;
    println!("{wall} {peak}");
}

/// `DOCKER_COMPOSE`, or the first `docker-compose` on `PATH`.
fn docker_compose() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("DOCKER_COMPOSE") {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("docker-compose"))
        .find(|program| program.is_file())
}

/// A file as teams write them, with so many services.
fn compose(services: usize) -> String {
    let mut text = "services:\n".to_owned();
    for service in 0..services {
        write!(
            text,
            "  service-{service}:
    image: \"registry.example/team/service-{service}:${{TAG:-latest}}\"
    command: [\"serve\", \"--port\", \"8080\", \"--verbose\"]
    ports: [\"{}:8080\", \"127.0.0.1:{}:9090\"]
    environment:
      LOG_LEVEL: \"${{LOG_LEVEL:-info}}\"
      DATABASE_URL: postgres://user:secret@db/service{service}
      WORKERS: 4
    volumes: [\"./data/{service}:/data:ro\", \"cache:/cache\"]
    healthcheck: {{test: [CMD, curl, -f, \"http://localhost:8080/health\"], interval: 10s, retries: 5}}
    labels: [team=core, \"tier=backend\"]
    restart: unless-stopped
    deploy: {{resources: {{limits: {{cpus: \"0.5\", memory: 256M}}}}}}
",
            10_000 + service,
            20_000 + service
        )
        .unwrap();
        if service > 0 {
            let before = service - 1;
            writeln!(
                text,
                "    depends_on: {{service-{before}: {{condition: service_healthy}}}}"
            )
            .unwrap();
        }
    }
    text + "volumes: {cache: {}}\n"
}
