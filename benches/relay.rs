//! What a connection through a relay costs: the round trip of one byte, the throughput of one large transfer, and
//! a thousand connections at once. Side by side in one run: directly, through the plainest possible proxy, through
//! a relay that hands its sockets over, and through one that is reached over a single stream.
//!
//! Run it as root with `cargo bench --bench relay`: it makes network namespaces for a client and a relay, on a
//! bridge as an engine would have it, and no engine is needed. `WHARF_BIN` names another wharf than the one built
//! for this run. It prints what it measured; nothing here passes or fails by a duration.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wharf::forward::single::{self, Way};
use wharf::forward::stream::Relay;

/// What this program is to be, and the words that it needs for it.
const ROLE: &str = "WHARF_BENCH_ROLE";

/// Round trips of one byte, after some that do not count.
const TRIPS: usize = 4000;
const UNCOUNTED: usize = 400;
/// Bytes of the transfer.
const BYTES: u64 = 1 << 30;
/// Connections at once.
const MANY: usize = 1000;
/// Rounds of everything; the median counts.
const ROUNDS: usize = 5;

/// The port of the relay that clients connect to.
const PORT: u16 = 8080;
/// Addresses on the bridge.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const RELAY: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);

fn main() {
    let role = std::env::var_os(ROLE).map(|role| role.into_string().unwrap());
    let words: Vec<&str> = role.as_deref().unwrap_or_default().split(' ').collect();
    match words.as_slice() {
        ["server"] => block_on(serve()),
        ["proxy", to] => block_on(proxy(to.parse().unwrap())),
        ["socket", directory, to] => {
            let way = Way::Socket(PathBuf::from(directory));
            block_on(forward(way, to.parse().unwrap()));
        }
        ["stream", namespace, to] => block_on(forward_by_stream(namespace, to.parse().unwrap())),
        ["client", to] => measure(to.parse().unwrap()),
        ["apart"] => compare(),
        _ => {
            if !rustix::process::geteuid().is_root() {
                println!("not measured: needs root, for network namespaces");
                return;
            }
            let apart = Command::new("unshare")
                .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\""])
                .arg(std::env::current_exe().unwrap())
                .env(ROLE, "apart")
                .status();
            assert!(apart.unwrap().success());
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

/// One way from a client to the server.
struct Route {
    name: &'static str,
    client: Option<u32>,
    to: SocketAddr,
    found: Vec<Found>,
}

/// What a client found.
#[derive(Clone, Copy)]
struct Found {
    /// Of one byte there and back, in milliseconds.
    p50: f64,
    p99: f64,
    /// MiB/s.
    rate: f64,
    /// Until all connections were open and had had an answer, in milliseconds.
    many: f64,
}

fn compare() {
    let bridge = format!("{HOST}/24");
    ip(&["link", "add", "wharf0", "type", "bridge"]);
    ip(&["addr", "add", &bridge, "dev", "wharf0"]);
    ip(&["link", "set", "wharf0", "up"]);
    let client = Namespace::make(CLIENT, "c");
    let relays = [
        Namespace::make(RELAY[0], "r"),
        Namespace::make(RELAY[1], "s"),
    ];

    let server = Role::start("server");
    let port: u16 = server.said.parse().unwrap();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let proxy = Role::start(&format!("proxy {local}"));
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("relay");
    let by_socket = Role::begin(&format!("socket {} {local}", place.display()));
    let relay = relays[0].run(
        &wharf(),
        &["relay", "--socket"],
        Some(&place.join("socket")),
    );
    let by_socket = by_socket.wait();
    let by_stream = Role::start(&format!("stream {} {local}", relays[1].pid()));

    let at = |ip: Ipv4Addr, port: u16| SocketAddr::from((ip, port));
    let apart = Some(client.pid());
    let mut paths = [
        ("loopback, direct", None, local),
        ("loopback, plain proxy", None, proxy.said.parse().unwrap()),
        ("bridge, direct", apart, at(HOST, port)),
        ("bridge, relay by socket", apart, at(RELAY[0], PORT)),
        ("bridge, relay by stream", apart, at(RELAY[1], PORT)),
    ]
    .map(|(name, client, to)| Route {
        name,
        client,
        to,
        found: Vec::new(),
    });
    for _ in 0..ROUNDS {
        for path in &mut paths {
            path.found.push(ask(path.client, path.to));
        }
    }
    println!(
        "median of {ROUNDS} rounds; one byte: {TRIPS} round trips; transfer: {} MiB",
        BYTES >> 20
    );
    println!("                           p50 ms   p99 ms     MiB/s   {MANY} connections, ms");
    let medians = paths.each_ref().map(|path| median(&path.found));
    for (path, found) in paths.iter().zip(medians) {
        println!(
            "{:<24} {:>8.3} {:>8.3} {:>9.0} {:>10.0}",
            path.name, found.p50, found.p99, found.rate, found.many
        );
    }
    let [direct, plain, bridge, socket, stream] = medians;
    println!(
        "                       added p50 ms   added p99 ms   of the plain proxy's: throughput   time of {MANY} connections"
    );
    for (name, one, other) in [
        ("plain proxy", plain, direct),
        ("relay by socket", socket, bridge),
        ("relay by stream", stream, bridge),
    ] {
        println!(
            "{name:<24} {:>10.3} {:>14.3} {:>33.2} {:>26.2}",
            one.p50 - other.p50,
            one.p99 - other.p99,
            one.rate / plain.rate,
            one.many / plain.many
        );
    }
    drop((by_stream, by_socket, relay, proxy, server, relays, client));
}

fn median(all: &[Found]) -> Found {
    let middle = |of: fn(&Found) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Found {
        p50: middle(|found| found.p50),
        p99: middle(|found| found.p99),
        rate: middle(|found| found.rate),
        many: middle(|found| found.many),
    }
}

/// A client, in the network namespace of a process if one is named.
fn ask(namespace: Option<u32>, to: SocketAddr) -> Found {
    let own = std::env::current_exe().unwrap();
    let mut command = match namespace {
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command
                .args(["--net", "--target", &pid.to_string()])
                .arg(own);
            command
        }
        None => Command::new(own),
    };
    let output = command
        .env(ROLE, format!("client {to}"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "client of {to}");
    let text = String::from_utf8(output.stdout).unwrap();
    let values: Vec<f64> = text
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let [p50, p99, rate, many] = values.try_into().unwrap();
    Found {
        p50,
        p99,
        rate,
        many,
    }
}

/// What a client does: prints what it found.
fn measure(to: SocketAddr) {
    let mut stream = std::net::TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"e").unwrap();
    let mut times = Vec::with_capacity(TRIPS);
    for trip in 0..TRIPS + UNCOUNTED {
        let begin = Instant::now();
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        if trip >= UNCOUNTED {
            times.push(begin.elapsed());
        }
    }
    drop(stream);
    times.sort();

    let mut stream = std::net::TcpStream::connect(to).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let begin = Instant::now();
    stream.write_all(b"d").unwrap();
    let mut left = BYTES;
    while left > 0 {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "cut short");
        left -= count as u64;
    }
    let mib = f64::from(u32::try_from(BYTES >> 20).unwrap());
    let rate = mib / begin.elapsed().as_secs_f64();

    let many = std::cell::Cell::new(Duration::ZERO);
    block_on(async {
        let begin = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..MANY {
            clients.spawn(async move {
                let mut stream = TcpStream::connect(to).await.unwrap();
                stream.write_all(b"ex").await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
                stream
            });
        }
        let open = clients.join_all().await;
        many.set(begin.elapsed());
        drop(open);
    });
    println!(
        "{} {} {rate} {}",
        ms(times[TRIPS / 2]),
        ms(times[TRIPS * 99 / 100]),
        ms(many.get())
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What the server does: `e` asks for an echo, `d` for many bytes.
async fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    say(listener.local_addr().unwrap().port());
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            client.set_nodelay(true).unwrap();
            if client.read_u8().await.is_ok_and(|word| word == b'd') {
                let flood = vec![0; 256 << 10];
                let mut left = BYTES;
                while left > 0 {
                    client.write_all(&flood).await.unwrap();
                    left -= flood.len() as u64;
                }
            } else {
                while let Ok(byte) = client.read_u8().await {
                    if client.write_u8(byte).await.is_err() {
                        break;
                    }
                }
            }
        });
    }
}

/// The plainest proxy.
async fn proxy(to: SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    say(listener.local_addr().unwrap());
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(to).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
        });
    }
}

async fn forward(way: Way, to: SocketAddr) {
    single::forward(way, PORT, to, || say("listening"))
        .await
        .unwrap();
}

/// Runs the relay itself, in the network namespace of a process, as an engine would.
async fn forward_by_stream(namespace: &str, to: SocketAddr) {
    let mut relay = tokio::process::Command::new("nsenter")
        .args(["--net", "--target", namespace])
        .arg(wharf())
        .args(["relay", "--stream"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (output, input) = (relay.stdout.take().unwrap(), relay.stdin.take().unwrap());
    let relay = Relay::over(tokio::io::join(output, input)).await.unwrap();
    forward(Way::Stream(relay), to).await;
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

/// The wharf to measure: `WHARF_BIN`, or the one built for this run.
fn wharf() -> PathBuf {
    std::env::var_os("WHARF_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_wharf")),
        |path| PathBuf::from(path).canonicalize().unwrap(),
    )
}

fn ip(words: &[&str]) {
    assert!(
        Command::new("ip").args(words).status().unwrap().success(),
        "ip {words:?}"
    );
}

/// A child that ends with this value.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// This program in another role.
struct Role {
    _child: Kept,
    said: String,
}

/// One that has not said anything yet.
struct Begun(Kept);

impl Role {
    fn start(role: &str) -> Self {
        Self::begin(role).wait()
    }

    fn begin(role: &str) -> Begun {
        let child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn();
        Begun(Kept(child.unwrap()))
    }
}

impl Begun {
    fn wait(mut self) -> Role {
        let mut said = String::new();
        let mut output = BufReader::new(self.0.0.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        Role {
            _child: self.0,
            said: said.trim().to_owned(),
        }
    }
}

/// A network namespace with a leg in the bridge.
struct Namespace(Kept);

impl Namespace {
    fn make(address: Ipv4Addr, name: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && echo up && read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 2];
        holder.stdout.take().unwrap().read_exact(&mut up).unwrap();
        let made = Self(Kept(holder));
        let (outer, pid) = (format!("wharf-{name}"), made.pid().to_string());
        ip(&[
            "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &pid,
        ]);
        ip(&["link", "set", &outer, "master", "wharf0", "up"]);
        let address = format!("{address}/24");
        made.run_to_end(Path::new("ip"), &["addr", "add", &address, "dev", "eth0"]);
        made.run_to_end(Path::new("ip"), &["link", "set", "eth0", "up"]);
        made
    }

    fn pid(&self) -> u32 {
        self.0.0.id()
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--net", "--target", &self.pid().to_string()])
            .arg(program)
            .args(words);
        command
    }

    fn run(&self, program: &Path, words: &[&str], last: Option<&Path>) -> Kept {
        Kept(self.command(program, words).args(last).spawn().unwrap())
    }

    fn run_to_end(&self, program: &Path, words: &[&str]) {
        assert!(self.command(program, words).status().unwrap().success());
    }
}
