"""The row of each stream (DisplayStream): this is the only module that writes one.

    inserted      which spends its token: it is open from then on               tokens.py
    stamped       every second, with its newest input, while its process lives  verdicts.py
    driving       from when its gate may open until it has let go of its keys   driving.py
    adopted       by a sweeper, where its process has died while it drove       driving.py
    disconnected  by a manager: its process ends it                             admin/streams.py
    closed        by its process, or where that is gone, by any                 streams.py, …
    removed       after a day, which its token does not live                    housekeeping.py

``process`` says whose a row is: its stream's own process's; a sweeper's, which lets go of the keys
that a dead process has left down; or, once they are released, nobody's (``SWEPT``). A write repeats
whose the row must be, and does nothing where it is another's by now.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import (
    Case,
    CharField,
    Count,
    F,
    PositiveIntegerField,
    Q,
    QuerySet,
    Value,
    When,
)
from django.db.models.functions import Concat, Now

from controlplane.closecodes import CloseCode
from controlplane.models import DisplayStream

SERVER = f"{socket.gethostname()[:32]}:{os.getpid()}"
PROCESS = f"{SERVER}:{secrets.token_hex(4)}"  # the owner of the rows of this process's streams
SWEPT = "swept"  # the owner of a row whose keys are released, and whose fence is still to come
_SWEEPER = "sweep "

STALE_SECONDS = 30.0  # without a stamp: its process is gone
KEEP = timedelta(days=1)
LOST_CODE = 1006  # RFC 6455, 7.4.1: gone without a word


# --- Which there are ------------------------------------------------------------------------------
def open_streams() -> QuerySet[DisplayStream]:
    """The streams that are open, as far as their processes have stamped them lately."""
    lately = Now() - timedelta(seconds=STALE_SECONDS)
    return DisplayStream.objects.filter(closed_at=None, stamped_at__gt=lately)


def count_viewers(workspace_ids: Iterable[int]) -> dict[int, int]:
    """Return how many people's tabs watch each workspace, the holder's included."""
    streams = open_streams().filter(workspace__in=list(workspace_ids))
    counts = streams.values("workspace").annotate(
        viewers=Count(
            Concat("user_id", Value(" "), "client_id", output_field=CharField()), distinct=True
        )
    )
    return dict(counts.values_list("workspace", "viewers"))


def driving() -> QuerySet[DisplayStream]:
    """The streams whose input may reach their desktop, or may have until lately."""
    return DisplayStream.objects.filter(driving_epoch__isnull=False)


# --- Opening and closing --------------------------------------------------------------------------
def insert(rows: list[DisplayStream]) -> None:
    """Insert all of them; none, with an IntegrityError, where the token of one is spent already."""
    with transaction.atomic():
        DisplayStream.objects.bulk_create(rows)


def disconnect(rows: QuerySet[DisplayStream], by: str) -> int:
    """Have those of ``rows`` that are open ended by their processes; return how many these are."""
    still_open = DisplayStream.objects.filter(pk__in=rows.values("pk"), closed_at=None)
    return still_open.update(disconnected_by=by)


def close(stream_id: int, code: CloseCode, input_age: float | None = None) -> None:
    """Note that a stream has ended, how, and how many seconds ago it had its last input.

    Its connection to the desktop is closed: nobody has to wait for it. One write: a claim of its
    own that is still under way either finds the row closed, or is undone by this.
    """
    is_ours = Q(process__in=[PROCESS, SWEPT])
    values: dict[str, Any] = {
        "closed_at": Now(),
        "close_code": int(code),
        "driving_epoch": Case(When(is_ours, then=None), default=F("driving_epoch")),
    }
    if input_age is not None:
        values["last_input_at"] = Now() - timedelta(seconds=input_age)
    DisplayStream.objects.filter(pk=stream_id).update(**values)


def tidy() -> None:
    """Close the rows of streams whose process is gone; remove those that are a day old.

    Those that drive are left for whoever lets go of their keys. A token is spent for as long as its
    row is there.
    """
    quiet = DisplayStream.objects.filter(driving_epoch=None)
    lost = quiet.filter(closed_at=None, stamped_at__lt=Now() - timedelta(seconds=STALE_SECONDS))
    lost.update(closed_at=F("stamped_at"), close_code=LOST_CODE)
    quiet.filter(stamped_at__lt=Now() - KEEP).delete()


# --- While it lives -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a stream has to tell of itself, every time that it is stamped."""

    stream_id: int
    mode: str
    input_age: float | None  # seconds since its newest input, if there was any lately
    pointer: tuple[int, int, int] | None  # x, y and the buttons that are down


def stamp(reports: Iterable[Report]) -> None:
    """Say, in one write, that these streams live, in which mode, and what they last had of input.

    A row that another process has adopted is its own until it has let go of the keys. Then we
    have it back: our gate has been shut for longer than the fence.
    """
    told = {report.stream_id: report for report in reports}
    is_ours = Q(process=PROCESS) | Q(driving_epoch=None)
    in_control = [pk for pk, report in told.items() if report.mode == "control"]
    inputs = [
        When(pk=pk, then=Now() - timedelta(seconds=report.input_age))
        for pk, report in told.items()
        if report.input_age is not None
    ]
    DisplayStream.objects.filter(is_ours, pk__in=list(told)).update(
        process=PROCESS,
        stamped_at=Now(),
        **{column: _pointer(told, part, column) for part, column in enumerate(_POINTER)},
        last_input_at=Case(*inputs, default=F("last_input_at")),
        mode=Case(When(pk__in=in_control, then=Value("control")), default=Value("observe")),
    )


_POINTER = ("pointer_x", "pointer_y", "pointer_buttons")


def _pointer(told: dict[int, Report], part: int, column: str) -> Case:
    known = [
        When(pk=pk, then=Value(report.pointer[part]))
        for pk, report in told.items()
        if report.pointer
    ]
    return Case(*known, default=F(column), output_field=PositiveIntegerField())


# --- While it drives: driving.py decides ----------------------------------------------------------
def start_driving(stream_id: int, process: str, epoch: int) -> bool:
    """Return whether it could be written: not where it has been closed, or is another's by now."""
    own = DisplayStream.objects.filter(pk=stream_id, process=process, closed_at=None)
    return bool(own.update(driving_epoch=epoch, stamped_at=Now()))


def stop_driving(stream_ids: list[int], owner: str) -> bool:
    """Return whether any of these that ``owner`` has was still driving."""
    own = driving().filter(pk__in=stream_ids, process=owner)
    return bool(own.update(driving_epoch=None))


def sweeper(process: str) -> str:
    """Return the name under which a process owns the rows that it has adopted."""
    return f"{_SWEEPER}{process}"[:64]


def is_being_swept(row: DisplayStream) -> bool:
    """Whether a process has adopted it, and lets go of its keys."""
    return row.process.startswith(_SWEEPER)


HAS_SWEEPER = Q(process=SWEPT) | Q(process__startswith=_SWEEPER)  # now, or it had one


def adopt(rows: QuerySet[DisplayStream], process: str, *, stamps: bool) -> bool:
    """Return whether the one in ``rows`` is now the sweeper's of ``process``."""
    values: dict[str, Any] = {"stamped_at": Now()} if stamps else {}
    return bool(rows.update(process=sweeper(process), **values))


def mark_swept(stream_id: int, process: str) -> None:
    """The keys of a row that ``process`` has adopted are released."""
    own = DisplayStream.objects.filter(pk=stream_id, process=sweeper(process))
    own.update(process=SWEPT)


def forget_swept(rows: QuerySet[DisplayStream]) -> None:
    """Those of ``rows`` whose keys are released do not drive any more."""
    rows.filter(process=SWEPT).update(driving_epoch=None)
