//! A relay that is reached over one byte stream, its standard input and output: serves HTTP/2 on it.
//!
//! - `CONNECT ADDRESS:PORT` opens a connection from here; the bodies are its two directions.
//! - `POST /listen/PORT` listens for as long as its stream is open.
//! - `POST /accept/PORT` is answered with the next connection that comes in there. Some are kept waiting, so that
//!   nothing needs to be asked when one comes.
//!
//! 200 is success; another status has the reason in `errno` or `error`. All ends with the input, and then nobody
//! listens here any more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use h2::RecvStream;
use h2::server::SendResponse;
use hyper::body::Bytes;
use hyper::http::response::Builder;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::multiplex::{self, Connection};
use super::socket;

/// Says what a request failed for: a number of errno(3), or words.
pub const ERRNO: &str = "errno";
/// As [`ERRNO`].
pub const ERROR: &str = "error";

/// Bytes that are read from a socket at once.
const PORTION: usize = 64 << 10;

/// Bytes that fit into the pipes to the engine; as many as a user may ask for.
const PIPE: usize = 1 << 20;

/// After trouble with accepting: descriptors may be short, and come back.
const BREATH: Duration = Duration::from_millis(50);

thread_local! {
    /// What is read goes through here, so that idle connections need no memory of their own.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PORTION]);
}

/// Serves the forwarder at the other end of standard input and output, which are pipes.
///
/// # Errors
/// They are not; or the other side does not speak HTTP/2.
pub(super) fn serve_standard() -> io::Result<()> {
    super::raise_limit();
    let (input, output) = (
        rustix::io::dup(rustix::stdio::stdin())?,
        rustix::io::dup(rustix::stdio::stdout())?,
    );
    for end in [&input, &output] {
        // Smaller pipes do as well.
        let _ = rustix::pipe::fcntl_setpipe_size(end, PIPE);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let input = pipe::Receiver::from_owned_fd(input)?;
        let output = pipe::Sender::from_owned_fd(output)?;
        serve(tokio::io::join(input, output)).await
    })
}

/// Serves one forwarder, until it is gone.
///
/// # Errors
/// It speaks something else.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let handshake = multiplex::server().handshake::<_, Bytes>(stream).await;
    let mut forwarder = handshake.map_err(multiplex::broken)?;
    let silence = multiplex::silence(forwarder.ping_pong());
    let mut silence = std::pin::pin!(silence);
    let mut doors: HashMap<u16, Door> = HashMap::new();
    loop {
        let next = tokio::select! {
            next = forwarder.accept() => next,
            () = &mut silence => None,
        };
        match next {
            Some(Ok((request, respond))) => take(request, respond, &mut doors).await,
            // Whatever it died of.
            Some(Err(_)) | None => break,
        }
    }
    for door in doors.into_values() {
        door.close().await;
    }
    Ok(())
}

/// A port that is listened on.
struct Door {
    task: JoinHandle<()>,
    waiting: mpsc::UnboundedSender<Waiting>,
}

/// A request for the next connection.
struct Waiting {
    respond: SendResponse<Bytes>,
    body: RecvStream,
}

impl Door {
    async fn close(self) {
        self.task.abort();
        // It is closed when the task is gone.
        drop(self.task.await);
    }
}

async fn take(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    doors: &mut HashMap<u16, Door>,
) {
    let (head, body) = request.into_parts();
    if head.method == Method::CONNECT {
        let address = head.uri.authority().map(Authority::as_str);
        match address.unwrap_or_default().parse() {
            Ok(address) => drop(tokio::spawn(dial(address, respond, body))),
            Err(_) => refuse(respond, &io::ErrorKind::InvalidInput.into()),
        }
        return;
    }
    let (verb, port) = match head.uri.path().trim_start_matches('/').split_once('/') {
        Some((verb, port)) => (verb, port.parse::<u16>().unwrap_or_default()),
        None => ("", 0),
    };
    doors.retain(|_, door| !door.task.is_finished());
    match verb {
        "listen" if port != 0 => {
            // The one before has been given up, if there is any: a forwarder listens once on a port.
            if let Some(before) = doors.remove(&port) {
                before.close().await;
            }
            match open(port) {
                Ok(listener) => {
                    let Ok(lease) = respond.send_response(success(), false) else {
                        return;
                    };
                    let (waiting, queue) = mpsc::unbounded_channel();
                    let task = tokio::spawn(async move {
                        tokio::select! {
                            () = hand_out(&listener, queue) => {}
                            () = ended(body) => {}
                        }
                        drop((lease, listener));
                    });
                    doors.insert(port, Door { task, waiting });
                }
                Err(error) => refuse(respond, &error),
            }
        }
        "accept" => {
            let waiting = Waiting { respond, body };
            let sent = match doors.get(&port) {
                Some(door) => door.waiting.send(waiting).map_err(|unsent| unsent.0),
                None => Err(waiting),
            };
            if let Err(waiting) = sent {
                refuse(waiting.respond, &io::ErrorKind::NotConnected.into());
            }
        }
        _ => refuse(respond, &io::ErrorKind::InvalidInput.into()),
    }
}

fn open(port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket::listen(port)?);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Returns when the other side has ended its side of a stream, in whatever way.
async fn ended(mut body: RecvStream) {
    while let Ok(Some(bytes)) = multiplex::receive(&mut body).await {
        multiplex::release(&mut body, bytes.len());
    }
}

/// Answers each request with a connection, in their order.
async fn hand_out(listener: &TcpListener, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    while let Some(mut waiting) = queue.recv().await {
        let accepted = loop {
            tokio::select! {
                biased;
                _ = poll_fn(|cx| waiting.respond.poll_reset(cx)) => break None,
                accepted = listener.accept() => match accepted {
                    Ok((accepted, _)) => break Some(accepted),
                    Err(_) => tokio::time::sleep(BREATH).await,
                },
            }
        };
        let Some(accepted) = accepted else {
            continue;
        };
        match waiting.respond.send_response(success(), false) {
            Ok(send) => {
                let connection = Connection::new(send, waiting.body);
                tokio::spawn(carry(accepted, connection));
            }
            // Withdrawn at this moment: the client is told as if nobody had listened.
            Err(_) => fail(&accepted),
        }
    }
}

async fn dial(address: SocketAddr, mut respond: SendResponse<Bytes>, body: RecvStream) {
    let connected = async {
        let stream = std::net::TcpStream::from(socket::dial(address)?);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    };
    let connected = tokio::select! {
        connected = connected => connected,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    match connected {
        Ok(stream) => {
            if let Ok(send) = respond.send_response(success(), false) {
                carry(stream, Connection::new(send, body)).await;
            }
        }
        Err(error) => refuse(respond, &error),
    }
}

/// Copies both ways until both have ended. A failure on one side becomes a failure on the other.
async fn carry(mut stream: TcpStream, connection: Connection) {
    drop(stream.set_nodelay(true));
    let Connection {
        mut send,
        mut receive,
        ..
    } = connection;
    let (mut read, mut write) = stream.split();
    let carried = tokio::try_join!(out(&mut read, &mut send), back(&mut receive, &mut write));
    if carried.is_err() {
        send.send_reset(h2::Reason::CANCEL);
        fail(&stream);
    }
}

async fn out(read: &mut ReadHalf<'_>, send: &mut h2::SendStream<Bytes>) -> io::Result<()> {
    loop {
        let room = multiplex::room(send, PORTION).await?;
        tokio::select! {
            ready = read.readable() => ready?,
            error = multiplex::is_reset(send) => return Err(error),
        }
        let bytes = BUFFER.with_borrow_mut(|buffer| {
            let place = buffer.get_mut(..room).unwrap_or_default();
            let count = read.try_read(place)?;
            io::Result::Ok(Bytes::copy_from_slice(
                place.get(..count).unwrap_or_default(),
            ))
        });
        match bytes {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => send.send_data(bytes, false).map_err(multiplex::broken)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    send.send_data(Bytes::new(), true)
        .map_err(multiplex::broken)
}

async fn back(receive: &mut RecvStream, write: &mut WriteHalf<'_>) -> io::Result<()> {
    while let Some(bytes) = multiplex::receive(receive).await? {
        write.write_all(&bytes).await?;
        multiplex::release(receive, bytes.len());
    }
    write.shutdown().await
}

/// Makes the close of a socket a failure for the other side.
fn fail(stream: &TcpStream) {
    // Where that is refused, the other side sees an end: it is closed all the same.
    drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

fn success() -> Response<()> {
    Response::new(())
}

fn refuse(mut respond: SendResponse<Bytes>, error: &io::Error) {
    let response: Builder = Response::builder().status(StatusCode::BAD_GATEWAY);
    let response = match error.raw_os_error() {
        Some(number) => response.header(ERRNO, number),
        None => response.header(ERROR, error.to_string()),
    };
    if let Ok(response) = response.body(()) {
        // Who asked may be gone.
        drop(respond.send_response(response, true));
    }
}
