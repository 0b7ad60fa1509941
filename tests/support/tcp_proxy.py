"""A TCP proxy that breaks on command: cut, stalled, silent, slow, refusing; and whole again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.support.loop_thread import LoopThread
from tests.support.processes import free_port
from tests.support.timing import limit

Direction = Literal["up", "down"]  # up: from the client to the target
DIRECTIONS: tuple[Direction, Direction] = ("up", "down")

_CHUNK = 64 * 1024
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: closing sends RST


@dataclass
class _Lane:
    """What happens to the bytes of one direction."""

    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    whole: asyncio.Event = field(default_factory=asyncio.Event)  # neither stalled nor swallowing
    swallowing: bool = False
    bytes_per_second: float | None = None
    latency: float = 0
    passed: int = 0

    @property
    def is_slow(self) -> bool:
        return bool(self.bytes_per_second or self.latency)


class TcpProxy(LoopThread):
    """Forwards 127.0.0.1:``port`` to ``target_host:target_port`` until told otherwise.

    ``buffer_bytes`` sets the kernel's buffers of every socket (the kernel doubles it): with small
    ones a slow or stalled link is felt by the sender at once. Connections made while a fault is
    on get it too.
    """

    def __init__(
        self,
        target_port: int,
        target_host: str = "127.0.0.1",
        *,
        buffer_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.target = (target_host, target_port)
        self.accepted = 0
        self._buffer_bytes = buffer_bytes
        self._lanes = {direction: _Lane() for direction in DIRECTIONS}
        self._links: set[_Link] = set()
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None

    # --- Faults -----------------------------------------------------------------------------
    def cut(self) -> int:
        """Reset (RST) every connection on both sides; return how many there were."""
        return self._call(self._cut())

    def close(self) -> int:
        """End every connection in order (FIN) on both sides; return how many there were."""
        return self._call(self._finish())

    def refuse(self) -> None:
        """Refuse new connections (nothing listens); those that exist live on."""
        self._call(self._deafen())

    def stall(self, direction: Direction | None = None) -> None:
        """Stop reading, in one direction or both: senders feel it when the buffers are full.

        Nothing is lost: after ``heal()`` it flows on. Ends of connections are not passed on.
        """
        self._call(self._set(direction, flowing=False))

    def blackhole(self, direction: Direction | None = None) -> None:
        """Read and throw away: senders notice nothing, receivers hear nothing.

        What was swallowed is lost, so ``cut()`` the connections before ``heal()``. Ends of
        connections are not passed on; new connections are accepted and hear nothing.
        """
        self._call(self._set(direction, swallowing=True))

    def sever(self) -> None:
        """Let what is open hear nothing more and never end; what is opened from now on is whole.

        So it is on another network: addresses have changed, and no end knows of the other's.
        """
        self._call(self._sever())

    def slow(
        self,
        bytes_per_second: float | None = None,
        latency: float = 0,
        direction: Direction | None = None,
    ) -> None:
        """Pass at most this many bytes a second and connection, each ``latency`` s late."""
        self._call(self._set(direction, bytes_per_second=bytes_per_second, latency=latency))

    def heal(self) -> None:
        """End every fault: listen, pass everything on at full speed."""
        self._call(self._heal())

    # --- Facts ------------------------------------------------------------------------------
    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._links)

    @property
    def bytes_up(self) -> int:
        """How many bytes have been passed from clients to the target."""
        return self._lanes["up"].passed

    @property
    def bytes_down(self) -> int:
        """How many bytes have been passed from the target to clients."""
        return self._lanes["down"].passed

    def wait_for_open(self, count: int, expected: float = 1) -> None:
        """Return when exactly ``count`` connections are open."""
        self._wait(lambda: self.open == count, f"{count} open connections", expected)

    # --- Inside the loop --------------------------------------------------------------------
    def _wait(self, condition: Callable[[], bool], what: str, expected: float) -> None:
        async def until() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        future = asyncio.run_coroutine_threadsafe(until(), self._loop)
        try:
            future.result(limit(expected))
        except TimeoutError:
            future.cancel()
            facts = f"accepted {self.accepted}, open {self.open}"
            raise AssertionError(f"the proxy waited in vain for {what}: {facts}") from None

    async def _open(self) -> None:
        await self._heal()

    async def _close(self) -> None:
        await self._deafen()
        await self._cut()

    async def _heal(self) -> None:
        for lane in self._lanes.values():
            lane.swallowing, lane.bytes_per_second, lane.latency = False, None, 0
            lane.flowing.set()
            lane.whole.set()
        if self._listener is None:
            self._listener = _listen(self.port, self._buffer_bytes)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _sever(self) -> None:
        await self._set(None, swallowing=True)
        self._lanes = {direction: _Lane() for direction in DIRECTIONS}
        await self._heal()

    async def _deafen(self) -> None:
        if self._listener is None:
            return
        self._accept(self._listener)  # who has connected already is connected
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = None

    async def _set(
        self, direction: Direction | None, *, flowing: bool = True, **values: object
    ) -> None:
        for lane in self._chosen(direction):
            for name, value in values.items():
                setattr(lane, name, value)
            if not flowing:
                lane.flowing.clear()
            if lane.swallowing or not lane.flowing.is_set():
                lane.whole.clear()

    def _chosen(self, direction: Direction | None) -> list[_Lane]:
        return [self._lanes[direction]] if direction else list(self._lanes.values())

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.ended for link in links), return_exceptions=True)
        return len(links)

    async def _finish(self) -> int:
        links = list(self._links)
        for link in links:
            link.finish()
        return len(links)

    def _accept(self, listener: socket.socket) -> None:
        """Accept all who wait. Not with sock_accept(), which loses one when it is cancelled."""
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._serve(_Link(client, self._lanes))

    def _serve(self, link: _Link) -> None:
        def forget(_: asyncio.Task[None]) -> None:
            link.close()
            self._links.discard(link)
            self._changed.set()

        self._links.add(link)
        self.accepted += 1
        self._changed.set()
        link.ended = asyncio.create_task(link.run(self.target, self._buffer_bytes))
        # A callback, for a task that is cancelled before it begins runs no `finally`.
        link.ended.add_done_callback(forget)


class _Link:
    """One client's connection and ours to the target, and a pump for each direction."""

    def __init__(self, client: socket.socket, lanes: dict[Direction, _Lane]) -> None:
        self.ended: asyncio.Task[None]
        self._lanes = lanes
        self._sockets = [client]
        self._outboxes: list[_Outbox] = []
        self._is_finishing = False

    async def run(self, target: tuple[str, int], buffer_bytes: int | None) -> None:
        """Pump until both sides have ended, or one has failed, which resets the other."""
        if not await self._connect(target, buffer_bytes):
            return
        client, upstream = self._sockets
        pumps = [
            asyncio.create_task(self._pump(client, upstream, self._lanes["up"])),
            asyncio.create_task(self._pump(upstream, client, self._lanes["down"])),
        ]
        try:
            await asyncio.gather(*pumps)
        except OSError:
            self.reset()
        finally:
            await _end(pumps)

    async def _connect(self, target: tuple[str, int], buffer_bytes: int | None) -> bool:
        await self._passable(self._lanes["up"])
        upstream = socket.socket()
        self._sockets.append(upstream)
        _set_buffers(upstream, buffer_bytes)
        upstream.setblocking(False)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(upstream, target)
        except OSError:
            self._set_linger()
            return False
        return True

    async def _passable(self, lane: _Lane) -> None:
        """Neither a new connection nor the end of one passes a silent or stalled lane."""
        if not self._is_finishing:
            await lane.whole.wait()

    async def _pump(self, source: socket.socket, sink: socket.socket, lane: _Lane) -> None:
        outbox = _Outbox(sink, lane)
        self._outboxes.append(outbox)
        sender = asyncio.create_task(outbox.run())
        try:
            while data := await self._receive(source, lane):
                await outbox.put(data)
                if sender.done():
                    sender.result()  # raises what went wrong
            if not self._is_finishing:
                await outbox.put(b"")
                await sender
        finally:
            await _end([sender])

    async def _receive(self, source: socket.socket, lane: _Lane) -> bytes:
        """Return what is to be passed on; b"" at the end. Errors wait until they may pass."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(source, _CHUNK)
            except OSError:
                await self._passable(lane)
                raise
            if not data:
                await self._passable(lane)
                return b""
            if lane.swallowing or self._is_finishing:
                continue
            return data

    def finish(self) -> None:
        """Send FIN to both sides now; what they still send is read and dropped."""
        self._is_finishing = True
        for outbox in self._outboxes:
            outbox.give_up()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST to both sides now."""
        self._set_linger()
        self.ended.cancel()

    def close(self) -> None:
        """Close both sockets."""
        for each in self._sockets:
            each.close()

    def _set_linger(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


class _Outbox:
    """What one direction has read and not yet sent: late and slow, if its lane says so."""

    def __init__(self, sink: socket.socket, lane: _Lane) -> None:
        self._sink = sink
        self._lane = lane
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._moved = asyncio.Event()
        self._has_given_up = False

    async def put(self, data: bytes) -> None:
        """Queue ``data`` (b"" is the end); wait while too much is queued for this lane's speed."""
        due = asyncio.get_running_loop().time() + self._lane.latency
        self._waiting.append((due, data))
        self._size += len(data)
        self._moved.set()
        await self._until(lambda: self._size <= self._room() or self._has_given_up)

    async def run(self) -> None:
        """Send until the end has been sent."""
        try:
            while not self._has_given_up:
                await self._until(lambda: self._waiting or self._has_given_up)
                if not await self._send_next():
                    return
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Drop what waits, now and later: nobody waits for this outbox any more."""
        self._has_given_up = True
        self._moved.set()

    def _room(self) -> float:
        """What a link of this speed and latency holds in flight; nothing while it is a fast one."""
        if not self._lane.is_slow:
            return 0
        return max(_CHUNK, (self._lane.bytes_per_second or 1e8) * self._lane.latency)

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    async def _send_next(self) -> bool:
        if self._has_given_up:
            return False
        due, data = self._waiting.popleft()
        await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
        if not data:
            with contextlib.suppress(OSError):
                self._sink.shutdown(socket.SHUT_WR)
            return False
        await self._send(data)
        self._size -= len(data)
        self._moved.set()
        return True

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._has_given_up:
            await self._lane.flowing.wait()
            speed = self._lane.bytes_per_second
            piece = view[: max(1, int(speed / 50))] if speed else view
            if not self._lane.swallowing:
                self._lane.passed += len(piece)  # first: who has received it finds it counted
                await asyncio.get_running_loop().sock_sendall(self._sink, piece)
            view = view[len(piece) :]
            if speed:
                await asyncio.sleep(len(piece) / speed)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _listen(port: int, buffer_bytes: int | None) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _set_buffers(listener, buffer_bytes)  # accepted sockets inherit them
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _set_buffers(each: socket.socket, size: int | None) -> None:
    if size is not None:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
