//! Makes a port free: each holder is released by whatever keeps it (its engine, its service manager, wharf
//! itself, a signal), the release is written down, and then the port itself is awaited.
//!
//! A holder may live in either backend or in none, so this stands beside the router. Whether a holder may be
//! stopped was decided before; what must never be stopped is refused by `port::release` again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::backend::router::Backends;
use crate::backend::{Backend as _, BackendError};
use crate::event::{Event, Events};
use crate::port::audit::{Entry, Log, Outcome};
use crate::port::claim::Claim;
use crate::port::client;
use crate::port::comeback::{self, Moment};
use crate::port::holder::{ContainerFacts, Holder, ProcessFacts, ServiceOf, Who};
use crate::port::owner::{self, Depth};
use crate::port::process::process_facts;
use crate::port::report::{HolderReport, Means};
use crate::port::turn::Turn;
use crate::port::{First, PortError, one_line, release};
use crate::state::Instance;

/// How long the port itself may take to become free after its holders ended.
const SETTLE: Duration = Duration::from_secs(5);

/// What is to become free, how, and by whose word.
#[derive(Clone, Debug)]
pub struct Freeing {
    /// The project that needs it; `None` where nobody does.
    pub project: Option<String>,
    /// What must become free.
    pub claim: Claim,
    /// Who has it.
    pub holders: Vec<Holder>,
    /// How long a holder gets to end by itself.
    pub grace: Duration,
    /// The number of the signal to begin with, in place of SIGTERM or a container's own.
    pub signal: Option<i32>,
    /// The answer or rule that allows it, for the log.
    pub answer: String,
    /// Whether nobody takes the port at once, so that it has to be watched whether the holder comes back.
    pub left_free: bool,
}

impl Freeing {
    /// Whether nobody has the port any more, as far as the kernel tells: it does not of containers.
    fn is_done(&self) -> Result<bool, PortError> {
        let is_process = |holder: &Holder| matches!(holder.who, Who::Process(_));
        if !self.holders.iter().all(is_process) {
            return Ok(false);
        }
        let claim = std::slice::from_ref(&self.claim);
        Ok(owner::look_up_to(Depth::Bound, claim)?.held.is_empty())
    }
}

/// What has been stopped so far, to tell whose end took another holder along.
#[derive(Default)]
struct Stopped {
    pids: BTreeSet<u32>,
    runs: BTreeSet<String>,
    /// The first of each socket, in a few words.
    by_socket: BTreeMap<u64, String>,
    /// The last that was told to stop, in a few words.
    latest: Option<String>,
}

/// What was done to one holder.
struct Done {
    said: String,
    /// What kept it running and went first.
    supervisor: Option<String>,
    outcome: Outcome,
    pids: Vec<u32>,
    /// The services of wharf's that ended.
    runs: Vec<String>,
}

impl Backends {
    /// Releases all holders and waits for the port itself. Says of each what was done.
    pub async fn free(&self, freeing: &Freeing, events: &Events) -> Result<(), BackendError> {
        let turn = self.turn(&freeing.claim).await?;
        if let Some(outrun) = self.outrun(freeing).await? {
            return Err(outrun.into());
        }
        if turn.as_ref().is_some_and(|turn| turn.waited) && freeing.is_done()? {
            let claim = &freeing.claim;
            events.send(Event::Note(format!(
                "another command has released port {claim} meanwhile"
            )));
            return Ok(());
        }
        let since = Moment::now();
        let behind = if freeing.left_free {
            client::behind_clients(&freeing.claim, &freeing.holders)
        } else {
            Vec::new()
        };
        let mut stopped = Stopped::default();
        // A forwarder closes with its services, which may have the port themselves.
        let (doors, others): (Vec<&Holder>, Vec<&Holder>) = freeing
            .holders
            .iter()
            .partition(|holder| !holder.carries.is_empty());
        for holder in others.into_iter().chain(doors) {
            let begin = Instant::now();
            let done = match stopped.took_along(holder) {
                Some(done) => Ok(done),
                None => self.release(freeing, holder).await,
            };
            let done = done.map(|done| stopped.account_for(holder, done));
            if let Some(entry) = entry(freeing, holder, done.as_ref(), begin.elapsed())
                && let Err(error) = self.releases().append(&entry)
            {
                // The holder is gone; a log that cannot be written must not hide that.
                let path = self.releases().path().display().to_string();
                events.send(Event::Warning(format!(
                    "the release is not in {path}: {error}"
                )));
            }
            let said = done?.said;
            if !said.is_empty() {
                events.send(Event::Note(one_line(&said)));
            }
        }
        drop(turn);
        let (claim, holders) = (freeing.claim.clone(), freeing.holders.clone());
        let left_free = freeing.left_free;
        let events = events.clone();
        let waiting = behind.clone();
        let result = blocking(move || {
            release::await_free(&claim, &holders, SETTLE)?;
            if left_free {
                comeback::watch(&claim, &holders, &waiting, since, |text| {
                    events.send(Event::Note(text.to_owned()));
                })?;
            }
            Ok(())
        })
        .await;
        match result {
            Err(error @ BackendError::Port(PortError::TakenAgain { .. })) if !behind.is_empty() => {
                Err(self.explain_container(freeing, &behind, error).await)
            }
            other => other,
        }
    }

    /// Names the container that has a port again, which was started through an engine's client, and who gave that
    /// command. `fallback` is what the kernel tells: the engine's proxy.
    async fn explain_container(
        &self,
        freeing: &Freeing,
        behind: &[ProcessFacts],
        fallback: BackendError,
    ) -> BackendError {
        let claim = std::slice::from_ref(&freeing.claim);
        let held = self.held(Depth::Everybody, claim).await.unwrap_or_default();
        let mut now = held.iter().flat_map(|held| &held.holders);
        let container = now.find(|now| matches!(now.who, Who::Container(_)));
        // As after a stop: an engine lists the ports of a container late.
        let container = container.map_or_else(|| "a container".to_owned(), Holder::describe);
        let left = behind.iter().find(|facts| {
            process_facts(facts.pid).is_some_and(|now| now.start_time == facts.start_time)
        });
        let Some(keeper) = left else {
            return fallback;
        };
        PortError::TakenAgain {
            again: true,
            claim: freeing.claim.clone(),
            who: format!(
                "{container}, which {} (pid {}) has started by its engine's client",
                keeper.name, keeper.pid
            ),
            hint: Some(client::how_ended(keeper)),
        }
        .into()
    }

    /// Whether another project's command has stopped these holders since this one began: the port is that one's
    /// then, although it may not listen there yet.
    async fn outrun(&self, freeing: &Freeing) -> Result<Option<PortError>, BackendError> {
        let Some(project) = &freeing.project else {
            return Ok(None);
        };
        let begun = process_facts(std::process::id()).map_or(i64::MAX, |own| own.started);
        // A log that cannot be read tells of nobody.
        let entries = self.releases().read().unwrap_or_default();
        let taken = entries.iter().rev().find_map(|entry| {
            let other = entry.another_project(project, &freeing.claim, &freeing.holders, begun)?;
            Some((other, entry))
        });
        let Some((project, entry)) = taken else {
            return Ok(None);
        };
        let claim = std::slice::from_ref(&freeing.claim);
        let held = self.held(Depth::Everybody, claim).await?;
        let mut now = held.iter().flat_map(|held| &held.holders);
        // It came back since, and is whom this command was about all along.
        if now.any(|now| freeing.holders.iter().any(|before| before.is_same(now))) {
            return Ok(None);
        }
        let now = held.iter().flat_map(|held| &held.holders);
        Ok(Some(PortError::Outrun {
            claim: freeing.claim.clone(),
            first: Box::new(First {
                project: project.to_owned(),
                service: entry.service.clone().unwrap_or_default(),
                by: entry.by.clone(),
            }),
            now: now.map(Holder::describe).collect(),
        }))
    }

    /// Waits until no other command is about to stop who has the port; none where there is nothing to wait by.
    async fn turn(&self, claim: &Claim) -> Result<Option<Turn>, BackendError> {
        let state = self.processes.dirs().state().to_owned();
        let claim = claim.clone();
        blocking(move || Ok(Turn::take(&state, &claim).ok())).await
    }

    /// The log of what was stopped for a port.
    pub fn releases(&self) -> Log {
        Log::of(self.processes.dirs().state())
    }

    async fn release(&self, freeing: &Freeing, holder: &Holder) -> Result<Done, BackendError> {
        match &holder.who {
            Who::Container(_) | Who::Unit { .. } | Who::Process(_)
                if holder.protected.is_some() =>
            {
                Err(PortError::Protected {
                    who: holder.describe(),
                    reason: holder.protected.clone().unwrap_or_default(),
                }
                .into())
            }
            Who::Container(facts) => self.stop_container(freeing, holder, facts).await,
            Who::Unit { name, main } => {
                let again = release::how_started(name, main.as_deref());
                let again = again.map_or_else(
                    || "; it was started for once, by systemd-run or the like".to_owned(),
                    |command| format!("; `{command}` brings it back"),
                );
                let unit = holder.clone();
                let stopped = blocking(move || release::stop_unit(&unit)).await?;
                let done = format!("stopped {name}{again}");
                Ok(Done {
                    pids: stopped.pids,
                    ..told(freeing, holder, name, done).await?
                })
            }
            Who::Process(facts) => self.stop_process(freeing, holder, facts).await,
            Who::Unknown { .. } | Who::Kernel => Err(PortError::NotPermitted {
                who: holder.describe(),
                command: release::how_released(holder),
            }
            .into()),
        }
    }

    async fn stop_container(
        &self,
        freeing: &Freeing,
        holder: &Holder,
        facts: &ContainerFacts,
    ) -> Result<Done, BackendError> {
        let grace = freeing.signal.map(|_| freeing.grace);
        self.containers
            .at(&facts.engine)
            .stop_foreign(&facts.id, freeing.signal, grace)
            .await?;
        let project = facts.project.as_ref();
        let of = project.map_or_else(String::new, |project| format!(" of project {project}"));
        let after = if project.is_some() || facts.removal.is_some() {
            format!("; {}", release::after_a_stop(facts))
        } else {
            String::new()
        };
        let done = format!("stopped container {}{of}{after}", facts.name);
        told(freeing, holder, &holder.short(), done).await
    }

    /// Stops the services for which a forwarder has the port; it closes by itself then.
    async fn stop_carried(
        &self,
        freeing: &Freeing,
        carries: &[ServiceOf],
    ) -> Result<Done, BackendError> {
        let mut names = Vec::new();
        let mut runs = Vec::new();
        for of in carries {
            let mut instances = self.processes.observe(&of.project).await?;
            instances.retain(|it| it.service == of.service && it.status.is_alive());
            for instance in instances {
                self.stop_service(freeing, &instance).await?;
                names.push(instance.name);
                runs.push(instance.id.0);
            }
        }
        let project = carries.first().map(|of| of.project.as_str());
        let project = project.unwrap_or_default();
        if names.is_empty() {
            return Ok(Done {
                outcome: Outcome::Gone,
                ..Done::stopped(format!("the forwarder of project {project} closes with it"))
            });
        }
        let said = format!(
            "stopped {} of project {project}, for which its forwarder had the port{}",
            names.join(", "),
            signal_of_services(freeing)
        );
        Ok(Done {
            runs,
            ..Done::stopped(said)
        })
    }

    async fn stop_service(
        &self,
        freeing: &Freeing,
        instance: &Instance,
    ) -> Result<(), BackendError> {
        let is_kill = freeing.signal == Some(Signal::KILL.as_raw());
        let grace = if is_kill {
            Duration::ZERO
        } else {
            freeing.grace
        };
        let (project, name) = (&instance.project, &instance.name);
        self.processes.stop(project, name, Some(grace)).await
    }

    async fn stop_process(
        &self,
        freeing: &Freeing,
        holder: &Holder,
        facts: &ProcessFacts,
    ) -> Result<Done, BackendError> {
        let grace = freeing.grace;
        if !holder.carries.is_empty() {
            return self.stop_carried(freeing, &holder.carries).await;
        }
        if let Some(run) = &facts.run_id
            && let Some(instance) = self.processes.find_run(run).await
        {
            self.stop_service(freeing, &instance).await?;
            let (project, name) = (&instance.project, &instance.name);
            let said = format!(
                "stopped {name} of project {project}, a service of wharf's{}",
                signal_of_services(freeing)
            );
            return Ok(Done {
                pids: vec![facts.pid],
                ..Done::stopped(said)
            });
        }
        let signal = freeing
            .signal
            .and_then(Signal::from_named_raw)
            .unwrap_or(Signal::TERM);
        let (claim, holder) = (freeing.claim.clone(), holder.clone());
        let stopped =
            blocking(move || release::stop_process_with(&holder, &claim, signal, grace)).await?;
        let outcome = match (stopped.pids.is_empty(), stopped.killed) {
            _ if stopped.lives => Outcome::Stopped,
            (true, _) => Outcome::Gone,
            (false, true) => Outcome::Killed,
            (false, false) => Outcome::Stopped,
        };
        Ok(Done {
            said: stopped.told(signal),
            supervisor: stopped.supervisor,
            outcome,
            pids: stopped.pids,
            runs: Vec::new(),
        })
    }
}

/// What is said of a holder that its keeper was told to stop: whether it is gone is looked at first.
async fn told(
    freeing: &Freeing,
    holder: &Holder,
    name: &str,
    done: String,
) -> Result<Done, BackendError> {
    let inodes = |holder: &Holder| -> Vec<u64> {
        let sockets = holder.sockets.iter();
        sockets.map(|socket| socket.inode).collect()
    };
    // Those that have a socket with it, and are stopped after it, keep it until then.
    let after = freeing.holders.iter().skip_while(|other| *other != holder);
    let kept: Vec<u64> = after.skip(1).flat_map(inodes).collect();
    let mut had = inodes(holder);
    had.retain(|inode| !kept.contains(inode));
    let claim = freeing.claim.clone();
    if blocking(move || release::still_there(&had, &claim)).await? {
        return Ok(Done {
            outcome: Outcome::Failed,
            ..Done::stopped(format!(
                "{name} was told to stop, and its socket is still there"
            ))
        });
    }
    Ok(Done::stopped(done))
}

/// What a signal of the user's choice means for services of wharf's, where it is not the one that is sent.
fn signal_of_services(freeing: &Freeing) -> &'static str {
    match freeing.signal.and_then(Signal::from_named_raw) {
        None => "",
        Some(Signal::KILL) => ", without a grace period",
        Some(_) => " (by its own stop signal: --signal is for others)",
    }
}

impl Done {
    fn stopped(said: String) -> Self {
        Self {
            said,
            supervisor: None,
            outcome: Outcome::Stopped,
            pids: Vec::new(),
            runs: Vec::new(),
        }
    }
}

impl Stopped {
    /// A holder that was stopped already, as part of an earlier one's tree.
    fn took_along(&self, holder: &Holder) -> Option<Done> {
        let Who::Process(facts) = &holder.who else {
            return None;
        };
        let of_run = |run: &String| self.runs.contains(run);
        let known = self.pids.contains(&facts.pid) || facts.run_id.as_ref().is_some_and(of_run);
        known.then(|| Done {
            pids: vec![facts.pid],
            ..Done::stopped(String::new())
        })
    }

    /// Remembers what was done, and says it of a holder that an earlier one took along.
    fn account_for(&mut self, holder: &Holder, mut done: Done) -> Done {
        let inodes = || holder.sockets.iter().map(|socket| socket.inode);
        let first = inodes()
            .find_map(|inode| self.by_socket.get(&inode))
            .or(self.latest.as_ref().filter(|_| done.said.is_empty()));
        if done.outcome == Outcome::Gone || done.said.is_empty() {
            // A service is stopped as a whole, and was named as one.
            if let Some(first) = first.filter(|_| holder.service.is_none()) {
                done.said = format!("ended with {first}: {}", holder.describe());
            }
        } else {
            let short = holder.short();
            for inode in inodes() {
                self.by_socket.entry(inode).or_insert(short.clone());
            }
            self.latest = Some(short);
        }
        self.pids.extend(&done.pids);
        self.runs.extend(done.runs.iter().cloned());
        if let Who::Process(facts) = &holder.who {
            self.runs.extend(facts.run_id.clone());
        }
        done
    }
}

/// What is written down; nothing where nothing was touched.
fn entry(
    freeing: &Freeing,
    holder: &Holder,
    done: Result<&Done, &BackendError>,
    took: Duration,
) -> Option<Entry> {
    let (outcome, pids, supervisor) = match done {
        Ok(done) => (done.outcome, done.pids.clone(), done.supervisor.clone()),
        Err(BackendError::Port(PortError::Unkillable { .. })) => {
            (Outcome::Failed, Vec::new(), None)
        }
        Err(_) => return None,
    };
    let claim = &freeing.claim;
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let mut by = without_values(words);
    if let Some(program) = by.first_mut() {
        // By whatever path it was called.
        "wharf".clone_into(program);
    }
    Some(Entry {
        time: jiff::Timestamp::now().to_string(),
        port: claim.port,
        protocol: claim.protocol,
        addresses: claim.addresses.clone(),
        project: freeing.project.clone(),
        service: Some(claim.service.clone()).filter(|service| !service.is_empty()),
        holder: HolderReport::of(holder),
        supervisor,
        release: Means::of(holder),
        outcome,
        pids,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        by: shell_words::join(&by),
        directory: std::fs::read_link("/proc/self/cwd")
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        answer: freeing.answer.clone(),
    })
}

/// The words of a command line without the values of variables, which may be secrets.
fn without_values(words: impl Iterator<Item = String>) -> Vec<String> {
    const VARIABLES: [&str; 3] = ["-e", "--env", "--build-arg"];
    let mut follows = false;
    let masked = words.map(|word| {
        let joined = VARIABLES
            .iter()
            .any(|option| word.starts_with(&format!("{option}=")));
        let attached = word.starts_with("-e") && word.len() > 2;
        let name_ends = if follows || attached {
            word.find('=')
        } else if joined {
            word.match_indices('=').nth(1).map(|(at, _)| at)
        } else {
            None
        };
        follows = VARIABLES.contains(&word.as_str());
        match name_ends.and_then(|at| word.get(..at)) {
            Some(name) => format!("{name}=…"),
            None => word,
        }
    });
    masked.collect()
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, BackendError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(BackendError::State {
            action: "a worker thread failed".to_owned(),
            source: std::io::Error::other(panic),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn values_of_variables_are_not_written_down() {
        let line = "wharf run -e A=secret --env B=secret --env=C=secret -eD=secret --build-arg E=secret -e F web x=1";
        let masked = without_values(line.split(' ').map(str::to_owned)).join(" ");
        let expected = "wharf run -e A=… --env B=… --env=C=… -eD=… --build-arg E=… -e F web x=1";
        assert_eq!(masked, expected);
    }
}
