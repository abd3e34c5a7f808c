//! Who is on a network and how they are called there: what the forwarder gives names to. Only looks.
//!
//! Everything is decoded leniently: engines differ in what they tell, and a name less is better than none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use bollard::errors::Error;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use hyper::{Method, Request};
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::observe::encoded;
use super::{Containers, Engine, fault, labels, wire};
use crate::backend::BackendError;
use crate::naming::Role;

/// Inspections under way at once.
const WIDTH: usize = 16;

/// Networks and the running containers on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbourhood {
    /// By name; those that there are.
    pub networks: BTreeMap<String, Surface>,
    /// By id.
    pub neighbours: BTreeMap<String, Neighbour>,
}

/// A network, seen from this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// Whether this machine has a leg in it, so that addresses there can be connected to.
    pub direct: bool,
}

/// A running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// Without the slash.
    pub name: String,
    /// Of the label; empty where it has none.
    pub project: String,
    /// Of the label; empty where it has none.
    pub service: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// The arguments of its program.
    pub arguments: Vec<String>,
    /// The TCP ports that its image or its configuration says it has, ascending.
    pub exposed: Vec<u16>,
    /// Other containers of its project live in its network namespace. Only looked at for relays.
    pub lends: bool,
    /// Its places, by the network's name.
    pub places: BTreeMap<String, Spot>,
}

/// A container's place on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
    /// The names that the network's resolver knows it by.
    pub names: Vec<String>,
}

/// What was learnt by inspecting containers, by their id and the id of their place. Neither changes what it
/// stands for.
#[derive(Debug, Default)]
pub struct Acquaintances {
    known: BTreeMap<(String, String), Neighbour>,
}

impl Containers {
    /// Who is on these networks now. Networks that do not exist are left out.
    pub async fn neighbourhood(
        &self,
        networks: &BTreeSet<String>,
        acquaintances: &mut Acquaintances,
    ) -> Result<Neighbourhood, BackendError> {
        let engine = self.engine().await?;
        let reachable = engine.is_direct().await;
        let mut found = Neighbourhood::default();
        let mut met = Vec::new();
        for name in networks {
            let path = format!("/networks/{}", encoded(name));
            let network: Value = match engine.get(&path).await {
                Ok(network) => network,
                Err(error) if fault::is_missing(&error) => continue,
                Err(error) => return Err(engine.refused("inspect networks", error)),
            };
            let direct = reachable && has_leg(&network, is_interface);
            found.networks.insert(name.clone(), Surface { direct });
            for (id, endpoint) in network["Containers"].as_object().into_iter().flatten() {
                let place = text(&endpoint["EndpointID"]);
                met.push((name.clone(), id.clone(), place, addresses(endpoint)));
            }
        }
        acquaintances.meet(engine, &met).await?;
        for (network, id, place, addresses) in met {
            let Some(known) = acquaintances.known.get(&(id.clone(), place)) else {
                continue;
            };
            let neighbour = found.neighbours.entry(id).or_insert_with(|| Neighbour {
                places: BTreeMap::new(),
                ..known.clone()
            });
            let names = known.places.get(&network).map(|spot| spot.names.clone());
            neighbour.places.insert(
                network,
                Spot {
                    addresses,
                    names: names.unwrap_or_else(|| vec![known.name.clone()]),
                },
            );
        }
        lend(engine, &mut found).await?;
        Ok(found)
    }

    /// Says that something has happened which may change a neighbourhood. Nothing is missed from the moment
    /// that this returns.
    pub async fn stirrings(
        &self,
    ) -> Result<impl Stream<Item = Result<(), BackendError>> + use<>, BackendError> {
        let engine = self.engine().await?;
        let filters = serde_json::json!({
            "type": ["container", "network"],
            "event": ["start", "die", "destroy", "rename", "connect", "disconnect"],
        });
        let refused = {
            let endpoint = engine.info.endpoint.clone();
            move |error: Error| fault::refused(&endpoint, "tell its events", error)
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("/events?filters={}", encoded(&filters.to_string())))
            .body(bollard::body_full(Vec::new().into()))
            .map_err(|error| refused(error.into()))?;
        let response = engine.wire.checked(request).await.map_err(&refused)?;
        Ok(wire::json_lines(response.into_body())
            .map_ok(drop)
            .map_err(refused))
    }
}

/// Finds the relays whose network namespace other containers live in (`network_mode: service:X`). These are on no
/// network of their own, so no network tells of them.
async fn lend(engine: &Engine, found: &mut Neighbourhood) -> Result<(), BackendError> {
    let is_relay = |it: &&mut Neighbour| Role::of(&it.labels) == Some(Role::Relay);
    let relays = found.neighbours.values_mut().filter(is_relay);
    let projects: BTreeSet<String> = relays.map(|it| it.project.clone()).collect();
    for project in projects {
        let label = format!("{}={project}", labels::PROJECT);
        let filters = serde_json::json!({ "label": [label] }).to_string();
        let path = format!("/containers/json?filters={}", encoded(&filters));
        let listed: Vec<Value> = engine
            .get(&path)
            .await
            .map_err(|error| engine.refused("list containers", error))?;
        for container in &listed {
            if let Some(id) = lender(container)
                && let Some(relay) = found.neighbours.get_mut(id)
            {
                relay.lends = true;
            }
        }
    }
    Ok(())
}

/// The container in whose network namespace one of the list lives.
fn lender(listed: &Value) -> Option<&str> {
    let mode = listed["HostConfig"]["NetworkMode"].as_str()?;
    mode.strip_prefix("container:")
}

impl Acquaintances {
    /// Inspects those who are new, and forgets those who have left.
    async fn meet(
        &mut self,
        engine: &Engine,
        met: &[(String, String, String, Vec<IpAddr>)],
    ) -> Result<(), BackendError> {
        let present: BTreeSet<(&String, &String)> =
            met.iter().map(|(_, id, place, _)| (id, place)).collect();
        self.known
            .retain(|(id, place), _| present.contains(&(id, place)));
        let new: BTreeSet<String> = met
            .iter()
            .filter(|(_, id, place, _)| !self.known.contains_key(&(id.clone(), place.clone())))
            .map(|(_, id, _, _)| id.clone())
            .collect();
        let inspected: Vec<(String, Option<Value>)> = stream::iter(new)
            .map(|id| async move {
                let path = format!("/containers/{}/json", encoded(&id));
                match engine.get::<Value>(&path).await {
                    Ok(value) => Ok((id, Some(value))),
                    // It has gone meanwhile; or is none of this machine's: overlay networks list their own
                    // helpers too.
                    Err(error) if fault::is_missing(&error) => Ok((id, None)),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(WIDTH)
            .try_collect()
            .await
            .map_err(|error| engine.refused("inspect containers", error))?;
        for (id, value) in inspected {
            let Some(value) = value else { continue };
            let neighbour = neighbour(&value);
            for (_, other, place, _) in met.iter().filter(|(_, other, _, _)| *other == id) {
                self.known
                    .insert((other.clone(), place.clone()), neighbour.clone());
            }
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> impl Iterator<Item = String> + '_ {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|text| Some(text.as_str()?.to_owned()))
}

/// `172.18.0.2/16`, or nothing.
fn addresses(endpoint: &Value) -> Vec<IpAddr> {
    ["IPv4Address", "IPv6Address"]
        .iter()
        .filter_map(|key| endpoint[*key].as_str()?.split('/').next()?.parse().ok())
        .collect()
}

/// Whether this machine is in the network: the gateway is one of its addresses, and the bridge one of its
/// interfaces. Another engine may use the same addresses elsewhere.
fn has_leg(network: &Value, is_interface: impl Fn(&str) -> bool) -> bool {
    let configured = network["IPAM"]["Config"].as_array();
    let is_gateway_here = configured
        .into_iter()
        .flatten()
        .any(|config| gateway(config).is_some_and(|gateway| UdpSocket::bind((gateway, 0)).is_ok()));
    if !is_gateway_here || network["Driver"] != "bridge" {
        return is_gateway_here;
    }
    let bridge = match network["Options"]["com.docker.network.bridge.name"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => {
            let id = text(&network["Id"]);
            format!("br-{}", id.get(..12).unwrap_or(&id))
        }
    };
    is_interface(&bridge)
}

/// Whether the network namespace in which we are has an interface of this name. `/sys` shows those of the one that it was
/// mounted in.
fn is_interface(name: &str) -> bool {
    if_nametoindex(name).is_ok()
}

/// The gateway of an address pool. Where the file gives only a subnet, the engine says no more either, and takes
/// its first address.
fn gateway(pool: &Value) -> Option<IpAddr> {
    let given = pool["Gateway"].as_str().unwrap_or_default();
    if let Ok(given) = given.split('/').next()?.parse() {
        return Some(given);
    }
    let subnet = pool["Subnet"].as_str()?.split('/').next()?;
    Some(match subnet.parse().ok()? {
        IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).checked_add(1)?).into(),
        IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).checked_add(1)?).into(),
    })
}

fn neighbour(inspected: &Value) -> Neighbour {
    let name = text(&inspected["Name"]);
    let name = name.trim_start_matches('/').to_owned();
    let config = &inspected["Config"];
    let all_labels: BTreeMap<String, String> = config["Labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let label = |name: &str| all_labels.get(name).cloned().unwrap_or_default();
    let mut exposed: Vec<u16> = config["ExposedPorts"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| match key.split_once('/') {
            Some((port, "tcp")) => port.parse().ok(),
            Some(_) => None,
            None => key.parse().ok(),
        })
        .collect();
    exposed.sort_unstable();
    let places = inspected["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(network, endpoint)| {
            let mut names = vec![name.clone()];
            for found in texts(&endpoint["Aliases"]).chain(texts(&endpoint["DNSNames"])) {
                if !names.contains(&found) {
                    names.push(found);
                }
            }
            let spot = Spot {
                addresses: Vec::new(),
                names,
            };
            (network.clone(), spot)
        })
        .collect();
    Neighbour {
        project: label(labels::PROJECT),
        service: label(labels::SERVICE),
        arguments: texts(&inspected["Args"]).collect(),
        name,
        labels: all_labels,
        exposed,
        lends: false,
        places,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspected_container_becomes_a_neighbour() {
        let inspected = serde_json::json!({
            "Name": "/p-db-1",
            "Args": ["-c", "x=1"],
            "Config": {
                "Labels": {"com.docker.compose.project": "p", "com.docker.compose.service": "db"},
                "ExposedPorts": {"5432/tcp": {}, "53/udp": {}, "80/tcp": {}, "9/sctp": {}},
            },
            "NetworkSettings": {"Networks": {
                "p_default": {"Aliases": ["p-db-1", "db", "0123456789ab"], "DNSNames": null},
                "p_back": {"Aliases": null, "DNSNames": ["store", "p-db-1"]},
            }},
        });
        let found = neighbour(&inspected);
        assert_eq!(
            (
                found.name.as_str(),
                found.project.as_str(),
                found.service.as_str()
            ),
            ("p-db-1", "p", "db")
        );
        assert_eq!(found.exposed, [80, 5432]);
        assert_eq!(
            found.places["p_default"].names,
            ["p-db-1", "db", "0123456789ab"]
        );
        assert_eq!(found.places["p_back"].names, ["p-db-1", "store"]);
    }

    #[test]
    fn what_an_engine_does_not_tell_is_no_error() {
        assert_eq!(neighbour(&Value::Null), Neighbour::default());
        assert_eq!(addresses(&Value::Null), Vec::<IpAddr>::new());
        let endpoint = serde_json::json!({"IPv4Address": "10.1.0.2/16", "IPv6Address": ""});
        assert_eq!(
            addresses(&endpoint),
            ["10.1.0.2".parse::<IpAddr>().unwrap()]
        );
        assert!(!has_leg(&Value::Null, |_| true));
    }

    #[test]
    fn a_leg_is_a_gateway_and_a_bridge_of_this_machine() {
        let network = |driver: &str, gateway: &str| {
            serde_json::json!({
                "Id": "0123456789abcdef", "Driver": driver, "Options": null,
                "IPAM": {"Config": [{"Gateway": gateway}]},
            })
        };
        // TEST-NET-1 (RFC 5737) is nobody's.
        let nothing = |_: &str| false;
        assert!(!has_leg(&network("macvlan", "192.0.2.1"), nothing));
        assert!(has_leg(&network("macvlan", "127.0.0.1"), nothing));
        assert!(!has_leg(&network("bridge", "127.0.0.1"), nothing));
        let pool =
            |pool: &str| gateway(&serde_json::json!({ "Subnet": pool })).map(|ip| ip.to_string());
        assert_eq!(pool("172.31.9.0/24").as_deref(), Some("172.31.9.1"));
        assert_eq!(pool("fd77::/64").as_deref(), Some("fd77::1"));
        assert_eq!(pool("nonsense"), None);
        let bridge = |name: &str| name == "br-0123456789ab";
        assert!(has_leg(&network("bridge", "127.0.0.1"), bridge));
        assert!(is_interface("lo") && !is_interface("br-0123456789ab"));
    }
}
