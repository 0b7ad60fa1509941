"""A VNC server under the test's control: it records what it is told, and misbehaves on request."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

from tests.support.loop_thread import LoopThread
from tests.support.processes import free_port
from tests.support.timing import wait_until

WIDTH, HEIGHT = 64, 48
RECEIVE_BYTES = 64 * 1024
PIXEL_FORMAT = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
NAME = b"fake"
Behaviour = Literal["well", "garbage", "silent", "no_server_init", "wrong_password"]

# Length of each client message by its type; a callable gets what has arrived so far.
_FIXED = {0: 20, 3: 10, 4: 8, 5: 6}


@dataclass
class Recorded:
    """The client messages of one connection, whole and in order, by a parser of its own."""

    number: int = 0
    order: list[tuple[int, bytes]] = field(default_factory=list)  # shared by all connections
    messages: list[bytes] = field(default_factory=list)
    unparsed: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def take(self, data: bytes) -> None:
        """Cut what has arrived into messages."""
        self.unparsed += data
        while self.unparsed and (length := self._length()) and len(self.unparsed) >= length:
            self.messages.append(bytes(self.unparsed[:length]))
            self.order.append((self.number, self.messages[-1]))
            del self.unparsed[:length]

    def _length(self) -> int:
        kind, have = self.unparsed[0], len(self.unparsed)
        if kind in _FIXED:
            return _FIXED[kind]
        if kind == 2:
            return 4 + 4 * int.from_bytes(self.unparsed[2:4], "big") if have >= 4 else 0
        if kind == 6:
            return 8 + int.from_bytes(self.unparsed[4:8], "big") if have >= 8 else 0
        raise AssertionError(f"a message of type {kind} reached the desktop")

    def of_type(self, *kinds: int) -> list[bytes]:
        """The messages of these types."""
        return [message for message in self.messages if message[0] in kinds]


class FakeVnc(LoopThread):
    """Listens on 127.0.0.1:``port``; ``behaviour`` may be changed between connections."""

    def __init__(self, behaviour: Behaviour = "well") -> None:
        super().__init__()
        self.port = free_port()
        self.behaviour = behaviour
        self.answers_updates = False
        self.answer = bytes(4)  # an empty FramebufferUpdate
        self.attempts = 0  # with a password
        self.connections: list[Recorded] = []
        self.order: list[tuple[int, bytes]] = []  # (connection, message), as they came
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._floods: list[asyncio.Task[None]] = []

    @property
    def newest(self) -> Recorded:
        """What the newest connection has been told."""
        return self.connections[-1]

    @property
    def url(self) -> str:
        """The address for a workspace."""
        return f"tcp://127.0.0.1:{self.port}"

    def wait_for(self, *messages: bytes) -> None:
        """Wait until the newest connection's input ends with these messages."""
        expected = list(messages)
        wait_until(
            lambda: self.connections and self.newest.of_type(4, 5, 6)[-len(expected) :] == expected,
            f"the desktop is told {expected}",
        )

    @property
    def input_order(self) -> list[tuple[int, bytes]]:
        """All keys and pointer events with the number of their connection, as they came."""
        return [(number, message) for number, message in self.order if message[0] in (4, 5)]

    def send(self, data: bytes) -> None:
        """Send to the newest connection."""
        self._call(self._send(data))

    def flood(self, size: int) -> None:
        """Begin to send this many bytes to the newest connection, as fast as they are read."""
        self._call(self._begin_flood(size))

    def hang_up(self) -> None:
        """Close every connection."""
        self._call(self._hang_up())

    def stop_reading(self) -> None:
        """Read nothing any more, from any connection."""
        self._call(self._set_flow(False))

    def read_on(self) -> None:
        """End ``stop_reading``."""
        self._call(self._set_flow(True))

    async def _set_flow(self, flows: bool) -> None:
        (self._flows.set if flows else self._flows.clear)()

    async def _send(self, data: bytes) -> None:
        self._writers[-1].write(data)

    async def _begin_flood(self, size: int) -> None:
        self._floods.append(asyncio.create_task(_pour(self._writers[-1], size)))

    async def _hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _open(self) -> None:
        self._flows.set()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Else the kernel takes megabytes for one that reads nothing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        listener.bind(("127.0.0.1", self.port))
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=4096)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recorded = Recorded(len(self.connections), self.order)
        self.connections.append(recorded)
        self._writers.append(writer)
        try:
            if await self._greet(reader, writer):
                await self._record(reader, writer, recorded)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone: that is what the test looks at
        finally:
            recorded.ended = True
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.behaviour == "silent":
            await reader.read()
        if self.behaviour == "garbage":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        writer.write(b"RFB 003.008\n")
        await reader.readexactly(12)
        if self.behaviour == "wrong_password":
            return await self._refuse(reader, writer)
        writer.write(b"\x01\x01")
        await reader.readexactly(1)
        writer.write(bytes(4))
        await reader.readexactly(1)
        if self.behaviour == "no_server_init":
            await reader.read()
        size = struct.pack(">HH", WIDTH, HEIGHT)
        writer.write(size + PIXEL_FORMAT + struct.pack(">I", len(NAME)) + NAME)
        return True

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"\x01\x02")
        await reader.readexactly(1)
        writer.write(bytes(range(16)))
        await reader.readexactly(16)
        self.attempts += 1
        writer.write(struct.pack(">II", 1, 3) + b"bad")
        return False

    async def _record(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recorded: Recorded
    ) -> None:
        while True:
            await self._flows.wait()
            data = await reader.read(4096)
            if not data:
                return
            known = len(recorded.messages)
            recorded.take(data)
            if self.answers_updates and any(each[0] == 3 for each in recorded.messages[known:]):
                writer.write(self.answer)


async def _pour(writer: asyncio.StreamWriter, size: int) -> None:
    piece = bytes(1 << 20)
    try:
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass  # the other side has had enough
