"""What the API and the streams tell about displays and control (design §6: Display, Control).

Nothing here names a client_id: it would be a capability in another's hands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from controlplane import access, leasestate, streamrows
from controlplane.models import (
    SECRET_FIELDS,
    ControlEvent,
    Controller,
    ControlRequest,
    DisplayControlLease,
    DisplayStatus,
    DisplayStream,
    EndReason,
    Workspace,
)
from controlplane.statements import made_once

WARNING_SECONDS = 30.0  # before control ends by a limit

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is told: ``yours``, ``this_client`` and ``can`` depend on it."""

    user: User
    client_id: str
    can: access.Permissions


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as one read saw it, with all that Control tells beside the row."""

    lease: DisplayControlLease
    now: datetime
    holder_stamped_at: datetime | None
    last_input_at: datetime | None
    last_end: Json | None
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


def _open_requests(workspace_ids: Iterable[int]) -> dict[int, list[ControlRequest]]:
    found: dict[int, list[ControlRequest]] = {}
    rows = ControlRequest.objects.select_related("user").filter(
        workspace__in=list(workspace_ids), ended_at=None
    )
    for request in rows.order_by("id"):
        found.setdefault(request.workspace_id, []).append(request)
    return found


def read_one(workspace_id: int) -> LeaseView | None:
    """Return the view of one workspace's lease, read now; None if it has been removed."""
    return read([workspace_id]).get(workspace_id)


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


def _last_end(lease: DisplayControlLease, now: datetime, end: ControlEvent | None) -> Json | None:
    if lease.ended_at:
        return _end(lease.ended_reason, lease.ended_by, lease.ended_note, lease.ended_at)
    if lease.controller != Controller.NONE and not leasestate.is_held(lease, now):
        return _end(leasestate.expiry_reason(lease, lease.workspace), "", "", lease.expires_at)
    return _end(end.reason, end.who, end.note, end.at) if end else None


def _end(reason: str, by: str, note: str, at: datetime | None) -> Json:
    return {"reason": str(reason), "by": by or None, "note": note or None, "at": iso(at)}


def control(view: LeaseView, viewer: Viewer) -> Json:
    """Return Control (design §6) as ``viewer`` may see it."""
    lease, is_held = view.lease, view.is_held
    return {
        "controller": str(lease.controller) if is_held else "none",
        "controlled_by": holder_name(lease) if is_held else None,
        "yours": is_held and lease.holder_id == viewer.user.pk,
        "this_client": view.is_held_by(viewer.user.pk, viewer.client_id),
        "epoch": lease.epoch,
        "version": lease.version,
        "acquired_at": iso(lease.acquired_at) if is_held else None,
        "expires_at": iso(lease.expires_at) if is_held else None,
        "server_time": iso(view.now),
        "holder_connected": view.is_holder_connected if is_held else None,
        "last_input_at": iso(view.last_input_at) if is_held else None,
        "last_end": view.last_end,
        "ends": _limit(view),
        "hidden": {"at": iso(lease.hidden_at)} if view.is_hidden else None,
        "accepts_clipboard": lease.workspace.accepts_clipboard,
        "closed": _closed(lease),
        "agent": access.display_name(lease.agent) if lease.agent else None,
        "help": _help(lease),
        "parked": _parked(view),
        "handed_back": _handed_back(lease),
        "requests": [_request(each, view, viewer) for each in view.requests] if is_held else [],
        "can": {
            "observe": viewer.can.observe,
            "control": viewer.can.control,
            "force": viewer.can.force,
        },
    }


def _limit(view: LeaseView) -> Json | None:
    limit = view.limit
    return {"reason": str(limit[1]), "at": iso(limit[0])} if limit else None


def _closed(lease: DisplayControlLease) -> Json | None:
    if lease.closed_at is None:
        return None
    return {"by": lease.closed_by or None, "note": lease.closed_note, "at": iso(lease.closed_at)}


def _help(lease: DisplayControlLease) -> Json | None:
    if lease.help_at is None:
        return None
    by = access.display_name(lease.agent) if lease.agent else None
    return {"by": by, "reason": lease.help_reason, "at": iso(lease.help_at)}


def _parked(view: LeaseView) -> Json | None:
    parked = leasestate.parking(view.lease, view.now)
    if parked is None:
        return None
    return {"by": parked.by or None, "reason": str(parked.reason), "at": iso(parked.at)}


def _handed_back(lease: DisplayControlLease) -> Json | None:
    if lease.handed_back_at is None:
        return None
    return {
        "epoch": lease.handed_back_epoch,
        "outcome": lease.handed_back_outcome,
        "by": lease.handed_back_by or None,
        "note": lease.handed_back_note,
        "at": iso(lease.handed_back_at),
    }


def _request(request: ControlRequest, view: LeaseView, viewer: Viewer) -> Json:
    return {
        "id": request.pk,
        "by": access.display_name(request.user),
        "message": request.message,
        "yours": request.user_id == viewer.user.pk,
        "this_client": (request.user_id, request.client_id) == (viewer.user.pk, viewer.client_id),
        "asked_at": iso(request.asked_at),
        "granted_at": iso(request.granted_at),
    }


def holder_name(lease: DisplayControlLease) -> str:
    """Return how others see the holder of the newest epoch."""
    return access.display_name(lease.holder) if lease.holder else "a deleted account"


def why_hidden(view: LeaseView) -> str:
    """Say to a watcher who hides the desktop."""
    return f"{holder_name(view.lease)} hides this desktop from watchers."


def state(view: LeaseView) -> str:
    """Return ``free`` (never held), ``held``, ``closed``, ``expired`` or ``ended: <reason>``."""
    lease = view.lease
    if view.is_held:
        return "held"
    if lease.closed_at:
        return "closed"
    if lease.ended_at and lease.ended_reason != EndReason.EXPIRED:
        return f"ended: {lease.ended_reason}"
    return "expired" if lease.expires_at else "free"


def display(workspace: Workspace) -> Json:
    """Return Display (design §6): what the last connection or check found."""
    is_ready = workspace.is_configured
    status = workspace.display_status if is_ready else "not_configured"
    reason = None if is_ready else "display_not_enabled"
    if status == DisplayStatus.UNREACHABLE:
        reason = "display_unreachable"
    return {
        "available": reason is None,
        "reason": reason,
        "protocol": "vnc",
        "status": str(status),
        "width": workspace.display_width,
        "height": workspace.display_height,
        "checked_at": iso(workspace.display_checked_at),
    }


def iso(at: datetime | None) -> str | None:
    """Return a time as the API writes it: ISO 8601, UTC, milliseconds."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
