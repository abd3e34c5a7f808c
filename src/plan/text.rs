//! Plans in words: one line a step, for `--dry-run`, for progress and for tests.

use std::fmt;

use crate::plan::Plan;
use crate::plan::step::{Action, Cause, Step, Target};
use crate::port::holder::Holder;

/// How many characters of a command stand in a step.
const WIDEST: usize = 40;

/// The holders of a port by their short names: a service, which is stopped as a whole, by its first process.
fn names(holders: &[Holder]) -> Vec<String> {
    let is_new = |(at, holder): &(usize, &Holder)| {
        let mut before = holders.iter().take(*at);
        holder.service.is_none() || !before.any(|other| other.service == holder.service)
    };
    let holders = holders.iter().enumerate().filter(is_new);
    holders.map(|(_, holder)| holder.short()).collect()
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreePort { claim, holders, .. } => {
                write!(f, "port {claim}: stop {}", names(holders).join(", "))
            }
            Self::MovePort { claim, to, exposed } => {
                let verb = if *exposed { "listen" } else { "publish" };
                write!(f, "port {claim}: {verb} on {to} instead")
            }
            Self::Build { service, image, .. } => {
                write!(f, "image {image}: build for {}", service.name)
            }
            Self::Pull { image, .. } => write!(f, "image {image}: pull"),
            Self::LoadRelay { image } => write!(f, "image {image}: load"),
            Self::PrepareRelay { service, .. } => {
                write!(f, "relay of {service}: make its directory")
            }
            Self::AwaitReachable { service, .. } => {
                write!(f, "relay of {service}: wait until it is connected")
            }
            Self::CreateNetwork { network, .. } => write!(f, "network {}: create", network.name),
            Self::UniteNetwork { name, .. } => write!(f, "network {name}: make the only one"),
            Self::CreateVolume { volume, .. } => write!(f, "volume {}: create", volume.name),
            Self::Provide { service, what, .. } => {
                write!(f, "provider {}: {}", service.name, what.verb())
            }
            Self::Create(spec) => write!(f, "{} {}: create", spec.backend, spec.name),
            Self::WriteStores { instance, .. } => {
                write!(f, "{instance}: write secrets and configs")
            }
            Self::PreStart {
                instance,
                preparation,
            } => {
                let number = preparation.index + 1;
                write!(f, "{instance}: run pre_start {number}")?;
                match preparation.hook.command.as_slice() {
                    [] => Ok(()),
                    command => write!(f, " `{}`", in_short(&command.join(" "))),
                }
            }
            Self::Start { instance } => write!(f, "{instance}: start"),
            Self::AwaitReady {
                instance,
                readiness,
            } => {
                write!(f, "{instance}: wait for {}", readiness.probe)
            }
            Self::AwaitListening { instance, claims } => {
                let ports: Vec<String> = claims.iter().map(ToString::to_string).collect();
                write!(f, "{instance}: watch port {}", ports.join(", "))
            }
            Self::AwaitHealthy { instance } => write!(f, "{instance}: wait until healthy"),
            Self::AwaitCompleted { instance } => write!(f, "{instance}: wait until completed"),
            Self::Stop { instance, .. } => write!(f, "{instance}: stop"),
            Self::Kill { instance, signal } => match signal.as_str() {
                "SIGKILL" | "KILL" | "9" => write!(f, "{instance}: kill"),
                signal => write!(f, "{instance}: send {signal}"),
            },
            Self::Pause { instance } => write!(f, "{instance}: pause"),
            Self::Unpause { instance } => write!(f, "{instance}: unpause"),
            Self::Remove { instance, .. } => write!(f, "{instance}: remove"),
            Self::RemoveNetwork { name, .. } => write!(f, "network {name}: remove"),
            Self::RemoveVolume { name } => write!(f, "volume {name}: remove"),
            Self::RemoveImage { name } => write!(f, "image {name}: remove"),
        }
    }
}

/// The beginning of a command, on one line.
fn in_short(command: &str) -> String {
    let line = command.replace(char::is_control, " ");
    match line.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.backend, self.name)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist"),
            Self::NotRunning => f.write_str("is not running"),
            Self::Ending => f.write_str("is ending"),
            Self::Paused => f.write_str("is paused"),
            Self::ConfigChanged => f.write_str("its configuration changed"),
            Self::Doubled => f.write_str("there are several of this name"),
            Self::ImageChanged => f.write_str("its image changed"),
            Self::BackendChanged => f.write_str("runs in the other backend now"),
            Self::Requested(what) => write!(f, "asked for by {what}"),
            Self::NeededBy(what) => write!(f, "needed by {what}"),
            Self::PortHeld(why) => f.write_str(why),
            Self::PortNeeded => f.write_str("its port is published"),
            Self::Unneeded => f.write_str("no container names its service"),
            Self::Orphan => f.write_str("its service is no longer in the project"),
            Self::ScaledDown => f.write_str("more replicas than asked for"),
            Self::Leftover => f.write_str("left over from a replacement that was cut off"),
            Self::ReadyWhenAnswered => f.write_str("ready means answered"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.id.0)?;
        if !self.needs.is_empty() {
            let needs: Vec<String> = self.needs.iter().map(|id| id.0.to_string()).collect();
            write!(f, " after {}", needs.join(","))?;
        }
        write!(f, "  {}  ({})", self.action, self.cause)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}
