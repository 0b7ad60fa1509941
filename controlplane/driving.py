"""Who drives: the barrier between one holder's input and the next one's, across processes.

A stream whose gate may open says so in its row: ``driving_epoch`` is set under the lease's lock,
and only while no other stream of the workspace drives. It is cleared once its gate has shut and its
key-ups are written. So two holders' input never overlaps.

A process that is cut off from the database shuts its gates by itself at the fence, which counts
from the start of the pass that stamped its rows. So a row that nobody has stamped for that long is
that of a process that has died, or has let go: whoever finds it adopts it and releases all keys
(sweeping.py). An older stream of the same tab is waited for less long, because the same person
types: its keys are released, and the newer one drives. For all others its gate counts until the
fence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from controlplane import events, leasestate, streamrows
from controlplane.dbthreads import time_limit
from controlplane.models import DisplayControlLease, DisplayStream
from controlplane.streamrows import SWEPT

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


def claim(driver: Driver, process: str, *, is_first: bool = True) -> Claim:
    """Let ``driver`` drive if the lease is its own and nobody else drives. One transaction.

    The first claim of a stream, where it has to wait, asks all processes to look at once.
    """
    with time_limit(settings.DISPLAY.fence_seconds / 2):
        # The lock comes first: a holder before us either has said that it drives, or never will.
        locked = DisplayControlLease.objects.select_for_update()
        lease = locked.filter(workspace=driver.workspace_id).first()
        if lease is None:
            return Claim()
        now = leasestate.database_now(lease)
        if not _is_own(lease, driver, now):
            return Claim()
        others = [each for each in _others(driver) if not _is_over(each, driver, now)]
        if others:
            if is_first:
                events.announce_look(driver.workspace_id)
            return Claim(stale=tuple(each.pk for each in others if _is_stale(each, driver, now)))
        return Claim(streamrows.start_driving(driver.stream_id, process, driver.epoch))


def _is_own(lease: DisplayControlLease, driver: Driver, now: datetime) -> bool:
    is_current = leasestate.is_held(lease, now) and lease.epoch == driver.epoch
    return is_current and leasestate.belongs_to(lease, driver.user_id, driver.client_id)


def _others(driver: Driver) -> QuerySet[DisplayStream]:
    of_workspace = streamrows.driving().filter(workspace=driver.workspace_id)
    return of_workspace.exclude(pk=driver.stream_id)


def _is_over(other: DisplayStream, driver: Driver, now: datetime) -> bool:
    """Whether a swept row no longer blocks this driver: at once for its own tab, others wait."""
    return other.process == SWEPT and (_is_same_tab(other, driver) or _is_fenced(other, now))


def _is_same_tab(other: DisplayStream, driver: Driver) -> bool:
    return (other.user_id, other.client_id) == (driver.user_id, driver.client_id)


def _is_fenced(other: DisplayStream, now: datetime) -> bool:
    return now - other.stamped_at > timedelta(seconds=settings.DISPLAY.fence_seconds)


def _is_stale(other: DisplayStream, driver: Driver, now: datetime) -> bool:
    if other.process == SWEPT:
        return False  # its keys are released; all that is left to do is to wait
    if _is_fenced(other, now):
        return True
    missed = timedelta(seconds=MISSED_POLLS * settings.DISPLAY.watch_seconds)
    is_silent = now - other.stamped_at > missed
    is_being_swept = streamrows.is_being_swept(other)
    return is_silent and _is_same_tab(other, driver) and not is_being_swept


def clear(stream_ids: list[int], workspace_ids: set[int], process: str) -> None:
    """These streams of ours have shut their gates and let go of their keys: others may drive."""
    if streamrows.stop_driving(stream_ids, process):
        for workspace_id in workspace_ids:
            events.announce_look(workspace_id)


# --- What a process that has died leaves behind ---------------------------------------------------
@dataclass(frozen=True, slots=True)
class Adopted:
    """A stale row that this process alone now lets go of; ``is_fenced``: its gate has shut."""

    row: DisplayStream
    is_fenced: bool


def abandoned() -> list[int]:
    """Return the rows that drive, that nobody has stamped for long, and whose keys may be down.

    Those whose keys have been released already are forgotten.
    """
    stale = streamrows.driving().filter(stamped_at__lt=_fence_ago())
    streamrows.forget_swept(stale)
    return list(stale.values_list("pk", flat=True))


def adopt(stream_id: int, process: str, driver: Driver | None = None) -> Adopted | None:
    """Take a row over if it is stale, also if only for ``driver``, a newer stream of its tab.

    It counts as driving until ``finish``, or until this process is silent in its turn. Where it is
    stale for ``driver`` only, it keeps its stamp: for everybody else its gate may still be open.
    """
    row = streamrows.driving().filter(pk=stream_id)
    fenced = row.filter(stamped_at__lt=_fence_ago())
    is_fenced = streamrows.adopt(fenced, process, stamps=True)
    is_silent = not is_fenced and driver is not None and _adopt_for(driver, row, process)
    if not (is_fenced or is_silent):
        return None
    return Adopted(row.select_related("workspace").get(), is_fenced)


def _adopt_for(driver: Driver, row: QuerySet[DisplayStream], process: str) -> bool:
    missed = Now() - timedelta(seconds=MISSED_POLLS * settings.DISPLAY.watch_seconds)
    own = row.filter(user=driver.user_id, client_id=driver.client_id)
    silent = own.filter(stamped_at__lt=missed).exclude(streamrows.HAS_SWEEPER)
    return streamrows.adopt(silent, process, stamps=False)


def finish(adopted: Adopted, process: str) -> None:
    """The keys of an adopted row are released: others may drive, at once or from its fence on."""
    row = adopted.row
    if adopted.is_fenced:
        clear([row.pk], {row.workspace_id}, streamrows.sweeper(process))
    else:
        streamrows.mark_swept(row.pk, process)


def _fence_ago() -> CombinedExpression:
    return Now() - timedelta(seconds=settings.DISPLAY.fence_seconds)
