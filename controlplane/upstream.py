"""Connections to desktops: ``tcp://`` to a VNC server, ``ws://`` and ``wss://`` to websockify.

``dial`` connects and completes the RFB handshake; what comes back is an ``Upstream`` to which a
``Receiver`` is attached. Every wait has a time limit; every failure names its step.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from controlplane.exceptions import UpstreamError, UpstreamTimeout
from controlplane.rfb.handshake import ServerInit, UpstreamHandshake

DEFAULT_PORTS = {"tcp": 5900, "ws": 80, "wss": 443}
RECEIVE_BYTES = 256 * 1024
SEND_BUFFER_BYTES = 32 * 1024  # small: what the kernel holds can no longer be withdrawn
CLOSE_SECONDS = 1.0
MAX_FRAME_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where a desktop is. ``url`` is what was configured; it carries no secret."""

    scheme: str
    host: str
    port: int
    url: str


def parse_url(url: str) -> Address:
    """Return the address that ``url`` names, or raise UpstreamError (step ``resolve``)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UpstreamError("resolve", f"“{url}” is not an address: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UpstreamError("resolve", f"“{url}” must start with tcp://, ws:// or wss://")
    if not parts.hostname:
        raise UpstreamError("resolve", f"“{url}” names no host")
    if port == 0:
        raise UpstreamError("resolve", f"“{url}”: there is no port 0")
    if parts.username or parts.password:
        raise UpstreamError("resolve", "the address must not contain a user or a password")
    if parts.scheme == "tcp" and (parts.path.strip("/") or parts.query):
        raise UpstreamError("resolve", f"“{url}”: tcp:// takes a host and a port only")
    return Address(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], url)


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
        self._arrived = asyncio.Event()

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
        if self._receiver:
            self._receiver.upstream_data(data)
            return
        self._early += data
        self._arrived.set()

    def _lose(self, error: UpstreamError) -> None:
        if self._lost:
            return
        self._lost = error
        self._arrived.set()
        if self._receiver:
            self._receiver.upstream_lost(error)


class _ReceiveBuffer:
    """One buffer for all connections of a loop: asyncio fills and empties it in one step."""

    view = memoryview(bytearray(RECEIVE_BYTES))


class TcpUpstream(Upstream, asyncio.BufferedProtocol):
    """A VNC server over TCP."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._closed = asyncio.Event()

    @classmethod
    async def open(cls, address: Address, keepalive: float) -> TcpUpstream:
        """Connect to any of the host's addresses, resolved anew."""
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(cls, address.host, address.port)
        upstream._tune(keepalive)
        return upstream

    def _tune(self, keepalive: float) -> None:
        assert self._transport is not None
        sock: socket.socket = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(keepalive)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(keepalive / 3)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._transport.set_write_buffer_limits(high=0)

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

    def get_buffer(self, sizehint: int) -> memoryview:
        return _ReceiveBuffer.view

    def buffer_updated(self, nbytes: int) -> None:
        self._deliver(bytes(_ReceiveBuffer.view[:nbytes]))

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
        self._lose(UpstreamError("stream", _reason(exc) if exc else "the desktop closed"))


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
    async def open(cls, address: Address, keepalive: float) -> WebsockifyUpstream:
        """Open the websocket; a peer that answers no ping within ``keepalive`` is lost."""
        connection = await _ConnectOnce(
            address.url,
            subprotocols=[Subprotocol("binary")],
            compression=None,
            proxy=None,
            max_size=MAX_FRAME_BYTES,
            open_timeout=None,  # dial() has the time limit for all steps together
            ping_interval=keepalive,
            ping_timeout=keepalive,
            close_timeout=CLOSE_SECONDS,
        )
        sock: socket.socket | None = connection.transport.get_extra_info("socket")
        if sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
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


async def dial(
    url: str, password: str, *, connect_seconds: float, keepalive_seconds: float
) -> tuple[Upstream, ServerInit]:
    """Connect, authenticate, and read ServerInit: the desktop is then ready for messages.

    Raises UpstreamError, UpstreamTimeout or CredentialsRefused, each with the step it failed at.
    """
    address = parse_url(url)
    upstream: Upstream | None = None
    handshake = UpstreamHandshake(password or None)
    try:
        async with asyncio.timeout(connect_seconds):
            upstream = await _open(address, keepalive_seconds)
            await _shake_hands(upstream, handshake)
    except TimeoutError:
        step = handshake.step if upstream else "connect"
        await _discard(upstream)
        raise UpstreamTimeout(step, f"no answer within {connect_seconds:g} s") from None
    except BaseException:
        await _discard(upstream)
        raise
    return upstream, handshake.server_init


async def _discard(upstream: Upstream | None) -> None:
    if upstream:
        await asyncio.shield(upstream.close())


async def _open(address: Address, keepalive: float) -> Upstream:
    kind = TcpUpstream if address.scheme == "tcp" else WebsockifyUpstream
    try:
        return await kind.open(address, keepalive)
    except socket.gaierror as error:
        raise UpstreamError("resolve", f"{address.host}: {error.strerror}") from None
    except ssl.SSLError as error:
        raise UpstreamError("connect", f"TLS with {address.host}: {error.reason}") from None
    except OSError as error:
        where = f"{address.host} port {address.port}"
        raise UpstreamError("connect", f"{where}: {_reason(error)}") from None
    except (InvalidHandshake, InvalidURI) as error:
        raise UpstreamError("connect", f"websockify did not agree: {error}") from None


async def _shake_hands(upstream: Upstream, handshake: UpstreamHandshake) -> None:
    while not handshake.done:
        try:
            data = await upstream.read()
        except UpstreamError as error:
            raise UpstreamError(handshake.step, error.detail) from None
        answer = handshake.feed(data)
        if answer:
            upstream.write(answer)
    upstream.unread(handshake.leftover)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
