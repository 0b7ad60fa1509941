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
from django.db.models import Q, QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

from controlplane import events, leasestate
from controlplane.dbthreads import time_limit
from controlplane.models import DisplayControlLease, DisplayStream

SWEPT = "swept"  # the process of a row whose keys are released, and whose fence is still to come
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
        own = DisplayStream.objects.filter(pk=driver.stream_id, process=process, closed_at=None)
        return Claim(bool(own.update(driving_epoch=driver.epoch, stamped_at=Now())))


def driving(workspace_id: int) -> QuerySet[DisplayStream]:
    """The streams of a workspace whose input may reach the desktop, or may have until lately."""
    return DisplayStream.objects.filter(workspace=workspace_id, driving_epoch__isnull=False)


def _is_own(lease: DisplayControlLease, driver: Driver, now: datetime) -> bool:
    is_current = leasestate.is_held(lease, now) and lease.epoch == driver.epoch
    return is_current and leasestate.belongs_to(lease, driver.user_id, driver.client_id)


def _others(driver: Driver) -> QuerySet[DisplayStream]:
    return driving(driver.workspace_id).exclude(pk=driver.stream_id)


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
    is_being_swept = other.process.startswith(_SWEEPER)
    missed = timedelta(seconds=MISSED_POLLS * settings.DISPLAY.watch_seconds)
    is_silent = now - other.stamped_at > missed
    return is_silent and _is_same_tab(other, driver) and not is_being_swept


def clear(stream_ids: list[int], workspace_ids: set[int], process: str) -> None:
    """These streams of ours have shut their gates and let go of their keys: others may drive."""
    own = DisplayStream.objects.filter(pk__in=stream_ids, process=process)
    if own.filter(driving_epoch__isnull=False).update(driving_epoch=None):
        for workspace_id in workspace_ids:
            events.announce_look(workspace_id)


def sweeper(process: str) -> str:
    """Return the name under which a process owns the rows that it has adopted."""
    return f"{_SWEEPER}{process}"[:64]


_SWEEPER = "sweep "


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
    stale = DisplayStream.objects.filter(driving_epoch__isnull=False, stamped_at__lt=_fence_ago())
    stale.filter(process=SWEPT).update(driving_epoch=None)
    return list(stale.values_list("pk", flat=True))


def adopt(stream_id: int, process: str, driver: Driver | None = None) -> Adopted | None:
    """Take a row over if it is stale, also if only for ``driver``, a newer stream of its tab.

    It counts as driving until ``finish``, or until this process is silent in its turn. Where it is
    stale for ``driver`` only, it keeps its stamp: for everybody else its gate may still be open.
    """
    row = DisplayStream.objects.filter(pk=stream_id, driving_epoch__isnull=False)
    own = sweeper(process)
    is_fenced = row.filter(stamped_at__lt=_fence_ago()).update(process=own, stamped_at=Now())
    is_ours = is_fenced or (driver and _of_same_tab(row, driver).update(process=own))
    if not is_ours:
        return None
    return Adopted(row.select_related("workspace").get(), bool(is_fenced))


def _of_same_tab(row: QuerySet[DisplayStream], driver: Driver) -> QuerySet[DisplayStream]:
    missed = Now() - timedelta(seconds=MISSED_POLLS * settings.DISPLAY.watch_seconds)
    own = row.filter(user=driver.user_id, client_id=driver.client_id)
    return own.filter(stamped_at__lt=missed).exclude(
        Q(process=SWEPT) | Q(process__startswith=_SWEEPER)
    )


def finish(adopted: Adopted, process: str) -> None:
    """The keys of an adopted row are released: others may drive, at once or from its fence on."""
    row = adopted.row
    if adopted.is_fenced:
        clear([row.pk], {row.workspace_id}, sweeper(process))
    else:
        DisplayStream.objects.filter(pk=row.pk, process=sweeper(process)).update(process=SWEPT)


def _fence_ago() -> CombinedExpression:
    return Now() - timedelta(seconds=settings.DISPLAY.fence_seconds)
