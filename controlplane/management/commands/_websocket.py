"""uvicorn's websocket, without what a stream would pay for each message and keep for hours.

Workers import it before Django is set up: nothing here needs the app.
"""

from __future__ import annotations

import struct
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

from controlplane.wakeup import Wakeup

_BINARY = 0x82  # the first byte of a whole binary message (RFC 6455, section 5.2)

Event = dict[str, Any]


class Inbox:
    """The events that the application has not taken yet: of asyncio.Queue, what uvicorn calls.

    That keeps four deques, three KiB for every stream, and asks for the running loop, a system
    call in Python 3.11, whenever it is waited for.
    """

    __slots__ = ("_arrived", "_came", "_next")

    def __init__(self) -> None:
        self._came: list[Event] = []
        self._next: list[Event] = []  # those before, the oldest last: thousands may come at once
        self._arrived = Wakeup()

    def empty(self) -> bool:
        """Whether the application has taken them all."""
        return not (self._next or self._came)

    def put_nowait(self, event: Event) -> None:
        """Add the newest."""
        self._came.append(event)
        self._arrived.set()

    async def get(self) -> Event:
        """Take the oldest, waiting for it; for a single task."""
        while self.empty():
            self._arrived.clear()
            await self._arrived.wait()
        if not self._next:
            self._came.reverse()
            self._next, self._came = self._came, self._next
        return self._next.pop()


class WebSocket(WebSocketsSansIOProtocol):
    """Reads on while the application keeps up; sends pictures without copying them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue = Inbox()  # type: ignore[assignment]  # see there

    def send_receive_event_to_app(self) -> None:
        """Hand on a message; stop reading only where the one before still waits.

        uvicorn stops with every message and starts again when it is taken: two system calls.
        """
        if self.read_paused or not self.queue.empty():
            return super().send_receive_event_to_app()
        self.read_paused = True  # so that it is not done there
        super().send_receive_event_to_app()
        self.read_paused = False
        return None

    async def send(self, message: Any) -> None:
        """Write bytes at once where nothing is in the way; all else is uvicorn's business."""
        data = message.get("bytes")
        if data is not None and self._is_flowing:
            return self.transport.writelines((_head(len(data)), data))
        await super().send(message)
        if message["type"] == "websocket.accept":
            del self.request, self.response, self.scope  # needed until here; it lives for hours
        return None

    @property
    def _is_flowing(self) -> bool:
        return self.conn.state is OPEN and self.writable.is_set() and not self.disconnected


def _head(size: int) -> bytes:
    """Return what stands before a binary message of ``size`` bytes."""
    if size < 126:
        return bytes((_BINARY, size))
    if size < 1 << 16:
        return struct.pack(">BBH", _BINARY, 126, size)
    return struct.pack(">BBQ", _BINARY, 127, size)
