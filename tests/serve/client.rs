//! A server inside the test and a client for it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::{WebSocketStream, client_async};
use wharf::server::{Options, Server};

/// A test that waits longer than this hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

pub(crate) fn start(options: Options) -> Running {
    let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
    let server = Server::bind(Options {
        port: 0,
        path,
        ..options
    })
    .unwrap();
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel();
    let done = tokio::spawn(server.serve(async {
        stopped.await.unwrap();
    }));
    Running {
        address,
        stop,
        done,
    }
}

impl Running {
    /// Asks the server to end.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.done
    }

    /// Ends the server and waits for it.
    pub(crate) async fn end(self) {
        timeout(PATIENCE, self.stop()).await.unwrap().unwrap();
    }

    pub(crate) async fn health(&self) -> Value {
        wharf::probe::health(self.address, PATIENCE).await.unwrap()
    }

    /// Waits until as many sessions are open.
    pub(crate) async fn wait_for_sessions(&self, count: u64) {
        let counted = async {
            while self.health().await["active_sessions"] != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap();
    }
}

pub(crate) struct Client(pub(crate) WebSocketStream<TcpStream>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await.unwrap()
    }

    pub(crate) async fn connect_with(
        address: SocketAddr,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{address}/ws").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await?;
        Ok(Self(client_async(request, stream).await?.0))
    }

    /// The status of a refused handshake.
    pub(crate) async fn refused(
        address: SocketAddr,
        headers: &[(&'static str, &'static str)],
    ) -> (u16, Option<String>) {
        match Self::connect_with(address, headers).await {
            Err(Error::Http(response)) => (
                response.status().as_u16(),
                response
                    .headers()
                    .get("retry-after")
                    .map(|value| value.to_str().unwrap().to_owned()),
            ),
            Ok(_) => panic!("not refused"),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    /// The next message, whatever it is; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.unwrap() {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next JSON message.
    pub(crate) async fn receive(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The close code the server sends, after whatever else it sends.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            if let Message::Close(frame) = self.next().await? {
                return frame.map(|frame| frame.code.into());
            }
        }
    }

    /// Sends a request with the id 1.
    pub(crate) async fn request(&mut self, method: &str, params: Value) {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.send(call.to_string()).await;
    }

    /// Sends a request and gives its response, which comes next.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.request(method, params).await;
        self.receive().await
    }

    /// Runs a command to its end: stdout, stderr, response.
    pub(crate) async fn execute(&mut self, params: Value) -> (String, String, Value) {
        self.request("execute", params).await;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let message = self.receive().await;
            if message["method"] != "execute.output" {
                return (stdout, stderr, message);
            }
            assert_eq!(message["params"]["id"], 1);
            let data = message["params"]["data"].as_str().unwrap();
            match message["params"]["stream"].as_str().unwrap() {
                "stdout" => stdout.push_str(data),
                "stderr" => stderr.push_str(data),
                other => panic!("{other}"),
            }
        }
    }

    /// The numbers that a running command prints on its first line of output.
    pub(crate) async fn pids(&mut self) -> Vec<u32> {
        let mut line = String::new();
        while !line.ends_with('\n') {
            let message = self.receive().await;
            line.push_str(message["params"]["data"].as_str().unwrap());
        }
        line.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    }
}

/// Whether a process exists and is not merely unreaped.
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with('Z'))
        })
        .unwrap_or(false)
}

/// Waits until none of the processes lives.
pub(crate) async fn wait_for_the_end(pids: &[u32]) {
    let ended = async {
        while pids.iter().any(|pid| lives(*pid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}
