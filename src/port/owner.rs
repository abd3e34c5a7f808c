//! From claims to their holders.
//!
//! The first of two phases: [`look_up`] asks the kernel and `/proc` for processes, systemd units and unknown users;
//! `port::attribute` then puts the containers in. Reads only; `plan` judges.

use std::collections::{BTreeMap, BTreeSet};

use crate::port::PortError;
use crate::port::cgroup::{self, Tenant, Tree};
use crate::port::claim::Claim;
use crate::port::descriptors::Holding;
use crate::port::holder::{Holder, ListeningSocket, ProcessFacts, Who};
use crate::port::process::{Stat, user_name};
use crate::port::sockets::{self, Bound};
use crate::port::survey::Survey;
use crate::port::{protect, steward, traced, unit};
use crate::state::Held;

pub(crate) use crate::port::descriptors::holding;
pub use crate::port::descriptors::pids_holding;
pub use crate::port::process::process_facts;

/// What phase 1 found.
#[derive(Clone, Debug, Default)]
pub struct LookUp {
    /// The claims that somebody has, with all who do: the master of a process tree before its workers.
    pub held: Vec<Held>,
    /// Whether only the engines can say who some holder is.
    pub needs_engine: bool,
    /// Claims that nobody listens on and that cannot be had all the same: an outgoing connection has the
    /// port as its own. There is nobody to stop; it passes, or another port does.
    pub in_use: Vec<Claim>,
    pub(super) claims: Vec<Claim>,
    pub(super) containers: Vec<Vec<Option<String>>>,
}

impl LookUp {
    /// The ids of the containers in whose cgroups holders were found, each once.
    pub fn container_ids(&self) -> BTreeSet<String> {
        self.containers
            .iter()
            .flatten()
            .flatten()
            .cloned()
            .collect()
    }
}

/// What counts as having a port, and how far its holders are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What keeps a server from it that sets `SO_REUSEADDR`, as servers do. Whether somebody has it, and who: a holder
    /// in the cgroup in which the socket was made is enough.
    Excluding,
    /// All of these sockets with all their holders, in whatever cgroup: what must be known before one is stopped. Beside
    /// a listener that is also who has another address to itself without listening there.
    Everybody,
    /// That, and a socket which is bound with `SO_REUSEADDR` and does not listen: a server without that option
    /// cannot have the port.
    Bound,
}

/// Finds out who keeps a server from the claims, as far as the kernel tells.
pub fn look_up(claims: &[Claim]) -> Result<LookUp, PortError> {
    look_up_to(Depth::Excluding, claims)
}

/// As [`look_up`], for what counts as having a port.
pub fn look_up_to(depth: Depth, claims: &[Claim]) -> Result<LookUp, PortError> {
    let mut scene = Scene::new();
    let mut blocked = Vec::new();
    let mut in_use = Vec::new();
    let survey = Survey::of(claims)?;
    for (claim, found) in claims.iter().zip(scene.survey(depth, claims, &survey)?) {
        let Some(found) = found else {
            continue;
        };
        if found.is_empty() {
            in_use.push(claim.clone());
        } else {
            blocked.push((claim, found));
        }
    }
    scene.resolve(depth, blocked.iter().flat_map(|(_, found)| found));

    let mut result = LookUp {
        in_use,
        claims: claims.to_vec(),
        ..LookUp::default()
    };
    for (claim, found) in blocked {
        let mut holders = Vec::new();
        for bound in &found {
            scene.add_holders(&bound.socket, claim, &mut holders)?;
        }
        if holders.is_empty() {
            continue;
        }
        sort_masters_first(&mut holders);
        result.needs_engine |= holders
            .iter()
            .any(|(holder, container)| container.is_some() || is_engines(holder));
        let (holders, containers) = holders.into_iter().unzip();
        result.held.push(Held {
            claim: claim.clone(),
            holders,
        });
        result.containers.push(containers);
    }
    Ok(result)
}

/// Whether an engine may know more about this holder.
pub(super) fn is_engines(holder: &Holder) -> bool {
    match &holder.who {
        Who::Process(facts) => protect::may_forward(facts),
        Who::Unit { main, .. } => main.as_deref().is_some_and(protect::may_forward),
        Who::Unknown { .. } | Who::Kernel | Who::Container(_) => true,
    }
}

/// A holder and, if it lives in one, the id of its container.
type Found = (Holder, Option<String>);

/// What is known about the system while one look-up runs.
struct Scene {
    own: Tenant,
    tree: Option<Tree>,
    /// The cgroup path and its processes, by cgroup id.
    cgroups: BTreeMap<u64, Option<(String, Vec<u32>)>>,
    /// The processes that have an inode open.
    pids: BTreeMap<u64, Vec<u32>>,
    /// How many processes would not show their descriptors.
    denied: usize,
    /// Whether all processes were searched.
    searched: bool,
    facts: BTreeMap<u32, Option<ProcessFacts>>,
}

impl Scene {
    fn new() -> Self {
        Self {
            own: cgroup::tenant_of(std::process::id()),
            tree: Tree::find(),
            cgroups: BTreeMap::new(),
            pids: BTreeMap::new(),
            denied: 0,
            searched: false,
            facts: BTreeMap::new(),
        }
    }

    /// The sockets that keep each claim from being had. Where the kernel walks all sockets for that, the processes of
    /// those that listen are looked for meanwhile: each takes milliseconds on a busy machine.
    fn survey(
        &mut self,
        depth: Depth,
        claims: &[Claim],
        survey: &Survey,
    ) -> Result<Vec<Option<Vec<Bound>>>, PortError> {
        let ask = || {
            let found = claims.iter().map(|claim| survey.blockers(claim, depth));
            found.collect::<Result<Vec<_>, _>>()
        };
        let listening = if depth == Depth::Bound {
            survey.listening_on(claims)?
        } else {
            Vec::new()
        };
        if listening.is_empty() {
            return ask();
        }
        std::thread::scope(|scope| {
            let asked = scope.spawn(ask);
            self.resolve(depth, listening.iter());
            // A thread that panicked has found nothing.
            asked.join().unwrap_or_else(|_| ask())
        })
    }

    /// Finds the processes of all sockets: everywhere in one pass, or, where one holder is enough, first in the
    /// cgroups the sockets were made in. A socket that was passed on has holders in other cgroups, too.
    fn resolve<'a>(&mut self, depth: Depth, found: impl Iterator<Item = &'a Bound>) {
        self.searched = depth != Depth::Excluding;
        let mut everywhere = Vec::new();
        for bound in found {
            let inode = bound.socket.inode;
            if inode == 0 || self.pids.contains_key(&inode) {
                continue;
            }
            if self.searched {
                everywhere.push(inode);
                self.pids.insert(inode, Vec::new());
                continue;
            }
            let among = self
                .cgroup(bound.socket.cgroup_id)
                // systemd shares its sockets with services of other cgroups.
                .filter(|(path, _)| cgroup::tenant(path) != Tenant::ServiceManager)
                .map(|(_, pids)| pids.clone());
            let near = among.map_or_else(Vec::new, |pids| pids_holding(&[inode], Some(&pids)));
            if near.is_empty() {
                everywhere.push(inode);
            }
            self.pids.insert(inode, near);
        }
        if everywhere.is_empty() {
            return;
        }
        let Holding { pairs, denied } = holding(&everywhere, None);
        self.denied = self.denied.max(denied);
        for (inode, pid) in pairs {
            self.pids.entry(inode).or_default().push(pid);
        }
    }

    fn cgroup(&mut self, id: Option<u64>) -> Option<&(String, Vec<u32>)> {
        let id = id?;
        let tree = self.tree.as_ref()?;
        self.cgroups
            .entry(id)
            .or_insert_with(|| {
                let directory = tree.directory(id)?;
                Some((tree.path_of(&directory), cgroup::pids_in(&directory)))
            })
            .as_ref()
    }

    fn facts(&mut self, pid: u32) -> Option<ProcessFacts> {
        self.facts
            .entry(pid)
            .or_insert_with(|| process_facts(pid))
            .clone()
    }

    fn add_holders(
        &mut self,
        socket: &ListeningSocket,
        claim: &Claim,
        holders: &mut Vec<Found>,
    ) -> Result<(), PortError> {
        let pids = self.pids.get(&socket.inode).cloned().unwrap_or_default();
        let mut visible = false;
        for pid in &pids {
            let Some(facts) = self.facts(*pid) else {
                continue;
            };
            visible = true;
            let (who, container) = self.classify(facts, socket);
            let sharing = if self.searched { &*pids } else { &[] };
            add(holders, who, socket, container, sharing);
        }
        if visible {
            return Ok(());
        }
        // Its processes may have ended while we looked.
        let now = if socket.listening {
            sockets::blocking(claim)?
        } else {
            sockets::there(claim)?
        };
        if !now.iter().any(|bound| bound.socket.inode == socket.inode) {
            return Ok(());
        }
        let (who, container) = self.unseen(socket);
        add(holders, who, socket, container, &[]);
        Ok(())
    }

    /// What a visible process is.
    fn classify(&self, facts: ProcessFacts, socket: &ListeningSocket) -> (Who, Option<String>) {
        let tenant = cgroup::tenant_of(facts.pid);
        // What shares our container or unit is our neighbour: neither names it apart from ourselves.
        if tenant == self.own {
            return (Who::Process(Box::new(facts)), None);
        }
        // Before the run id: a container may have the variable, too.
        if let Tenant::Container(id) = tenant {
            return (Who::Process(Box::new(facts)), Some(id));
        }
        if facts.run_id.is_some() {
            return (Who::Process(Box::new(facts)), None);
        }
        if facts.name == "systemd"
            && let Some(name) = unit::listening_for(socket, Some(&facts))
        {
            let main = Some(Box::new(facts));
            return (Who::Unit { name, main }, None);
        }
        match tenant {
            Tenant::Service { name, .. }
                if Stat::read(facts.pid).is_some_and(|stat| stat.terminal == 0) =>
            {
                let main = Some(Box::new(facts));
                (Who::Unit { name, main }, None)
            }
            Tenant::Container(_)
            | Tenant::Service { .. }
            | Tenant::ServiceManager
            | Tenant::Other => (Who::Process(Box::new(facts)), None),
        }
    }

    /// A process without its run id.
    fn disowned(&self, holder: Holder) -> Holder {
        let Who::Process(mut facts) = holder.who else {
            return holder;
        };
        facts.run_id = None;
        let who = match holder.sockets.first() {
            // What was found out about its container stays.
            Some(socket) if holder.protected.is_none() => self.classify(*facts, socket).0,
            _ => Who::Process(facts),
        };
        let protected = match holder.protected {
            None if !holder.orphan => protection(&who, None),
            reason => reason,
        };
        Holder {
            who,
            protected,
            ..holder
        }
    }

    /// What a socket is whose process we cannot see.
    fn unseen(&mut self, socket: &ListeningSocket) -> (Who, Option<String>) {
        let unknown = Who::Unknown {
            uid: socket.uid,
            user: user_name(socket.uid),
            to_root: rustix::process::geteuid().is_root(),
        };
        if socket.inode == 0 {
            return (Who::Kernel, None);
        }
        let own = self.own.clone();
        if let Some((path, pids)) = self.cgroup(socket.cgroup_id).cloned() {
            match cgroup::tenant(&path) {
                tenant if tenant == own => {}
                Tenant::Container(id) => return (unknown, Some(id)),
                Tenant::Service { name, .. } => {
                    let main = pids.first().and_then(|pid| self.facts(*pid)).map(Box::new);
                    return (Who::Unit { name, main }, None);
                }
                // Pid 1 is nobody's to look into but root's; its table of sockets is everybody's.
                Tenant::ServiceManager if path == "/init.scope" => {
                    if let Some(name) = unit::listening_for(socket, None) {
                        return (Who::Unit { name, main: None }, None);
                    }
                }
                Tenant::ServiceManager | Tenant::Other => {}
            }
        }
        // Only root sees all processes; then nobody has it but the kernel or another namespace.
        if self.denied == 0 && rustix::process::geteuid().is_root() {
            return (Who::Kernel, None);
        }
        (unknown, None)
    }
}

/// `sharing`: all who have the socket, where they are known.
fn add(
    holders: &mut Vec<Found>,
    who: Who,
    socket: &ListeningSocket,
    container: Option<String>,
    sharing: &[u32],
) {
    let same = holders
        .iter_mut()
        .find(|(holder, in_container)| *in_container == container && holder.who.is_same(&who));
    if let Some((holder, _)) = same {
        holder.take_in(std::slice::from_ref(socket));
        holder.share(sharing);
        return;
    }
    let protected = protection(&who, container.as_deref());
    let mut holder = Holder::of(who, vec![socket.clone()], protected);
    if let Who::Process(facts) = &holder.who {
        holder.debugged_below = traced::below(facts.pid, sharing);
    }
    holder.share(sharing);
    holders.push((holder, container));
}

fn protection(who: &Who, container: Option<&str>) -> Option<String> {
    if let Some(id) = container {
        return Some(format!(
            "it runs in container {}, which only its engine may stop",
            id.get(..12).unwrap_or(id)
        ));
    }
    match who {
        Who::Process(facts) => protect::reason(facts).or_else(|| by_its_programs(facts)),
        // It is not its manager that is stopped.
        Who::Unit { name, .. } if unit::is_socket(name) => protect::reason_of_unit(name),
        Who::Unit { name, main } => protect::reason_of_unit(name)
            .or_else(|| main.as_deref().and_then(protect::reason))
            .or_else(|| main.as_deref().and_then(steward::that_listens))
            .or_else(|| unit::protected_inside(name, main.as_deref())),
        Who::Container(_) | Who::Unknown { .. } | Who::Kernel => None,
    }
}

/// What wharf has started is told to end as a whole.
fn by_its_programs(facts: &ProcessFacts) -> Option<String> {
    let is_anybodys = facts.run_id.is_none();
    is_anybodys.then(|| steward::that_listens(facts)).flatten()
}

/// An ancestor comes before its descendants: stopping workers first makes their master start new ones. A
/// `.socket` unit comes before its service, which the next connection would start again.
fn sort_masters_first(holders: &mut [Found]) {
    let pids: BTreeSet<u32> = holders
        .iter()
        .filter_map(|(holder, _)| pid(&holder.who))
        .collect();
    holders.sort_by_cached_key(|(holder, _)| {
        let depth = match &holder.who {
            Who::Process(facts) => facts
                .ancestors
                .iter()
                .filter(|(ancestor, _)| pids.contains(ancestor))
                .count(),
            Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => 0,
        };
        let activates = matches!(&holder.who, Who::Unit { name, .. } if unit::is_socket(name));
        (!activates, depth, pid(&holder.who))
    });
}

fn pid(who: &Who) -> Option<u32> {
    match who {
        Who::Process(facts) => Some(facts.pid),
        Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => None,
    }
}

/// Takes the run ids back that no ledger knows, and judges their processes as those of anybody: any process may have
/// the variable, and wharf's supervisor under another state directory is not told to stop what it keeps.
pub fn disown(held: &mut [Held], is_known: impl Fn(&str) -> bool) {
    let is_wharfs = |holder: &Holder| match &holder.who {
        Who::Process(facts) => facts.run_id.as_deref().is_none_or(&is_known),
        Who::Container(_) | Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => true,
    };
    for held in held {
        if held.holders.iter().all(is_wharfs) {
            continue;
        }
        let scene = Scene::new();
        let mut holders: Vec<Holder> = Vec::new();
        for holder in std::mem::take(&mut held.holders) {
            let holder = if is_wharfs(&holder) {
                holder
            } else {
                scene.disowned(holder)
            };
            Holder::join(&mut holders, holder);
        }
        held.holders = holders;
    }
}
