"""Reading leases, with all that is told of them beside their rows, at one moment.

Whatever shows control, or decides about a stream, goes by such a view: the API, the pages, the
streams' watch. A decision about the lease itself is another matter: leases.py makes it under lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from controlplane import leasestate, streamrows
from controlplane.models import (
    SECRET_FIELDS,
    ControlEvent,
    Controller,
    ControlRequest,
    DisplayControlLease,
    DisplayStream,
    EndReason,
)
from controlplane.statements import made_once

WARNING_SECONDS = 30.0  # before control ends by a limit


@dataclass(frozen=True, slots=True)
class LeaseEnd:
    """How an epoch ended; ``by`` and ``note`` are empty where nobody ended it, or said why."""

    reason: str
    by: str
    note: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as one read saw it, with all that Control tells beside the row."""

    lease: DisplayControlLease
    now: datetime
    holder_stamped_at: datetime | None
    last_input_at: datetime | None
    last_end: LeaseEnd | None
    requests: tuple[ControlRequest, ...] = ()

    @property
    def is_held(self) -> bool:
        """Whether somebody had control at the time of the read."""
        return leasestate.is_held(self.lease, self.now)

    @property
    def remaining(self) -> float:
        """Seconds until the lease ends; 0 where it has."""
        if not self.is_held or not self.lease.expires_at:
            return 0.0
        return (self.lease.expires_at - self.now).total_seconds()

    @property
    def is_holder_connected(self) -> bool:
        """Whether the holder has an open stream that its process has stamped lately."""
        stale = timedelta(seconds=streamrows.STALE_SECONDS)
        return self.holder_stamped_at is not None and self.now - self.holder_stamped_at < stale

    @property
    def is_hidden(self) -> bool:
        """Whether the holder hides the desktop from all who watch."""
        return leasestate.is_hidden(self.lease, self.now)

    def hides_from(self, user_id: int, client_id: str) -> bool:
        """Whether this tab must not see the desktop now: nobody but the holder's own is exempt."""
        return self.is_hidden and not self.is_held_by(user_id, client_id)

    @property
    def limit(self) -> tuple[datetime, EndReason] | None:
        """When control ends although it is renewed, and why; None where nothing limits it."""
        if not self.is_held:
            return None
        workspace = self.lease.workspace
        ends = (
            (leasestate.hold_ends_at(self.lease, workspace), EndReason.MAX_HOLD),
            (leasestate.idle_ends_at(self.lease, workspace, self.last_input_at), EndReason.IDLE),
        )
        return min(((at, reason) for at, reason in ends if at), default=None)

    @property
    def warns(self) -> EndReason | None:
        """Why control is about to end, for the last ``WARNING_SECONDS`` before it does."""
        limit = self.limit
        if limit is None or limit[0] - self.now > timedelta(seconds=WARNING_SECONDS):
            return None
        return limit[1]

    def is_held_by(self, user_id: int, client_id: str) -> bool:
        """Whether this user, in this tab, has control."""
        return self.is_held and leasestate.belongs_to(self.lease, user_id, client_id)


def read(workspace_ids: Iterable[int]) -> dict[int, LeaseView]:
    """Read the leases of these workspaces, in three queries. The clock is the database's."""
    ids = list(workspace_ids)
    # Requests first: one that is granted in between is told beside the control that it brought.
    # The other way round, the asker's page would see control come without having asked for it.
    asked = _open_requests(ids)
    rows = list(lease_rows().filter(workspace__in=ids))
    ends = _last_ends(row for row in rows if row.ended_at is None)
    return {
        row.workspace_id: view_of(
            row, ends.get(row.workspace_id), tuple(asked.get(row.workspace_id, ()))
        )
        for row in rows
    }


def read_one(workspace_id: int) -> LeaseView | None:
    """Return the view of one workspace's lease, read now; None if it has been removed."""
    return read([workspace_id]).get(workspace_id)


def _open_requests(workspace_ids: Iterable[int]) -> dict[int, list[ControlRequest]]:
    found: dict[int, list[ControlRequest]] = {}
    rows = ControlRequest.objects.select_related("user").filter(
        workspace__in=list(workspace_ids), ended_at=None
    )
    for request in rows.order_by("id"):
        found.setdefault(request.workspace_id, []).append(request)
    return found


@made_once
def lease_rows() -> QuerySet[DisplayControlLease]:
    """Lease rows with all that is told of them, and the database's time of the read."""
    of_holder = DisplayStream.objects.filter(
        workspace=OuterRef("workspace"), user=OuterRef("holder"), client_id=OuterRef("client_id")
    )
    newest = of_holder.filter(closed_at=None).order_by("-id")
    # Closed streams count as well: who reconnects has not been idle.
    inputs = of_holder.filter(last_input_at__isnull=False).order_by("-last_input_at")
    ends = ControlEvent.objects.filter(workspace=OuterRef("workspace"), ended_epoch__isnull=False)
    rows = DisplayControlLease.objects.select_related("holder", "agent", "workspace")
    return rows.defer(*(f"workspace__{name}" for name in SECRET_FIELDS)).annotate(
        db_now=Now(),
        holder_stamped_at=Subquery(newest.values("stamped_at")[:1]),
        last_input_at=Subquery(inputs.values("last_input_at")[:1]),
        last_end_id=Subquery(ends.order_by("-ended_epoch").values("pk")[:1]),
    )


def view_of(
    row: Any, end: ControlEvent | None, requests: tuple[ControlRequest, ...] = ()
) -> LeaseView:
    """Return the view of one of ``lease_rows``; ``end`` is the newest end if it is held."""
    return LeaseView(
        lease=row,
        now=row.db_now,
        holder_stamped_at=row.holder_stamped_at,
        last_input_at=row.last_input_at,
        last_end=_last_end(row, row.db_now, end),
        requests=requests,
    )


def _last_ends(rows: Iterable[Any]) -> dict[int, ControlEvent]:
    """Return the newest end of each lease that is held: its row tells of its own end only."""
    ids = {row.last_end_id: row.workspace_id for row in rows if row.last_end_id}
    return {ids[event.pk]: event for event in ControlEvent.objects.filter(pk__in=ids)}


def _last_end(
    lease: DisplayControlLease, now: datetime, end: ControlEvent | None
) -> LeaseEnd | None:
    if lease.ended_at:
        return LeaseEnd(lease.ended_reason, lease.ended_by, lease.ended_note, lease.ended_at)
    if lease.controller != Controller.NONE and not leasestate.is_held(lease, now):
        reason = leasestate.expiry_reason(lease, lease.workspace)
        return LeaseEnd(reason, "", "", lease.expires_at)
    return LeaseEnd(end.reason, end.who, end.note, end.at) if end else None
