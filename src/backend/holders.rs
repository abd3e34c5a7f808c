//! Who has a port, with the containers of every engine of this machine named.
//!
//! `port::owner` asks the kernel; the engines are asked here, and only where they may know more. Stops nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::backend::BackendError;
use crate::backend::container::{Census, Closed};
use crate::backend::router::Backends;
use crate::port::attribute;
use crate::port::claim::{Claim, Protocol};
use crate::port::holder::{Holder, Published, ServiceOf, Who};
use crate::port::owner::{self, Depth};
use crate::port::protect;
use crate::state::Held;
use futures_util::future::join_all;

/// The holders of ports, the containers among them and the ports that stopped containers will take.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The claims that cannot be had, with all holders named.
    pub held: Vec<Held>,
    /// Ports that stopped containers publish when they are started.
    pub reserved: Vec<Published>,
    /// Engines that did not answer: their containers are not named.
    pub silent: Vec<String>,
    /// Engines that this user may not ask.
    pub closed: Vec<Closed>,
}

impl Backends {
    /// The claims that somebody holds, with their holders named. Without an engine that answers, a holder keeps
    /// the name the kernel gives it.
    pub async fn held(&self, depth: Depth, claims: &[Claim]) -> Result<Vec<Held>, BackendError> {
        let found = owner::look_up_to(depth, claims)?;
        let census = if found.needs_engine {
            self.containers.census(false).await
        } else {
            Census::default()
        };
        let mut held = named(found, &census);
        self.reconsider_orphans(&mut held).await;
        self.name_services(depth, &mut held).await;
        Ok(held)
    }

    /// Asks the engines what a stop of those containers takes along that it `concerns`: lists do not tell.
    pub async fn tell_removals(&self, held: &mut [Held], concerns: impl Fn(&Holder) -> bool) {
        let containers = held
            .iter_mut()
            .flat_map(|held| &mut held.holders)
            .filter(|holder| concerns(holder))
            .filter_map(|holder| match &mut holder.who {
                Who::Container(facts) if holder.protected.is_none() => Some(facts),
                Who::Container(_)
                | Who::Process(_)
                | Who::Unit { .. }
                | Who::Unknown { .. }
                | Who::Kernel => None,
            });
        join_all(containers.map(|facts| async {
            let engine = self.containers.at(&facts.engine);
            facts.removal = engine.removal(&facts.id).await;
        }))
        .await;
    }

    /// Asks the engines once more where a proxy without a container may be one whose container is being started.
    async fn reconsider_orphans(&self, held: &mut [Held]) {
        if !attribute::has_young_orphans(held) {
            return;
        }
        let census = self.containers.census(true).await;
        if census.is_complete() {
            let known = census.published.iter().chain(&census.reserved);
            attribute::spare_young_orphans(held, known, &census.choosing);
        } else {
            // An engine that is about to start a container may be too busy to say so.
            attribute::spare_all_young_orphans(held);
        }
    }

    /// Says of the processes that wharf started which service of which project they are. A run id that is not in
    /// the ledger says nothing: the process is anybody's.
    async fn name_services(&self, depth: Depth, held: &mut [Held]) {
        self.find_runs(held);
        let mut known: BTreeMap<String, Option<ServiceOf>> = BTreeMap::new();
        let mut foreign: BTreeSet<String> = BTreeSet::new();
        for holder in held.iter_mut().flat_map(|held| &mut held.holders) {
            let Who::Process(facts) = &holder.who else {
                continue;
            };
            let Some(run) = facts.run_id.clone() else {
                continue;
            };
            if !known.contains_key(&run) {
                let instance = self.processes.find_run(&run).await;
                if instance.is_none() && !self.processes.knows_run(&run).await {
                    foreign.insert(run.clone());
                }
                let service = instance.map(|instance| ServiceOf {
                    number: (instance.number > 0).then_some(instance.number),
                    project: instance.project,
                    service: instance.service,
                });
                known.insert(run.clone(), service);
            }
            holder.service = known.get(&run).cloned().flatten();
            if holder.service.is_none() && !foreign.contains(&run) {
                self.name_carried(&run, holder).await;
            }
        }
        if depth != Depth::Excluding {
            protect_runs(held);
        }
        if !foreign.is_empty() {
            owner::disown(held, |run| !foreign.contains(run));
        }
    }

    /// Finds the runs of those who do not tell theirs: a program that gives itself a title (nginx, php-fpm, Puma) writes
    /// it over its environment, and others start their children without one.
    fn find_runs(&self, held: &mut [Held]) {
        let mut kept = None;
        for holder in held.iter_mut().flat_map(|held| &mut held.holders) {
            let Who::Process(facts) = &mut holder.who else {
                continue;
            };
            let is_below = |(_, name): &(u32, String)| matches!(name.as_str(), "keeper" | "wharf");
            if facts.run_id.is_some() || !facts.ancestors.iter().any(is_below) {
                continue;
            }
            let above = facts.ancestors.iter().map(|(pid, _)| *pid);
            let upwards = std::iter::once(facts.pid).chain(above);
            let kept = kept.get_or_insert_with(|| self.processes.kept());
            facts.run_id = kept.run_of(upwards);
        }
    }

    /// Says of a forwarder for whom it has the port. It closes with those services, so where all of them are
    /// processes, they are what is stopped.
    async fn name_carried(&self, run: &str, holder: &mut Holder) {
        let mut services: Vec<ServiceOf> = Vec::new();
        let mut closes = true;
        for socket in holder.sockets.clone() {
            let Some(carried) = self.processes.carried(run, socket.address).await else {
                return;
            };
            let project = carried.project;
            let Some(service) = carried.service else {
                holder.protected = Some(format!(
                    "it is the forwarder of project {0}, which ends with its services: wharf -p {0} stop",
                    shell_words::quote(&project)
                ));
                return;
            };
            closes &= carried.is_local;
            let of = ServiceOf {
                project,
                service,
                number: None,
            };
            if !services.contains(&of) {
                services.push(of);
            }
        }
        holder.protected = (!closes).then(|| {
            let commands: Vec<String> = services.iter().map(stop).collect();
            format!(
                "it closes when the service is stopped: {}",
                commands.join("; ")
            )
        });
        holder.carries = services;
    }

    /// As [`Backends::held`], but asks the engines about ports that nobody listens on, too: a container may
    /// publish one without a socket, or be about to.
    pub async fn look(&self, depth: Depth, claims: &[Claim]) -> Result<Look, BackendError> {
        let found = owner::look_up_to(depth, claims)?;
        let held: BTreeSet<&Claim> = found.held.iter().map(|held| &held.claim).collect();
        let all_held = claims.iter().all(|claim| held.contains(claim));
        let census = if all_held && !found.needs_engine {
            Census::default()
        } else {
            self.containers.census(!all_held).await
        };
        let mut held = named(found, &census);
        self.reconsider_orphans(&mut held).await;
        self.name_services(depth, &mut held).await;
        self.tell_removals(&mut held, |_| true).await;
        Ok(Look {
            held,
            reserved: census.reserved,
            silent: census.silent,
            closed: census.closed,
        })
    }

    /// Who has a TCP address now, in words; `None` where nobody can be named.
    pub(super) async fn who_has(&self, address: SocketAddr) -> Option<String> {
        let claim = Claim {
            service: String::new(),
            number: 1,
            addresses: vec![address.ip()],
            port: address.port(),
            protocol: Protocol::Tcp,
        };
        let held = self.held(Depth::Everybody, &[claim]).await.ok()?;
        let holders: Vec<String> = held
            .iter()
            .flat_map(|held| &held.holders)
            .map(Holder::describe)
            .collect();
        (!holders.is_empty()).then(|| holders.join("; "))
    }
}

/// Protects services of which something is part that is never stopped: they are stopped as a whole.
fn protect_runs(held: &mut [Held]) {
    let mut services: Vec<(&mut Holder, String)> = Vec::new();
    for holder in held.iter_mut().flat_map(|held| &mut held.holders) {
        let Who::Process(facts) = &holder.who else {
            continue;
        };
        if let (Some(run), Some(_), None) = (&facts.run_id, &holder.service, &holder.protected) {
            let run = run.clone();
            services.push((holder, run));
        }
    }
    let runs = services.iter().map(|(_, run)| run.clone()).collect();
    let reasons = protect::reasons_of_runs(&runs);
    for (holder, run) in services {
        let reason = reasons.get(&run).zip(holder.service.as_ref());
        holder.protected = reason.map(|(reason, of)| format!("{reason}; {}", stop(of)));
    }
}

/// The command that stops a service, from anywhere.
fn stop(of: &ServiceOf) -> String {
    let (project, service) = (&of.project, &of.service);
    format!(
        "wharf -p {} stop {}",
        shell_words::quote(project),
        shell_words::quote(service)
    )
}

fn named(found: owner::LookUp, census: &Census) -> Vec<Held> {
    // A connection that has the port as its own excludes a listener; it has no holder to stop.
    let connections = found.in_use.iter().map(|claim| Held {
        claim: claim.clone(),
        holders: Vec::new(),
    });
    let mut held: Vec<Held> = connections.collect();
    held.extend(attribute::attribute(
        found,
        &census.published,
        &census.running,
    ));
    // A dead engine may have left containers that live on (`live-restore`), and their proxies.
    if census.answered > 0 && census.is_complete() && census.dead.is_empty() {
        attribute::mark_orphans(&mut held, &census.daemons);
    }
    held
}
