"""What time alone brings about, and nobody's call does: one quiet task in every server process.

Every second it asks, with a query each, whether there is anything to do: streams that a dead
process left driving, limits of time that are over, requests that are due. Whoever comes first does
it; all of it is decided under locks, so it does not matter that others try the same. Expiry needs
none of this: it is a fact for everybody who looks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import Error as AnyDatabaseError
from django.db.models import Q
from django.db.models.functions import Now

from controlplane import (
    access,
    background,
    driving,
    handovers,
    leases,
    leasestate,
    leaseviews,
    streamrows,
    sweeping,
)
from controlplane.dbthreads import DatabaseThreads
from controlplane.models import (
    ControlRequest,
    DisplayControlLease,
    WebhookDelivery,
    Workspace,
)
from controlplane.streamrows import PROCESS

logger = logging.getLogger(__name__)

TIDY_SECONDS = 60.0
KEEP = timedelta(days=1)
KEEP_DELIVERIES = timedelta(days=30)


class Housekeeping:
    """Runs from this process's first request on, for as long as its event loop."""

    def __init__(self) -> None:
        self._threads = DatabaseThreads("housekeeping", 1)
        self._sweep_threads = DatabaseThreads("sweep", 1)
        self._task: asyncio.Task[None] | None = None
        self._sweep: asyncio.Task[None] | None = None
        self._failing: set[str] = set()
        self._recovered = -float("inf")
        self._tidied = time.monotonic()

    def start(self) -> None:
        """Start in the running loop, unless it runs already."""
        if self._task is None or self._task.done():
            self._task = background.start(self._run(), "housekeeping")

    async def _run(self) -> None:
        chores = (self._end_what_is_over, self._settle_requests, self._look_for_abandoned)
        while True:
            for chore in (*chores, self._tidy_sometimes):
                await self._do(chore)
            await asyncio.sleep(settings.DISPLAY.watch_seconds)

    async def _do(self, chore: Callable[[], Awaitable[None]]) -> None:
        """Do it; whatever fails keeps none of the others from being done."""
        try:
            await chore()
        except Exception as error:  # the database, or a bug: it is logged, and tried again
            self._note(chore.__name__, error)
        else:
            self._note(chore.__name__, None)

    def _note(self, chore: str, error: Exception | None) -> None:
        """One line a change of state: the watch and the API tell of the same outage."""
        was_failing = bool(self._failing)
        (self._failing.add if error else self._failing.discard)(chore)
        if error and not isinstance(error, AnyDatabaseError):
            logger.error("housekeeping: %s failed", chore, exc_info=error)
        elif error and not was_failing:
            logger.warning("housekeeping rests: the database is away: %s", error)
        if was_failing and not self._failing:
            logger.warning("housekeeping goes on")
            self._recovered = time.monotonic()

    @property
    def _is_trustworthy(self) -> bool:
        """Whether all streams that live have had the time to stamp their rows since an outage."""
        return time.monotonic() - self._recovered > settings.DISPLAY.fence_seconds

    async def _end_what_is_over(self) -> None:
        for workspace_id in await self._threads.run(due_for_limits):
            await self._threads.run(_end_overdue, workspace_id)

    async def _settle_requests(self) -> None:
        for workspace_id in await self._threads.run(due_for_requests):
            await self._threads.run(handovers.settle, workspace_id)

    async def _look_for_abandoned(self) -> None:
        """Have them swept aside: desktops that do not answer take their time."""
        if self._sweep and not self._sweep.done():
            return
        abandoned = await self._threads.run(driving.abandoned)
        if abandoned and self._is_trustworthy:
            work = sweeping.sweep(abandoned, self._sweep_threads, PROCESS)
            self._sweep = background.start(work, "sweep")

    async def _tidy_sometimes(self) -> None:
        if self._is_trustworthy and time.monotonic() - self._tidied >= TIDY_SECONDS:
            self._tidied = time.monotonic()
            await self._threads.run(tidy)


def due_for_limits() -> list[int]:
    """Return the workspaces where a limit of time is, or may be, over for whoever has control."""
    held = leasestate.held().filter(workspace__in=Workspace.objects.filter(_HAS_LIMITS))
    views = leaseviews.read(held.values_list("workspace", flat=True))
    return [pk for pk, view in views.items() if view.limit and view.limit[0] <= view.now]


_HAS_LIMITS = Q(idle_seconds__isnull=False) | Q(max_hold_seconds__isnull=False)


def _end_overdue(workspace_id: int) -> None:
    workspace = Workspace.objects.filter(pk=workspace_id).first()
    with suppress(DisplayControlLease.DoesNotExist):  # it has just been removed
        if workspace:
            leases.end_overdue(workspace)


def due_for_requests() -> list[int]:
    """Return the workspaces where somebody asks for control."""
    asked = ControlRequest.objects.filter(ended_at=None)
    return list(asked.values_list("workspace", flat=True).distinct())


def tidy() -> None:
    """Close what a process that is gone has left open; remove what nobody looks at any more.

    Streams, requests, and logins that have expired go a day later. What webhooks were told is kept
    for a month. Agents whose tokens have expired are forgotten, for nobody tells of that, and so is
    whoever was missed when it happened.
    """
    streamrows.tidy()
    ControlRequest.objects.filter(ended_at__lt=Now() - KEEP).delete()
    Session.objects.filter(expire_date__lt=Now() - KEEP).delete()
    WebhookDelivery.objects.filter(
        Q(delivered_at__isnull=False) | Q(failed_at__isnull=False),
        created_at__lt=Now() - KEEP_DELIVERIES,
    ).delete()
    waiting = DisplayControlLease.objects.exclude(agent__in=access.good_tokens().values("account"))
    leases.forget_agents(leasestate.with_agents_gone(waiting))


@cache
def current() -> Housekeeping:
    """Return this process's housekeeping."""
    return Housekeeping()


def keeps_house(application: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wrap an ASGI application: its first request or websocket starts the housekeeping.

    Not every server tells an application that it starts (Daphne has no lifespan events).
    """

    async def keeping(scope: Any, receive: Any, send: Any) -> Any:
        current().start()
        return await application(scope, receive, send)

    return keeping
