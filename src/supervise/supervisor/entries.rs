//! Entries of the ledger that somebody has taken away while their runs live: written again from memory.

use super::Supervisor;
use crate::backend::process::lock;
use crate::supervise::lifecycle::Moment;
use crate::supervise::unit::Unit;

impl Supervisor {
    /// Writes what is missing; what the user should know of it.
    pub(super) fn restore_entries(&mut self, now: Moment) -> Vec<String> {
        // Where the project's directory was removed and made anew, the ledger there is another one's.
        if !lock::is_at(&self.lock, &self.dir.supervisor_lock()) {
            return Vec::new();
        }
        let units = self.units.values_mut();
        units.filter_map(|unit| Unit::restore(unit, now)).collect()
    }
}
