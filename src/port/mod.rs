//! WHO HOLDS WHAT: from a claim to its holders, and from a holder to a free port.

mod aside;
pub mod attribute;
pub mod audit;
mod cgroup;
pub mod claim;
pub mod client;
pub mod comeback;
mod consequences;
mod crew;
mod describe;
mod descriptors;
mod free;
mod handle;
pub mod holder;
mod late;
mod namesake;
pub mod owner;
pub(crate) mod proc_file;
pub mod process;
pub mod protect;
mod refused;
pub mod release;
pub mod report;
pub mod reserve;
mod shell_loop;
pub mod sockets;
mod steward;
mod supervisor;
mod survey;
mod tool;
mod traced;
pub mod turn;
mod unit;
mod verb;
mod words;
mod work;

pub use describe::one_line;

use claim::Claim;

/// Why a port could not be looked up or freed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The kernel would not tell.
    #[error("cannot list listening sockets")]
    Lookup(#[source] std::io::Error),
    /// A holder may not be signalled by us.
    #[error("not permitted to stop {who}")]
    NotPermitted {
        /// The holder.
        who: String,
        /// The command that would, e.g. `sudo kill 4711`.
        command: String,
    },
    /// A holder is never stopped.
    #[error("{who} is never stopped: {reason}")]
    Protected {
        /// The holder.
        who: String,
        /// Why, in words for people.
        reason: String,
    },
    /// A holder outlived SIGKILL.
    #[error("{who} is still there after SIGKILL")]
    Unkillable {
        /// The holder.
        who: String,
    },
    /// A unit is known by its cgroup, and there is no systemd to stop it.
    #[error("{name} cannot be stopped as a systemd unit: systemd is not the service manager here")]
    NoServiceManager {
        /// The unit.
        name: String,
        /// The command that would stop its process, if that is visible.
        command: Option<String>,
    },
    /// The service manager of a unit did not stop it, or could not be asked.
    #[error("{who} was not stopped: {reason}")]
    UnitRefused {
        /// The holder.
        who: String,
        /// What `systemctl` said.
        reason: String,
        /// The command that would.
        command: String,
    },
    /// A unit was told to stop and takes its time.
    #[error("{name} has not stopped within {seconds} s; systemd goes on with it")]
    StillStopping {
        /// The unit.
        name: String,
        /// The command that tells how far it is.
        command: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The port is held again after its holder was stopped, or held since it was looked at.
    #[error("{claim} is taken{}, by {who}", if *.again { " again" } else { "" })]
    TakenAgain {
        /// Whether somebody had it before, and was stopped for it.
        again: bool,
        /// The claim.
        claim: Claim,
        /// The new holder, and its supervisor where one was found.
        who: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Another command, for another project, stopped the same holder first.
    #[error(
        "{claim} went to service `{}` of project {}, which released it first (`{}`){}",
        .first.service, .first.project, .first.by, held_now(.now)
    )]
    Outrun {
        /// The claim.
        claim: Claim,
        /// To whom it went.
        first: Box<First>,
        /// Who listens there by now.
        now: Vec<String>,
    },
    /// The holder was stopped, or told to, and the port is still not free.
    #[error(
        "{claim} is still not free {seconds} s after its holder was told to stop{}",
        held_by(.by)
    )]
    NotFree {
        /// The claim.
        claim: Claim,
        /// How long was waited.
        seconds: u64,
        /// Who has it now, where somebody can be named.
        by: Vec<String>,
    },
}

/// Who released a port before a command that was about to do the same.
#[derive(Debug)]
pub struct First {
    /// The project that needed it.
    pub project: String,
    /// The service.
    pub service: String,
    /// The command, as the log has it.
    pub by: String,
}

fn held_now(holders: &[String]) -> String {
    if holders.is_empty() {
        String::new()
    } else {
        format!(": it has {}", holders.join("; "))
    }
}

fn held_by(holders: &[String]) -> String {
    if holders.is_empty() {
        String::new()
    } else {
        format!(": it is held by {}", holders.join("; "))
    }
}
