//! One port of one relay to one address: all that the forwarder does with connections, and nothing that decides
//! about them. For measurements.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::carry::carry;
use super::reach::Reach;
use super::relays::Relays;
use super::routes::Destination;
use super::{socket, stream};
use crate::relay::raise_limit;

/// How the relay is reached.
#[derive(Debug)]
pub enum Way {
    /// It connects to a socket in this directory, which is made.
    Socket(PathBuf),
    /// Over a stream.
    Stream(stream::Relay),
}

/// Carries what comes in at a port of the relay to an address on this machine, until the relay has gone.
/// `listening` is called when the port is open.
///
/// # Errors
/// The relay or the port cannot be had; the relay has gone.
pub async fn forward(
    way: Way,
    port: u16,
    to: SocketAddr,
    listening: impl FnOnce(),
) -> io::Result<()> {
    raise_limit();
    let reach = match way {
        Way::Socket(directory) => {
            let meeting = socket::Meeting::open(&directory)?;
            let relay = socket::Relay::greet(meeting.accept().await?).await?;
            Reach::Socket(relay)
        }
        Way::Stream(relay) => Reach::Stream(relay),
    };
    let mut listener = reach.listen(port).await?;
    listening();
    let destinations: Arc<[Destination]> = Arc::new([Destination::Here(to)]);
    loop {
        let client = listener.accept().await?;
        let (reach, destinations) = (reach.clone(), Arc::clone(&destinations));
        tokio::spawn(async move {
            carry(client, Some(reach), &destinations, 0, &Relays::default()).await;
        });
    }
}
