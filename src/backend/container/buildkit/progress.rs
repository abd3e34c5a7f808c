//! From the builder's reports to lines: every step by its number, its output, and how it ended.

use std::collections::BTreeMap;

use super::proto::{StatusResponse, Timestamp, Vertex};
use crate::backend::container::build::Output;

/// A longer line is cut: what never ends one must not fill the memory.
const LONGEST: usize = 64 * 1024;

/// What is known of the steps so far.
#[derive(Debug, Default)]
pub(super) struct Steps {
    known: BTreeMap<String, Step>,
}

#[derive(Debug)]
struct Step {
    number: usize,
    name: String,
    ended: bool,
    /// What has come of a line that is not complete yet.
    partial: Vec<u8>,
}

impl Steps {
    /// Tells one report.
    pub(super) fn take(&mut self, report: StatusResponse, output: &mut Output<'_>) {
        for vertex in &report.vertexes {
            self.vertex(vertex, output);
        }
        for log in report.logs {
            let Some(step) = self.known.get_mut(&log.vertex) else {
                continue;
            };
            step.partial.extend_from_slice(&log.msg);
            while let Some(end) = step.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = step.partial.drain(..=end).collect();
                step.say(&line, output);
            }
            if step.partial.len() > LONGEST {
                let line = std::mem::take(&mut step.partial);
                step.say(&line, output);
            }
        }
        for warning in report.warnings {
            let text = String::from_utf8_lossy(&warning.short);
            output.line(&format!("warning: {}", text.trim_end()));
        }
    }

    fn vertex(&mut self, vertex: &Vertex, output: &mut Output<'_>) {
        if vertex.started.is_none() {
            return;
        }
        let next = self.known.len() + 1;
        let step = self.known.entry(vertex.digest.clone()).or_insert_with(|| {
            output.line(&format!("#{next} {}", vertex.name));
            Step {
                number: next,
                name: vertex.name.clone(),
                ended: false,
                partial: Vec::new(),
            }
        });
        if vertex.completed.is_none() || step.ended {
            return;
        }
        step.ended = true;
        let rest = std::mem::take(&mut step.partial);
        step.say(&rest, output);
        let end = if !vertex.error.is_empty() {
            // What was given up because another step failed is not to blame.
            if !vertex.error.contains("context canceled") {
                output.failed_at(instruction(&step.name));
            }
            format!("ERROR: {}", vertex.error.trim_end())
        } else if vertex.cached {
            "CACHED".to_owned()
        } else {
            let took = seconds(vertex.completed) - seconds(vertex.started);
            format!("DONE {took:.1}s")
        };
        output.line(&format!("#{} {end}", step.number));
    }
}

impl Step {
    fn say(&self, line: &[u8], output: &mut Output<'_>) {
        let line = String::from_utf8_lossy(line);
        // A bar that is drawn over and over: what it shows last.
        let line = line.trim_end_matches(['\n', '\r']);
        let line = line.rsplit('\r').next().unwrap_or(line);
        if !line.is_empty() {
            output.line(&format!("#{} {line}", self.number));
        }
    }
}

/// `RUN make` in `[build 2/3] RUN make`.
fn instruction(name: &str) -> &str {
    name.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .map_or(name, |(_, instruction)| instruction)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds to a tenth, of a time that a double holds to the microsecond"
)]
fn seconds(time: Option<Timestamp>) -> f64 {
    time.map_or(0.0, |time| {
        time.seconds as f64 + f64::from(time.nanos) / 1e9
    })
}

#[cfg(test)]
mod tests {
    use super::super::proto::VertexLog;
    use super::*;
    use crate::backend::BackendError;
    use crate::event::{Event, Events};

    #[test]
    fn a_line_that_does_not_end_is_cut() {
        let (events, mut received) = Events::channel();
        let mut output = Output::new("p-web", "web", &events);
        let mut steps = Steps::default();
        let step = Vertex {
            digest: "a".to_owned(),
            started: Some(Timestamp::default()),
            ..Vertex::default()
        };
        let log = VertexLog {
            vertex: "a".to_owned(),
            msg: vec![b'x'; LONGEST / 2 + 1],
        };
        let report = StatusResponse {
            vertexes: vec![step],
            logs: vec![log.clone(), log.clone(), log],
            ..StatusResponse::default()
        };
        steps.take(report, &mut output);
        let mut lengths = Vec::new();
        while let Ok(Event::Progress { line, .. }) = received.try_recv() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, ["#1 ".len(), "#1 ".len() + LONGEST + 2]);
        assert!(steps.known["a"].partial.len() <= LONGEST);
    }

    #[test]
    fn reports_become_lines_and_the_failing_step() {
        let (events, mut received) = Events::channel();
        let mut output = Output::new("p-web", "web", &events);
        let mut steps = Steps::default();
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let vertex = |digest: &str, name: &str| Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            started: time(10),
            ..Vertex::default()
        };
        let log = |text: &str| VertexLog {
            vertex: "b".to_owned(),
            msg: text.as_bytes().to_vec(),
        };
        let base = Vertex {
            completed: time(10),
            cached: true,
            ..vertex("a", "[1/2] FROM base")
        };
        let failed = Vertex {
            completed: time(12),
            error: "exit code: 1".to_owned(),
            ..vertex("b", "[2/2] RUN make")
        };
        for report in [
            StatusResponse {
                vertexes: vec![base, vertex("b", "[2/2] RUN make"), Vertex::default()],
                logs: vec![log("half a "), log("line\nbar 1\rbar 2\n"), log("rest")],
                ..StatusResponse::default()
            },
            StatusResponse {
                vertexes: vec![failed],
                ..StatusResponse::default()
            },
        ] {
            steps.take(report, &mut output);
        }
        let mut lines = Vec::new();
        while let Ok(Event::Progress { line, .. }) = received.try_recv() {
            lines.push(line);
        }
        assert_eq!(
            lines,
            [
                "#1 [1/2] FROM base",
                "#1 CACHED",
                "#2 [2/2] RUN make",
                "#2 half a line",
                "#2 bar 2",
                "#2 rest",
                "#2 ERROR: exit code: 1",
            ]
        );
        let BackendError::Build { step, .. } = output.failure("exit code: 1") else {
            panic!("not a build error");
        };
        assert_eq!(step.as_deref(), Some("RUN make"));
    }
}
