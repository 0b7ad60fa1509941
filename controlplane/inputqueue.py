"""Messages on their way to one desktop, and what it believes to be held down because of them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from controlplane.exceptions import UpstreamTimeout
from controlplane.gate import Gate
from controlplane.rfb.messages import (
    ClientCutText,
    KeyEvent,
    PointerEvent,
    encode_key,
    encode_pointer,
)
from controlplane.upstream import Upstream
from controlplane.wakeup import Wakeup

INPUT_QUEUE_BYTES = 64 * 1024
MESSAGE_COST_BYTES = 384  # what a waiting message of a few bytes occupies in memory
INPUT_STALL_SECONDS = 10.0
MAX_KEYS_DOWN = 256


class HeldInput:
    """The keys and buttons that the desktop believes to be down because of this stream."""

    def __init__(self) -> None:
        self._keys: dict[int, None] = {}  # ordered: released in reverse, modifiers last
        self.pointer: tuple[int, int, int] | None = None  # x, y, buttons

    def __bool__(self) -> bool:
        return bool(self._keys or self._buttons)

    @property
    def _buttons(self) -> int:
        return self.pointer[2] if self.pointer else 0

    @property
    def is_full(self) -> bool:
        """Whether no more keys can be believed to be down."""
        return len(self._keys) >= MAX_KEYS_DOWN

    def note(self, message: KeyEvent | PointerEvent) -> None:
        """Remember what ``message``, which has just been sent, changes."""
        if isinstance(message, PointerEvent):
            self.pointer = (message.x, message.y, message.buttons)
        elif message.down:
            self._keys[message.keysym] = None
        else:
            self._keys.pop(message.keysym, None)

    def release(self) -> bytes:
        """Return the messages that let go of everything, and forget it."""
        ups = [encode_key(False, keysym) for keysym in reversed(self._keys)]
        if self.pointer and self._buttons:
            x, y, _ = self.pointer
            ups.append(encode_pointer(0, x, y))
            self.pointer = (x, y, 0)
        self._keys.clear()
        return b"".join(ups)


class _Waiting(NamedTuple):
    """A message in line. ``holds`` is set where sending it changes what is held down."""

    data: bytes
    is_input: bool
    holds: KeyEvent | PointerEvent | None

    @property
    def cost(self) -> int:
        return len(self.data) + MESSAGE_COST_BYTES


class InputQueue:
    """Whole messages on their way to the desktop; bounded, and withdrawn when the gate shuts."""

    def __init__(self, upstream: Upstream, gate: Gate) -> None:
        self._upstream = upstream
        self._gate = gate
        self._line: list[_Waiting] = []  # short: nothing is read while it is full
        self._bytes = 0
        self._moved = Wakeup()
        self.held = HeldInput()

    def put(self, data: bytes) -> None:
        """Send a message that is not input now if the desktop reads, else put it in line."""
        self._append(_Waiting(data, False, None))

    def put_input(self, message: KeyEvent | PointerEvent | ClientCutText) -> None:
        """The same for input: it is withdrawn if the gate shuts before it is sent."""
        holds = None if isinstance(message, ClientCutText) else message
        self._append(_Waiting(message.raw, True, holds))

    def _append(self, waiting: _Waiting) -> None:
        self._line.append(waiting)
        self._bytes += waiting.cost
        self.flush()

    def flush(self) -> None:
        """Send what waits, for as long as the desktop reads; input only while the gate is open."""
        while self._line and self._upstream.is_writable:
            waiting = self._line.pop(0)
            self._bytes -= waiting.cost
            self._moved.set()
            if waiting.is_input and not self._gate.is_open:
                continue  # it has waited past the lease's end
            self._upstream.write(waiting.data)
            if waiting.holds:
                self.held.note(waiting.holds)

    def withdraw_input(self) -> None:
        """Forget the input that waits, then let go of every key and button that was sent down.

        What is not input stays in line: without it, the picture would stop or be misread.
        """
        self._line = [waiting for waiting in self._line if not waiting.is_input]
        self._bytes = sum(waiting.cost for waiting in self._line)
        if self.held:
            self._upstream.write(self.held.release())
        self._moved.set()

    @property
    def has_room(self) -> bool:
        """Whether the line is short enough to read on from the browser."""
        return self._bytes <= INPUT_QUEUE_BYTES

    async def room(self) -> None:
        """Wait until the line is short; raise UpstreamTimeout when nothing moves for 10 s."""
        while not self.has_room:
            self._moved.clear()
            try:
                async with asyncio.timeout(INPUT_STALL_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                raise UpstreamTimeout("stream", "the desktop does not read input") from None
