//! Which run a process belongs to by its ancestors: where it does not have the run's id in its environment any more.

use std::collections::BTreeMap;

use super::Processes;
use super::run::ProcessId;

/// The runs of this ledger, by the pids of their main processes and keepers.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<u32, (ProcessId, String)>);

impl Kept {
    /// The run of the nearest of these pids that is a main process or a keeper: a process and its ancestors, upwards.
    pub fn run_of(&self, pids: impl IntoIterator<Item = u32>) -> Option<String> {
        pids.into_iter()
            .filter_map(|pid| self.0.get(&pid))
            .find(|(process, _)| process.is_alive())
            .map(|(_, run)| run.clone())
    }
}

impl Processes {
    /// Who begins the trees of runs, in all projects. A ledger that cannot be read knows nothing.
    pub fn kept(&self) -> Kept {
        let mut kept = Kept::default();
        for project in self.projects().unwrap_or_default() {
            for record in self.records(&project) {
                let both = [record.process(), record.keeper()];
                for process in both.into_iter().flatten() {
                    let entry = (process, record.id().to_owned());
                    kept.0.insert(process.pid, entry);
                }
            }
        }
        kept
    }
}
