"""Connections to desktops: ``tcp://``, ``unix://`` to a VNC server, ``ws[s]://`` to websockify.

``dial`` connects and completes the RFB handshake; what comes back is an ``Upstream`` to which a
``Receiver`` is attached. Every wait has a time limit; every failure names its step.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from controlplane import connecting
from controlplane.connecting import Place, reason_of
from controlplane.destinations import ANYWHERE, UNIX, Address, Destinations
from controlplane.exceptions import CredentialsRefused, UpstreamError, UpstreamTimeout
from controlplane.rfb.handshake import ServerInit, UpstreamHandshake
from controlplane.wakeup import Wakeup

RECEIVE_BYTES = 64 * 1024 - 512  # larger pieces leave malloc's arenas and the cache: half as fast
SEND_BUFFER_BYTES = 32 * 1024  # small: what the kernel holds can no longer be withdrawn
CLOSE_SECONDS = 1.0
EARLY_BYTES = 1024 * 1024  # RFB servers speak when spoken to
MAX_FRAME_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One desktop to dial, with its secrets: none of them is in its repr.

    ``query`` and ``headers`` are for websockify's token plugins and proxies before it.
    """

    address: Address
    password: str = field(default="", repr=False)
    query: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def websocket_uri(self) -> str:
        """The address as websockify gets it."""
        return f"{self.address.url}?{self.query}" if self.query else self.address.url


@dataclass(frozen=True, slots=True)
class Dialling:
    """How to dial: time limits in seconds, where to, and whose certificates count for wss://.

    ``ca_file`` stands instead of the system's certificate authorities.
    """

    connect_seconds: float = 10
    keepalive_seconds: float = 30
    destinations: Destinations = ANYWHERE
    ca_file: Path | None = None


class Receiver(Protocol):
    """What an upstream tells its owner, from within the event loop."""

    def upstream_data(self, data: bytes) -> None:
        """Bytes from the desktop, in order."""

    def upstream_writable(self) -> None:
        """``write`` may be called again."""

    def upstream_lost(self, error: UpstreamError) -> None:
        """The connection is gone; called once."""


class Upstream(ABC):
    """An open connection to a desktop. Before ``attach``, ``read`` returns what arrives."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._early = bytearray()
        self._lost: UpstreamError | None = None
        self._arrived = Wakeup()

    @property
    @abstractmethod
    def is_writable(self) -> bool:
        """Whether all that was written before has been handed to the kernel."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send whole messages. Call it only while ``is_writable``, except as the last act."""

    @abstractmethod
    async def close(self) -> None:
        """Send what is left (for a second at most) and close. Safe to call twice."""

    async def read(self) -> bytes:
        """Return the next bytes; raise what the connection was lost with."""
        while not self._early:
            if self._lost:
                raise self._lost
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._early)
        self._early.clear()
        return data

    def unread(self, data: bytes) -> None:
        """Put back what was read too much: it comes first again."""
        self._early[:0] = data

    def attach(self, receiver: Receiver) -> None:
        """From now on, tell ``receiver``; it gets at once what has arrived meanwhile."""
        self._receiver = receiver
        if self._early:
            receiver.upstream_data(bytes(self._early))
            self._early.clear()
        if self._lost:
            receiver.upstream_lost(self._lost)

    def _deliver(self, data: bytes) -> None:
        if not data:  # an empty websocket frame
            return
        if self._receiver:
            self._receiver.upstream_data(data)
            return
        if self._lost:
            return
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self._early.clear()
            self._lose(UpstreamError("stream", "the desktop sends what nobody has asked for"))
        self._arrived.set()

    def _lose(self, error: UpstreamError) -> None:
        if self._lost:
            return
        self._lost = error
        self._arrived.set()
        if self._receiver:
            self._receiver.upstream_lost(error)


class _ReceiveBuffer(threading.local):
    """One buffer for all connections of a loop: asyncio fills and empties it in one step.

    Each thread has its own, for loops run beside each other (screenshots.py).
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(RECEIVE_BYTES))


_receive_buffer = _ReceiveBuffer()


class SocketUpstream(Upstream, asyncio.BufferedProtocol):
    """A VNC server over TCP or a unix socket."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None
        self._buffer = _receive_buffer.view  # made within its loop
        self._writable = True
        self._closed = Wakeup()

    @classmethod
    async def open(cls, sock: socket.socket, target: Target, how: Dialling) -> SocketUpstream:
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            _, upstream = await loop.create_unix_connection(cls, sock=sock)
        else:
            _, upstream = await loop.create_connection(cls, sock=sock)
        return upstream

    @property
    def is_writable(self) -> bool:
        return self._writable

    def write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    async def close(self) -> None:
        if not self._transport:
            return
        self._transport.close()  # sends what is buffered first
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._closed.wait()
        except TimeoutError:
            self._transport.abort()  # the desktop does not read: nothing more can reach it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._deliver(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._receiver:
            self._receiver.upstream_writable()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._lose(UpstreamError("stream", reason_of(exc) if exc else "the desktop closed"))


class _ConnectOnce(connect):
    """Follows no redirect: a desktop's address is decided here, not by what answers there."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebsockifyUpstream(Upstream):
    """A VNC server behind websockify; each frame carries a piece of the RFB stream."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self._connection = connection
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._pending = 0
        self._tasks = [
            asyncio.create_task(self._pump(), name="websockify-receive"),
            asyncio.create_task(self._send(), name="websockify-send"),
        ]

    @classmethod
    async def open(cls, sock: socket.socket, target: Target, how: Dialling) -> WebsockifyUpstream:
        """Open the websocket; a peer that answers no ping within the keepalive is lost."""
        connection = await _ConnectOnce(
            target.websocket_uri,
            sock=sock,
            ssl=connecting.tls(how.ca_file) if target.address.scheme == "wss" else None,
            additional_headers=list(target.headers),
            user_agent_header=None,
            subprotocols=[Subprotocol("binary")],
            compression=None,
            proxy=None,
            max_size=MAX_FRAME_BYTES,
            open_timeout=None,  # dial() has the time limit for all steps together
            ping_interval=how.keepalive_seconds,
            ping_timeout=how.keepalive_seconds,
            close_timeout=CLOSE_SECONDS,
        )
        return cls(connection)

    @property
    def is_writable(self) -> bool:
        return not self._pending

    def write(self, data: bytes) -> None:
        self._pending += 1
        self._outgoing.put_nowait(data)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._outgoing.join()
        except TimeoutError:
            pass  # it does not read: nothing more can reach it
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    async def _pump(self) -> None:
        try:
            async for message in self._connection:
                if isinstance(message, str):
                    raise UpstreamError("stream", "websockify sent text instead of bytes")
                self._deliver(message)
            self._lose(self._goodbye())
        except ConnectionClosed:
            self._lose(self._goodbye())
        except UpstreamError as error:
            self._lose(error)

    def _goodbye(self) -> UpstreamError:
        code, reason = self._connection.close_code, self._connection.close_reason
        return UpstreamError("stream", f"websockify closed ({code} {reason})".replace(" )", ")"))

    async def _send(self) -> None:
        while True:
            data = await self._outgoing.get()
            try:
                await self._connection.send(data)
            except ConnectionClosed:
                self._lose(self._goodbye())
            finally:
                self._pending -= 1
                self._outgoing.task_done()
            if self._receiver and not self._pending:
                self._receiver.upstream_writable()


Trial = AbstractAsyncContextManager[None]


async def dial(
    target: Target, how: Dialling, trial: Trial | None = None
) -> tuple[Upstream, ServerInit]:
    """Connect, authenticate, and read ServerInit: the desktop is then ready for messages.

    Where the desktop asks for the password, it is tried within ``trial`` (trials.py).
    Raises UpstreamError, UpstreamTimeout or CredentialsRefused, each with the step it failed at.
    """
    upstream: Upstream | None = None
    handshake = UpstreamHandshake(target.password or None)
    try:
        async with asyncio.timeout(how.connect_seconds):
            upstream = await _open(target, how)
            await _shake_hands(upstream, handshake, trial or nullcontext())
    except TimeoutError:
        step = handshake.step if upstream else "connect"
        await discard(upstream)
        raise UpstreamTimeout(step, f"no answer within {how.connect_seconds:g} s") from None
    except BaseException:
        await discard(upstream)
        raise
    return upstream, handshake.server_init


async def discard(upstream: Upstream | None) -> None:
    """Close what nobody will use, also where the caller has been cancelled."""
    if upstream:
        await asyncio.shield(upstream.close())


async def _open(target: Target, how: Dialling) -> Upstream:
    how.destinations.check(target.address)
    kind = WebsockifyUpstream if target.address.scheme in {"ws", "wss"} else SocketUpstream
    sock = await _connect(target.address, how)
    try:
        _tune(sock, how.keepalive_seconds)
        return await kind.open(sock, target, how)
    except ssl.SSLError as error:
        raise UpstreamError("connect", f"TLS with {target.address}: {reason_of(error)}") from None
    except OSError as error:
        raise UpstreamError("connect", f"{target.address}: {reason_of(error)}") from None
    except InvalidURI:  # its text would repeat the query, and nobody has taken the socket over
        sock.close()
        raise UpstreamError("resolve", f"“{target.address.url}” is not an address") from None
    except InvalidStatus as error:
        raise _refused_upgrade(error.response.status_code) from None
    except InvalidHandshake as error:
        raise UpstreamError("connect", f"websockify did not agree: {error}") from None


def _refused_upgrade(status: int) -> UpstreamError:
    if status in {401, 403}:
        return CredentialsRefused("connect", f"websockify refused the query or headers ({status})")
    return UpstreamError("connect", f"websockify did not agree: HTTP {status}")


async def _connect(address: Address, how: Dialling) -> socket.socket:
    """Return a socket that is connected to the first of the host's addresses that answers."""
    places = await _places(address, how.destinations)
    try:
        return await connecting.connect(places, how.connect_seconds)
    except TimeoutError:
        problem = f"{address}: no answer within {how.connect_seconds:g} s"
        raise UpstreamTimeout("connect", problem) from None
    except OSError as error:
        raise UpstreamError("connect", f"{address}: {reason_of(error)}") from None


async def _places(address: Address, destinations: Destinations) -> list[Place]:
    """Return where to try, of where that is permitted."""
    if address.scheme == UNIX:
        return [(socket.AF_UNIX, address.path)]
    try:
        found = await connecting.resolve(address.host, address.port)
    except OSError as error:
        raise UpstreamError("resolve", f"{address.host}: {reason_of(error)}") from None
    permitted = destinations.permitted(address.host, [str(place[0]) for _, place in found])
    return [(family, place) for family, place in found if place[0] in permitted]


def _tune(sock: socket.socket, keepalive: float) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(keepalive)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(keepalive / 3)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


async def _shake_hands(upstream: Upstream, handshake: UpstreamHandshake, trial: Trial) -> None:
    answer = await _converse(upstream, handshake, b"")
    if handshake.is_authenticating:
        async with trial:
            answer = await _converse(upstream, handshake, answer)
        await _converse(upstream, handshake, answer)
    upstream.unread(handshake.leftover)


async def _converse(upstream: Upstream, handshake: UpstreamHandshake, answer: bytes) -> bytes:
    """Send ``answer`` and go on until authentication begins or ends, or all is done.

    Return what is to be sent next.
    """
    was_authenticating = handshake.is_authenticating
    while not handshake.done and handshake.is_authenticating == was_authenticating:
        if answer:
            upstream.write(answer)
        try:
            data = await upstream.read()
        except UpstreamError as error:
            raise UpstreamError(handshake.step, error.detail) from None
        answer = handshake.feed(data)
    return answer
