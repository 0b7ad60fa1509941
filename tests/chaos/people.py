"""People at work while things break: they take control, type, lose it, watch, and come back.

What they send to the desktop says by whose right they send it: a pointer's x is the epoch.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from tests.support.rfb import REQUEST, SHIFT, key, pointer
from tests.support.trust import trusted
from tests.support.vnc_server import FakeVnc

SLUG = "desk"
CSRF = "c" * 32
TURN_SECONDS = 4.0  # longer is a failure of its own
STROKES = 12
STROKE_SECONDS = 0.02
LEFT_BUTTON = 1

_numbers = itertools.count(1)


class NotNow(Exception):
    """Somebody else has control, or the server says no."""


FAILURES = (NotNow, OSError, TimeoutError, WebSocketException, httpx.HTTPError)


class Person(ABC):
    """Does the same over and over, at whichever server answers, until told to stop."""

    def __init__(self, name: str, ports: Sequence[int], desk: FakeVnc) -> None:
        self._ports = ports
        self._desk = desk
        self._client_id = f"chaos-{next(_numbers):08}"
        self._cookies = {"sessionid": f"session-of-{name}", "csrftoken": CSRF}
        self.successes: list[float] = []  # when (monotonic)
        self.failures: list[str] = []
        self.port = 0  # of the server that this turn is taken at
        self.is_typing = False

    async def work(self) -> None:
        """Go on until cancelled; a failure is tried again after a moment."""
        while True:
            try:
                await self._take_a_turn()
            except FAILURES as failure:
                self.failures.append(repr(failure))
            self.is_typing = False
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _take_a_turn(self) -> None:
        self.port = random.choice(self._ports)
        async with (
            asyncio.timeout(TURN_SECONDS),
            httpx.AsyncClient(
                base_url=f"http://localhost:{self.port}",
                cookies=self._cookies,
                headers={"X-CSRFToken": CSRF},
                timeout=TURN_SECONDS,
                verify=trusted(),
            ) as server,
        ):
            await self._turn(server)

    @abstractmethod
    async def _turn(self, server: httpx.AsyncClient) -> None:
        """Do it once, and note each success."""

    def _succeeded(self) -> None:
        self.successes.append(time.monotonic())

    async def _call(self, server: httpx.AsyncClient, name: str, **body: Any) -> dict[str, Any]:
        path = f"/api/workspaces/{SLUG}/display/{name}"
        answer = await server.post(path, json={"client_id": self._client_id, **body})
        if answer.status_code != 200:
            raise NotNow(f"{name}: {answer.status_code}")
        return dict(answer.json())


class Stream:
    """A display stream, and whether its input passes."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._mode = "observe"

    async def send(self, message: bytes) -> None:
        await self._socket.send(message)

    async def bytes(self) -> bytes:
        """Return the next frame that is the desktop's."""
        while not isinstance(message := await self._next(), bytes):
            pass
        return message

    async def until_in_control(self) -> None:
        while self._mode != "control":
            await self._next()

    async def _next(self) -> bytes | None:
        message = await self._socket.recv()
        if isinstance(message, bytes):
            return message
        self._mode = json.loads(message).get("mode", self._mode)
        return None


@asynccontextmanager
async def stream(url: str) -> AsyncIterator[Stream]:
    """Open a display stream and complete the RFB handshake."""
    address, _, token = url.partition("#token=")
    protocols = [Subprotocol("desktopctl.v1"), Subprotocol(f"desktopctl.token.{token}")]
    socket = await connect(
        address, subprotocols=protocols, compression=None, proxy=None, close_timeout=0.1
    )
    try:
        async with socket:
            opened = Stream(socket)
            for answer in (b"RFB 003.008\n", b"\x01", b"\x01"):
                await opened.bytes()
                await opened.send(answer)
            await opened.bytes()
            yield opened
    finally:
        socket.transport.abort()  # where the closing is cancelled, it would be left open


class Rival(Person):
    """Wants control, types with Shift and a button held down, and lets go or just goes."""

    async def _turn(self, server: httpx.AsyncClient) -> None:
        granted = await self._call(server, "control/acquire")
        epoch = int(granted["epoch"])
        async with stream(granted["session_url"]) as display:
            await display.until_in_control()
            await display.send(key(True, SHIFT))
            self.is_typing = True
            for _ in range(STROKES):
                await display.send(pointer(LEFT_BUTTON, x=epoch))
                await asyncio.sleep(STROKE_SECONDS)
            self.is_typing = False
            if epoch not in epochs_at(self._desk):
                raise NotNow("what was sent did not arrive")
        self._succeeded()
        await self._call(server, "control/release", epoch=epoch)


class Manager(Person):
    """Ends whoever's control, in the middle of it."""

    async def _turn(self, server: httpx.AsyncClient) -> None:
        await asyncio.sleep(random.uniform(0.2, 1))
        await self._call(server, "control/release", force=True, note="chaos")
        self._succeeded()


class Watcher(Person):
    """Watches, and dials again with a new token whenever the stream ends."""

    async def _turn(self, server: httpx.AsyncClient) -> None:
        granted = await self._call(server, "session")
        async with stream(granted["session_url"]) as display:
            for _ in range(10):
                await display.send(REQUEST)
                await display.bytes()
                self._succeeded()
                await asyncio.sleep(0.1)


def epochs_at(desk: FakeVnc) -> list[int]:
    """Return the epochs by whose right the desktop was told of a button that is down, in order.

    Letting go is nobody's input: a server lets go for whoever has lost control, or has died.
    """
    return [
        struct.unpack(">H", message[2:4])[0]
        for _, message in list(desk.order)
        if message[0] == 5 and message[1]
    ]


def held_at(desk: FakeVnc) -> set[int]:
    """Return the keysyms that are down after all that the desktop was told; -1 is a button."""
    down: set[int] = set()
    for _, message in list(desk.order):
        if message[0] == 4:
            (down.add if message[1] else down.discard)(struct.unpack(">I", message[4:8])[0])
        elif message[0] == 5:
            (down.add if message[1] else down.discard)(-1)
    return down
