//! What the forwarder and a relay say to each other over a `SOCK_SEQPACKET` socket: one message each, as text.
//! The relay greets; then every request has one reply, in the order of the requests. Pure.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

/// The relay's first message. Another version says another number, and is not served.
pub const GREETING: &str = "wharf relay 1";

/// No message is longer, in bytes.
pub const LONGEST: usize = 128;

/// What a relay can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A TCP socket that listens on a port, on all addresses.
    Listen(u16),
    /// A TCP socket whose connection to an address has begun.
    Dial(SocketAddr),
}

/// What it answers.
#[derive(Debug)]
pub enum Reply {
    /// The socket comes with the message.
    Done,
    /// There is none.
    Failed(io::Error),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(port) => write!(f, "listen {port}"),
            Self::Dial(address) => write!(f, "dial {address}"),
        }
    }
}

impl FromStr for Request {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let not_one = || io::Error::new(io::ErrorKind::InvalidInput, "not a request");
        let (verb, what) = text.split_once(' ').ok_or_else(not_one)?;
        match verb {
            "listen" => match what.parse() {
                Ok(0) | Err(_) => Err(not_one()),
                Ok(port) => Ok(Self::Listen(port)),
            },
            "dial" => what.parse().map(Self::Dial).map_err(|_| not_one()),
            _ => Err(not_one()),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Failed(error) => match error.raw_os_error() {
                Some(number) => write!(f, "errno {number}"),
                None => write!(f, "error {error}"),
            },
        }
    }
}

impl FromStr for Reply {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        if text == "ok" {
            return Ok(Self::Done);
        }
        match text.split_once(' ') {
            Some(("errno", number)) => number
                .parse()
                .map(|number| Self::Failed(io::Error::from_raw_os_error(number)))
                .map_err(|_| io::ErrorKind::InvalidData.into()),
            Some(("error", text)) => Ok(Self::Failed(io::Error::other(text.to_owned()))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        for request in [
            Request::Listen(8080),
            Request::Dial("10.1.2.3:5432".parse().unwrap()),
            Request::Dial("[fd00::2]:5432".parse().unwrap()),
        ] {
            let text = request.to_string();
            assert!(text.len() <= LONGEST, "{text}");
            assert_eq!(text.parse::<Request>().unwrap(), request);
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "",
            "listen",
            "listen 0",
            "listen 65536",
            "listen -1",
            "listen 80 81",
            "dial db:5432",
            "dial 10.0.0.1",
            "close 80",
        ] {
            let error = text.parse::<Request>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn a_failure_keeps_its_number() {
        let text = Reply::Failed(io::Error::from_raw_os_error(98)).to_string();
        let Reply::Failed(error) = text.parse().unwrap() else {
            panic!("{text}");
        };
        assert_eq!(error.raw_os_error(), Some(98));
        assert!(matches!("ok".parse(), Ok(Reply::Done)));
        assert!("okay".parse::<Reply>().is_err());
        let text = Reply::Failed(io::ErrorKind::InvalidInput.into()).to_string();
        assert!(matches!(text.parse(), Ok(Reply::Failed(_))));
    }
}
