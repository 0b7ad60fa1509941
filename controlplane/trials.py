"""Trying a desktop's password, where many dial at once.

VNC servers lock out who fails a few times. So of all who are asked for the same password at once
one tries it first, and the others wait for what comes of that: where it is accepted they go on
together, where it is refused nobody tries it again for a while.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from controlplane.exceptions import CredentialsRefused, RefusedLately


class _Attempt:
    """One who tries, and what came of it for those who wait."""

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self.is_accepted = False


class Trials(threading.local):
    """Each thread has its own, for loops run beside each other (screenshots.py).

    What is refused rests for ``rest`` seconds. What breaks off says nothing: then the next one
    tries.
    """

    def __init__(self, rest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest, self._clock = rest, clock
        self._first: dict[str, _Attempt] = {}  # that are under way, by what they try
        self._refused: dict[str, float] = {}  # when

    @asynccontextmanager
    async def trial(self, credentials: str) -> AsyncIterator[None]:
        """Have ``credentials`` tried in the block; RefusedLately where they are not to be.

        Waits while another one tries them; the caller has a time limit.
        """
        attempt = await self._turn(credentials)
        try:
            yield
            attempt.is_accepted = True
        except CredentialsRefused:
            self._note_refusal(credentials)
            raise
        finally:
            attempt.is_over.set()
            if self._first.get(credentials) is attempt:
                del self._first[credentials]

    async def _turn(self, credentials: str) -> _Attempt:
        while first := self._first.get(credentials):
            await first.is_over.wait()
            if first.is_accepted:
                return _Attempt()  # for which nobody waits
        if self._clock() - self._refused.get(credentials, -float("inf")) < self._rest:
            raise RefusedLately
        attempt = self._first[credentials] = _Attempt()
        return attempt

    def _note_refusal(self, credentials: str) -> None:
        now = self._clock()
        lately = {each: at for each, at in self._refused.items() if now - at < self._rest}
        self._refused = lately | {credentials: now}
