"""What the one task that waits for something waits on.

``asyncio.Event`` may have many waiters, keeps a queue of them, and asks for the running loop (a
system call) each time. A stream has half a dozen such places and comes by some for every message.
"""

from __future__ import annotations

import asyncio


class Wakeup:
    """An event for a single waiter: ``set`` may come before ``wait``, and lasts until ``clear``."""

    __slots__ = ("_future", "_is_set", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake whoever waits, now or later."""
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def clear(self) -> None:
        """Forget that it was set."""
        self._is_set = False

    async def wait(self) -> None:
        """Return once it is set."""
        while not self._is_set:
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None
