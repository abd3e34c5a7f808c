//! What is drawn: services, what they depend on, and their ports; also what `wharf graph --format json` prints.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::plan::placement::Placement;
use crate::port::claim::Protocol;
use crate::project::model::{Condition, Project, Provider, Service};
use crate::state::{BackendKind, Health, Instance, Status};

/// The stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// The project.
    pub project: String,
    /// The services, by name.
    pub services: Vec<Node>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it runs or would run; `None`: nowhere. Its profile is off, or another program provides it.
    pub backend: Option<BackendKind>,
    /// How many replicas there should be.
    pub replicas: u32,
    /// In words: `running`, `2 of 3 running`, `exited (1)`, `-` (there is none), `unknown`.
    pub state: String,
    /// Its ports on this machine.
    pub ports: Vec<PortLine>,
    /// The keys of its networks, or its `network_mode`.
    pub networks: Vec<String>,
    /// What it depends on, by name.
    pub depends_on: Vec<Edge>,
}

/// One dependency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// What is depended on.
    pub service: String,
    /// `started`, `healthy` or `completed`.
    pub condition: &'static str,
    /// Whether it is restarted with it.
    pub restart: bool,
    /// Whether it can do without.
    pub optional: bool,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortLine {
    /// The replica.
    pub number: u32,
    /// The address; `None`: all of them.
    pub address: Option<String>,
    /// The port on this machine; `None`: the engine chooses.
    pub published: Option<u16>,
    /// The port in the container.
    pub target: Option<u16>,
    /// The transport.
    pub protocol: Protocol,
    /// Who has it.
    pub state: PortState,
    /// Who has it, in words, where it is not us.
    pub holders: Vec<String>,
}

/// Who has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// Nobody.
    Free,
    /// An instance of this project.
    Ours,
    /// Somebody else.
    Held,
    /// An outgoing connection.
    InUse,
    /// Nobody was asked.
    Unknown,
}

impl PortState {
    /// Whether the stack cannot have the port as things are.
    pub fn is_conflict(self) -> bool {
        matches!(self, Self::Held | Self::InUse)
    }
}

impl Graph {
    /// The graph of a project. `instances`: `None` where nobody could be asked about the containers.
    pub fn of(
        project: &Project,
        placement: &Placement,
        instances: &[Instance],
        containers_known: bool,
        ports: &BTreeMap<String, Vec<PortLine>>,
    ) -> Self {
        let mut services: Vec<Node> = project
            .services
            .values()
            .map(|service| {
                if let Some(provider) = &service.provider {
                    return provided(service, provider);
                }
                let backend = placement.of(&service.name);
                let known = containers_known || backend == BackendKind::Process;
                let replicas = service.scale.unwrap_or(1);
                let mut networks: Vec<String> = service.networks.keys().cloned().collect();
                networks.extend(service.network_mode.clone());
                Node {
                    name: service.name.clone(),
                    backend: Some(backend),
                    replicas,
                    state: if known {
                        state(&service.name, replicas, instances)
                    } else {
                        "unknown".to_owned()
                    },
                    ports: ports.get(&service.name).cloned().unwrap_or_default(),
                    networks: networks
                        .into_iter()
                        .filter(|network| network != "default")
                        .collect(),
                    depends_on: edges(service),
                }
            })
            .collect();
        let names: BTreeSet<String> = project.services.keys().cloned().collect();
        // An optional dependency whose profile is off: it is said that it is not there.
        let absent: BTreeSet<String> = services
            .iter()
            .flat_map(|node| &node.depends_on)
            .map(|edge| edge.service.clone())
            .filter(|name| !names.contains(name))
            .collect();
        services.extend(absent.into_iter().map(|name| Node {
            name,
            backend: None,
            replicas: 0,
            state: "not enabled".to_owned(),
            ports: Vec::new(),
            networks: Vec::new(),
            depends_on: Vec::new(),
        }));
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            project: project.name.clone(),
            services,
        }
    }

    /// A service by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.services
            .binary_search_by(|node| node.name.as_str().cmp(name))
            .ok()
            .and_then(|index| self.services.get(index))
    }

    /// The services that nobody depends on.
    pub fn roots(&self) -> impl Iterator<Item = &Node> {
        let needed: BTreeSet<&str> = self
            .services
            .iter()
            .flat_map(|node| &node.depends_on)
            .map(|edge| edge.service.as_str())
            .collect();
        self.services
            .iter()
            .filter(move |node| !needed.contains(node.name.as_str()))
    }

    /// The ports that the stack cannot have as things are, with their services.
    pub fn conflicts(&self) -> impl Iterator<Item = (&Node, &PortLine)> {
        self.services.iter().flat_map(|node| {
            node.ports
                .iter()
                .filter(|port| port.state.is_conflict())
                .map(move |port| (node, port))
        })
    }
}

fn edges(service: &Service) -> Vec<Edge> {
    let dependencies = service.depends_on.iter();
    dependencies
        .map(|(name, dependency)| Edge {
            service: name.clone(),
            condition: match dependency.condition {
                Condition::Started => "started",
                Condition::Healthy => "healthy",
                Condition::CompletedSuccessfully => "completed",
            },
            restart: dependency.restart,
            optional: !dependency.required,
        })
        .collect()
}

/// A service that another program provides: what state it is in, only that knows.
fn provided(service: &Service, provider: &Provider) -> Node {
    Node {
        name: service.name.clone(),
        backend: None,
        replicas: 0,
        state: format!("provided by {}", provider.kind),
        ports: Vec::new(),
        networks: Vec::new(),
        depends_on: edges(service),
    }
}

impl Node {
    /// Its backend and replicas in words, as in `container ×3`.
    pub fn placed(&self) -> String {
        match (self.backend, self.replicas) {
            (None, _) => "-".to_owned(),
            (Some(backend), 1) => backend.to_string(),
            (Some(backend), count) => format!("{backend} ×{count}"),
        }
    }
}

impl Edge {
    /// What it waits for, in words: `healthy, restart, optional`.
    pub fn words(&self) -> String {
        let mut words = vec![self.condition];
        if self.restart {
            words.push("restart");
        }
        if self.optional {
            words.push("optional");
        }
        words.join(", ")
    }
}

impl PortLine {
    /// In words: `127.0.0.1:8080→80`, `53/udp`, `8080→80 !`.
    pub fn words(&self) -> String {
        let address = match &self.address {
            None => String::new(),
            Some(six) if six.contains(':') => format!("[{six}]:"),
            Some(four) => format!("{four}:"),
        };
        let port = match (self.published, self.target) {
            (Some(published), Some(target)) if published != target => {
                format!("{published}→{target}")
            }
            (Some(port), _) => port.to_string(),
            (None, Some(target)) => format!("any→{target}"),
            (None, None) => "any".to_owned(),
        };
        let protocol = match self.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/udp",
        };
        let mark = if self.state.is_conflict() { " !" } else { "" };
        format!("{address}{port}{protocol}{mark}")
    }

    /// Why the stack cannot have it, in words.
    pub fn conflict(&self) -> String {
        if self.state == PortState::InUse {
            return "in use by an outgoing connection".to_owned();
        }
        format!("held by {}", self.holders.join("; "))
    }
}

/// The state of a service's instances.
fn state(service: &str, replicas: u32, instances: &[Instance]) -> String {
    let own: Vec<&Instance> = instances
        .iter()
        .filter(|instance| instance.service == service && !instance.one_off)
        .collect();
    let words: BTreeSet<String> = own.iter().map(|instance| word(instance)).collect();
    let running = own
        .iter()
        .filter(|instance| instance.status == Status::Running)
        .count();
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    if own.is_empty() {
        return "-".to_owned();
    }
    match words.first() {
        Some(word) if words.len() == 1 && (own.len() == wanted || running == 0) => word.clone(),
        _ => format!("{running} of {replicas} running"),
    }
}

fn word(instance: &Instance) -> String {
    match (instance.status, instance.health) {
        (Status::Exited { code }, _) => format!("exited ({code})"),
        (Status::Running, Some(Health::Healthy)) => "healthy".to_owned(),
        (Status::Running, Some(Health::Unhealthy)) => "unhealthy".to_owned(),
        (Status::Running, Some(Health::Starting)) => "starting".to_owned(),
        (status, _) => status.word().to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A container that depends on these.
    pub(in crate::ui::graph) fn node(name: &str, depends_on: &[(&str, &'static str)]) -> Node {
        Node {
            name: name.to_owned(),
            backend: Some(BackendKind::Container),
            replicas: 1,
            state: "running".to_owned(),
            ports: Vec::new(),
            networks: Vec::new(),
            depends_on: depends_on
                .iter()
                .map(|(name, condition)| Edge {
                    service: (*name).to_owned(),
                    condition,
                    restart: false,
                    optional: false,
                })
                .collect(),
        }
    }

    /// A port that an instance of the project has.
    pub(in crate::ui::graph) fn port(published: u16, target: u16) -> PortLine {
        PortLine {
            number: 1,
            address: None,
            published: Some(published),
            target: Some(target),
            protocol: Protocol::Tcp,
            state: PortState::Ours,
            holders: Vec::new(),
        }
    }

    /// A stack with a bit of everything.
    pub(in crate::ui::graph) fn shop() -> Graph {
        let mut proxy = node("proxy", &[("api", "healthy"), ("web", "started")]);
        proxy.ports = vec![port(8080, 80), port(8443, 443)];
        proxy.networks = vec!["front".to_owned()];
        let mut api = node(
            "api",
            &[
                ("cache", "started"),
                ("db", "healthy"),
                ("migrate", "completed"),
            ],
        );
        api.backend = Some(BackendKind::Process);
        api.replicas = 2;
        api.state = "1 of 2 running".to_owned();
        api.ports = vec![PortLine {
            address: Some("127.0.0.1".to_owned()),
            ..port(8000, 8000)
        }];
        api.networks = vec!["back".to_owned(), "front".to_owned()];
        if let Some(edge) = api.depends_on.get_mut(1) {
            edge.restart = true;
        }
        if let Some(edge) = api.depends_on.first_mut() {
            edge.optional = true;
        }
        let mut db = node("db", &[]);
        db.state = "-".to_owned();
        db.ports = vec![PortLine {
            state: PortState::Held,
            holders: vec!["container other-db-1 (project other)".to_owned()],
            ..port(5432, 5432)
        }];
        db.networks = vec!["back".to_owned()];
        let mut cache = node("cache", &[]);
        cache.backend = None;
        cache.replicas = 0;
        cache.state = "not enabled".to_owned();
        let mut migrate = node("migrate", &[("db", "healthy")]);
        migrate.state = "exited (0)".to_owned();
        let mut dns = node("dns", &[]);
        dns.ports = vec![PortLine {
            protocol: Protocol::Udp,
            ..port(5353, 53)
        }];
        let web = node("web", &[("api", "started")]);
        let mut services = vec![proxy, api, db, cache, migrate, dns, web];
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Graph {
            project: "shop".to_owned(),
            services,
        }
    }

    /// A graph of edges such as `a>b`.
    pub(in crate::ui::graph) fn chain(edges: &[&str]) -> Graph {
        let mut depends: BTreeMap<&str, Vec<(&str, &'static str)>> = BTreeMap::new();
        for edge in edges {
            let (from, to) = edge.split_once('>').expect("an edge");
            depends.entry(from).or_default().push((to, "started"));
            depends.entry(to).or_default();
        }
        Graph {
            project: "p".to_owned(),
            services: depends.iter().map(|(name, on)| node(name, on)).collect(),
        }
    }

    /// Acyclic graphs whose names are as odd as a compose file's keys can be, and odder.
    pub(in crate::ui::graph) fn any_graph() -> impl Strategy<Value = Graph> {
        let names = proptest::collection::btree_set("[a-zA-Z0-9._\"<>&#`'-]{1,24}", 1..14);
        let edges = proptest::collection::vec((0_usize..14, 0_usize..14, 0_usize..3), 0..40);
        (names, edges).prop_map(|(names, edges)| {
            let names: Vec<String> = names.into_iter().collect();
            let mut services: Vec<Node> = names.iter().map(|name| node(name, &[])).collect();
            for (a, b, condition) in edges {
                let (from, to) = (a.min(b), a.max(b));
                if from == to || to >= names.len() {
                    continue;
                }
                let (Some(name), Some(service)) = (names.get(to), services.get_mut(from)) else {
                    continue;
                };
                if service.depends_on.iter().all(|edge| edge.service != *name) {
                    service.depends_on.push(Edge {
                        service: name.clone(),
                        condition: ["started", "healthy", "completed"][condition],
                        restart: condition == 1,
                        optional: condition == 2,
                    });
                }
            }
            Graph {
                project: "p".to_owned(),
                services,
            }
        })
    }

    proptest! {
        #[test]
        fn every_form_has_every_service_and_every_dependency(graph in any_graph()) {
            let edges = graph.services.iter().map(|node| node.depends_on.len()).sum::<usize>();
            let tree = super::super::tree(&graph);
            for node in &graph.services {
                prop_assert!(tree.contains(&node.name), "{tree}");
            }
            // Each service in full once; each dependency that is not that one place is a reference.
            let references = tree.matches("see above").count();
            let roots = graph.roots().count();
            prop_assert_eq!(references, edges - (graph.services.len() - roots), "{}", tree);
            let mermaid = super::super::mermaid(&graph);
            let svg = super::super::svg(&graph);
            let drawn = |text: &str, part: &str| text.matches(part).count();
            prop_assert_eq!(drawn(&mermaid, "-->") + drawn(&mermaid, "-.->"), edges, "{}", mermaid);
            prop_assert_eq!(drawn(&svg, "<path class=\"edge"), edges, "{}", svg);
            prop_assert_eq!(drawn(&svg, "<g class=\"service"), graph.services.len(), "{}", svg);
            for number in 0..graph.services.len() {
                let declared = format!("  s{number}");
                prop_assert!(mermaid.lines().any(|line| line.starts_with(&declared)), "{mermaid}");
            }
        }
    }
}
