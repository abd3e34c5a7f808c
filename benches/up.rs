//! How much of `wharf up -d` is wharf's own: the whole command, side by side with the same server
//! started by hand, on a free port and with a polite holder to replace; and what the idle supervisor
//! takes.
//!
//! Run it with `cargo bench --bench up`. It prints medians and their difference; nothing here passes or
//! fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The wharf to measure: `WHARF_BIN`, or the one built for this run.
fn wharf() -> PathBuf {
    let given = std::env::var_os("WHARF_BIN").map(PathBuf::from);
    let given = given.map(|path| path.canonicalize().unwrap());
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wharf")))
}

/// Rounds per measurement; the first is not counted.
const ROUNDS: usize = 21;

fn main() {
    let bench = Bench::new();
    let start = median(|| bench.server_alone());
    let exit = median(|| bench.holder_alone());
    let free = median(|| bench.up_on_a_free_port());
    let replace = median(|| bench.up_with_a_holder());
    println!(
        "server alone, spawn to handshake         {:>8.2} ms",
        ms(start)
    );
    println!(
        "holder alone, SIGTERM to exit            {:>8.2} ms",
        ms(exit)
    );
    println!(
        "wharf up -d, free port                   {:>8.2} ms",
        ms(free)
    );
    println!(
        "  wharf's own share                      {:>8.2} ms",
        ms(free) - ms(start)
    );
    println!(
        "wharf up -d --force, holder to replace   {:>8.2} ms",
        ms(replace)
    );
    println!(
        "  wharf's own share                      {:>8.2} ms",
        ms(replace) - ms(start) - ms(exit)
    );
    bench.wharf(&["up", "-d"]);
    std::thread::sleep(Duration::from_secs(1));
    let (pid, resident) = bench.supervisor();
    println!(
        "idle supervisor (pid {pid}), resident     {:>8.2} MB",
        resident / 1024.0
    );
    bench.wharf(&["down"]);
}

struct Bench {
    directory: PathBuf,
    port: u16,
}

impl Bench {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("wharf-bench-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let compose = format!(
            "services:\n  ws:\n    ports: [{{target: 8003, published: '{port}', host_ip: 127.0.0.1, app_protocol: ws}}]\n    \
             x-wharf: {{process: {{command: [wharf, serve]}}, ready: {{path: /ws}}}}\n"
        );
        fs::write(directory.join("compose.yaml"), compose).unwrap();
        Self { directory, port }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(wharf());
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("XDG_STATE_HOME", self.directory.join("state"))
            .env("XDG_RUNTIME_DIR", self.directory.join("run"))
            .env("DOCKER_HOST", "unix:///nonexistent.sock")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn wharf(&self, arguments: &[&str]) {
        let status = self.command(arguments).status().unwrap();
        assert!(status.success(), "wharf {arguments:?}: {status}");
    }

    fn serve(&self) -> Child {
        let port = self.port.to_string();
        self.command(&["serve", "--port", &port]).spawn().unwrap()
    }

    fn server_alone(&self) -> Duration {
        let began = Instant::now();
        let mut server = self.serve();
        until_handshake(self.port);
        let took = began.elapsed();
        end(&mut server);
        took
    }

    fn holder_alone(&self) -> Duration {
        let mut server = self.serve();
        until_handshake(self.port);
        let began = Instant::now();
        end(&mut server);
        began.elapsed()
    }

    fn up_on_a_free_port(&self) -> Duration {
        let began = Instant::now();
        self.wharf(&["up", "-d"]);
        let took = began.elapsed();
        self.wharf(&["down"]);
        took
    }

    fn up_with_a_holder(&self) -> Duration {
        let mut holder = self.serve();
        until_handshake(self.port);
        let reaper = std::thread::spawn(move || holder.wait());
        let began = Instant::now();
        self.wharf(&["up", "-d", "--force"]);
        let took = began.elapsed();
        reaper.join().unwrap().unwrap();
        self.wharf(&["down"]);
        took
    }

    /// The pid of the supervisor and its resident memory in KiB.
    fn supervisor(&self) -> (u32, f64) {
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        for pid in processes {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains("supervise") && line.contains(self.directory.to_str().unwrap()) {
                return (pid, resident(Path::new(&format!("/proc/{pid}/status"))));
            }
        }
        panic!("no supervisor");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.command(&["down"]).status());
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn resident(status: &Path) -> f64 {
    let text = fs::read_to_string(status).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn end(server: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
    // Not waited for yet, so the pid is still this child's.
    kill_process(pid, Signal::TERM).unwrap();
    server.wait().unwrap();
}

/// Asks for a WebSocket upgrade until it is granted (RFC 6455 §4.1).
fn until_handshake(port: u16) {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let mut answer = [0; 12];
            stream.write_all(request.as_bytes()).unwrap();
            if stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 101" {
                return;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    measure();
    let mut all: Vec<Duration> = (1..ROUNDS).map(|_| measure()).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
