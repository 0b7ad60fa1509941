"""The lease watch: one reader per process that keeps the gates of its streams true.

Notify, to be fast: a notice from the channel layer shuts the gates of a workspace and wakes the
reader. Poll, to be right: every second, one pass reads the leases of all streams of this process;
in between, passes look at streams that are new or that a notice concerns.
Only a pass that started after the last shut can open a gate (gate.py). When no pass succeeds for
DISPLAY_FENCE_SECONDS, every gate shuts by its own deadline; the watch need not do anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import cache
from typing import Protocol

from django.conf import settings
from django.db import Error as AnyDatabaseError

from controlplane import background, driving, notices, sweeping
from controlplane.dbthreads import DatabaseThreads
from controlplane.driving import Driver
from controlplane.leaseviews import LeaseView
from controlplane.outages import Outage
from controlplane.presenters import Json
from controlplane.streamrows import PROCESS
from controlplane.verdicts import Question, Verdict, examine

logger = logging.getLogger(__name__)

ACCESS_SECONDS = 3.0  # how often users, grants and logins are checked again without a notice
RETRY_SECONDS = 1.0
CLAIM_AGAIN_SECONDS = 0.1


class Watched(Protocol):
    """A stream, as the watch sees it (authority.py). All calls come from the event loop."""

    @property
    def workspace_id(self) -> int:
        """Whose notices concern it."""

    @property
    def seat(self) -> tuple[int, int, str]:
        """Workspace, user and client_id: of two streams with the same, the newer one lives."""

    @property
    def seen_version(self) -> int:
        """The version of the lease that its newest answer rests on; -1 before the first."""

    def question(self) -> Question:
        """What the next pass shall find out."""

    def answer(self, verdict: Verdict, started: float) -> None:
        """What a pass found that started at ``started`` (monotonic seconds)."""

    def shut_gate(self) -> None:
        """Something changed: no input until the next answer."""


class Watch:
    """Runs while there are streams; each process has one."""

    def __init__(self) -> None:
        self._streams: set[Watched] = set()
        self._newest_of_seat: dict[tuple[int, int, str], Watched] = {}
        self._told: dict[int, int] = {}  # by workspace, the newest version heard of
        self._due: set[Watched] = set()  # to be looked at before the next poll of all
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._checks_access = False
        self._threads = DatabaseThreads("watch", 1, keeps_connections=True)
        self._claim_tasks: dict[Watched, asyncio.Task[None]] = {}
        self._claimed: dict[Watched, Driver] = {}  # what was claimed for last
        self._claim_threads = DatabaseThreads("claims", 2)
        self._access_checked = -float("inf")
        self._blindness = Outage(
            logger,
            begins="leases cannot be read, gates shut at the fence: %s",
            ends="leases can be read again",
            level=logging.ERROR,
        )
        self._read_at = -float("inf")  # when the newest pass that succeeded has begun

    @property
    def lag(self) -> float:
        """How many seconds old the newest read of the leases is; 0 while nobody is watched."""
        return time.monotonic() - self._read_at if self._task else 0.0

    def join(self, stream: Watched) -> None:
        """Watch ``stream`` from now on; an older one of its seat lets go and is looked at."""
        self._streams.add(stream)
        older = self._newest_of_seat.get(stream.seat)
        self._newest_of_seat[stream.seat] = stream
        if older:
            older.shut_gate()
            self.wake(older)
        if self._task is None:
            self._read_at = time.monotonic()
            self._task = background.start(self._poll(), "watch-poll")
            notices.current().subscribe(self._take_in)

    def leave(self, stream: Watched) -> None:
        """Forget ``stream``; the last one stops the watch."""
        self._streams.discard(stream)
        self._due.discard(stream)
        self._claimed.pop(stream, None)
        if self._newest_of_seat.get(stream.seat) is stream:
            del self._newest_of_seat[stream.seat]
        if not self._streams and self._task:
            self._task.cancel()
            self._task = None
            notices.current().unsubscribe(self._take_in)
            self._threads.release()

    def has_newer(self, view: LeaseView) -> bool:
        """Whether a notice or a pass has told of a newer version of this lease."""
        return self._told.get(view.lease.workspace_id, -1) > view.lease.version

    def wake(self, *streams: Watched) -> None:
        """Look at these now instead of at the next poll."""
        self._due.update(self._streams.intersection(streams))
        self._wake.set()

    def notice(self, workspace_id: int, version: int) -> None:
        """A lease has changed: shut the gates that rest on an older read, then look.

        A gate that a read has opened which saw this version already stays open: its holder may be
        typing, and nothing has changed since.
        """
        self._hear_of(workspace_id, version)
        concerned = [each for each in self._streams if each.workspace_id == workspace_id]
        for stream in concerned:
            if stream.seen_version < version:
                stream.shut_gate()
        self.wake(*concerned)

    def _hear_of(self, workspace_id: int, version: int) -> None:
        """Remember the newest version: notices overtake each other."""
        self._told[workspace_id] = max(version, self._told.get(workspace_id, -1))

    def notice_look(self, workspace_id: int) -> None:
        """Something about control is to be told; who has it has not changed."""
        self.wake(*(each for each in self._streams if each.workspace_id == workspace_id))

    def notice_access(self) -> None:
        """Somebody may have lost access. What that ends of leases has a notice of its own."""
        self._checks_access = True
        self.wake()

    # --- notify -----------------------------------------------------------------------------------
    def _take_in(self, message: Json) -> None:
        match message["type"]:
            case "access":
                self.notice_access()
            case "look":
                self.notice_look(message["workspace_id"])
            case _:
                self.notice(message["workspace_id"], message["version"])

    # --- poll -------------------------------------------------------------------------------------
    async def _poll(self) -> None:
        """Look at all streams every second, and in between at those that are due."""
        polled = -float("inf")
        while True:
            self._wake.clear()
            now = time.monotonic()
            if self._checks_access or now - polled >= settings.DISPLAY.watch_seconds:
                polled = now
                await self._pass(self._streams, self._take_access_due())
            elif self._due:
                await self._pass(self._due, checks_access=False)
            left = polled + settings.DISPLAY.watch_seconds - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _pass(self, looked_at: set[Watched], checks_access: bool) -> None:
        streams = _questions(looked_at)
        self._due -= looked_at
        started = time.monotonic()
        try:
            verdicts = await self._threads.run(examine, list(streams), checks_access)
        except Exception as error:  # any failure of the database: the fence handles what follows
            self._blindness.note(error)
            return
        self._blindness.note(None)
        self._read_at = started
        if checks_access:
            self._access_checked = started
        self._claim(streams, verdicts)
        for question, verdict in verdicts.items():
            if verdict.view:
                self._hear_of(question.workspace_id, verdict.view.lease.version)
            if streams[question] in self._streams:
                _answer(streams[question], verdict, started)

    def _claim(self, streams: dict[Question, Watched], verdicts: dict[Question, Verdict]) -> None:
        """Have it claimed that those drive whose turn it is; aside, for claims wait for locks."""
        for question, verdict in verdicts.items():
            stream, driver = streams[question], verdict.wants_to_drive
            if driver is None or stream in self._claim_tasks:
                continue
            if stream not in self._streams:  # it has left while the pass was under way
                continue
            is_first = self._claimed.get(stream) != driver
            self._claimed[stream] = driver
            self._claim_tasks[stream] = background.start(
                self._claim_for(stream, driver, is_first), f"claim {question.stream_id}"
            )

    async def _claim_for(self, stream: Watched, driver: Driver, is_first: bool) -> None:
        """Claim once, release the keys that a dead process has left down, and look again."""
        try:
            claim = await self._claim_threads.run(driving.claim, driver, PROCESS, is_first=is_first)
            if claim.stale:
                await sweeping.sweep(list(claim.stale), self._claim_threads, PROCESS, driver)
            if not claim.is_granted:
                await asyncio.sleep(CLAIM_AGAIN_SECONDS)
        except AnyDatabaseError as error:
            logger.warning("stream %s may not drive yet: %s", driver.stream_id, error)
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            del self._claim_tasks[stream]
            self.wake(stream)

    def _take_access_due(self) -> bool:
        """Return whether this pass is to check access: a notice asks for that once."""
        asked, self._checks_access = self._checks_access, False
        return asked or time.monotonic() - self._access_checked >= ACCESS_SECONDS


def _questions(streams: set[Watched]) -> dict[Question, Watched]:
    asked = {}
    for stream in streams:
        try:
            asked[stream.question()] = stream
        except Exception:  # as below: its own gate shuts at the fence
            logger.exception("a stream of workspace %s failed to ask", stream.workspace_id)
    return asked


def _answer(stream: Watched, verdict: Verdict, started: float) -> None:
    try:
        stream.answer(verdict, started)
    except Exception:  # a bug in one stream must not take the watch away from the others
        logger.exception("a stream of workspace %s failed to take its answer", stream.workspace_id)


@cache
def current() -> Watch:
    """Return this process's watch."""
    return Watch()
