//! Who is named, and who is not.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use wharf::port::PortError;
use wharf::port::claim::{Claim, Protocol};
use wharf::port::holder::Who;
use wharf::port::owner::{Depth, look_up, look_up_to, pids_holding, process_facts};
use wharf::port::release::{Barrier, await_free, barrier, is_free, next_free, stop_process};
use wharf::port::report::Means;
use wharf::port::sockets::abilities::abilities;
use wharf::port::sockets::{accepted_inode, established, listeners};

use super::stage::{
    Actor, claim, facts, free_port, holders, in_namespaces, in_namespaces_with, is_root, pids, udp,
};

#[test]
fn a_server_is_named_with_all_a_person_needs() {
    let port = free_port().to_string();
    let server = Actor::play(&["serve", "127.0.0.1", &port]);
    let wanted = claim(port.parse().unwrap(), &["127.0.0.1"]);

    let found = holders(&wanted);

    assert_eq!(pids(&found), [server.pid()]);
    let holder = found.first().unwrap();
    assert_eq!(holder.protected, None);
    assert_eq!(holder.sockets.len(), 1);
    let facts = facts(holder).unwrap();
    assert_eq!(facts.name, "perl");
    assert_eq!(
        facts.command.last().map(String::as_str),
        Some(port.as_str())
    );
    assert_eq!(facts.cwd, Some(env!("CARGO_MANIFEST_DIR").into()));
    assert_eq!(
        facts.ancestors.first().map(|(pid, _)| *pid),
        Some(std::process::id())
    );
    assert!(
        holder
            .describe()
            .starts_with(&format!("perl (pid {}, ", server.pid()))
    );
    assert!(!is_free(&wanted).unwrap());
}

#[test]
fn a_free_port_has_no_holder() {
    let wanted = claim(free_port(), &["0.0.0.0", "::"]);
    assert_eq!(holders(&wanted), []);
    assert!(is_free(&wanted).unwrap());
}

#[test]
fn a_client_is_never_named_for_its_own_port() {
    let (port, far) = (free_port(), free_port());
    let _far = Actor::play(&["accept", "127.0.0.1", &far.to_string()]);
    let client = Actor::play(&[
        "connect",
        "127.0.0.1",
        &port.to_string(),
        "127.0.0.1",
        &far.to_string(),
    ]);
    let wanted = claim(port, &["0.0.0.0", "::"]);
    assert_eq!(listeners(port, Protocol::Tcp).unwrap(), []);
    assert_eq!(holders(&wanted), []);
    // Nobody to stop, and yet not to be had.
    let found = look_up(std::slice::from_ref(&wanted)).unwrap();
    assert_eq!(found.in_use, std::slice::from_ref(&wanted));

    let server = Actor::play(&["serve", "127.0.0.2", &port.to_string()]);
    let found = pids(&holders(&wanted));
    assert_eq!(found, [server.pid()]);
    assert!(!found.contains(&client.pid()));
}

#[test]
fn a_connected_client_of_the_server_is_not_named() {
    let port = free_port();
    let mut server = Actor::play(&["accept", "127.0.0.1", &port.to_string()]);
    let from = free_port();
    let _client = Actor::play(&[
        "connect",
        "127.0.0.1",
        &from.to_string(),
        "127.0.0.1",
        &port.to_string(),
    ]);
    server.hear();
    assert_eq!(pids(&holders(&claim(port, &["127.0.0.1"]))), [server.pid()]);
}

#[test]
fn all_four_holders_of_one_socket_are_named_master_first() {
    let port = free_port();
    let master = Actor::play(&["prefork", "127.0.0.1", &port.to_string(), "3"]);
    let found = holders(&claim(port, &["0.0.0.0"]));
    let mut expected = vec![master.pid()];
    expected.extend(&master.words);
    assert_eq!(pids(&found), expected);
    let inodes: Vec<u64> = found
        .iter()
        .flat_map(|holder| &holder.sockets)
        .map(|socket| socket.inode)
        .collect();
    assert_eq!(inodes.len(), 4);
    assert!(inodes.iter().all(|inode| Some(inode) == inodes.first()));
}

#[test]
fn both_sockets_of_a_shared_port_are_named() {
    let port = free_port();
    let words = ["serve", "127.0.0.1", &port.to_string(), "reuseport"];
    let (one, two) = (Actor::play(&words), Actor::play(&words));
    let found = holders(&claim(port, &["127.0.0.1"]));
    let mut expected = [one.pid(), two.pid()];
    expected.sort_unstable();
    assert_eq!(pids(&found), expected);
    assert_ne!(
        found.first().map(|holder| holder.sockets.clone()),
        found.last().map(|holder| holder.sockets.clone())
    );
}

#[test]
fn addresses_overlap_as_the_kernel_has_it() {
    // Listener, its options, wanted, conflict.
    for (held, with, wanted, conflict) in [
        ("127.0.0.1", None, "127.0.0.1", true),
        ("127.0.0.1", None, "0.0.0.0", true),
        ("0.0.0.0", None, "127.0.0.1", true),
        ("127.0.0.2", None, "127.0.0.1", false),
        ("0.0.0.0", None, "::1", false),
        ("0.0.0.0", None, "::", false),
        ("::1", None, "0.0.0.0", false),
        ("::1", None, "::", true),
        ("::", None, "127.0.0.1", false),
        ("::", Some("dual"), "127.0.0.1", true),
        ("::", Some("dual"), "0.0.0.0", true),
        ("::ffff:127.0.0.1", Some("dual"), "127.0.0.1", true),
        ("::ffff:127.0.0.1", Some("dual"), "::1", false),
    ] {
        let port = free_port();
        let text = port.to_string();
        let mut words = vec!["serve", held, &text];
        words.extend(with);
        let server = Actor::play(&words);
        let wanted_claim = claim(port, &[wanted]);
        let case = format!("{held} {with:?} against {wanted}");
        let expected: &[u32] = if conflict { &[server.pid()] } else { &[] };
        assert_eq!(pids(&holders(&wanted_claim)), expected, "{case}");
        // The kernel itself agrees.
        assert_eq!(is_free(&wanted_claim).unwrap(), !conflict, "{case}");
    }
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen_holds_its_port() {
    let port = free_port();
    let server = Actor::play(&["bind", "127.0.0.1", &port.to_string()]);
    let wanted = claim(port, &["127.0.0.1"]);
    assert!(!is_free(&wanted).unwrap());
    if listeners(port, Protocol::Tcp).unwrap().is_empty() {
        println!("skipped: this kernel does not list sockets that are only bound");
        return;
    }
    assert_eq!(pids(&holders(&wanted)), [server.pid()]);
}

#[test]
fn what_is_bound_as_servers_bind_is_no_conflict_and_is_named_when_asked_for() {
    let port = free_port();
    let server = Actor::play(&["lax", "127.0.0.1", &port.to_string()]);
    let wanted = claim(port, &["127.0.0.1"]);
    assert_eq!(holders(&wanted), []);
    if listeners(port, Protocol::Tcp).unwrap().is_empty() {
        println!("skipped: this kernel does not list sockets that are only bound");
        return;
    }
    let found = look_up_to(Depth::Bound, &[wanted]).unwrap().held;
    let holders = &found.first().unwrap().holders;
    assert_eq!(pids(holders), [server.pid()]);
    let told = holders.first().unwrap().facts();
    let bound = format!("has bound, without listening, 127.0.0.1:{port}");
    assert!(told.contains(&bound), "{told:?}");
}

#[test]
fn what_is_bound_beside_a_listener_is_named_and_stopped_with_it() {
    let port = free_port();
    let text = port.to_string();
    let listens = Actor::play(&["serve", "127.0.0.1", &text]);
    let mut bound = Actor::play(&["bind", "127.0.0.2", &text]);
    if !abilities().unwrap().bound {
        println!("skipped: this kernel does not list sockets that are only bound");
        return;
    }
    let wanted = claim(port, &["0.0.0.0", "::"]);
    let held = look_up_to(Depth::Bound, std::slice::from_ref(&wanted))
        .unwrap()
        .held;
    let holders = &held.first().unwrap().holders;
    let mut expected = [listens.pid(), bound.pid()];
    expected.sort_unstable();
    assert_eq!(pids(holders), expected);
    // Beside the listener, not only after it.
    let of = |pid| {
        holders
            .iter()
            .find(|holder| facts(holder).is_some_and(|facts| facts.pid == pid))
    };
    stop_process(of(bound.pid()).unwrap(), &wanted, Duration::from_mins(1)).unwrap();
    assert!(!bound.is_alive());
    // Whoever has the port in the end is named.
    let Err(PortError::NotFree { by, .. }) = await_free(&wanted, holders, Duration::ZERO) else {
        panic!("somebody listens");
    };
    assert!(
        by.iter()
            .any(|by| by.contains(&format!("pid {},", listens.pid()))),
        "{by:?}"
    );
}

#[test]
fn who_has_another_address_to_himself_is_a_holder_beside_the_listener() {
    let port = free_port();
    let text = port.to_string();
    let listens = Actor::play(&["serve", "127.0.0.1", &text]);
    let exclusive = Actor::play(&["bind", "127.0.0.2", &text]);
    // It lets a server have its address.
    let _lax = Actor::play(&["lax", "127.0.0.3", &text]);
    if !abilities().unwrap().bound {
        println!("skipped: this kernel does not list sockets that are only bound");
        return;
    }
    let wanted = claim(port, &["0.0.0.0", "::"]);
    let named = |depth| {
        let held = look_up_to(depth, std::slice::from_ref(&wanted)).unwrap();
        pids(&held.held.first().unwrap().holders)
    };
    let mut expected = [listens.pid(), exclusive.pid()];
    expected.sort_unstable();
    assert_eq!(named(Depth::Everybody), expected);
    assert_eq!(named(Depth::Excluding), [listens.pid()]);
}

#[test]
fn many_ports_are_looked_up_as_each_of_them_is() {
    let held = [free_port(), free_port(), free_port()];
    let _listens = Actor::play(&["serve", "127.0.0.1", &held[0].to_string()]);
    let _bound = Actor::play(&["lax", "127.0.0.1", &held[1].to_string()]);
    let _excludes = Actor::play(&["bind", "127.0.0.1", &held[2].to_string()]);
    let ports = held;
    let all: Vec<_> = held
        .into_iter()
        .chain((0..60).map(|_| free_port()))
        .map(|port| claim(port, &["127.0.0.1"]))
        .collect();
    for depth in [Depth::Excluding, Depth::Bound] {
        let told = |claims: &[Claim]| -> Vec<(u16, Vec<u32>)> {
            let held = look_up_to(depth, claims).unwrap().held;
            let of = held
                .iter()
                .map(|held| (held.claim.port, pids(&held.holders)));
            // The others may be somebody else's by now.
            of.filter(|(port, _)| ports.contains(port)).collect()
        };
        let one_by_one: Vec<_> = all.chunks(1).flat_map(told).collect();
        assert!(one_by_one.len() >= 2, "{one_by_one:?}");
        assert_eq!(told(&all), one_by_one);
    }
}

#[test]
fn what_no_server_of_this_user_can_have_is_told_from_what_is_taken() {
    let at = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    let port = free_port();
    let _server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    assert_eq!(barrier(at("127.0.0.1", port)), None);
    // RFC 5737: nobody's address.
    let elsewhere = barrier(at("203.0.113.7", port));
    let read = |path| std::fs::read_to_string(path).unwrap();
    if read("/proc/sys/net/ipv4/ip_nonlocal_bind").trim() == "0" {
        assert_eq!(elsewhere, Some(Barrier::NoSuchAddress));
    }
    let first: u16 = read("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .trim()
        .parse()
        .unwrap();
    // CAP_NET_BIND_SERVICE.
    let status = read("/proc/self/status");
    let capable = status.lines().any(|line| {
        line.strip_prefix("CapEff:")
            .is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << 10 != 0)
    });
    let expected = (first > 1 && !capable).then_some(Barrier::Privileged);
    assert_eq!(barrier(at("127.0.0.1", 1)), expected);
}

#[test]
fn what_lingers_after_a_connection_is_no_conflict() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    // The side that closes first keeps TIME_WAIT: here the server's, on the claimed port.
    drop(accepted);
    drop(client);
    drop(listener);
    let wanted = claim(address.port(), &["127.0.0.1"]);
    assert_eq!(holders(&wanted), []);
    assert!(is_free(&wanted).unwrap());
}

#[test]
fn a_connection_that_is_still_open_is_no_conflict() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let (_accepted, _) = listener.accept().unwrap();
    drop(listener);
    // The server's end is this process's and has the port as its own: with SO_REUSEADDR it may be shared.
    let wanted = claim(address.port(), &["127.0.0.1"]);
    assert_eq!(holders(&wanted), []);
    assert!(is_free(&wanted).unwrap());
}

#[test]
fn a_bind_alone_lies_so_the_probe_listens() {
    let port = free_port();
    // Both of its binds succeed; only the second listen fails.
    let server = Actor::play(&["shared", "127.0.0.1", &port.to_string()]);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let bound = socket.bind(&address.into());
    drop(socket);
    let wanted = claim(port, &["127.0.0.1"]);
    assert!(!is_free(&wanted).unwrap(), "a bind said {bound:?}");
    assert_eq!(pids(&holders(&wanted)), [server.pid()]);
}

#[test]
fn two_that_shadow_each_other_are_told_apart() {
    let port = free_port();
    let text = port.to_string();
    let wide = Actor::play(&["serve", "0.0.0.0", &text]);
    let near = Actor::play(&["serve", "::1", &text]);
    assert_eq!(pids(&holders(&claim(port, &["127.0.0.1"]))), [wide.pid()]);
    assert_eq!(pids(&holders(&claim(port, &["::1"]))), [near.pid()]);
    let mut both = pids(&holders(&claim(port, &["0.0.0.0", "::"])));
    both.sort_unstable();
    let mut expected = [wide.pid(), near.pid()];
    expected.sort_unstable();
    assert_eq!(both, expected);
}

#[test]
fn a_socket_of_the_kernel_has_no_process() {
    const INSIDE: &str = "WHARF_TEST_IN_NAMESPACE";
    const NAME: &str = "port::look_up::a_socket_of_the_kernel_has_no_process";
    const PORT: u16 = 4790;
    if std::env::var_os(INSIDE).is_none() {
        if is_root("making a network namespace") {
            // With processes of its own: where one cannot be looked into, nothing is said to be the kernel's.
            let spaces = ["--net", "--pid", "--fork", "--mount-proc"];
            in_namespaces(&spaces, NAME, INSIDE);
        }
        return;
    }
    let ip = |words: &str| {
        std::process::Command::new("ip")
            .args(words.split(' '))
            .status()
            .unwrap()
            .success()
    };
    assert!(ip("link set lo up"));
    // The kernel itself opens the port of a VXLAN tunnel.
    if !ip("link add tunnel type vxlan id 42 dstport 4790 local 127.0.0.1") {
        println!("skipped: this kernel has no VXLAN");
        return;
    }
    assert!(ip("link set tunnel up"));
    let wanted = udp(claim(PORT, &["0.0.0.0"]));
    let found = holders(&wanted);
    let [holder] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(holder.who, Who::Kernel);
    assert_eq!(Means::of(holder), Means::None);
    assert!(holder.obstacle(true).is_some());
}

#[test]
fn a_holder_outside_of_our_namespace_is_not_guessed() {
    const INSIDE: &str = "WHARF_TEST_HELD_OUTSIDE";
    const NAME: &str = "port::look_up::a_holder_outside_of_our_namespace_is_not_guessed";
    if let Some(port) = std::env::var_os(INSIDE) {
        let port = port.to_str().unwrap().parse().unwrap();
        let found = holders(&claim(port, &["127.0.0.1"]));
        let who: Vec<&Who> = found.iter().map(|holder| &holder.who).collect();
        assert_eq!(who, [&Who::Kernel]);
        let said = found.first().unwrap().describe();
        assert!(said.contains("another namespace"), "{said}");
        return;
    }
    if !is_root("a pid namespace") {
        return;
    }
    let port = free_port();
    let mut server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    in_namespaces_with(
        &["--pid", "--fork", "--mount-proc", "--kill-child"],
        NAME,
        INSIDE,
        &port.to_string(),
    );
    assert!(server.is_alive());
}

#[test]
fn udp_and_tcp_are_two_worlds() {
    let port = free_port();
    let server = Actor::play(&["udp", "127.0.0.1", &port.to_string()]);
    let tcp = claim(port, &["127.0.0.1"]);
    assert_eq!(holders(&tcp), []);
    assert!(is_free(&tcp).unwrap());
    let datagrams = udp(tcp);
    assert_eq!(pids(&holders(&datagrams)), [server.pid()]);
    assert!(!is_free(&datagrams).unwrap());
    assert_eq!(holders(&udp(claim(port, &["127.0.0.2"]))), []);
}

#[test]
fn a_connected_udp_client_is_not_named() {
    let (port, far) = (free_port(), free_port());
    let _client = Actor::play(&[
        "udp",
        "127.0.0.1",
        &port.to_string(),
        "127.0.0.1",
        &far.to_string(),
    ]);
    assert_eq!(holders(&udp(claim(port, &["0.0.0.0"]))), []);
}

#[test]
fn connections_are_counted_and_attributed() {
    let port = free_port();
    let mut server = Actor::play(&["accept", "127.0.0.1", &port.to_string()]);
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(established(local, port).unwrap(), 0);
    let clients: Vec<TcpStream> = (0..3)
        .map(|_| {
            let client = TcpStream::connect((local, port)).unwrap();
            server.hear();
            client
        })
        .collect();
    assert_eq!(established(local, port).unwrap(), 3);
    assert_eq!(established("0.0.0.0".parse().unwrap(), port).unwrap(), 3);
    assert_eq!(established("127.0.0.2".parse().unwrap(), port).unwrap(), 0);
    for client in &clients {
        let inode = accepted_inode(client.peer_addr().unwrap(), client.local_addr().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(
            pids_holding(&[inode], Some(&[server.pid()])),
            [server.pid()]
        );
        assert_eq!(pids_holding(&[inode], None), [server.pid()]);
    }
}

#[test]
fn a_connection_nobody_accepted_belongs_to_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let inode = accepted_inode(listener.local_addr().unwrap(), client.local_addr().unwrap());
    assert_eq!(inode.unwrap(), None);
}

#[test]
fn the_next_free_port_skips_what_is_held_or_given_away() {
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let port = free_port();
    let _server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    let found = next_free(port, &[address], Protocol::Tcp, 2, &[port + 1].into()).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|free| *free > port + 1), "{found:?}");
    assert!(found.is_sorted());
    assert_eq!(
        next_free(65_535, &[address], Protocol::Tcp, 2, &[].into()),
        None
    );
}

#[test]
fn one_holder_of_two_claims_is_found_for_both() {
    let (one, two) = (free_port(), free_port());
    let first = Actor::play(&["serve", "127.0.0.1", &one.to_string()]);
    let second = Actor::play(&["serve", "127.0.0.1", &two.to_string()]);
    let claims = [
        claim(one, &["127.0.0.1"]),
        claim(free_port(), &["127.0.0.1"]),
        claim(two, &["0.0.0.0"]),
    ];
    let found = look_up(&claims).unwrap();
    assert!(!found.needs_engine);
    let named: Vec<_> = found
        .held
        .iter()
        .map(|held| (held.claim.port, pids(&held.holders)))
        .collect();
    assert_eq!(named, [(one, vec![first.pid()]), (two, vec![second.pid()])]);
}

#[test]
fn those_who_try_a_port_out_are_never_in_each_others_way() {
    let port = free_port();
    let wanted = claim(port, &["0.0.0.0", "::"]);
    let claims = [wanted.clone(), udp(wanted)];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..300 {
                    let found = look_up(&claims).unwrap();
                    assert_eq!(
                        (found.held, found.in_use),
                        (vec![], vec![]),
                        "round {round}"
                    );
                    assert!(
                        claims.iter().all(|claim| is_free(claim).unwrap()),
                        "round {round}"
                    );
                }
            });
        }
    });
}

#[test]
fn servers_of_two_users_on_one_port_are_both_named() {
    if !is_root("being another user") {
        return;
    }
    let port = free_port().to_string();
    let one = Actor::play(&["as", "65534", "127.0.0.1", &port, "reuseport"]);
    let wanted = claim(port.parse().unwrap(), &["127.0.0.1"]);
    // Only sockets of one user share a port: the other has another address of it.
    let two = Actor::play(&["serve", "127.0.0.2", &port, "reuseport"]);
    assert_eq!(pids(&holders(&wanted)), [one.pid()]);
    let both = holders(&claim(port.parse().unwrap(), &["0.0.0.0"]));
    let mut users: Vec<(u32, u32)> = both
        .iter()
        .filter_map(facts)
        .map(|facts| (facts.pid, facts.uid))
        .collect();
    users.sort_unstable();
    let mut expected = [(one.pid(), 65_534), (two.pid(), 0)];
    expected.sort_unstable();
    assert_eq!(users, expected);
}

#[test]
fn who_has_become_another_user_is_named_as_that_user() {
    if !is_root("becoming another user") {
        return;
    }
    let port = free_port();
    let server = Actor::play(&["drops", "65534", "127.0.0.1", &port.to_string()]);
    let found = holders(&claim(port, &["127.0.0.1"]));
    assert_eq!(pids(&found), [server.pid()]);
    let holder = found.first().unwrap();
    assert_eq!(facts(holder).map(|facts| facts.uid), Some(65_534));
    // The socket keeps the user that made it.
    assert_eq!(holder.sockets.first().map(|socket| socket.uid), Some(0));
}

/// A server whose first thread has ended while another goes on: `/proc/PID/fd` is empty.
fn headless(port: u16) -> Actor {
    let program = "import ctypes, socket, sys, threading, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()
def go():
    while open('/proc/self/stat').read().rsplit(') ')[1][0] != 'Z': time.sleep(0.001)
    print('ready', flush=True); time.sleep(600)
threading.Thread(target=go).start()
ctypes.CDLL(None).syscall(60, 0)";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", program, &port.to_string()]);
    Actor::start(command)
}

#[test]
fn a_server_whose_first_thread_has_ended_is_found_and_stopped() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the number of the system call is another one here");
        return;
    }
    let port = free_port();
    let server = headless(port);
    let wanted = claim(port, &["127.0.0.1"]);
    let found = holders(&wanted);
    assert_eq!(pids(&found), [server.pid()]);
    let patience = Duration::from_mins(1);
    let stopped = stop_process(found.first().unwrap(), &wanted, patience).unwrap();
    assert_eq!(stopped.pids, [server.pid()]);
    await_free(&wanted, &found, patience).unwrap();
}

#[test]
fn fifty_holders_are_all_named_among_many_processes() {
    let port = free_port();
    let crowd: Vec<Actor> = (0..20).map(|_| Actor::play(&["idle"])).collect();
    let master = Actor::play(&["prefork", "127.0.0.1", &port.to_string(), "49"]);
    let found = pids(&holders(&claim(port, &["127.0.0.1"])));
    assert_eq!(found.len(), 50);
    assert_eq!(found.first(), Some(&master.pid()));
    assert!(master.words.iter().all(|worker| found.contains(worker)));
    assert!(crowd.iter().all(|idle| !found.contains(&idle.pid())));
    // Sockets of others are no holders of this one, in whichever way they are looked for.
    let other = Actor::play(&["serve", "127.0.0.1", &free_port().to_string()]);
    let inodes: Vec<u64> = listeners(port, Protocol::Tcp)
        .unwrap()
        .iter()
        .map(|socket| socket.inode)
        .collect();
    let mut expected = found.clone();
    expected.sort_unstable();
    let by_comparison = pids_holding(&inodes, None);
    let many = [inodes.as_slice(), &[1, 2, 3, 4, 5]].concat();
    let by_links = pids_holding(&many, None);
    assert_eq!((&by_comparison, &by_links), (&expected, &expected));
    assert!(!by_links.contains(&other.pid()));
}

#[test]
fn a_holder_that_parked_the_socket_at_the_end_of_its_table_is_found() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Enough of them that they are compared and not read.
    let _crowd: Vec<Actor> = (0..64).map(|_| Actor::play(&["idle"])).collect();
    let mut parked = std::process::Command::new("bash")
        .args(["-c", "exec 200<&0 0</dev/null; echo ready; exec sleep 60"])
        .stdin(OwnedFd::from(listener.try_clone().unwrap()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let stdout = parked.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    let found = pids(&holders(&claim(port, &["127.0.0.1"])));
    parked.kill().unwrap();
    parked.wait().unwrap();
    // The one above the other first, whichever has the lower number.
    assert_eq!(found, [std::process::id(), parked.id()]);
}

#[test]
fn another_users_process_is_a_user_not_a_guess() {
    if !is_root("looking as another user") {
        return;
    }
    let port = free_port();
    let server = Actor::play(&["serve", "127.0.0.1", &port.to_string()]);
    // Credentials belong to the thread in Linux: the test process itself stays root.
    let found = std::thread::spawn(move || {
        rustix::thread::set_thread_res_uid(
            rustix::thread::Uid::from_raw(65_534),
            rustix::thread::Uid::from_raw(65_534),
            rustix::thread::Uid::from_raw(65_534),
        )
        .unwrap();
        look_up(&[claim(port, &["127.0.0.1"])]).unwrap()
    })
    .join()
    .unwrap();
    let who = found
        .held
        .first()
        .and_then(|held| held.holders.first())
        .map(|holder| holder.who.clone());
    assert_eq!(
        who,
        Some(Who::Unknown {
            uid: 0,
            user: Some("root".into()),
            to_root: false,
        })
    );
    assert!(found.needs_engine);
    assert_eq!(process_facts(server.pid()).map(|facts| facts.uid), Some(0));
}

#[test]
fn a_listener_in_another_network_namespace_is_no_conflict() {
    if !is_root("making a network namespace") {
        return;
    }
    let port = free_port();
    let text = port.to_string();
    let script = super::stage::script();
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "perl", &script, "serve", "0.0.0.0", &text]);
    let _server = Actor::start(command);
    let wanted = claim(port, &["0.0.0.0", "::"]);
    assert_eq!(holders(&wanted), []);
    assert!(is_free(&wanted).unwrap());
}
