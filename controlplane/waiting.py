"""Waiting for control of a workspace to change: one reader per process for all who wait.

The reader (polling.py) runs while somebody waits; who waits has neither a thread nor a database
connection. What counts as a change is in ``Mark``.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models.functions import Now

from controlplane import leasestate, metrics
from controlplane.dbthreads import time_limit
from controlplane.models import SECRET_FIELDS, DisplayControlLease
from controlplane.outages import Outage
from controlplane.polling import Poll

logger = logging.getLogger(__name__)

SHORTEST_PAUSE_SECONDS = 0.02  # between two looks, however many notices come

Json = dict[str, Any]


class Mark(NamedTuple):
    """How control is: all that a waiting agent would act on. Time alone changes the last two."""

    version: int
    is_held: bool
    is_parked: bool


def mark_of(lease: DisplayControlLease, now: Any) -> Mark:
    """Return the mark of a lease at ``now``, the database's time."""
    parked = leasestate.parking(lease, now)
    return Mark(lease.version, leasestate.is_held(lease, now), parked is not None)


def read_marks(workspace_ids: list[int]) -> dict[int, Mark]:
    """Read how control of these workspaces is, in one query."""
    secrets = (f"workspace__{name}" for name in SECRET_FIELDS)
    rows = DisplayControlLease.objects.filter(workspace__in=workspace_ids)
    rows = rows.select_related("workspace", "holder").defer(*secrets).annotate(db_now=Now())
    with time_limit(settings.DISPLAY.fence_seconds / 2):
        return {row.workspace_id: mark_of(row, row.db_now) for row in rows}


class _Waiter:
    """One call that waits until its workspace's mark is another."""

    def __init__(self, workspace_id: int, mark: Mark) -> None:
        self.workspace_id = workspace_id
        self.mark = mark
        self.is_over = asyncio.Event()


class Waiting:
    """Runs while somebody waits; each process has one."""

    def __init__(self) -> None:
        self._waiters: set[_Waiter] = set()
        blindness = Outage(
            logger,
            begins="nobody who waits for control is answered: %s",
            ends="who waits for control is answered again",
            level=logging.ERROR,
        )
        self._poll = Poll("waiting", self._look, self._take_in, SHORTEST_PAUSE_SECONDS, blindness)
        self._is_closed = False

    async def until_changed(self, workspace_id: int, mark: Mark, seconds: float) -> None:
        """Return when the mark is another, the workspace is gone, or the time is over."""
        if self._is_closed:
            return
        waiter = _Waiter(workspace_id, mark)
        self._join(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter.is_over.wait()
        finally:
            self._leave(waiter)

    def end_all(self) -> None:
        """Let all who wait go, and those to come: the process ends."""
        self._is_closed = True
        for waiter in self._waiters:
            waiter.is_over.set()

    def _join(self, waiter: _Waiter) -> None:
        self._waiters.add(waiter)
        metrics.long_polls.set(len(self._waiters))
        self._poll.start()
        self._poll.wake()  # it may have changed since it was read

    def _leave(self, waiter: _Waiter) -> None:
        self._waiters.discard(waiter)
        metrics.long_polls.set(len(self._waiters))
        if not self._waiters:
            self._poll.stop()

    def _take_in(self, notice: Json) -> None:
        if notice["type"] != "access":
            self._poll.wake()

    async def _look(self) -> None:
        waiters = list(self._waiters)
        ids = sorted({waiter.workspace_id for waiter in waiters})
        marks = await self._poll.threads.run(read_marks, ids)
        for waiter in waiters:
            if marks.get(waiter.workspace_id) != waiter.mark:
                waiter.is_over.set()


@cache
def current() -> Waiting:
    """Return this process's."""
    return Waiting()
