"""One display websocket, seen from ASGI: its subprotocol, its frames, its end.

With ``desktopctl.v1``, binary frames are RFB and text frames are JSON. With ``binary`` or nothing
(a stock noVNC), there are no text frames in either direction.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from controlplane.closecodes import CloseCode
from controlplane.exceptions import ProtocolError, TooSlow, UpstreamTimeout

logger = logging.getLogger(__name__)

V1 = "desktopctl.v1"
BINARY = "binary"
TOKEN_PREFIX = "desktopctl.token."  # noqa: S105  (a prefix, not a secret)
MAX_TEXT_BYTES = 4096
MAX_FRAME_BYTES = 512 * 1024  # Daphne refuses to send more than 1 MiB in one frame
READ_AHEAD_BYTES = 1024 * 1024
FRAME_COST_BYTES = 384  # what a frame occupies in memory besides its payload
MAX_TEXTS = 256  # that wait for a browser
MAX_REASON_BYTES = 123  # RFC 6455, section 5.5
CLOSE_SECONDS = 2.0

Message = dict[str, Any]


class BrowserLeft(Exception):
    """The browser closed the websocket, or its connection is gone."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ReadAhead:
    """Takes what a server without backpressure has queued, so that it can be counted and bounded.

    ``run`` raises UpstreamTimeout where more than ``READ_AHEAD_BYTES`` wait for the desktop.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes | Message]]) -> None:
        self._receive = receive
        self._queue: asyncio.Queue[bytes | Message | BrowserLeft] = asyncio.Queue()
        self._bytes = 0

    async def run(self) -> None:
        """Read until the browser has left, which ``receive`` tells once it has got that far."""
        while True:
            try:
                frame = await self._receive()
            except BrowserLeft as end:
                return self._queue.put_nowait(end)
            self._bytes += _cost(frame)
            if self._bytes > READ_AHEAD_BYTES:
                raise UpstreamTimeout("stream", "the desktop does not read input")
            self._queue.put_nowait(frame)

    async def receive(self) -> bytes | Message:
        """Return the next frame, as ``DisplaySocket.receive`` does."""
        frame = await self._queue.get()
        if isinstance(frame, BrowserLeft):
            raise frame
        self._bytes -= _cost(frame)
        return frame


def _cost(frame: bytes | Message) -> int:
    """Return about how many bytes a waiting frame occupies."""
    return FRAME_COST_BYTES + len(frame if isinstance(frame, bytes) else str(frame["id"]))


class DisplaySocket:
    """Frames in, frames out. A refusal accepts first: a page cannot see an HTTP status."""

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        offered: list[str] = scope.get("subprotocols", [])
        self.subprotocol = next((name for name in (V1, BINARY) if name in offered), None)
        # Of the servers that we know, only Daphne names no version of the ASGI specification; it
        # neither lets us wait for a browser that does not read, nor stops reading while we wait.
        self.has_backpressure = "spec_version" in scope.get("asgi", {})
        self._receive = receive
        self._send = send

    @property
    def has_text(self) -> bool:
        """Whether the other end is our page: it understands JSON."""
        return self.subprotocol == V1

    async def accept(self) -> None:
        """Complete the websocket handshake; never echo the token."""
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept", "subprotocol": self.subprotocol})

    async def receive(self) -> bytes | Message:
        """Return RFB bytes, or a JSON object of our own protocol; raise BrowserLeft at the end."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise BrowserLeft(message.get("code") or 1006)
        data = message.get("bytes")
        return data if data is not None else self._parse(message["text"])

    def _parse(self, text: str) -> Message:
        if not self.has_text:
            raise ProtocolError("text frames are not part of this subprotocol")
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise ProtocolError(f"text frames have at most {MAX_TEXT_BYTES} bytes")
        try:
            message = json.loads(text)
        except ValueError:
            raise ProtocolError("a text frame is not JSON") from None
        is_known = isinstance(message, dict) and message.get("type") in {"ping", "pong"}
        if not is_known or not isinstance(message.get("id"), str | int):
            raise ProtocolError('a text frame is neither {"type": "ping", "id"} nor a pong')
        return {"type": message["type"], "id": message["id"]}

    async def send_bytes(self, data: bytes) -> None:
        """Send RFB bytes; with a server that has write backpressure, wait until they flow."""
        for start in range(0, len(data), MAX_FRAME_BYTES):
            piece = data[start : start + MAX_FRAME_BYTES]
            await self._write({"type": "websocket.send", "bytes": piece})

    async def send_text(self, message: Message) -> int:
        """Send a JSON object; to a stock client, nothing. Return how many bytes were sent."""
        if not self.has_text:
            return 0
        text = json.dumps(message)
        await self._write({"type": "websocket.send", "text": text})
        return len(text)

    async def _write(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # uvicorn's ClientDisconnected is one
            raise BrowserLeft(1006) from None

    async def close(self, code: CloseCode, reason: str) -> None:
        """Say why, then close; not waiting long for a browser that does not read."""
        # RuntimeError: the server has closed it meanwhile, which is what we want.
        with suppress(BrowserLeft, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.send_text({"type": "closing", "code": int(code), "reason": reason})
                await self._write(
                    {"type": "websocket.close", "code": int(code), "reason": _cut(reason)}
                )


class Teller:
    """Sends texts to a page, in their order. A quiet stream needs no task for that.

    ``start`` makes a task of the stream's, which looks after what becomes of it.
    """

    __slots__ = ("_send", "_start", "_task", "_texts")

    def __init__(
        self,
        send: Callable[[Message], Awaitable[None]],
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], asyncio.Task[None]],
    ) -> None:
        self._send = send
        self._start = start
        self._texts: list[Message] = []
        self._task: asyncio.Task[None] | None = None  # while there are texts

    def say(self, text: Message) -> None:
        """Put a text in line; TooSlow where there are too many."""
        if len(self._texts) >= MAX_TEXTS:
            raise TooSlow("the browser does not read what it is told")
        self._texts.append(text)
        if self._task is None:
            self._task = self._start(self._tell_all)

    async def _tell_all(self) -> None:
        while self._texts:
            texts, self._texts = self._texts, []
            for text in texts:
                await self._send(text)
        self._task = None


def token_of(scope: dict[str, Any]) -> str:
    """Return the session token that was offered as a subprotocol or in the query, or nothing."""
    for name in scope.get("subprotocols", []):
        if name.startswith(TOKEN_PREFIX):
            return str(name.removeprefix(TOKEN_PREFIX))
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _cut(reason: str) -> str:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
