"""Many displays in one event loop, as pages keep them: they answer pings, pictures they count."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from bench import frames, rfb
from bench.client import SECONDS, SMALL_BUFFER, Closed, upgrade_request

CLOSE_SECONDS = 10.0
NORMAL = 1000
_GREETING = (
    (len(rfb.BANNER), rfb.BANNER),
    (len(rfb.NO_SECURITY), b"\x01"),
    (len(rfb.SECURITY_OK), b"\x01"),
    (len(rfb.SERVER_INIT), b""),
)
"""How many bytes the desktop says, and what a client answers."""


class Display:
    """One page's stream. ``ending`` says how it ended; until then it is None."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames = frames.FrameReader()
        self._received = self._wanted = 0  # bytes of RFB
        self._arrived = asyncio.Event()
        self._in_control = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.ending: Closed | None = None
        self.updates = 0  # asked for
        self.moves = 0  # pointer events sent

    @classmethod
    async def open(cls, base: str, tls: ssl.SSLContext, slug: str, token: str) -> Self:
        """Dial with a session token; return once there is a desktop. Closed where it is refused."""
        host = urlsplit(base).netloc
        name, _, port = host.partition(":")
        reader, writer = await asyncio.open_connection(name, int(port), ssl=tls)
        display = cls(reader, writer)
        await display._upgrade(host, slug, token)
        display._listening = asyncio.create_task(display._listen(), name=f"display of {slug}")
        async with asyncio.timeout(SECONDS):
            for size, answer in _GREETING:
                await display._expect(size)
                display.send(answer)
        return display

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.ending is None

    def send(self, message: bytes) -> None:
        """Send an RFB message, if there is one."""
        if message:
            self._say(frames.BINARY, message)

    async def in_control(self) -> None:
        """Wait until the server lets input through."""
        await self._in_control.wait()

    async def work(self, per_second: float, over: asyncio.Event) -> None:
        """Move the pointer and fetch an update so often, until it is over or the stream ends.

        As in noVNC one update is under way at a time. The last one is asked for after the last
        pointer event: when it has come, the desktop has had all of them.
        """
        with suppress(Closed):  # kept in ``ending``
            while self.is_open and not over.is_set():
                self.moves += 1
                self.send(rfb.pointer(self.moves))
                if self._received >= self._wanted:
                    self._ask()
                await asyncio.sleep(1 / per_second)
            await self._expect(0)
            self._ask()
            await self._expect(0)

    async def close(self) -> None:
        """Say that we leave, as a page does, and wait for the end, but not for ever."""
        assert self._listening is not None
        if self.is_open:
            self._say(frames.CLOSE, NORMAL.to_bytes(2))
        await asyncio.wait([self._listening], timeout=CLOSE_SECONDS)
        self._writer.transport.abort()

    def _ask(self) -> None:
        self.updates += 1
        self._wanted += rfb.KIB_16.wire_bytes
        self.send(rfb.KIB_16.request)

    async def _expect(self, count: int) -> None:
        """Wait for ``count`` more bytes of RFB than were wanted before; Closed if it ends."""
        self._wanted += count
        while self._received < self._wanted:
            if self.ending:
                raise self.ending
            self._arrived.clear()
            await self._arrived.wait()

    async def _upgrade(self, host: str, slug: str, token: str) -> None:
        path = f"/api/workspaces/{slug}/display/session/websockify"
        offered = ("desktopctl.v1", f"desktopctl.token.{token}")
        self._writer.write(upgrade_request(host, path, *offered))
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if " 101 " not in head.partition("\r\n")[0]:
            raise Closed(reason=head)

    async def _listen(self) -> None:
        """Take all that comes until the end, and keep how that was."""
        try:
            while data := await self._reader.read(SMALL_BUFFER):
                self._take(data)
            self.ending = Closed()
        except Closed as end:
            self.ending = end
        except OSError as error:
            self.ending = Closed(reason=str(error))
        finally:
            self._arrived.set()
            self._writer.close()

    def _take(self, data: bytes) -> None:
        self._received += self._frames.feed(memoryview(data))
        self._arrived.set()
        while self._frames.others:
            self._on_other(*self._frames.others.pop(0))

    def _on_other(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.CLOSE:
            raise Closed.by(payload)
        if opcode == frames.PING:
            self._say(frames.PONG, payload)
        if opcode == frames.TEXT:
            self._on_text(json.loads(payload))

    def _on_text(self, message: dict[str, object]) -> None:
        if message["type"] == "ping":
            self._say(frames.TEXT, json.dumps({"type": "pong", "id": message["id"]}).encode())
        if message.get("mode") == "control":
            self._in_control.set()

    def _say(self, opcode: int, payload: bytes) -> None:
        self._writer.write(frames.encode(opcode, payload))
