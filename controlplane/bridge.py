"""Between one browser and one desktop: parsed and fenced one way, copied at full speed the other.

Browser to desktop: whole messages only; the gate decides about input; a small bounded list waits
while the desktop does not read. Desktop to browser: the desktop is always read, whatever the
browser does, because one viewer that stops reading freezes x11vnc for all. A slow browser is
slowed by withholding its update requests instead: RFB is pull-based.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from operator import sub
from typing import NamedTuple

from controlplane.backlog import Backlog
from controlplane.exceptions import (
    ControlPlaneError,
    ProtocolError,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)
from controlplane.gate import Gate
from controlplane.inputqueue import InputQueue
from controlplane.rfb import encodings
from controlplane.rfb.messages import (
    ClientCutText,
    ClientMessage,
    ClientMessageParser,
    ClipboardTooLarge,
    FramebufferUpdateRequest,
    Ignored,
    KeyEvent,
    PointerEvent,
    SetEncodings,
    SetPixelFormat,
    encode_set_encodings,
    encode_update_request,
)
from controlplane.upstream import Upstream
from controlplane.wakeup import Wakeup

MESSAGES_A_TURN = 256  # that are decided about before other streams have their turn
BYTES_PER_PIXEL_MAX = 4  # RFC 6143, 7.4: pixels of 8, 16 or 32 bits
ASK_AFTER_SECONDS = 15.0
PIXEL_SECONDS = 10.0


class UpdateRequests:
    """The update requests that are withheld from a slow stream, merged into one."""

    def __init__(self) -> None:
        self._merged: tuple[bool, int, int, int, int] | None = None

    def hold(self, request: FramebufferUpdateRequest) -> None:
        """Merge: the smallest rectangle around both, non-incremental if either was."""
        box = (request.x, request.y, request.x + request.width, request.y + request.height)
        incremental = request.incremental
        if self._merged:
            was_incremental, *old = self._merged
            incremental = incremental and was_incremental
            box = (
                min(box[0], old[0]),
                min(box[1], old[1]),
                max(box[2], old[2]),
                max(box[3], old[3]),
            )
        self._merged = (incremental, *box)

    def take(self) -> bytes:
        """Return the merged request (empty if there is none) and forget it."""
        if not self._merged:
            return b""
        incremental, left, top, right, bottom = self._merged
        self._merged = None
        return encode_update_request(incremental, left, top, right - left, bottom - top)


class Traffic(NamedTuple):
    """What a stream has moved, and what of it did not pass."""

    from_browser: int = 0  # bytes
    to_browser: int = 0  # bytes
    refused_input: int = 0  # messages that came while the gate was shut
    withheld_requests: int = 0


class Pulse:
    """Whether the desktop still answers. A hung one keeps its connection, and says nothing.

    Times are monotonic seconds. Silence alone is no sign: a still picture sends nothing. So after
    ``ASK_AFTER_SECONDS`` of it the desktop is asked for a single pixel.
    """

    def __init__(self) -> None:
        self._heard = time.monotonic()
        self._asked: float | None = None

    def heard(self) -> None:
        """Bytes have come."""
        self._heard, self._asked = time.monotonic(), None

    def ask_if_due(self) -> bool:
        """Return whether it is to be asked now, and count that as done.

        Raises UpstreamTimeout where the last question got no answer.
        """
        now = time.monotonic()
        if self._asked is not None:
            if now - self._asked >= PIXEL_SECONDS:
                raise UpstreamTimeout("stream", "the desktop does not answer")
            return False
        if now - self._heard < ASK_AFTER_SECONDS:
            return False
        self._asked = now
        return True


class Bridge:
    """Carries one stream. It is its upstream's Receiver; streams.py feeds and drains it.

    ``notify`` is given text for the page (pings, ``clipboard_too_large``, ``clipboard_refused``),
    ``fail`` what must end the stream although its tasks are stuck; neither may block.
    ``acknowledges`` says that the browser answers pings and the server tells nothing of how far it
    has read (backlog.py).
    """

    def __init__(
        self,
        upstream: Upstream,
        gate: Gate,
        *,
        frame_pixels: int,
        backlog_bytes: int,
        backlog_cap_bytes: int,
        clipboard_bytes: int,
        acknowledges: bool,
        notify: Callable[[dict[str, object]], None],
        fail: Callable[[ControlPlaneError], None],
    ) -> None:
        self._upstream = upstream
        self._gate = gate
        self._parser = ClientMessageParser(clipboard_bytes)
        self._input = InputQueue(upstream, gate)
        self._requests = UpdateRequests()
        self._backlog = Backlog(
            high=backlog_bytes,
            cap=max(backlog_cap_bytes, frame_pixels * BYTES_PER_PIXEL_MAX * 3 // 2),
            is_windowed=acknowledges,
            ask=lambda ping: notify({"type": "ping", "id": ping}),
        )
        self._pulse = Pulse()
        self._notify = notify
        self._fail = fail
        self._wake = Wakeup()
        self._lost: UpstreamError | None = None
        self.last_input: float | None = None  # monotonic seconds of the newest key or pointer
        self.refused_input = 0
        self._received = self._withheld = 0
        self._taken = Traffic()

    # --- browser to desktop -----------------------------------------------------------------------
    async def from_browser(self, data: bytes) -> None:
        """Decide about every message in ``data``; wait while the desktop does not read.

        Raises ProtocolError, or UpstreamTimeout where the desktop has stopped reading.
        """
        self._received += len(data)
        for number, message in enumerate(self._parser.feed(data), start=1):
            self._handle(message)
            if number % MESSAGES_A_TURN == 0:
                await asyncio.sleep(0)  # other streams have their turn
            if not self._input.has_room:
                await self._input.room()

    def _handle(self, message: ClientMessage) -> None:
        match message:
            case FramebufferUpdateRequest():
                self._request_update(message)
            case SetPixelFormat():
                self._input.put(message.raw)
            case SetEncodings():
                self._input.put(encode_set_encodings(encodings.allowed(message.encodings)))
            case KeyEvent() | PointerEvent() | ClientCutText():
                self._pass_input(message)
            case ClipboardTooLarge():
                self._notify({"type": "clipboard_too_large", "length": message.length})
            case Ignored():
                pass

    def _pass_input(self, message: KeyEvent | PointerEvent | ClientCutText) -> None:
        if not self._gate.is_open:
            self.refused_input += 1
            return
        if isinstance(message, ClientCutText) and not self._gate.accepts_clipboard:
            self._notify({"type": "clipboard_refused"})
            return
        if self._input.held.is_full and isinstance(message, KeyEvent) and message.down:
            raise ProtocolError("more keys are down than a keyboard has")
        if not isinstance(message, ClientCutText):  # a client may send it by itself
            self.last_input = time.monotonic()
        self._input.put_input(message)

    def _request_update(self, request: FramebufferUpdateRequest) -> None:
        self._backlog.requested()
        self._requests.hold(request)
        if self._backlog.is_high:
            self._withheld += 1
        else:
            self._input.put(self._requests.take())

    @property
    def backlog_bytes(self) -> int:
        """What the browser lags behind."""
        return self._backlog.size

    def take_traffic(self) -> Traffic:
        """Return what there was since it was asked last."""
        total = Traffic(
            self._received, self._backlog.sent_bytes, self.refused_input, self._withheld
        )
        new = Traffic(*map(sub, total, self._taken))
        self._taken = total
        return new

    @property
    def holds_input(self) -> bool:
        """Whether a key or a button is down on the desktop because of this stream."""
        return bool(self._input.held)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is held down, and all that was written has been handed to the kernel."""
        return not self._input.held and self._upstream.is_writable

    @property
    def pointer(self) -> tuple[int, int, int] | None:
        """Where the pointer is and which buttons are down (x, y, mask), if this stream moved it."""
        return self._input.held.pointer

    def let_go(self) -> None:
        """The gate has shut, or the stream ends: withdraw what waits, release what is down."""
        self._input.withdraw_input()

    # --- signs of life ----------------------------------------------------------------------------
    def ask_browser(self) -> None:
        """Send a ping; its pong is a sign of life, and tells how far the browser has read."""
        self._backlog.ask()

    def browser_answers(self, ping: object) -> None:
        """A pong has come."""
        self._backlog.answered(ping)
        self._resume_requests()
        self._wake.set()

    def text_sent(self, size: int) -> None:
        """A text of ``size`` bytes has been sent: it counts like a piece of the picture."""
        self._backlog.add_text(size)

    def check_desktop(self) -> None:
        """To be called every few seconds; UpstreamTimeout where the desktop hangs."""
        if not self._backlog.size and self._pulse.ask_if_due():
            self._input.put(encode_update_request(False, 0, 0, 1, 1))

    # --- desktop to browser -----------------------------------------------------------------------
    def upstream_data(self, data: bytes) -> None:
        """Queue for the browser (Receiver)."""
        self._pulse.heard()
        self._wake.set()
        try:
            self._backlog.append(data)
        except TooSlow as error:
            self._fail(error)

    def upstream_writable(self) -> None:
        """Send what waited (Receiver)."""
        self._input.flush()

    def upstream_lost(self, error: UpstreamError) -> None:
        """Let ``to_browser`` raise once the browser has the rest (Receiver)."""
        self._lost = error
        self._wake.set()

    async def to_browser(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send all that comes until the desktop is lost (raises)."""
        while True:
            self._wake.clear()
            while data := self._backlog.take():
                await send(data)
                self._backlog.sent()
                self._resume_requests()
            data = b""  # an idle stream keeps no last piece
            if self._lost and self._backlog.is_empty:
                raise self._lost
            await self._wake.wait()

    def _resume_requests(self) -> None:
        if self._backlog.has_drained and (request := self._requests.take()):
            self._input.put(request)
