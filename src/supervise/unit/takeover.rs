//! Taking an instance over from the ledger: what an earlier supervisor left, or what was never started.

use std::time::Duration;

use super::{Main, Surroundings, Unit};
use crate::backend::BackendError;
use crate::backend::process::dirs::InstanceDir;
use crate::backend::process::run::{ProcessId, boot_id, wall_clock};
use crate::backend::process::tree::Snapshot;
use crate::backend::process::{Record, UNKNOWN_CODE};
use crate::state::{Health, Status};
use crate::supervise::capture::Recorder;
use crate::supervise::health::Schedule;
use crate::supervise::lifecycle::Lifecycle;

impl Unit {
    /// Takes an instance over as the ledger describes it: alive, waiting for a restart, or idle.
    pub(in crate::supervise) fn take_over(
        dir: InstanceDir,
        record: Record,
        around: &mut Surroundings,
    ) -> Result<Self, BackendError> {
        let owner = record
            .spec
            .user
            .as_ref()
            .map(|account| (account.uid, account.gid));
        dir.create()?;
        let recorder = Recorder::open(&dir, owner)?;
        let policy = record.spec.restart;
        let mut unit = Self {
            life: Lifecycle::new(policy),
            dir,
            recorder,
            main: None,
            ended: None,
            watched: Vec::new(),
            known: Vec::new(),
            output_retry: None,
            health: None,
            check: None,
            record,
        };
        let Some(run) = unit.record.run.clone() else {
            return Ok(unit);
        };
        if run.boot_id != boot_id() {
            if unit.record.status.is_alive() || run.finished.is_none() {
                unit.write_end(Status::Exited {
                    code: run.code.unwrap_or(UNKNOWN_CODE),
                })?;
            }
            return Ok(unit);
        }
        if unit.record.status == Status::Restarting {
            unit.life = Lifecycle::adopted_waiting(policy, unit.record.restarts, around.now);
            return Ok(unit);
        }
        if run.finished.is_some() && !unit.record.status.is_alive() {
            return Ok(unit);
        }
        let age = u64::try_from(wall_clock().saturating_sub(run.started)).unwrap_or_default();
        let since = around.now.saturating_sub(Duration::from_nanos(age));
        unit.life = Lifecycle::adopted(policy, unit.record.restarts, since);
        let process = run.process.or_else(|| unnoted(&run.id));
        let fd = process.and_then(|id| Some((id, id.open()?)));
        if let Some((id, fd)) = fd {
            unit.main = Some(Main {
                id,
                adopted: Some(fd),
            });
            let is_paused = unit.record.status == Status::Paused;
            unit.health = unit.record.spec.healthcheck.as_ref().map(|check| {
                let verdict = unit.record.health.unwrap_or(Health::Starting);
                Schedule::resumed(check, verdict, since, around.now)
            });
            if let Some(run) = &mut unit.record.run {
                run.process = Some(id);
            }
            if is_paused {
                unit.health = None;
            } else {
                unit.record.status = Status::Running;
            }
            unit.record.write(&unit.dir)?;
        } else {
            unit.ended = Some(run.code.unwrap_or(UNKNOWN_CODE));
        }
        Ok(unit)
    }
}

/// The main process of a run whose supervisor was killed before it could note the pid. It has gone through
/// exec by now, but the kernel shows its environment only a moment later; should that moment not have
/// come, it is waited for.
fn unnoted(run_id: &str) -> Option<ProcessId> {
    const LOOKS: u32 = 10;
    (0..LOOKS).find_map(|look| {
        std::thread::sleep(Duration::from_millis(u64::from(look)));
        Snapshot::take().ok()?.main_of(run_id)
    })
}
