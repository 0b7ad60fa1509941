"""What the API and the streams tell about displays and control (design §6: Display, Control).

Nothing here names a client_id: it would be a capability in another's hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User

from controlplane import access, leasestate
from controlplane.leaseviews import LeaseView
from controlplane.models import (
    ControlRequest,
    DisplayControlLease,
    DisplayStatus,
    EndReason,
    Workspace,
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is told: ``yours``, ``this_client`` and ``can`` depend on it."""

    user: User
    client_id: str
    can: access.Permissions


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
        "last_end": _last_end(view),
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


def _last_end(view: LeaseView) -> Json | None:
    end = view.last_end
    if end is None:
        return None
    return {
        "reason": str(end.reason),
        "by": end.by or None,
        "note": end.note or None,
        "at": iso(end.at),
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
