//! What a unit learns from the keeper of its run, and what it does in the place of one that has gone.

use std::os::fd::BorrowedFd;

use rustix::fs::inotify::{self, WatchFlags};

use super::{OUTPUT_RETRY, Unit};
use crate::backend::BackendError;
use crate::backend::process::UNKNOWN_CODE;
use crate::backend::process::notes::Notes;
use crate::event::Stream;
use crate::supervise::capture::Recorder;
use crate::supervise::lifecycle::Moment;

impl Unit {
    /// Whether this is the watch on its notes.
    pub(in crate::supervise) fn is_watched_by(&self, watch: i32) -> bool {
        self.watch == Some(watch)
    }

    /// Makes sure that changes of the keeper's notes show on `inotify`.
    pub(in crate::supervise) fn watch_notes(&mut self, inotify: BorrowedFd<'_>) {
        self.watch_memory(inotify);
        if self.watch.is_some() || self.keeper.is_none() {
            return;
        }
        if let Ok(watch) = inotify::add_watch(inotify, self.dir.notes(), WatchFlags::MODIFY) {
            self.watch = Some(watch);
            // What was noted before the watch was there.
            self.on_notes();
        }
    }

    /// Gives the watch back.
    pub(in crate::supervise) fn unwatch(&mut self, inotify: BorrowedFd<'_>) {
        if let Some(watch) = self.watch.take() {
            // The file may have gone, and the watch with it.
            let _ = inotify::remove_watch(inotify, watch);
        }
        if let Some(watch) = self.memory_watch.take() {
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// The keeper has noted something.
    pub(in crate::supervise) fn on_notes(&mut self) {
        let Some(run) = &mut self.record.run else {
            return;
        };
        if self.main.is_none() || self.ended.is_some() {
            return;
        }
        if let Some((code, time)) = Notes::read(&self.dir.notes(), &run.id).exit {
            run.finished = Some(time);
            run.code = Some(code);
            self.ended = Some(code);
        }
    }

    /// The keeper has gone: as a rule because nothing is left of the run. Otherwise it was killed, and its
    /// work is done here.
    pub(in crate::supervise) fn on_keeper_ended(&mut self, now: Moment) {
        self.on_notes();
        self.keeper = None;
        self.keep_here(now);
    }

    /// Does the work of a keeper that has gone: waits for the end of the main process, and records its output. What
    /// cannot be done for want of descriptors is tried again.
    pub(super) fn keep_here(&mut self, now: Moment) {
        let Some(main) = self.main.filter(|_| self.ended.is_none()) else {
            return;
        };
        if self.main_end.is_none() {
            match main.try_open() {
                Ok(Some(end)) => self.main_end = Some(end),
                Ok(None) => {
                    // An earlier supervisor may have learned the code.
                    let code = self.record.run.as_ref().and_then(|run| run.code);
                    self.ended = Some(code.unwrap_or(UNKNOWN_CODE));
                }
                Err(_) => self.output_retry = Some(now.saturating_add(OUTPUT_RETRY)),
            }
        }
        if self.recorder.is_none() {
            self.record_here(now);
        }
    }

    pub(super) fn recorder(&self) -> Result<Recorder, BackendError> {
        let user = self.record.spec.user.as_ref();
        let owner = user.map(|account| (account.uid, account.gid));
        let rotation = self.record.spec.attributes.rotation;
        let is_named = self.dir.fifo(Stream::Stdout).exists();
        if let [stdout, stderr] = self.held.as_slice()
            && !is_named
        {
            // Somebody has removed the names of its pipes.
            return Recorder::of_pipes(&self.dir, rotation, [stdout, stderr]);
        }
        Recorder::open(&self.dir, rotation, owner)
    }

    /// Records the output that no keeper records.
    pub(super) fn record_here(&mut self, now: Moment) {
        match self.recorder() {
            Ok(recorder) => self.recorder = Some(recorder),
            Err(_) => self.output_retry = Some(now.saturating_add(OUTPUT_RETRY)),
        }
    }
}
