//! A keeper from its making to its report, which says what came of the start. What the report says later anybody can
//! read in its notes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::keeper::state;
use crate::backend::process::protocol::Failure;
use crate::backend::process::run::ProcessId;
use crate::backend::process::tick::Tick;

/// What the keeper says at once; everything later it notes.
pub(super) enum Report {
    Started { keeper: ProcessId, main: ProcessId },
    Failed { failure: Failure },
}

impl Report {
    /// Numbers for a start, which nearly all of them say, and JSON for a failure.
    pub(super) fn send(&self, to: &File) {
        // The supervisor may have been killed: then the notes tell its successor.
        match self {
            Self::Started { keeper, main } => {
                let mut text = [0; STARTED];
                let numbers = [keeper, main]
                    .into_iter()
                    .flat_map(|id| [u64::from(id.pid), id.start_time]);
                for (place, number) in text.chunks_exact_mut(8).zip(numbers) {
                    place.copy_from_slice(&number.to_ne_bytes());
                }
                let _ = rustix::io::write(to, &text);
            }
            Self::Failed { failure } => {
                let text = serde_json::to_vec(failure).unwrap_or_default();
                let mut to = to;
                drop(to.write_all(&text));
            }
        }
    }

    /// `None` for half a report.
    fn parse(text: &[u8]) -> Option<Self> {
        let Ok(text) = <&[u8; STARTED]>::try_from(text) else {
            let failure = serde_json::from_slice(text).ok()?;
            return Some(Self::Failed { failure });
        };
        let mut numbers = text.chunks_exact(8).map(|part| {
            let part = part.try_into().unwrap_or_default();
            u64::from_ne_bytes(part)
        });
        let mut id = || {
            let pid = u32::try_from(numbers.next()?).ok()?;
            let start_time = numbers.next()?;
            Some(ProcessId { pid, start_time })
        };
        let keeper = id()?;
        Some(Self::Started {
            keeper,
            main: id()?,
        })
    }
}

/// The length of a report about a start: two processes of two numbers each. No failure is that short.
const STARTED: usize = 32;

/// A keeper that has not reported yet.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) pid: u32,
    /// Its end, where there is a descriptor left for that.
    pub(super) end: Option<OwnedFd>,
    pub(super) report: File,
    /// The pipes of the run.
    pub(super) held: Vec<File>,
    /// Before and after it was made.
    pub(super) made: Option<(Tick, Tick)>,
}

/// A run that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    /// `None` where it was killed on the way.
    pub(super) keeper: Option<ProcessId>,
    /// The end of the keeper, where that is at hand.
    pub(super) end: Option<OwnedFd>,
    pub(super) main: ProcessId,
}

impl Starting {
    /// The keeper's pid.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when the keeper has reported.
    pub(super) fn report(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// The pipes of the run, to be held open as [`hold`](super::capture::hold) does.
    pub(super) fn take_held(&mut self) -> Vec<File> {
        std::mem::take(&mut self.held)
    }

    /// Returns when the process runs its program, or with the reason why it cannot; `None` when the keeper was
    /// killed before it could say which.
    pub(super) fn finish(mut self) -> Result<Option<Begun>, Failure> {
        let mut text = Vec::new();
        self.report
            .read_to_end(&mut text)
            .map_err(|error| state("cannot hear the keeper", &error))?;
        match Report::parse(&text) {
            Some(Report::Started { keeper, main }) => {
                if let Some((since, until)) = self.made {
                    since.learn(until, keeper);
                }
                Ok(Some(Begun {
                    keeper: Some(keeper),
                    end: self.end,
                    main,
                }))
            }
            Some(Report::Failed { failure }) => Err(failure),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives of it.
    fn sent(report: &Report) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        report.send(&file);
        let mut text = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn a_report_arrives_as_it_was_sent_or_not_at_all() {
        let id = |pid, start_time| ProcessId { pid, start_time };
        let started = Report::Started {
            keeper: id(u32::MAX, 7),
            main: id(1, u64::MAX),
        };
        let text = sent(&started);
        let Some(Report::Started { keeper, main }) = Report::parse(&text) else {
            panic!("{text:?}");
        };
        assert_eq!((keeper, main), (id(u32::MAX, 7), id(1, u64::MAX)));
        assert!(Report::parse(&text[..text.len() - 1]).is_none());
        assert!(Report::parse(b"").is_none());
        let failure = Failure::Refused {
            message: String::new(),
        };
        let text = sent(&Report::Failed { failure });
        assert!(text.len() > STARTED);
        let Some(Report::Failed { failure }) = Report::parse(&text) else {
            panic!("{text:?}");
        };
        assert!(matches!(failure, Failure::Refused { message } if message.is_empty()));
    }
}
