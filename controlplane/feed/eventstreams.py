"""The feed: one stream of server-sent events for all that a caller may watch.

One reader per process (polling.py) runs while somebody listens, and for all of them together; an
open stream has neither a thread nor a database connection. A message tells how things are, so of
two that wait for a slow listener the older one can be dropped.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from functools import cache
from weakref import WeakSet

from django.conf import settings
from django.db import Error as AnyDatabaseError

from controlplane import metrics
from controlplane.dbthreads import leave_request_thread
from controlplane.exceptions import TooManyRequests
from controlplane.feed.reader import Caller, Message, Reader
from controlplane.outages import Outage
from controlplane.polling import Poll
from controlplane.presenters import Json

logger = logging.getLogger(__name__)

ACCESS_SECONDS = 3.0  # how often logins and grants are checked again without a notice
SHORTEST_PAUSE_SECONDS = 0.05  # between two looks, however many notices come
KEEPALIVE_SECONDS = 15.0
MAX_WAITING = 200  # messages of a slow listener, before only the newest are kept
MAX_STREAM_BYTES = 16 * 1024 * 1024  # Daphne queues without end for a caller that does not read
RETRY_MS = (1000, 4000)  # not all at once after a restart
RETRY_AFTER_SECONDS = 10
END_SECONDS = 1.0


class Listener:
    """One open stream, and what waits to be sent on it."""

    def __init__(self, caller: Caller, resume_after: int | None = None) -> None:
        self.caller = caller
        self.resume_after = resume_after
        self.is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None  # where its stream runs
        self._is_closed = asyncio.Event()
        self._waiting: list[Message] = []
        self._kept = 0  # how many waited after the last were dropped
        self._wake = asyncio.Event()

    def put(self, messages: Iterable[Message]) -> None:
        """Add what is to be sent. Where too much waits, only how things are now is kept."""
        self._waiting.extend(messages)
        if len(self._waiting) > self._kept + MAX_WAITING:
            self._waiting = _newest(self._waiting)
            self._kept = len(self._waiting)
        if self._waiting:
            self._wake.set()

    def begin(self) -> None:
        """Its stream begins, in the running loop."""
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Close the stream."""
        self.is_over = True
        self._wake.set()

    def note_closed(self) -> None:
        """The server is through with the response. From any thread."""
        if self._loop:
            with suppress(RuntimeError):  # the loop has ended before: nobody waits any more
                self._loop.call_soon_threadsafe(self._is_closed.set)

    async def closed(self) -> None:
        """Return once the response has ended, its last bytes and all."""
        await self._is_closed.wait()

    async def take(self) -> str:
        """Return what is to be sent next; after a while without anything, a comment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEPALIVE_SECONDS):
                await self._wake.wait()
        self._wake.clear()
        waiting, self._waiting, self._kept = self._waiting, [], 0
        return "".join(map(str, waiting)) or ": \n\n"


def _newest(messages: list[Message]) -> list[Message]:
    """Return the last message of each kind about each workspace, in their order."""
    found: dict[tuple[str, str], Message] = {}
    for message in messages:
        found.pop((message.event, message.slug), None)
        found[message.event, message.slug] = message
    return list(found.values())


class Feed:
    """Runs while somebody listens; each process has one."""

    def __init__(self) -> None:
        # Those let in, by user. One whose stream never starts drops out by itself.
        self._admitted: defaultdict[int, WeakSet[Listener]] = defaultdict(WeakSet)
        self._lock = threading.Lock()  # requests are let in by threads of their own
        self._listeners: set[Listener] = set()
        self._reader = Reader()
        blindness = Outage(
            logger,
            begins="event streams stand still: %s",
            ends="event streams go on",
            level=logging.ERROR,
        )
        self._poll = Poll("feed", self._look, self._take_in, SHORTEST_PAUSE_SECONDS, blindness)
        self._access_checked = -float("inf")
        self._is_closed = False

    def admit(self, caller: Caller, resume_after: int | None = None) -> Listener:
        """Return a new listener, for ``stream``. From any thread; raises TooManyRequests."""
        listener = Listener(caller, resume_after)
        with self._lock:
            own = self._admitted[caller.user_id]
            if len(own) >= settings.DISPLAY.max_streams_per_user:
                raise TooManyRequests(
                    RETRY_AFTER_SECONDS, "You have too many event streams open; close some."
                )
            own.add(listener)
        return listener

    async def stream(self, listener: Listener) -> AsyncIterator[str]:
        """Yield the parts of the stream until either side ends it."""
        sent = 0
        try:
            await leave_request_thread()
            self._join(listener)
            yield f"retry: {random.randint(*RETRY_MS)}\n\n"  # noqa: S311  (a delay, no secret)
            while sent < MAX_STREAM_BYTES:
                part = await listener.take()
                if listener.is_over:
                    break
                sent += len(part)
                yield part
        finally:
            self._leave(listener)

    async def end_all(self) -> None:
        """End all streams, and those to come; return when their responses have, or in a second."""
        self._is_closed = True
        listeners = list(self._listeners)
        for listener in listeners:
            listener.end()
        with suppress(TimeoutError):  # a client that does not read is not waited for
            async with asyncio.timeout(END_SECONDS):
                for listener in listeners:
                    await listener.closed()

    def _join(self, listener: Listener) -> None:
        listener.begin()
        if self._is_closed:
            return listener.end()
        self._listeners.add(listener)
        metrics.event_streams.set(len(self._listeners))
        if not self._poll.is_running:
            self._reader = Reader()
            self._poll.start()
        return self._poll.wake()

    def _leave(self, listener: Listener) -> None:
        user_id = listener.caller.user_id
        with self._lock:
            self._admitted[user_id].discard(listener)
            if not self._admitted[user_id]:
                del self._admitted[user_id]
        self._listeners.discard(listener)
        metrics.event_streams.set(len(self._listeners))
        if not self._listeners:
            self._poll.stop()

    def _take_in(self, notice: Json) -> None:
        if notice["type"] == "access":
            self._access_checked = -float("inf")
        self._poll.wake()

    async def _look(self) -> None:
        started = time.monotonic()
        checks_access = started - self._access_checked >= ACCESS_SECONDS
        if checks_access:
            self._access_checked = started  # a notice that comes meanwhile asks again
        listeners = list(self._listeners)
        try:
            outcomes = await self._poll.threads.run(self._reader.look, listeners, checks_access)
        except Exception as error:
            self._access_checked = -float("inf")
            if not isinstance(error, AnyDatabaseError):
                self._reader = Reader()  # it may have stopped half-way: everybody is told anew
            raise
        for listener in listeners:
            outcome = outcomes[listener]
            listener.put(outcome.messages)
            if outcome.is_over:
                listener.end()


@cache
def current() -> Feed:
    """Return this process's feed."""
    return Feed()
