//! A relay that is reached through the engine: a command that the engine runs in the relay's container, and
//! HTTP/2 over its standard streams. What can be asked for is said in `relay::stream`.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::http::HeaderMap;
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::backend::container::{Containers, Exec};
use crate::relay::multiplex;
use crate::relay::stream::{ERRNO, ERROR};

pub use crate::relay::multiplex::Connection;

/// How long a relay may take to say that it is there.
const HELLO: Duration = Duration::from_secs(10);

/// How long it may take over an answer, and how long a connection from its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests for the next connection that wait on one port: at first, and at most.
const WAITING: (usize, usize) = (8, 128);

/// A relay that can be asked. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Relay {
    requests: SendRequest<Bytes>,
    /// Its sender is gone when the relay is.
    gone: watch::Receiver<()>,
}

/// A port of the relay.
#[derive(Debug)]
pub struct Listener {
    requests: SendRequest<Bytes>,
    port: u16,
    /// The relay listens while this is open.
    lease: (SendStream<Bytes>, RecvStream),
    waiting: FuturesUnordered<Waiting>,
    /// How many are to wait.
    enough: usize,
    /// How many were there already when the next one was asked for, in a row.
    in_a_row: usize,
}

/// A request that has not been answered.
#[derive(Debug)]
struct Waiting {
    response: ResponseFuture,
    send: Option<SendStream<Bytes>>,
}

impl Relay {
    /// Starts the relay's other end in its container, and waits until it answers.
    ///
    /// # Errors
    /// The engine's refusal; or it does not answer.
    pub async fn open(containers: &Containers, id: &str, name: &str) -> io::Result<Self> {
        let exec = Exec {
            command: ["/wharf", "relay", "--stream"].map(str::to_owned).into(),
            stdin: true,
            ..Exec::default()
        };
        let executed = containers.exec(id, name, &exec, None).await;
        let executed = executed.map_err(io::Error::other)?;
        Self::over(executed.streams.into_pipe()).await
    }

    /// Speaks with a relay at the other end of a byte stream, once it has answered.
    ///
    /// # Errors
    /// It does not.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<Self> {
        let met = async {
            let handshake = multiplex::client().handshake::<_, Bytes>(stream).await;
            let (requests, mut connection) = handshake.map_err(multiplex::broken)?;
            let mut pings = connection.ping_pong();
            let (alive, gone) = watch::channel(());
            let (answered, answer) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let kept = async {
                    if let Some(pings) = &mut pings
                        && pings.ping(h2::Ping::opaque()).await.is_err()
                    {
                        return;
                    }
                    // Whoever waits for it may have given up.
                    let _ = answered.send(());
                    multiplex::silence(pings).await;
                };
                tokio::select! {
                    // What it died of is seen by those who use it.
                    _ = connection => {}
                    () = kept => {}
                }
                drop(alive);
            });
            answer.await.map_err(|_| closed())?;
            Ok(Self { requests, gone })
        };
        within(HELLO, met).await
    }

    /// Returns when the relay has gone.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        while gone.changed().await.is_ok() {}
    }

    /// Listens on a port of the relay, on all addresses.
    ///
    /// # Errors
    /// What the system said there.
    pub async fn listen(&self, port: u16) -> io::Result<Listener> {
        let asked = ask(&self.requests, &format!("http://relay/listen/{port}"))?;
        let (send, receive) = within(PATIENCE, asked).await?;
        Ok(Listener {
            requests: self.requests.clone(),
            port,
            lease: (send, receive),
            waiting: FuturesUnordered::new(),
            enough: WAITING.0,
            in_a_row: 0,
        })
    }

    /// Connects from the relay's place.
    ///
    /// # Errors
    /// What the system said there.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<Connection> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(address.to_string())
            .body(())
            .map_err(io::Error::other)?;
        let (send, receive) = within(PATIENCE, send(&self.requests, request)?).await?;
        Ok(Connection::new(send, receive))
    }
}

impl Listener {
    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// The relay is gone.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        while self.waiting.len() < self.enough {
            let path = format!("http://relay/accept/{}", self.port);
            self.waiting.push(ask(&self.requests, &path)?);
        }
        let (waiting, lease) = (&mut self.waiting, &mut self.lease.1);
        let mut at_once = true;
        let (send, receive) = poll_fn(|cx| {
            if let Poll::Ready(Some(answer)) = waiting.poll_next_unpin(cx) {
                return Poll::Ready(answer);
            }
            // It says nothing; whatever comes is its end.
            if lease.poll_data(cx).is_ready() {
                return Poll::Ready(Err(closed()));
            }
            at_once = false;
            Poll::Pending
        })
        .await?;
        self.in_a_row = if at_once { self.in_a_row + 1 } else { 0 };
        if self.in_a_row >= self.enough / 2 {
            self.in_a_row = 0;
            self.enough = (self.enough * 2).min(WAITING.1);
        }
        Ok(Connection::new(send, receive))
    }
}

impl Future for Waiting {
    type Output = io::Result<(SendStream<Bytes>, RecvStream)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let response = ready!(Pin::new(&mut this.response).poll(cx)).map_err(multiplex::broken)?;
        if response.status() != StatusCode::OK {
            return Poll::Ready(Err(refusal(response.headers())));
        }
        let send = this.send.take().ok_or_else(closed)?;
        Poll::Ready(Ok((send, response.into_body())))
    }
}

fn ask(requests: &SendRequest<Bytes>, uri: &str) -> io::Result<Waiting> {
    let request = Request::builder().method(Method::POST).uri(uri).body(());
    send(requests, request.map_err(io::Error::other)?)
}

fn send(requests: &SendRequest<Bytes>, request: Request<()>) -> io::Result<Waiting> {
    // A handle of its own waits for nobody else's request.
    let (response, send) = requests
        .clone()
        .send_request(request, false)
        .map_err(multiplex::broken)?;
    Ok(Waiting {
        response,
        send: Some(send),
    })
}

/// What the relay says that kept it from doing what it was asked for.
fn refusal(headers: &HeaderMap) -> io::Error {
    let said = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(number) = said(ERRNO).and_then(|number| number.parse().ok())
        && cfg!(target_os = "linux")
    {
        return io::Error::from_raw_os_error(number);
    }
    io::Error::other(said(ERROR).unwrap_or("the relay refused").to_owned())
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the relay has gone")
}

async fn within<T>(patience: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, what)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener as Blocking};
    use std::sync::Arc;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Barrier;
    use tokio::task::{JoinHandle, JoinSet};

    use super::*;
    use crate::relay::stream::serve;

    /// Both ends in this process.
    async fn met() -> (Relay, JoinHandle<io::Result<()>>) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let serving = tokio::spawn(serve(theirs));
        (Relay::over(ours).await.unwrap(), serving)
    }

    fn free_port() -> u16 {
        let listener = Blocking::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    fn at(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// A server, and a connection to it through the relay.
    async fn dialled(relay: &Relay) -> (TcpStream, Connection) {
        let server = TcpListener::bind(at(0)).await.unwrap();
        let address = server.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(relay.dial(address), server.accept());
        (accepted.unwrap().0, dialled.unwrap())
    }

    /// A client of the relay, and its connection here.
    async fn accepted(listener: &mut Listener) -> (TcpStream, Connection) {
        let client = TcpStream::connect(at(listener.port));
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap())
    }

    /// Returns when nobody listens on a port; the relay hears of it a moment later than it was decided.
    async fn refused(port: u16) {
        within(PATIENCE, async {
            loop {
                match TcpStream::connect(at(port)).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return Ok(());
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (relay, _serving) = met().await;
        let mut listener = relay.listen(free_port()).await.unwrap();
        let (client, inside) = accepted(&mut listener).await;
        let (server, outside) = dialled(&relay).await;
        let much: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
        for (mut socket, mut carried) in [(client, inside), (server, outside)] {
            let talk = async {
                socket.write_all(&much).await.unwrap();
                socket.shutdown().await.unwrap();
                let mut heard = Vec::new();
                socket.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let answer = async {
                let mut heard = Vec::new();
                carried.read_to_end(&mut heard).await.unwrap();
                carried.write_all(&heard).await.unwrap();
                carried.shutdown().await.unwrap();
            };
            let (heard, ()) = tokio::join!(talk, answer);
            assert!(heard == much, "{} bytes came back", heard.len());
        }
    }

    #[tokio::test]
    async fn a_thousand_connections_are_open_at_once() {
        const MANY: usize = 1000;
        let limit = getrlimit(Resource::Nofile).maximum;
        let raised = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(Resource::Nofile, raised).unwrap();
        let (relay, _serving) = met().await;
        let mut listener = relay.listen(free_port()).await.unwrap();
        let port = listener.port;
        let echoing = tokio::spawn(async move {
            loop {
                let mut connection = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut word = [0; 4];
                    while connection.read_exact(&mut word).await.is_ok() {
                        connection.write_all(&word).await.unwrap();
                    }
                });
            }
        });
        let all_open = Arc::new(Barrier::new(MANY));
        let mut clients = JoinSet::new();
        for number in 0..MANY {
            let all_open = Arc::clone(&all_open);
            clients.spawn(async move {
                let word = u32::try_from(number).unwrap().to_be_bytes();
                let mut client = TcpStream::connect(at(port)).await.unwrap();
                let mut heard = [0; 4];
                for _ in 0..3 {
                    client.write_all(&word).await.unwrap();
                    client.read_exact(&mut heard).await.unwrap();
                    assert_eq!(heard, word);
                    all_open.wait().await;
                }
                client.shutdown().await.unwrap();
            });
        }
        let served = clients.join_all().await.len();
        assert_eq!(served, MANY);
        echoing.abort();
    }

    #[tokio::test]
    async fn those_who_do_not_read_hold_nobody_up() {
        let (relay, _serving) = met().await;
        let mut listener = relay.listen(free_port()).await.unwrap();
        let mut stuck = Vec::new();
        for _ in 0..40 {
            for (mut socket, carried) in [accepted(&mut listener).await, dialled(&relay).await] {
                let (full, is_full) = tokio::sync::oneshot::channel();
                let flooding = tokio::spawn(async move {
                    let flood = vec![7; 64 << 10];
                    socket.write_all(&flood).await.unwrap();
                    full.send(()).unwrap();
                    while socket.write_all(&flood).await.is_ok() {}
                });
                is_full.await.unwrap();
                stuck.push((carried, flooding));
            }
        }
        // As much again into sockets that nobody reads from.
        let mut unread = Vec::new();
        for _ in 0..40 {
            let (socket, mut carried) = dialled(&relay).await;
            let flooding = tokio::spawn(async move {
                let flood = vec![7; 1 << 20];
                while carried.write_all(&flood).await.is_ok() {}
            });
            unread.push((socket, flooding));
        }
        let (mut client, mut inside) = accepted(&mut listener).await;
        for byte in 0..200 {
            client.write_u8(byte).await.unwrap();
            assert_eq!(inside.read_u8().await.unwrap(), byte);
            inside.write_u8(byte).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), byte);
        }
        for (_, flooding) in &stuck {
            flooding.abort();
        }
        for (_, flooding) in &unread {
            flooding.abort();
        }
    }

    #[tokio::test]
    async fn a_failure_on_one_side_is_one_on_the_other() {
        let (relay, _serving) = met().await;
        let mut listener = relay.listen(free_port()).await.unwrap();
        let reset = Some(io::ErrorKind::ConnectionReset);
        let kind = |read: io::Result<u8>| read.err().map(|error| error.kind());

        let (client, mut inside) = accepted(&mut listener).await;
        let socket = socket2::SockRef::from(&client);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(kind(inside.read_u8().await), reset);

        let (mut client, inside) = accepted(&mut listener).await;
        inside.reset();
        assert_eq!(kind(client.read_u8().await), reset);

        // Dropped before its end, which is what becomes of it when its task dies.
        let (mut server, outside) = dialled(&relay).await;
        drop(outside);
        assert_eq!(kind(server.read_u8().await), reset);

        // Also for one that has already heard the end of the other side.
        let (mut server, mut outside) = dialled(&relay).await;
        server.shutdown().await.unwrap();
        assert_eq!(outside.read(&mut [0]).await.unwrap(), 0);
        outside.reset();
        assert_eq!(kind(server.read_u8().await), reset);
    }

    #[tokio::test]
    async fn a_failure_keeps_its_reason() {
        let (relay, _serving) = met().await;
        let nobody = at(free_port());
        let error = relay.dial(nobody).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let taken = Blocking::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = relay.listen(port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(relay.listen(0).await.is_err());
        drop(taken);
        relay.listen(port).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_is_closed_with_its_listener_and_can_be_had_again() {
        let (relay, _serving) = met().await;
        let port = free_port();
        for _ in 0..50 {
            let mut listener = relay.listen(port).await.unwrap();
            let (mut client, mut inside) = accepted(&mut listener).await;
            // What was accepted goes on.
            drop(listener);
            client.write_u8(1).await.unwrap();
            assert_eq!(inside.read_u8().await.unwrap(), 1);
        }
        refused(port).await;
    }

    #[tokio::test]
    async fn nobody_listens_when_the_forwarder_has_gone() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let serving = tokio::spawn(serve(theirs));
        let (mut between, given) = tokio::io::duplex(64 << 10);
        let mut ours = ours;
        let bridge = tokio::spawn(async move {
            let copied = tokio::io::copy_bidirectional(&mut ours, &mut between).await;
            drop(copied);
        });
        let relay = Relay::over(given).await.unwrap();
        let port = free_port();
        let mut listener = relay.listen(port).await.unwrap();
        let (mut client, _inside) = accepted(&mut listener).await;
        bridge.abort();
        serving.await.unwrap().unwrap();
        relay.gone().await;
        refused(port).await;
        assert!(client.read_u8().await.is_err());
        assert!(listener.accept().await.is_err());
        assert!(relay.listen(port).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_relay_is_told_from_one() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs
            .write_all(b"OCI runtime exec failed: no such file\r\n")
            .await
            .unwrap();
        assert!(Relay::over(ours).await.is_err());
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        assert!(Relay::over(ours).await.is_err());
    }
}
