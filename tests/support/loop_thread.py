"""An asyncio loop in a thread of its own, so that blocking tests can command asynchronous parts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from tests.support.timing import limit

T = TypeVar("T")


class LoopThread:
    """A part that lives in its own event loop: ``start()`` and ``stop()``, or a ``with`` block.

    Public methods of subclasses may be called from any thread, also from another event loop:
    each takes effect before it returns, within moments.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=type(self).__name__, daemon=True
        )

    def start(self) -> Self:
        """Start the thread and what ``_open`` opens."""
        self._thread.start()
        self._call(self._open())
        return self

    def stop(self) -> None:
        """Close everything and end the thread. Stopping twice is harmless."""
        if self._loop.is_closed():
            return
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(limit(1))
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit(2))

    async def _open(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    async def _shut(self) -> None:
        await self._close()
        ours = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not ours]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
