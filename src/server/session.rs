//! One WebSocket connection, from its upgrade to its close.
//!
//! Three things go on at once: reading calls, writing answers, running commands. They meet in a queue of
//! a few messages; when it is full, because the client does not read, nothing more is read from the
//! client either, nor from its commands.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite;

use super::methods::{Context, EXECUTE};
use super::rpc::{self, Entry};
use super::seat::Seat;
use super::{Phase, Shared, reached};

/// Messages that wait for the client.
const QUEUE: usize = 4;

/// Commands (or batches with commands) that one session may run at a time.
const MOST_COMMANDS: usize = 8;

/// How long a client that is being closed may take to answer, while the server itself goes on.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves one client. Whatever belongs to the session has ended when this returns.
pub(super) async fn run(socket: WebSocket, seat: Seat, shared: Arc<Shared>) {
    let mut phase = shared.phase.clone();
    tokio::select! {
        () = converse(socket, Arc::new(seat), shared) => {}
        // Dropping the conversation kills what it runs.
        () = reached(&mut phase, Phase::Cut) => {}
    }
}

/// The way to the client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<String>,
    left: watch::Receiver<bool>,
}

impl Outbox {
    /// Waits for room and queues a message; drops it when the session is over.
    pub(super) async fn send(&self, text: String) {
        tokio::select! {
            biased;
            () = self.session_left() => {}
            // A closed queue: the writer has ended, and the session is about to.
            sent = self.queue.send(text) => drop(sent),
        }
    }

    /// Resolves when the session is over.
    pub(super) async fn session_left(&self) {
        let mut left = self.left.clone();
        // A dropped sender: the session is gone.
        drop(left.wait_for(|left| *left).await);
    }
}

/// Why a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed the connection, or it broke.
    Left,
    /// The client broke a rule; the code says which.
    Refused(CloseCode, &'static str),
    /// The client answers neither calls nor pings, or reads nothing.
    Dead,
    /// The server stops.
    Restart,
}

impl End {
    fn farewell(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left | Self::Dead => return None,
            Self::Refused(code, reason) => (code, reason),
            // IANA WebSocket close code registry: clients take 1012 as "come back", 1001 as "go away".
            Self::Restart => (close_code::RESTART, "service restart"),
        };
        Some(CloseFrame {
            code,
            reason: reason.into(),
        })
    }
}

async fn converse(socket: WebSocket, seat: Arc<Seat>, shared: Arc<Shared>) {
    let (sink, mut stream) = socket.split();
    let (queue, queued) = mpsc::channel(QUEUE);
    let (leave, left) = watch::channel(false);
    let (say_goodbye, farewell) = oneshot::channel();
    let context = Arc::new(Context {
        shared: Arc::clone(&shared),
        seat,
        outbox: Outbox { queue, left },
    });
    let mut commands = JoinSet::new();
    let mut writer = pin!(write(sink, queued, farewell, &shared));
    let mut phase = shared.phase.clone();
    let end = tokio::select! {
        end = read(&mut stream, &mut commands, &context) => end,
        () = &mut writer => End::Dead,
        () = reached(&mut phase, Phase::Stopping) => End::Restart,
    };
    leave.send_replace(true);
    let goodbye = async {
        let Some(frame) = end.farewell() else {
            return;
        };
        // The writer is there: it has ended only if the client is dead.
        drop(say_goodbye.send(frame));
        let closing = async {
            (&mut writer).await;
            while let Some(Ok(_)) = stream.next().await {}
        };
        if end == End::Restart {
            // The drain time of the server is the limit.
            closing.await;
        } else {
            drop(timeout(GOODBYE, closing).await);
        }
    };
    let ending = async { while commands.join_next().await.is_some() {} };
    tokio::join!(goodbye, ending);
}

/// Reads calls until the conversation ends.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    commands: &mut JoinSet<()>,
    context: &Arc<Context>,
) -> End {
    // Two pings without an answer; a client that is alive answers by itself (RFC 6455 §5.5.2).
    let silence = context.shared.keepalive * 3;
    loop {
        let message = match timeout(silence, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return broken(error),
            Ok(None) => return End::Left,
            Err(_) => return End::Dead,
        };
        let message = match message {
            Message::Text(text) => rpc::read(text.as_bytes()),
            // Some clients send JSON as bytes; it reads the same.
            Message::Binary(bytes) => rpc::read(&bytes),
            // Pings are answered below this layer, and so is a close, before the stream ends.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        let runs = message
            .entries()
            .iter()
            .any(|entry| matches!(entry, Entry::Call(call) if call.method == EXECUTE));
        while commands.try_join_next().is_some() {}
        if runs && commands.len() < MOST_COMMANDS {
            let context = Arc::clone(context);
            commands.spawn(async move {
                if let Some(answer) = context.carry_out(message, true).await {
                    context.outbox.send(answer).await;
                }
            });
        } else if let Some(answer) = context.carry_out(message, false).await {
            context.outbox.send(answer).await;
        }
    }
}

/// RFC 6455 §7.4.1: what the client did wrong, if it is still there to be told.
fn broken(error: axum::Error) -> End {
    let error = error.into_inner();
    match error.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => {
            End::Refused(close_code::SIZE, "the message is too large")
        }
        Some(tungstenite::Error::Utf8(_)) => End::Refused(close_code::INVALID, "not UTF-8"),
        Some(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => End::Left,
        Some(tungstenite::Error::Protocol(_)) => {
            End::Refused(close_code::PROTOCOL, "protocol error")
        }
        Some(_) | None => End::Left,
    }
}

/// Writes what is queued, and a ping from time to time, until the farewell or until the client takes no
/// more.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queued: mpsc::Receiver<String>,
    mut farewell: oneshot::Receiver<CloseFrame>,
    shared: &Shared,
) {
    let first = Instant::now() + shared.keepalive;
    let mut heartbeat = interval_at(first, shared.keepalive);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (message, is_last) = tokio::select! {
            biased;
            frame = &mut farewell => {
                let Ok(frame) = frame else {
                    return;
                };
                // Answers that are ready still go out first.
                while let Ok(text) = queued.try_recv() {
                    if !push(&mut sink, Message::text(text), shared.stall).await {
                        return;
                    }
                }
                (Message::Close(Some(frame)), true)
            }
            _ = heartbeat.tick() => (Message::Ping(Vec::new().into()), false),
            text = queued.recv() => match text {
                Some(text) => (Message::text(text), false),
                None => return,
            },
        };
        if !push(&mut sink, message, shared.stall).await || is_last {
            return;
        }
    }
}

/// Whether the client took it in time.
async fn push(sink: &mut SplitSink<WebSocket, Message>, message: Message, limit: Duration) -> bool {
    matches!(timeout(limit, sink.send(message)).await, Ok(Ok(())))
}
