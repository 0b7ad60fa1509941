"""The fake VNC server, a process of its own: ``python -m bench.vnc_server``.

One port answers each update request with the update asked for. The other sends 1 GiB unasked after
the first request. What arrives as input is remembered with its time, by the clock that all
processes of a machine share. Each line on standard input is answered with a report, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import lru_cache, partial
from typing import Any, cast

import uvloop

from bench import rfb

FLOOD_BYTES = 1 << 30
_PIECE = bytes(256 * 1024)
_GREETING = ((len(rfb.BANNER), rfb.NO_SECURITY), (1, rfb.SECURITY_OK), (1, rfb.SERVER_INIT))


@lru_cache(maxsize=16)
def update(side: int) -> bytes:
    """Return the update of this size, made once."""
    return rfb.Square(side).encode()


class Recorded:
    """What has happened since the last report."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[int, float, int]] = []  # message type, time, number in it
        self.floods = 0  # under way

    def take(self) -> dict[str, Any]:
        """Return it, and start anew."""
        arrivals, self.arrivals = self.arrivals, []
        return {"arrivals": arrivals, "floods": self.floods}


class Connection(asyncio.Protocol):
    """One VNC client."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._buffer = bytearray()
        self._greeting = list(_GREETING)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(rfb.BANNER)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer and len(self._buffer) >= (size := self._next_size()) > 0:
            message = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._handle(message)

    def _next_size(self) -> int:
        return self._greeting[0][0] if self._greeting else rfb.message_size(self._buffer)

    def _handle(self, message: bytes) -> None:
        if self._greeting:
            self._transport.write(self._greeting.pop(0)[1])
        elif message[0] == 3:
            self._answer(message)
        elif message[0] in {rfb.KEY, rfb.POINTER}:
            value = int.from_bytes(message[-4:], "big")
            self._recorded.arrivals.append((message[0], time.monotonic(), value))

    def _answer(self, request: bytes) -> None:
        self._transport.write(update(int.from_bytes(request[-2:], "big")))


class Flood(Connection):
    """Sends 1 GiB as fast as it is read."""

    _left = 0
    _is_flooding = False

    def _answer(self, request: bytes) -> None:
        if self._is_flooding:
            return
        self._is_flooding = True
        self._recorded.floods += 1
        self._left = FLOOD_BYTES
        self._may_write = True
        self._write()

    def _write(self) -> None:
        while self._left and self._may_write and not self._transport.is_closing():
            self._left -= len(_PIECE)
            self._transport.write(_PIECE)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._recorded.floods -= self._is_flooding


class Questions(asyncio.Protocol):
    """Standard input: each line asks for a report; its end is ours."""

    def __init__(self, recorded: Recorded, over: asyncio.Event) -> None:
        self._recorded = recorded
        self._over = over

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"\n")):
            say(self._recorded.take())

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()


def say(answer: object) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until standard input ends; the first line tells the ports."""
    loop, recorded, over = asyncio.get_running_loop(), Recorded(), asyncio.Event()
    servers = [
        await loop.create_server(partial(kind, recorded), "127.0.0.1", 0, backlog=512)
        for kind in (Connection, Flood)
    ]
    say([server.sockets[0].getsockname()[1] for server in servers])
    await loop.connect_read_pipe(partial(Questions, recorded, over), sys.stdin)
    await over.wait()


if __name__ == "__main__":
    uvloop.run(main())
