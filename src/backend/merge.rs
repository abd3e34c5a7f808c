//! Several streams of log lines, each in order of time, as one. Holds one line of each stream and asks a
//! stream for its next only when that one has been taken, so memory does not grow with the output.

use std::pin::Pin;

use futures_util::future::join_all;
use futures_util::stream::{self, Stream, StreamExt};

use super::BackendError;
use crate::event::Event;

/// Lines of one instance, as far as they are there now, in order of arrival.
pub type Output<'a> = Pin<Box<dyn Stream<Item = Result<Event, BackendError>> + 'a>>;

type Next = Option<Result<Event, BackendError>>;

struct Merge<'a> {
    sources: Vec<Output<'a>>,
    heads: Vec<Next>,
}

/// The lines of all, in order of time; of the same time, those of the earlier source first.
pub fn in_order(sources: Vec<Output<'_>>) -> impl Stream<Item = Result<Event, BackendError>> {
    let merge = Merge {
        heads: Vec::new(),
        sources,
    };
    stream::unfold(merge, |mut merge| async move {
        if merge.heads.is_empty() {
            merge.heads = join_all(merge.sources.iter_mut().map(StreamExt::next)).await;
        }
        let first = merge
            .heads
            .iter()
            .enumerate()
            .filter_map(|(which, head)| Some((time(head.as_ref()?), which)))
            .min()?;
        let (_, which) = first;
        let head = merge.heads.get_mut(which)?;
        let item = head.take()?;
        *head = merge.sources.get_mut(which)?.next().await;
        Some((item, merge))
    })
}

/// What is no line is told at once.
fn time(next: &Result<Event, BackendError>) -> i64 {
    if let Ok(Event::Log { time, .. }) = next {
        *time
    } else {
        i64::MIN
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::event::Stream as Channel;

    fn line(name: &str, time: i64) -> Event {
        Event::Log {
            name: name.to_owned(),
            stream: Channel::Stdout,
            time,
            line: Vec::new(),
        }
    }

    #[tokio::test]
    async fn lines_come_by_their_time_and_are_not_read_ahead() {
        let asked = Cell::new(0);
        let source = |name: &'static str, times: &'static [i64]| -> Output<'_> {
            let asked = &asked;
            Box::pin(stream::iter(times).map(move |time| {
                asked.set(asked.get() + 1);
                Ok(line(name, *time))
            }))
        };
        let mut merged = Box::pin(in_order(vec![
            source("a", &[1, 4, 5, 9]),
            source("b", &[]),
            source("c", &[2, 3, 5]),
        ]));
        let mut seen = Vec::new();
        while let Some(event) = merged.next().await {
            let Ok(Event::Log { name, time, .. }) = event else {
                panic!("a line was expected");
            };
            seen.push(format!("{name}{time}"));
            assert!(asked.get() <= seen.len() + 2, "one line of each at most");
        }
        assert_eq!(seen, ["a1", "c2", "c3", "a4", "a5", "c5", "a9"]);
    }
}
