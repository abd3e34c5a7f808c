"""A small WebSocket server (RFC 6455) that knows nothing of wharf: who holds a port, who comes up on one.

Standard library only. It prints `listening on HOST:PORT, pid PID` once it listens, echoes text and binary
messages, answers pings, and refuses plain HTTP requests with 426. With --prefork N there are N + 1 holders
of the listening socket, the parent among them; with --respawn a parent that holds nothing starts the server
again whenever it ends.
"""

import argparse
import base64
import hashlib
import os
import signal
import socket
import struct
import sys
import threading
import time

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def accept_value(key):
    """The Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def read_request(stream):
    """The header fields of a request, names in lower case, or None when the client left."""
    if not stream.readline(65536):
        return None
    fields = {}
    while True:
        line = stream.readline(65536).decode("latin-1").strip()
        if not line:
            return fields
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()


def read_frame(stream):
    """One frame as (opcode, payload, last), or None at the end of the stream (section 5.2)."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", stream.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", stream.read(8))
    mask = stream.read(4) if head[1] & 0x80 else bytes(4)
    payload = stream.read(length)
    return head[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(payload)), bool(head[0] & 0x80)


def frame(opcode, payload):
    """A whole message as one unmasked frame."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


def converse(connection):
    """Serves one client until it closes or leaves."""
    with connection, connection.makefile("rb") as stream:
        fields = read_request(stream)
        if fields is None:
            return
        if "websocket" not in fields.get("upgrade", "").lower() or "sec-websocket-key" not in fields:
            connection.sendall(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_value(fields['sec-websocket-key'])}\r\n\r\n".encode()
        )
        kind, message = TEXT, b""
        while (received := read_frame(stream)) is not None:
            opcode, payload, last = received
            if opcode == CLOSE:
                connection.sendall(frame(CLOSE, payload))
                return
            if opcode == PING:
                connection.sendall(frame(PONG, payload))
            elif opcode in (TEXT, BINARY, CONTINUATION):
                if opcode != CONTINUATION:
                    kind, message = opcode, b""
                message += payload
                if last:
                    connection.sendall(frame(kind, message))


def attend(connection):
    """`converse`, where a client that vanishes is no error."""
    try:
        converse(connection)
    except OSError:
        pass


def accept_forever(listener, mute):
    """Serves every client in a thread of its own; a mute server keeps connections and never answers."""
    kept = []
    while True:
        connection, _ = listener.accept()
        if mute:
            kept.append(connection)
        else:
            threading.Thread(target=attend, args=(connection,), daemon=True).start()


def fork_child(run):
    """Runs a function in a child process and returns the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    if not ignores_term():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run()
    os._exit(0)


def ignores_term():
    return signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def end_with(children):
    """Makes SIGTERM end the children first, unless it is ignored."""

    def stop(*_):
        for pid in children:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        os._exit(0)

    if not ignores_term():
        signal.signal(signal.SIGTERM, stop)


def serve(options):
    time.sleep(options.delay / 1000)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.host, options.port))
    listener.listen(128)
    workers = [fork_child(lambda: accept_forever(listener, options.mute)) for _ in range(options.prefork)]
    end_with(workers)
    host, port = listener.getsockname()[:2]
    print(f"listening on {host}:{port}, pid {os.getpid()}", flush=True)
    if workers:
        while True:
            signal.pause()
    accept_forever(listener, options.mute)


def respawn(options):
    children = []
    end_with(children)
    while True:
        children[:] = [fork_child(lambda: serve(options))]
        os.waitpid(children[0], 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # Process services are told by PORT where to listen.
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8003")), help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--ignore-term", action="store_true", help="ignore SIGTERM, in every process")
    parser.add_argument("--prefork", type=int, default=0, metavar="N", help="accept in N child processes")
    parser.add_argument("--delay", type=int, default=0, metavar="MS", help="listen only after so long")
    parser.add_argument("--mute", action="store_true", help="accept connections, answer nothing")
    parser.add_argument("--respawn", action="store_true", help="start again whenever the server ends")
    options = parser.parse_args()
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        (respawn if options.respawn else serve)(options)
    except OSError as error:
        sys.exit(f"ws_server: {error}")


if __name__ == "__main__":
    main()
