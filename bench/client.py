"""The client of all measurements: blocking sockets, payload counted and thrown away.

A whole websocket library, or keeping what arrives, would make the client the slowest part.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any, Self

from bench import frames, rfb
from bench.rfb import Square

SMALL_BUFFER, LARGE_BUFFER = 16 * 1024, 1024 * 1024
SECONDS = 30.0  # a bridge that is silent for so long has failed
_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="  # not a secret: RFC 6455 wants any 16 bytes


class Closed(Exception):
    """The other side has closed; ``code`` is the websocket's, 1006 where there was none."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code

    @classmethod
    def by(cls, payload: bytes) -> Self:
        """Return what a close frame says."""
        return cls(int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace"))


class Link:
    """A VNC client's connection to a desktop; this one has no bridge, or one that speaks TCP."""

    def __init__(self, sock: socket.socket, buffer_bytes: int) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(buffer_bytes))
        self.received = 0  # bytes of RFB
        self._expected = 0

    @classmethod
    def to(cls, port: int, buffer_bytes: int = SMALL_BUFFER) -> Self:
        """Connect."""
        return cls(connect(port), buffer_bytes)

    def fileno(self) -> int:
        """For select and its kin."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close without a word."""
        self._socket.close()

    def send(self, message: bytes) -> None:
        """Send an RFB message."""
        self._socket.sendall(message)

    def expect(self, count: int) -> None:
        """Wait until ``count`` more bytes of RFB have come than were expected before."""
        self._expected += count
        while self.received < self._expected:
            self.receive()

    def receive(self) -> None:
        """Take what has arrived, waiting for it; raise Closed at the end."""
        size = self._socket.recv_into(self._buffer)
        if not size:
            raise Closed
        self.take(self._buffer[:size])

    def take(self, data: memoryview) -> None:
        """Count what has arrived."""
        self.received += len(data)

    def shake_hands(self) -> Self:
        """Do what a VNC client does until it has the whole of ServerInit."""
        self.expect(len(rfb.BANNER))
        self.send(rfb.BANNER)
        self.expect(len(rfb.NO_SECURITY))
        self.send(b"\x01")
        self.expect(len(rfb.SECURITY_OK))
        self.send(b"\x01")
        self.expect(len(rfb.SERVER_INIT))
        return self

    def fetch(self, square: Square) -> None:
        """Ask for one update and wait for all of it."""
        self.send(square.request)
        self.expect(square.wire_bytes)


class WebsocketLink(Link):
    """The same over a websocket. ``texts`` keeps what a desktopctl server says in JSON."""

    def __init__(self, sock: socket.socket, buffer_bytes: int) -> None:
        super().__init__(sock, buffer_bytes)
        self._frames = frames.FrameReader()
        self.texts: list[dict[str, Any]] = []

    def upgrade(self, path: str, *subprotocols: str) -> Self:
        """Do what a browser does before RFB begins; raise Closed where it is refused."""
        self._socket.sendall(upgrade_request("localhost", path, *subprotocols))
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self._socket.recv(SMALL_BUFFER)
            if not data:
                raise Closed
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise Closed(reason=head.decode("latin-1"))
        self.take(memoryview(rest))
        return self

    def send(self, message: bytes) -> None:
        self._socket.sendall(frames.encode(frames.BINARY, message))

    def take(self, data: memoryview) -> None:
        self.received += self._frames.feed(data)
        while self._frames.others:
            self._on_other(*self._frames.others.pop(0))

    def _on_other(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.CLOSE:
            raise Closed.by(payload)
        if opcode == frames.PING:
            self._socket.sendall(frames.encode(frames.PONG, payload))
        if opcode == frames.TEXT:
            self._on_text(json.loads(payload))

    def _on_text(self, message: dict[str, Any]) -> None:
        self.texts.append(message)
        if message["type"] == "ping":
            pong = json.dumps({"type": "pong", "id": message["id"]})
            self._socket.sendall(frames.encode(frames.TEXT, pong.encode()))

    def wait_for_mode(self, mode: str) -> None:
        """Wait until the server says that this stream controls, or only observes."""
        while True:
            while self.texts:
                if self.texts.pop(0).get("mode") == mode:
                    return
            self.receive()


def upgrade_request(host: str, path: str, *subprotocols: str) -> bytes:
    """Return what a browser asks for a websocket with."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n"
        f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}\r\n\r\n"
    ).encode()


def connect(port: int) -> socket.socket:
    """Return a connection to this machine."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


Dial = Callable[[int], Link]  # given the size of its buffer, connects and upgrades
