//! A WebSocket client that blocks, with bounds: one line per exchange in a test.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use tokio_tungstenite::tungstenite::{self, Message, WebSocket, client};

use super::LIMIT;

/// An open connection.
pub(crate) type Connection = WebSocket<TcpStream>;

/// Connects to a server on 127.0.0.1 and makes the handshake.
pub(crate) fn connect(port: u16, path: &str) -> Result<Connection, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, LIMIT).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(LIMIT))
        .map_err(|error| error.to_string())?;
    match client(format!("ws://{address}{path}"), stream) {
        Ok((connection, _)) => Ok(connection),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends a text message and returns the next one.
#[track_caller]
pub(crate) fn ask(connection: &mut Connection, text: &str) -> String {
    connection.send(Message::text(text)).unwrap();
    loop {
        match connection.read().unwrap() {
            Message::Text(answer) => return answer.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => {
                panic!("not a text: {other:?}")
            }
        }
    }
}

/// Reads until the server ends the connection; its close code, `None` when it just left.
pub(crate) fn close_code(connection: &mut Connection) -> Option<u16> {
    let mut code = None;
    loop {
        match connection.read() {
            Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if error.kind() == std::io::ErrorKind::WouldBlock =>
            {
                panic!("the server neither closes nor leaves")
            }
            Err(_) => return code,
        }
    }
}
