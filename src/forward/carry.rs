//! One connection: finds a destination that answers, then copies both ways until both have ended. A failure on
//! one side becomes a failure on the other.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::reach::{Connection, Reach};
use super::relays::Relays;
use super::routes::Destination;

/// How long a destination may take to accept.
const DIALLING: Duration = Duration::from_secs(10);

/// Bytes that are read at once. All connections share one buffer, so that a thousand idle ones cost nothing.
const SCRATCH: usize = 128 * 1024;

/// So often one direction goes on before others get their turn.
const ROUNDS: usize = 16;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Carries a connection that came in, from this relay or on this machine, to one of the destinations: by turns,
/// and to the next one when one refuses.
pub(super) async fn carry(
    mut client: Connection,
    from: Option<Reach>,
    destinations: &[Destination],
    turn: usize,
    relays: &Relays,
) {
    client.hurry();
    for place in 0..destinations.len() {
        let place = turn.wrapping_add(place) % destinations.len();
        let Some(destination) = destinations.get(place) else {
            break;
        };
        let Ok((mut server, through)) = dial(destination, relays).await else {
            continue;
        };
        server.hurry();
        let outcome = tokio::select! {
            outcome = both_ways(&mut client, &mut server) => outcome,
            () = gone(from.as_ref()) => Err(io::ErrorKind::ConnectionAborted.into()),
            () = gone(through.as_ref()) => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if outcome.is_err() {
            server.reset();
            client.reset();
        }
        return;
    }
    // Nobody is there: as if nobody had listened.
    client.reset();
}

async fn gone(reach: Option<&Reach>) {
    match reach {
        Some(reach) => reach.gone().await,
        None => pending().await,
    }
}

async fn dial(
    destination: &Destination,
    relays: &Relays,
) -> io::Result<(Connection, Option<Reach>)> {
    match destination {
        Destination::Here(address) => {
            let stream = tokio::time::timeout(DIALLING, TcpStream::connect(address)).await??;
            Ok((Connection::Tcp(stream), None))
        }
        Destination::Through {
            relays: beside,
            address,
        } => {
            let reach = relays.any(beside).ok_or(io::ErrorKind::NotConnected)?;
            Ok((reach.dial(*address).await?, Some(reach)))
        }
    }
}

/// Copies until both directions have ended; an end is passed on as an end, so that either side may go on
/// talking after the other has finished.
async fn both_ways<A, B>(a: &mut A, b: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Half::default(), Half::default());
    std::future::poll_fn(|cx| {
        let there = there.poll(cx, a, b)?;
        let back = back.poll(cx, b, a)?;
        match (there, back) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// What was read and could not be written yet, from `written` on.
    left: Vec<u8>,
    written: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Copying,
    Ending,
    Ended,
}

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            while let Some(rest) = self
                .left
                .get(self.written..)
                .filter(|rest| !rest.is_empty())
            {
                self.written += ready!(written(cx, writer, rest))?;
            }
            // The memory is given back: most connections are idle most of the time.
            self.left = Vec::new();
            self.written = 0;
            match self.stage {
                Stage::Copying => ready!(self.copy(cx, reader, writer))?,
                Stage::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, and writes as much of it as goes.
    fn copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(reader).poll_read(cx, &mut buffer))?;
            let mut rest = buffer.filled();
            if rest.is_empty() {
                self.stage = Stage::Ending;
            }
            while !rest.is_empty() {
                match written(cx, writer, rest) {
                    Poll::Ready(length) => rest = rest.get(length?..).unwrap_or_default(),
                    Poll::Pending => {
                        self.left.extend_from_slice(rest);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

fn written<W>(cx: &mut Context<'_>, writer: &mut W, bytes: &[u8]) -> Poll<io::Result<usize>>
where
    W: AsyncWrite + Unpin,
{
    match ready!(Pin::new(writer).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        length => Poll::Ready(Ok(length)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    async fn refusing() -> Destination {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Destination::Here(listener.local_addr().unwrap())
    }

    #[tokio::test]
    async fn an_end_is_passed_on_and_the_other_way_stays_open() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = [
            refusing().await,
            Destination::Here(server.local_addr().unwrap()),
        ];
        let (mut client, inner) = pair().await;
        let carried = tokio::spawn(async move {
            carry(Connection::Tcp(inner), None, &to, 0, &Relays::default()).await;
        });
        // More than the sockets hold: both sides are full for a while.
        let much: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut served, _) = server.accept().await.unwrap();
        let sent = much.clone();
        let answer = tokio::spawn(async move {
            let mut heard = Vec::new();
            served.read_to_end(&mut heard).await.unwrap();
            served.write_all(&heard).await.unwrap();
        });
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard == much, "{} bytes came back", heard.len());
        answer.await.unwrap();
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn where_nobody_is_there_the_client_sees_a_failure() {
        let to = [refusing().await, refusing().await];
        let (mut client, inner) = pair().await;
        carry(Connection::Tcp(inner), None, &to, 1, &Relays::default()).await;
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let (mut client, inner) = pair().await;
        carry(Connection::Tcp(inner), None, &[], 0, &Relays::default()).await;
        assert!(client.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn a_reset_is_passed_on() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = [Destination::Here(server.local_addr().unwrap())];
        let (mut client, inner) = pair().await;
        let carried = tokio::spawn(async move {
            carry(Connection::Tcp(inner), None, &to, 0, &Relays::default()).await;
        });
        let (served, _) = server.accept().await.unwrap();
        Connection::Tcp(served).reset();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        carried.await.unwrap();
    }
}
