//! What to do about a held port: the table of docs/architecture.md ("Port conflicts"), as a pure function.

use crate::plan::Inputs;
use crate::plan::policy::Choice;
use crate::plan::ports::Need;
use crate::port::claim::Claim;
use crate::port::holder::{Holder, Who};
use crate::project::model::{Conflict, Service};
use crate::state::{Held, Instance};

/// A held port that nobody has decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is needed.
    pub claim: Claim,
    /// Who has it.
    pub holders: Vec<Holder>,
    /// The answers that are open. `Abort` always is.
    pub choices: Vec<Choice>,
    /// Why the holder cannot be replaced, where it cannot.
    pub obstacle: Option<String>,
    /// The port that `Move` would take.
    pub next: Option<u16>,
    /// The rule that forbids to ask (`--on-conflict fail`, `x-wharf.conflict: fail`, a `--force` that
    /// met a protected holder); `None`: a person may be asked.
    pub settled: Option<String>,
    /// Whether an instance of this very project is among the holders: stopping it by hand is no way out.
    pub own: bool,
}

/// What becomes of one needed port.
#[derive(Clone, Debug)]
pub(super) enum Verdict<'a> {
    /// Nobody has it.
    Free(u16),
    /// Instances of this project have it, which this plan ends.
    Ours(u16, Vec<&'a Instance>),
    /// Its holders are stopped.
    Replace {
        /// The claim.
        claim: Claim,
        /// Its holders.
        holders: Vec<Holder>,
        /// The rule or answer that decided.
        rule: String,
    },
    /// Another port is used.
    Move {
        /// The claim.
        claim: Claim,
        /// The port used instead.
        to: u16,
        /// The rule or answer that decided, and who is in the way.
        rule: String,
    },
    /// The engine chooses.
    Engine,
    /// Nobody decided yet.
    Open(Question),
}

/// Ports that are given away.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// By this plan.
    pub now: Vec<Claim>,
    /// By an earlier one, to processes that may not listen yet, and those that a service can have no other for.
    pub reserved: Vec<Claim>,
}

impl Taken {
    /// Who has or gets a port; `has_choice`: another one would do as well.
    fn rival(&self, claim: &Claim, has_choice: bool) -> Option<&Claim> {
        let is_itself =
            |other: &Claim| (&other.service, other.number) == (&claim.service, claim.number);
        let reserved = self.reserved.iter().filter(|_| has_choice);
        let reserved = reserved.filter(|other| !is_itself(other));
        let mut all = self.now.iter().chain(reserved);
        all.find(|other| other.collides_with(claim))
    }
}

/// Judges the candidates of one need in order of preference; a free one wins over a held one.
///
/// `ending` says whether the plan ends an instance of the project anyway.
pub(super) fn judge<'a>(
    inputs: &Inputs<'a>,
    service: &Service,
    number: u32,
    need: &Need,
    taken: &Taken,
    ending: &dyn Fn(&Instance) -> bool,
) -> Verdict<'a> {
    let Some(&preferred) = need.candidates.first() else {
        return Verdict::Engine;
    };
    let has_choice = need.anywhere || need.candidates.len() > 1;
    let mut rival = None;
    for &port in &need.candidates {
        let claim = need.claim(&service.name, number, port);
        if let Some(other) = taken.rival(&claim, has_choice) {
            rival = rival.or(Some(other));
            continue;
        }
        let key = (port, claim.protocol);
        if need.anywhere && inputs.observed.reserved.contains(&key) {
            continue;
        }
        let Some(held) = held(inputs, &claim) else {
            return Verdict::Free(port);
        };
        if let Some(instances) = ours(inputs, held)
            && instances.iter().all(|instance| ending(instance))
        {
            return Verdict::Ours(port, instances);
        }
    }
    let claim = need.claim(&service.name, number, preferred);
    let holders = held(inputs, &claim)
        .map(|held| held.holders.clone())
        .unwrap_or_default();
    let next = free_port(inputs, &claim, taken);
    if need.anywhere
        && let Some(to) = next
    {
        let rule = if need.exposed {
            "another one has it".to_owned()
        } else {
            "the compose file publishes no particular port".to_owned()
        };
        return Verdict::Move { claim, to, rule };
    }
    if need.exposed {
        // Nobody is in the way of a port that may be any.
        return Verdict::Free(preferred);
    }
    let rival = rival.filter(|_| holders.is_empty());
    decide(inputs, service, claim, holders, rival, next)
}

fn decide<'a>(
    inputs: &Inputs<'a>,
    service: &Service,
    claim: Claim,
    holders: Vec<Holder>,
    rival: Option<&Claim>,
    next: Option<u16>,
) -> Verdict<'a> {
    let obstacle = if let Some(rival) = rival {
        let Claim {
            service, number, ..
        } = rival;
        Some(format!(
            "replica {number} of service `{service}` of this project takes it"
        ))
    } else if holders.is_empty() {
        Some("an open outgoing connection has this port as its own end, and connections are never cut".to_owned())
    } else {
        holders
            .iter()
            .find_map(|holder| obstacle(inputs, service, holder))
    };
    let own = holders
        .iter()
        .any(|holder| own_instance(inputs, holder).is_some());
    let names = holders
        .iter()
        .map(Holder::describe)
        .collect::<Vec<_>>()
        .join("; ");
    let names = if rival.is_some() {
        "another instance of this project".to_owned()
    } else if names.is_empty() {
        "an outgoing connection".to_owned()
    } else {
        names
    };
    let (rule, by) = rule(inputs, service);
    let asked = inputs.policy.answers.get(&claim).copied();
    let wanted = match (asked, rule) {
        (Some(choice), _) => Some(choice),
        (None, Conflict::Replace) => Some(Choice::Replace),
        (None, Conflict::Move) => Some(Choice::Move),
        (None, Conflict::Ask | Conflict::Fail) => None,
    };
    let by = if asked.is_some() {
        "your answer".to_owned()
    } else {
        by
    };
    // Of data that is lost a person decides, not a file that somebody wrote for another day.
    let needs_word = asked.is_none()
        && inputs.policy.on_conflict.is_none()
        && holders.iter().any(Holder::loses_data);
    match (wanted, &obstacle, next) {
        (Some(Choice::Replace), None, _) if !needs_word => {
            let rule = format!("held by {names}; replaced because of {by}");
            Verdict::Replace {
                claim,
                holders,
                rule,
            }
        }
        (Some(Choice::Move), _, Some(to)) => {
            let rule = format!("held by {names}; moved because of {by}");
            Verdict::Move { claim, to, rule }
        }
        _ => {
            let mut choices = Vec::new();
            if obstacle.is_none() {
                choices.push(Choice::Replace);
            }
            if next.is_some() {
                choices.push(Choice::Move);
            }
            choices.push(Choice::Abort);
            let settled =
                (rule != Conflict::Ask && !(needs_word && obstacle.is_none())).then_some(by);
            Verdict::Open(Question {
                claim,
                holders,
                choices,
                obstacle,
                next,
                settled,
                own,
            })
        }
    }
}

/// The rule for a service and where it stands.
fn rule(inputs: &Inputs<'_>, service: &Service) -> (Conflict, String) {
    let word = |conflict| match conflict {
        Conflict::Ask => "ask",
        Conflict::Replace => "replace",
        Conflict::Move => "move",
        Conflict::Fail => "fail",
    };
    if let Some(conflict) = inputs.policy.on_conflict {
        return (conflict, format!("--on-conflict {}", word(conflict)));
    }
    let written = service
        .wharf
        .conflict
        .or(inputs.project.conflict)
        .unwrap_or_default();
    (written, format!("x-wharf.conflict: {}", word(written)))
}

/// Why a holder cannot be replaced, if it cannot.
fn obstacle(inputs: &Inputs<'_>, service: &Service, holder: &Holder) -> Option<String> {
    if let Some(reason) = &holder.protected {
        return Some(reason.clone());
    }
    if let Some(instance) = own_instance(inputs, holder)
        && inputs.project.services.contains_key(&instance.service)
    {
        return Some(if instance.service == service.name {
            "it is another replica of this service, and one port serves one replica: publish a range with a port for each"
                .to_owned()
        } else {
            format!("it is service `{}` of this project", instance.service)
        });
    }
    holder.obstacle(inputs.policy.on_conflict == Some(Conflict::Replace))
}

fn held<'a>(inputs: &Inputs<'a>, claim: &Claim) -> Option<&'a Held> {
    inputs
        .observed
        .held
        .iter()
        .find(|held| held.claim == *claim)
}

/// The instances of this project that hold a claim, if nobody else does.
fn ours<'a>(inputs: &Inputs<'a>, held: &Held) -> Option<Vec<&'a Instance>> {
    if held.holders.is_empty() {
        return None;
    }
    let mut instances = Vec::new();
    for holder in &held.holders {
        let instance = own_instance(inputs, holder)?;
        if !instances.contains(&instance) {
            instances.push(instance);
        }
    }
    Some(instances)
}

/// The instance of this project that a holder is.
pub(super) fn own_instance<'a>(inputs: &Inputs<'a>, holder: &Holder) -> Option<&'a Instance> {
    own(&inputs.observed.instances, holder)
}

/// The one of these instances that a holder is.
pub fn own<'a>(instances: &'a [Instance], holder: &Holder) -> Option<&'a Instance> {
    instances.iter().find(|instance| match &holder.who {
        Who::Container(facts) => facts.id == instance.id.0,
        Who::Process(facts) => {
            facts.run_id.as_ref() == Some(&instance.id.0) || instance.pid == Some(facts.pid)
        }
        Who::Unit { .. } | Who::Unknown { .. } | Who::Kernel => false,
    })
}

/// Whether a holder is one of these instances.
pub fn has(instances: &[Instance], holder: &Holder) -> bool {
    own(instances, holder).is_some()
}

/// What is held by others than these instances.
pub fn without(held: Vec<Held>, instances: &[Instance]) -> Vec<Held> {
    held.into_iter()
        .filter_map(|mut held| {
            let before = held.holders.len();
            held.holders.retain(|holder| !has(instances, holder));
            // An outgoing connection has no holder.
            (before == 0 || !held.holders.is_empty()).then_some(held)
        })
        .collect()
}

/// What keeps a command that has no answer to give from its ports: who holds them, to be said.
pub fn unanswerable(held: Vec<Held>) -> Vec<Question> {
    let question = |held: Held| Question {
        obstacle: held.holders.iter().find_map(|it| it.obstacle(true)),
        claim: held.claim,
        holders: held.holders,
        choices: vec![Choice::Abort],
        next: None,
        settled: None,
        own: false,
    };
    held.into_iter().map(question).collect()
}

/// The next free port after the claimed one that the plan has not given away yet.
fn free_port(inputs: &Inputs<'_>, claim: &Claim, taken: &Taken) -> Option<u16> {
    inputs
        .observed
        .free_ports
        .get(&(claim.port, claim.protocol))?
        .iter()
        .copied()
        .find(|port| {
            let moved = Claim {
                port: *port,
                ..claim.clone()
            };
            taken.rival(&moved, true).is_none()
        })
}
