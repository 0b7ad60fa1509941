"""Who drives: the barrier between one holder's input and the next one's, across processes.

A stream whose gate may open says so in its row: ``driving_epoch`` is set under the lease's lock,
and only while no other stream of the workspace drives. It is cleared once its gate has shut and its
key-ups are written. So two holders' input never overlaps.

A process that is cut off from the database shuts its gates by itself at the fence, which counts
from the start of the pass that stamped its rows. So a row that nobody has stamped for that long is
that of a process that has died, or has let go: whoever finds it adopts it and releases all keys
(sweeping.py). Of an older stream of the same tab, which cannot send any more, less is awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from controlplane import events, leases
from controlplane.dbthreads import time_limit
from controlplane.models import DisplayControlLease, DisplayStream

MISSED_POLLS = 2  # of an older stream of the same tab: its process would know of the newer one


@dataclass(frozen=True, slots=True)
class Driver:
    """A stream that is about to drive, in the epoch that a read has found to be its own."""

    stream_id: int
    workspace_id: int
    user_id: int
    client_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of claiming: ``is_granted``, or else others drive, of which some are ``stale``."""

    is_granted: bool = False
    stale: tuple[int, ...] = ()


def claim(driver: Driver, process: str) -> Claim:
    """Let ``driver`` drive if the lease is its own and nobody else drives. One transaction."""
    with time_limit(settings.DISPLAY.fence_seconds / 2):
        # The lock comes first: a holder before us either has said that it drives, or never will.
        locked = DisplayControlLease.objects.select_for_update()
        lease = locked.filter(workspace=driver.workspace_id).first()
        if lease is None:
            return Claim()
        now = leases.database_now(lease)
        if not _is_own(lease, driver, now):
            return Claim()
        others = list(driving(driver.workspace_id).exclude(pk=driver.stream_id))
        if others:
            events.announce_look(driver.workspace_id)  # who has to let go shall look at once
            return Claim(stale=tuple(each.pk for each in others if _is_stale(each, driver, now)))
        own = DisplayStream.objects.filter(pk=driver.stream_id, process=process, closed_at=None)
        return Claim(bool(own.update(driving_epoch=driver.epoch, stamped_at=Now())))


def driving(workspace_id: int) -> QuerySet[DisplayStream]:
    """The streams of a workspace whose input may reach the desktop, or may have until lately."""
    return DisplayStream.objects.filter(workspace=workspace_id, driving_epoch__isnull=False)


def _is_own(lease: DisplayControlLease, driver: Driver, now: datetime) -> bool:
    is_current = leases.is_held(lease, now) and lease.epoch == driver.epoch
    return is_current and leases.belongs_to(lease, driver.user_id, driver.client_id)


def _is_stale(other: DisplayStream, driver: Driver, now: datetime) -> bool:
    is_same_tab = (other.user_id, other.client_id) == (driver.user_id, driver.client_id)
    display = settings.DISPLAY
    patience = MISSED_POLLS * display.watch_seconds if is_same_tab else display.fence_seconds
    return now - other.stamped_at > timedelta(seconds=patience)


def clear(stream_ids: list[int], workspace_ids: set[int], process: str) -> None:
    """These streams of ours have shut their gates and let go of their keys: others may drive."""
    own = DisplayStream.objects.filter(pk__in=stream_ids, process=process)
    if own.filter(driving_epoch__isnull=False).update(driving_epoch=None):
        for workspace_id in workspace_ids:
            events.announce_look(workspace_id)


def sweeper(process: str) -> str:
    """Return the name under which a process owns the rows that it has adopted."""
    return f"sweep {process}"[:64]


# --- What a process that has died leaves behind ---------------------------------------------------
def abandoned() -> list[tuple[int, int]]:
    """Return (workspace, stream) of the rows that drive, and that nobody has stamped for long."""
    limit = timedelta(seconds=settings.DISPLAY.fence_seconds)
    rows = DisplayStream.objects.filter(driving_epoch__isnull=False, stamped_at__lt=Now() - limit)
    return list(rows.values_list("workspace", "pk"))


def adopt(stream_ids: list[int], driver: Driver | None, process: str) -> list[DisplayStream]:
    """Take stale rows over, so that one process alone lets go of their keys; return those it got.

    An adopted row counts as driving until ``clear``, or until this process is silent in its turn.
    """
    fence = timedelta(seconds=settings.DISPLAY.fence_seconds)
    stale = Q(stamped_at__lt=Now() - fence)
    if driver:
        missed = timedelta(seconds=MISSED_POLLS * settings.DISPLAY.watch_seconds)
        is_same_tab = Q(user=driver.user_id, client_id=driver.client_id)
        stale |= is_same_tab & Q(stamped_at__lt=Now() - missed)
    adopted = []
    for pk in stream_ids:
        row = DisplayStream.objects.filter(stale, pk=pk, driving_epoch__isnull=False)
        if row.update(process=sweeper(process), stamped_at=Now()):
            adopted.append(DisplayStream.objects.select_related("workspace").get(pk=pk))
    return adopted
