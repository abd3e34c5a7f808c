//! Worlds and what should be in them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Destination, Door, routes};
use crate::forward::world::{Heard, Life, Local, Member, World};
use crate::naming::{Forward, Names, Place, Way};

const V_API: &str = "127.70.0.1";
const V_DB: &str = "127.70.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn heard(text: &str) -> Heard {
    let address: SocketAddr = text.parse().unwrap();
    Heard {
        port: address.port(),
        ip: address.ip(),
        only_v6: false,
    }
}

/// A living instance on network `n` that finds others by its hosts file.
fn local(service: &str, ports: &[(u16, u16)], listens: &[&str]) -> Local {
    let instance = format!("p-{service}-1");
    Local {
        names: Names {
            way: Way::Hosts,
            places: vec![Place {
                network: "n".into(),
                aliases: vec![service.into(), instance.clone()],
            }],
            addresses: BTreeMap::from([
                ("api".into(), V_API.parse().unwrap()),
                ("db".into(), V_DB.parse().unwrap()),
            ]),
            ..Names::default()
        },
        instance,
        service: service.into(),
        one_off: false,
        life: Life::Up,
        ports: ports.to_vec(),
        heard: listens.iter().map(|text| heard(text)).collect(),
        is_starting: false,
    }
}

fn member(service: &str, network: &str, addresses: &[&str], exposed: &[u16]) -> Member {
    Member {
        service: Some(service.into()),
        is_relay: false,
        lends: false,
        exposed: exposed.to_vec(),
        places: BTreeMap::from([(
            network.into(),
            (
                addresses.iter().map(|text| ip(text)).collect(),
                vec![service.into()],
            ),
        )]),
    }
}

fn relay(service: &str, network: &str, address: &str) -> Member {
    Member {
        is_relay: true,
        ..member(service, network, &[address], &[])
    }
}

fn world(near: bool, locals: Vec<Local>, members: Vec<Member>) -> World {
    World {
        locals,
        networks: BTreeMap::from([("n".into(), near)]),
        members,
    }
}

/// The hosts lines of an instance.
fn lines(world: &World, instance: &str) -> Vec<String> {
    let line = |(address, names): &(IpAddr, Vec<String>)| format!("{address} {}", names.join(" "));
    routes(world).hosts[instance].iter().map(line).collect()
}

/// All doors, one a line.
fn doors(world: &World) -> Vec<String> {
    let to = |to: &Destination| match to {
        Destination::Here(address) => address.to_string(),
        Destination::Through { relays, address } => format!("{}>{address}", relays.join(",")),
    };
    routes(world)
        .doors
        .iter()
        .map(|(door, all)| {
            let all: Vec<String> = all.iter().map(to).collect();
            match door {
                Door::Here(address) => format!("{address} -> {}", all.join(" ")),
                Door::Relay { service, port } => {
                    format!("{service}:{port} -> {}", all.join(" "))
                }
            }
        })
        .collect()
}

#[test]
fn a_port_that_another_service_is_about_to_take_is_let_go() {
    let api = local("api", &[(8080, 8081)], &["127.0.0.1:8081"]);
    let door = [format!("{V_API}:8080 -> 127.0.0.1:8081")];
    let mut web = local("web", &[(80, 8080)], &[]);
    web.life = Life::Down;
    let with = |web: &Local| doors(&world(false, vec![api.clone(), web.clone()], vec![]));
    let here = |all: Vec<String>| -> Vec<String> {
        all.into_iter()
            .filter(|door| door.starts_with(V_API))
            .collect()
    };
    // One that is down may stay so.
    assert_eq!(here(with(&web)), door);
    web.is_starting = true;
    assert_eq!(here(with(&web)), [""; 0]);
    web.life = Life::Up;
    assert_eq!(here(with(&web)), [""; 0]);
    web.heard = vec![heard("127.0.0.1:8080")];
    assert_eq!(here(with(&web)), door);
}

#[test]
fn a_container_is_at_its_own_addresses_where_there_is_a_leg() {
    let db = member("db", "n", &["172.18.0.2", "fd00::2"], &[5432]);
    let elsewhere = member("db", "m", &["172.19.0.2"], &[5432]);
    let mut stranger = member("db", "n", &["172.18.0.9"], &[]);
    stranger.service = None;
    stranger.places.get_mut("n").unwrap().1 = vec!["other".into()];
    let world = world(
        true,
        vec![local("api", &[], &[])],
        vec![db, elsewhere, stranger],
    );
    assert_eq!(
        lines(&world, "p-api-1"),
        [
            "127.0.0.1 api p-api-1",
            "172.18.0.2 db",
            "172.18.0.9 other",
            "fd00::2 db"
        ]
    );
    assert_eq!(doors(&world), Vec::<String>::new());
}

#[test]
fn a_container_that_is_far_is_reached_through_a_relay_beside_it() {
    let members = vec![
        member("db", "n", &["172.18.0.2"], &[5432, 80]),
        member("db", "n", &["172.18.0.3"], &[5432]),
        relay("api", "n", "172.18.0.4"),
        relay("web", "m", "172.19.0.4"),
    ];
    let world = world(false, vec![local("api", &[], &[])], members);
    assert_eq!(
        lines(&world, "p-api-1"),
        ["127.0.0.1 api p-api-1", "127.70.0.2 db"]
    );
    assert_eq!(
        doors(&world),
        [
            "127.70.0.2:80 -> api>172.18.0.2:80",
            "127.70.0.2:5432 -> api>172.18.0.2:5432 api>172.18.0.3:5432",
        ]
    );
}

#[test]
fn containers_reach_a_process_on_its_container_port_wherever_it_is() {
    let api = local(
        "api",
        &[(8080, 8081)],
        &["127.0.0.1:8081", "127.0.0.1:9229"],
    );
    let admin = local("admin", &[(8080, 8080)], &["[::]:8080"]);
    let relays = vec![relay("api", "n", "172.18.0.4")];
    let world = world(true, vec![api, admin], relays);
    assert_eq!(
        doors(&world),
        [
            "admin:8080 -> 127.0.0.1:8080",
            "api:8080 -> 127.0.0.1:8081",
            "api:9229 -> 127.0.0.1:9229",
        ]
    );
}

#[test]
fn a_process_that_does_not_listen_yet_is_expected_where_it_was_told_to() {
    let mut api = local("api", &[(8080, 8081)], &[]);
    api.names.exposed = vec![7000];
    let mut world = world(true, vec![api], Vec::new());
    let expected = ["api:7000 -> 127.0.0.1:7000", "api:8080 -> 127.0.0.1:8081"];
    assert_eq!(doors(&world), expected);
    // It did not do as it was told.
    world.locals[0].heard = vec![heard("0.0.0.0:8080")];
    let found = ["api:7000 -> 127.0.0.1:7000", "api:8080 -> 127.0.0.1:8080"];
    assert_eq!(doors(&world), found);
}

#[test]
fn what_is_only_exposed_is_where_the_program_has_it() {
    let mut api = local("api", &[(9000, 3000)], &["127.0.0.1:3000"]);
    api.names.exposed = vec![9000];
    let mut world = world(true, vec![api], Vec::new());
    let told = [
        "127.70.0.1:9000 -> 127.0.0.1:3000",
        "api:9000 -> 127.0.0.1:3000",
    ];
    assert_eq!(doors(&world), told);
    // The port that it was told is for something else.
    world.locals[0].heard.push(heard("127.0.0.1:9000"));
    let both = ["api:3000 -> 127.0.0.1:3000", "api:9000 -> 127.0.0.1:9000"];
    let mut found = doors(&world);
    found.retain(|door| door.starts_with("api:"));
    assert_eq!(found, both);
}

#[test]
fn nobody_is_sent_to_another_service() {
    let mut api = local("api", &[(8080, 8081)], &[]);
    api.names.exposed = vec![7000];
    let other = local("other", &[], &["0.0.0.0:8081", "127.0.0.1:7000"]);
    let world = world(true, vec![api, other], Vec::new());
    assert_eq!(
        doors(&world),
        [
            "api:7000 -> ",
            "api:8080 -> ",
            "other:7000 -> 127.0.0.1:7000",
            "other:8081 -> 127.0.0.1:8081",
        ]
    );
}

#[test]
fn what_is_down_has_no_name_and_no_door_and_what_restarts_keeps_its_name() {
    let mut api = local("api", &[(80, 80)], &["0.0.0.0:80"]);
    api.life = Life::Down;
    let mut world = world(true, vec![api, local("web", &[], &[])], Vec::new());
    assert_eq!(lines(&world, "p-web-1"), ["127.0.0.1 p-web-1 web"]);
    assert_eq!(lines(&world, "p-api-1"), ["127.0.0.1 p-web-1 web"]);
    // It has its own name before it starts.
    world.locals[0].is_starting = true;
    assert_eq!(lines(&world, "p-web-1"), ["127.0.0.1 p-web-1 web"]);
    assert_eq!(
        lines(&world, "p-api-1"),
        ["127.0.0.1 api p-api-1 p-web-1 web"]
    );
    assert_eq!(doors(&world), Vec::<String>::new());
    world.locals[0].life = Life::Restarting;
    assert_eq!(
        lines(&world, "p-web-1"),
        ["127.0.0.1 api p-api-1 p-web-1 web"]
    );
    assert_eq!(doors(&world), Vec::<String>::new());
}

#[test]
fn a_process_with_another_port_is_seen_at_its_relay_or_at_its_loopback_address() {
    let locals = || {
        vec![
            local("api", &[(8080, 8081)], &["127.0.0.1:8081"]),
            local("web", &[], &[]),
        ]
    };
    let near = world(true, locals(), vec![relay("api", "n", "172.18.0.4")]);
    assert_eq!(
        lines(&near, "p-web-1"),
        ["127.0.0.1 p-web-1 web", "172.18.0.4 api p-api-1"]
    );
    assert_eq!(doors(&near), ["api:8080 -> 127.0.0.1:8081"]);
    let mut alone = world(false, locals(), Vec::new());
    assert_eq!(
        lines(&alone, "p-web-1"),
        ["127.0.0.1 p-web-1 web", "127.70.0.1 api p-api-1"]
    );
    let opened = [
        "127.70.0.1:8080 -> 127.0.0.1:8081",
        "api:8080 -> 127.0.0.1:8081",
    ];
    assert_eq!(doors(&alone), opened);
    // Never before the service has its own port.
    alone.locals[0].heard.clear();
    assert_eq!(doors(&alone), ["api:8080 -> 127.0.0.1:8081"]);
}

#[test]
fn what_listens_everywhere_needs_no_door_at_the_loopback_address() {
    let listens = ["0.0.0.0:9000", "127.0.0.1:9001", "127.0.0.1:8081"];
    let api = local("api", &[(8080, 8081), (9000, 9000), (9001, 9001)], &listens);
    let world = world(false, vec![api, local("web", &[], &[])], Vec::new());
    let all = doors(&world);
    let here: Vec<_> = all.iter().filter(|door| door.starts_with("127")).collect();
    assert_eq!(
        here,
        [
            "127.70.0.1:8080 -> 127.0.0.1:8081",
            "127.70.0.1:9001 -> 127.0.0.1:9001",
        ]
    );
}

#[test]
fn what_has_only_ipv6_is_at_its_loopback_address_too() {
    let mut api = local("api", &[(80, 80)], &["[::1]:80"]);
    let web = local("web", &[], &[]);
    let names = ["127.0.0.1 api p-api-1 p-web-1 web", "::1 api p-api-1"];
    assert_eq!(
        lines(
            &world(true, vec![api.clone(), web.clone()], vec![]),
            "p-web-1"
        ),
        names
    );
    api.heard = vec![Heard {
        only_v6: true,
        ..heard("[::]:80")
    }];
    let world = world(true, vec![api, web], vec![]);
    assert_eq!(lines(&world, "p-web-1"), names);
    assert_eq!(doors(&world), ["api:80 -> [::1]:80"]);
}

#[test]
fn replicas_share_their_service_and_those_that_listen_are_preferred() {
    let one = local("api", &[(8080, 8081)], &["127.0.0.1:8081"]);
    let mut two = local("api", &[(8080, 8082)], &["127.0.0.1:8082"]);
    two.instance = "p-api-2".into();
    let mut all = world(true, vec![one, two], Vec::new());
    assert_eq!(doors(&all)[1], "api:8080 -> 127.0.0.1:8081 127.0.0.1:8082");
    all.locals[1].heard.clear();
    assert_eq!(doors(&all)[1], "api:8080 -> 127.0.0.1:8081");
    let mut run = all.locals.remove(0);
    run.one_off = true;
    run.names.places[0].aliases = vec!["p-api-run-1".into()];
    all.locals[0].life = Life::Down;
    all.locals.push(run);
    assert_eq!(
        doors(&all),
        Vec::<String>::new(),
        "one for a command is no replica"
    );
}

#[test]
fn an_instance_has_names_of_its_own() {
    let mut web = local("web", &[], &[]);
    web.names.links = BTreeMap::from([("database".into(), "db".into())]);
    web.names.extra = vec![
        ("api".into(), "10.0.0.9".parse().unwrap()),
        ("far".into(), "10.0.0.9".parse().unwrap()),
        ("host.docker.internal".into(), "127.0.0.1".parse().unwrap()),
    ];
    let api = local("api", &[(8080, 8080)], &[]);
    let db = member("db", "n", &["172.18.0.2"], &[]);
    let found = routes(&world(true, vec![api, web], vec![db])).hosts;
    let seen = |instance: &str, name: &str| -> Vec<String> {
        let lines = found[instance].iter();
        lines
            .filter(|(_, names)| names.iter().any(|it| it == name))
            .map(|(address, _)| address.to_string())
            .collect()
    };
    assert_eq!(seen("p-web-1", "database"), ["172.18.0.2"]);
    assert_eq!(seen("p-web-1", "db"), ["172.18.0.2"]);
    assert_eq!(seen("p-web-1", "far"), ["10.0.0.9"]);
    // As in a container's own hosts file, which comes before the network's names.
    assert_eq!(seen("p-web-1", "api"), ["10.0.0.9"]);
    assert_eq!(seen("p-web-1", "host.docker.internal"), ["127.0.0.1"]);
    assert_eq!(seen("p-api-1", "api"), ["127.0.0.1"]);
    for name in ["database", "far", "host.docker.internal"] {
        assert_eq!(seen("p-api-1", name), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn what_lives_in_a_relays_namespace_is_met_at_its_address() {
    let web = local("web", &[], &[]);
    let api = local("api", &[(8080, 8080)], &["127.0.0.1:8080"]);
    let mut beside = relay("api", "n", "172.18.0.5");
    let seen = |beside: &Member| {
        let world = world(true, vec![api.clone(), web.clone()], vec![beside.clone()]);
        let lines = routes(&world).hosts["p-web-1"].clone();
        let mut lines = lines.iter();
        let line = lines.find(|(_, names)| names.iter().any(|it| it == "api"));
        line.map(|(address, _)| address.to_string())
    };
    assert_eq!(seen(&beside).as_deref(), Some("127.0.0.1"));
    beside.lends = true;
    assert_eq!(seen(&beside).as_deref(), Some("172.18.0.5"));
}

#[test]
fn addresses_in_an_environment_lead_to_where_the_service_is_now() {
    let forward = |service: &str, port: u16, listen: &str| Forward {
        listen: listen.parse().unwrap(),
        service: service.into(),
        port,
    };
    let mut web = local("web", &[], &[]);
    web.names.way = Way::Environment;
    web.names.forwards = vec![
        forward("db", 5432, "127.70.0.2:5432"),
        forward("api", 8080, "127.70.0.1:8080"),
    ];
    let api = local("api", &[(8080, 8081)], &[]);
    let db = member("db", "n", &["172.18.0.2"], &[]);
    let beside = relay("web", "n", "172.18.0.5");
    let mut all = world(true, vec![api, web], vec![db, beside]);
    assert!(!routes(&all).hosts.contains_key("p-web-1"));
    let here = |world: &World| -> Vec<String> {
        let all = doors(world).into_iter();
        all.filter(|door| door.starts_with("127")).collect()
    };
    assert_eq!(here(&all), ["127.70.0.2:5432 -> 172.18.0.2:5432"]);
    all.locals[0].heard = vec![heard("0.0.0.0:8081")];
    assert_eq!(
        here(&all),
        [
            "127.70.0.1:8080 -> 127.0.0.1:8081",
            "127.70.0.2:5432 -> 172.18.0.2:5432",
        ]
    );
    all.networks.insert("n".into(), false);
    assert_eq!(here(&all)[1], "127.70.0.2:5432 -> web>172.18.0.2:5432");
}

#[test]
fn those_on_the_same_networks_share_what_they_see() {
    let mut far = local("far", &[], &[]);
    far.names.places[0].network = "m".into();
    let mut off = local("off", &[], &[]);
    off.life = Life::Down;
    let locals = vec![local("api", &[], &[]), local("web", &[], &[]), far, off];
    let hosts = routes(&world(true, locals, vec![])).hosts;
    let is_shared = |one: &str, other: &str| Arc::ptr_eq(&hosts[one], &hosts[other]);
    assert!(is_shared("p-api-1", "p-web-1"));
    assert!(!is_shared("p-api-1", "p-far-1"));
    assert!(is_shared("p-api-1", "p-off-1"));
    let mut starting = local("off", &[], &[]);
    starting.life = Life::Down;
    starting.is_starting = true;
    let hosts = routes(&world(true, vec![local("api", &[], &[]), starting], vec![])).hosts;
    assert!(!Arc::ptr_eq(&hosts["p-api-1"], &hosts["p-off-1"]));
}

#[test]
fn services_without_a_common_network_do_not_see_each_other() {
    let mut api = local("api", &[(80, 80)], &[]);
    api.names.places[0].network = "m".into();
    let world = world(true, vec![api, local("web", &[], &[])], vec![]);
    assert_eq!(lines(&world, "p-web-1"), ["127.0.0.1 p-web-1 web"]);
}

#[test]
fn the_machines_own_names_stay_its_own() {
    let mut api = local("api", &[], &[]);
    let odd = ["localhost", "a b", "", "#x", "api"];
    api.names.places[0].aliases = odd.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        lines(&world(true, vec![api], vec![]), "p-api-1"),
        ["127.0.0.1 api"]
    );
}
