"""Notify to be fast, poll to be right: a reader that serves all who wait in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from django.conf import settings

from controlplane import background, notices
from controlplane.dbthreads import DatabaseThreads
from controlplane.notices import TakeIn
from controlplane.outages import Outage


class Poll:
    """From ``start`` to ``stop``, in the running loop, it looks: at once, when woken, every second.

    ``look`` reads what it needs in ``threads``; what it raises, be it a bug, is noted as
    ``blindness``, and the next look follows. ``take_in`` is called with each notice meanwhile.
    ``pause`` seconds lie between two looks, however many notices come.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], Awaitable[None]],
        take_in: TakeIn,
        pause: float,
        blindness: Outage,
    ) -> None:
        self.threads = DatabaseThreads(name, 1, keeps_connections=True)
        self._name, self._look, self._take_in, self._pause = name, look, take_in, pause
        self._blindness = blindness
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and has not ended."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start, unless it runs already."""
        if self.is_running:
            return
        self.stop()  # what is left of one that was ended from outside
        self._wake = asyncio.Event()  # of the running loop
        self._task = background.start(self._run(), f"{self._name}-poll")
        notices.current().subscribe(self._take_in)

    def wake(self) -> None:
        """Look now, or as soon as the pause after the last look is over."""
        self._wake.set()

    def stop(self) -> None:
        """Stop, and give the database connection back."""
        if self._task:
            self._task.cancel()
            self._task = None
            notices.current().unsubscribe(self._take_in)
            self.threads.release()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._look_once()
            await asyncio.sleep(self._pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.DISPLAY.watch_seconds):
                    await self._wake.wait()

    async def _look_once(self) -> None:
        try:
            await self._look()
        except Exception as error:  # the database, or a bug: neither may end it for all who wait
            self._blindness.note(error)
        else:
            self._blindness.note(None)
