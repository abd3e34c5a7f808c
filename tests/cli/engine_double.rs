//! An engine that says what a test wants it to: a socket in one of the usual places, with containers that are
//! processes of the test in truth.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

type OnStop = Box<dyn Fn() + Send>;

/// What the engine has.
#[derive(Default)]
pub(crate) struct Stock {
    /// `GET /containers/json`.
    pub(crate) running: Value,
    /// `GET /containers/json?all=true&filters=…`: those that do not run.
    pub(crate) stopped: Value,
    /// `GET /containers/ID/json`.
    pub(crate) inspected: Value,
    /// `GET /services`; null: no manager of a swarm.
    pub(crate) services: Value,
    /// What happens when a container is stopped.
    pub(crate) on_stop: Option<OnStop>,
}

/// A running double; it ends with the test's program.
#[derive(Clone)]
pub(crate) struct EngineDouble {
    asked: Arc<Mutex<Vec<String>>>,
}

impl EngineDouble {
    /// Listens on a socket, whose directory is made.
    pub(crate) fn listen(socket: &Path, stock: Stock) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = bind(socket);
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                // A client that goes away in the middle is its own affair.
                let _gone = serve(&stream, &stock, &log);
            }
        });
        Self { asked }
    }

    /// The requests so far, as `GET /containers/json`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An engine that accepts connections and never says a word.
pub(crate) fn mute(socket: &Path) {
    let listener = bind(socket);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            open.push(stream);
        }
    });
}

fn bind(socket: &Path) -> UnixListener {
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    UnixListener::bind(socket).unwrap()
}

fn serve(stream: &UnixStream, stock: &Stock, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = request.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Behind the API's version.
    let path = match path.strip_prefix("/v1.41") {
        Some(rest) => rest,
        None => path,
    };
    log.lock().unwrap().push(format!("{method} {path}"));
    let list = |value: &Value| {
        if value.is_null() {
            json!([])
        } else {
            value.clone()
        }
    };
    let (status, body) = match (method, path) {
        (_, "/_ping") => ("200 OK", Value::Null),
        (_, "/containers/json") if query.contains("all=true") => ("200 OK", list(&stock.stopped)),
        (_, "/containers/json") => ("200 OK", list(&stock.running)),
        (_, "/services") if stock.services.is_null() => (
            "503 Service Unavailable",
            json!({"message": "this node is no swarm manager"}),
        ),
        (_, "/services") => ("200 OK", stock.services.clone()),
        ("POST", path) if path.ends_with("/stop") => {
            if let Some(stop) = &stock.on_stop {
                stop();
            }
            ("204 No Content", Value::Null)
        }
        ("GET", path) if path.ends_with("/json") => ("200 OK", stock.inspected.clone()),
        _ => ("404 Not Found", json!({"message": "no such thing"})),
    };
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nServer: Libpod/4.3.1 (linux)\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
