//! The methods: what each call does.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Shared;
use super::allow::Verdict;
use super::execute::{self, Output};
use super::rpc::{Call, Entry, Fault, Message, answer};
use super::seat::Seat;
use super::session::Outbox;

/// The method that takes as long as its command.
pub(super) const EXECUTE: &str = "execute";

/// What a call needs besides its parameters.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Arc<Seat>,
    pub(super) outbox: Outbox,
}

impl Context {
    /// Carries out all calls of a message, in order, and gives the text of the answer, if any is owed.
    /// `may_run`: whether there is room for another command.
    pub(super) async fn carry_out(&self, message: Message, may_run: bool) -> Option<String> {
        match message {
            Message::One(entry) => self.entry(entry, may_run).await.map(|one| one.to_string()),
            Message::Batch(entries) => {
                let mut answers = Vec::with_capacity(entries.len());
                for entry in entries {
                    answers.extend(self.entry(entry, may_run).await);
                }
                // JSON-RPC 2.0 §6: no answers, no array.
                (!answers.is_empty()).then(|| Value::Array(answers).to_string())
            }
        }
    }

    async fn entry(&self, entry: Entry, may_run: bool) -> Option<Value> {
        match entry {
            Entry::Wrong(answer) => Some(answer),
            Entry::Call(call) => {
                let id = call.id.clone();
                let outcome = self.call(call, may_run).await;
                id.map(|id| answer(&id, outcome))
            }
        }
    }

    async fn call(&self, call: Call, may_run: bool) -> Result<Value, Fault> {
        match call.method.as_str() {
            "echo" => Ok(call.params.unwrap_or_default()),
            "ping" => Ok("pong".into()),
            "sessions" => Ok(self.sessions()),
            EXECUTE if !may_run => Err(Fault::new(
                Fault::BUSY,
                "this session runs as many commands as it may",
            )),
            EXECUTE => self.execute(call).await,
            other => Err(Fault::new(
                Fault::METHOD_NOT_FOUND,
                format!("method not found: {other}"),
            )),
        }
    }

    fn sessions(&self) -> Value {
        let seats = &self.shared.seats;
        let sessions: Vec<Value> = seats
            .list()
            .into_iter()
            .map(|sitting| {
                json!({
                    "id": sitting.number,
                    "peer": sitting.peer.to_string(),
                    "age_seconds": sitting.age_seconds,
                    "commands": sitting.commands,
                    "this": sitting.number == self.seat.number(),
                })
            })
            .collect();
        json!({
            "active_sessions": sessions.len(),
            "max_sessions": seats.max(),
            "sessions": sessions,
        })
    }

    async fn execute(&self, call: Call) -> Result<Value, Fault> {
        let allow = &self.shared.allow;
        let params: execute::Params =
            serde_json::from_value(call.params.unwrap_or_else(|| json!({}))).map_err(|error| {
                Fault::new(Fault::INVALID_PARAMS, format!("invalid params: {error}"))
            })?;
        let command = &params.command;
        if allow.is_empty() {
            return Err(Fault::new(
                Fault::NOT_ALLOWED,
                "execute is off; start the server with --allow COMMAND",
            ));
        }
        let program = match allow.judge(command) {
            Verdict::Program(program) => program,
            Verdict::NotFound => {
                return Err(Fault::new(
                    Fault::CANNOT_START,
                    format!("`{command}` is allowed, but there is no such program"),
                ));
            }
            Verdict::NotAllowed => {
                return Err(Fault::new(
                    Fault::NOT_ALLOWED,
                    format!("`{command}` is not on the allow list"),
                ));
            }
        };
        if let Some(directory) = &params.cwd
            && !(directory.is_absolute() && directory.is_dir())
        {
            return Err(Fault::new(
                Fault::INVALID_PARAMS,
                "invalid params: `cwd` is the absolute path of a directory",
            ));
        }
        let _running = self.seat.command();
        let output = Output {
            outbox: &self.outbox,
            id: call.id,
        };
        let outcome = execute::run(&program, &params, self.shared.grace, output)
            .await
            .map_err(|error| {
                // A NUL byte in an argument.
                if error.kind() == io::ErrorKind::InvalidInput {
                    Fault::new(Fault::INVALID_PARAMS, format!("invalid params: {error}"))
                } else {
                    let text = format!("`{command}` cannot be started: {error}");
                    Fault::new(Fault::CANNOT_START, text)
                }
            })?;
        serde_json::to_value(outcome)
            .map_err(|error| Fault::new(Fault::INTERNAL_ERROR, error.to_string()))
    }
}
