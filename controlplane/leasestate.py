"""What a lease says at a moment: held, idle, hidden, parked, whose. It is only read here.

``leases.py`` decides by it, under the row's lock; pages, polls and metrics show it. ``now`` is
the database's clock everywhere: a lease ends by time alone, whether somebody has noticed or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import (
    Case,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    IntegerField,
    Max,
    Q,
    QuerySet,
    When,
)
from django.db.models.functions import Cast, Coalesce, Now

from controlplane import access
from controlplane.models import (
    ControlEvent,
    Controller,
    DisplayControlLease,
    DisplayStream,
    EndReason,
    Workspace,
)


def database_now(lease: DisplayControlLease) -> datetime:
    """Return the database's time, by a statement of its own: after the wait for a lock."""
    return _WITH_TIME.get(pk=lease.workspace_id).db_now


# Now() is the time of its own statement: not that of the transaction's start.
_WITH_TIME = Workspace.objects.annotate(db_now=Now()).only("pk")


# --- Whose it is ----------------------------------------------------------------------------------
def is_held(lease: DisplayControlLease, now: datetime) -> bool:
    """Whether somebody has control at ``now``."""
    return lease.ended_at is None and lease.expires_at is not None and lease.expires_at > now


def held() -> QuerySet[DisplayControlLease]:
    """The leases that somebody holds now."""
    return DisplayControlLease.objects.select_related("holder", "workspace").filter(
        ended_at=None, expires_at__gt=Now()
    )


def belongs_to(lease: DisplayControlLease, user_id: int | None, client_id: str) -> bool:
    """Whether the newest epoch is, or was, that of this user in this tab."""
    return user_id is not None and (lease.holder_id, lease.client_id) == (user_id, client_id)


def has_lost_access(lease: DisplayControlLease, logins_ended: frozenset[str] = frozenset()) -> bool:
    """Whether the lease's holder could not acquire it again."""
    # API tokens have no login: the end of one must not be taken for the end of all.
    has_ended = bool(lease.login) and lease.login in logins_ended
    return has_ended or lease in without_access([lease])


def without_access(candidates: Iterable[DisplayControlLease]) -> list[DisplayControlLease]:
    """Return those whose holder could not acquire them again, with one query for all grants."""
    rows = list(candidates)
    holders = {row.holder.pk: row.holder for row in rows if row.holder}
    table = access.permission_table(holders.values(), {row.workspace_id for row in rows})
    return [
        row
        for row in rows
        if row.holder_id not in holders
        or not row.workspace.is_configured
        or not table[row.holder_id, row.workspace_id].control
    ]


def with_agents_gone(candidates: QuerySet[DisplayControlLease]) -> list[DisplayControlLease]:
    """Return those whose agent, which control is to be handed back to, may not have it any more."""
    rows = list(candidates.filter(agent__isnull=False).select_related("agent", "workspace"))
    agents = {row.agent.pk: row.agent for row in rows if row.agent}
    table = access.permission_table(agents.values(), {row.workspace_id for row in rows})
    return [row for row in rows if row.agent and not table[row.agent.pk, row.workspace_id].control]


def end_of(workspace_id: int, epoch: int) -> ControlEvent | None:
    """Return the event with which ``epoch`` ended."""
    return ControlEvent.objects.filter(workspace=workspace_id, ended_epoch=epoch).first()


def is_hidden(lease: DisplayControlLease, now: datetime) -> bool:
    """Whether its holder hides the desktop from watchers: it ends with control, by time alone.

    A server of the version before clears no ``hidden_at``: then it is another holder's.
    """
    if lease.hidden_at is None or lease.acquired_at is None:
        return False
    return is_held(lease, now) and lease.hidden_at >= lease.acquired_at


# --- When it ends ---------------------------------------------------------------------------------
def hold_ends_at(lease: DisplayControlLease, workspace: Workspace) -> datetime | None:
    """Return when the longest hold is over; None where the workspace sets no limit."""
    since = _limits_count_from(lease)
    if workspace.max_hold_seconds is None or since is None:
        return None
    return since + timedelta(seconds=workspace.max_hold_seconds)


def idle_ends_at(
    lease: DisplayControlLease, workspace: Workspace, last_input_at: datetime | None
) -> datetime | None:
    """Return when control ends without any more input; None where the workspace sets no limit."""
    since = _limits_count_from(lease)
    if workspace.idle_seconds is None or since is None:
        return None
    return max(since, last_input_at or since) + timedelta(seconds=workspace.idle_seconds)


def _limits_count_from(lease: DisplayControlLease) -> datetime | None:
    """Return when control was taken, or “Keep control” pressed.

    A server of the version before writes no ``kept_at``: then it is null, or another holder's.
    """
    return max((at for at in (lease.kept_at, lease.acquired_at) if at), default=None)


def expiry_reason(lease: DisplayControlLease, workspace: Workspace) -> EndReason:
    """Return why a lease whose time has run out did so."""
    limit = hold_ends_at(lease, workspace)
    is_limited = limit is not None and lease.expires_at is not None and lease.expires_at >= limit
    return EndReason.MAX_HOLD if is_limited else EndReason.EXPIRED


def overdue(lease: DisplayControlLease, now: datetime) -> EndReason | None:
    """Return the limit that is over; it may have been set, or shortened, meanwhile."""
    limit = hold_ends_at(lease, lease.workspace)
    if limit is not None and limit <= now:
        return EndReason.MAX_HOLD
    if lease.workspace.idle_seconds is not None and _is_idle(lease, now):
        return EndReason.IDLE
    return None


def _is_idle(lease: DisplayControlLease, now: datetime) -> bool:
    """Whether the idle limit is over, and the holder's process, if any, has told of no input since.

    Streams report their input with each poll: one that has not polled since may have had some.
    """
    own = _holders_streams(lease)
    last_input_at = own.aggregate(newest=Max("last_input_at"))["newest"]
    ends_at = idle_ends_at(lease, lease.workspace, last_input_at)
    if ends_at is None or ends_at > now:
        return False
    stream = own.filter(closed_at=None).order_by("-id").first()
    return stream is None or has_reported_since(stream, ends_at, now)


def _holders_streams(lease: DisplayControlLease) -> QuerySet[DisplayStream]:
    """The holder's streams, closed ones too: who reconnects has not been idle."""
    return DisplayStream.objects.filter(
        workspace=lease.workspace_id, user=lease.holder_id, client_id=lease.client_id
    )


def has_reported_since(stream: DisplayStream, moment: datetime, now: datetime) -> bool:
    """Whether all input until ``moment`` is known; of a process that is silent, none comes."""
    is_stale = now - stream.stamped_at > timedelta(seconds=settings.DISPLAY.fence_seconds)
    return is_stale or stream.stamped_at >= moment


# --- Why no agent may have it ---------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Parking:
    """Why no agent may have control: whose control ended how, and when."""

    by: str
    reason: str
    at: datetime

    def is_over(self, workspace: Workspace, now: datetime) -> bool:
        """Whether the workspace is free for agents again, without a person having said so."""
        seconds = workspace.parked_seconds
        return seconds is not None and now - self.at >= timedelta(seconds=seconds)


def parking(lease: DisplayControlLease, now: datetime) -> Parking | None:
    """Return why the workspace is parked at ``now``, also where nobody has noticed the end yet."""
    if is_held(lease, now):
        return None
    found = _recorded_parking(lease) or _lapse_of_a_person(lease)
    return None if found is None or found.is_over(lease.workspace, now) else found


def _recorded_parking(lease: DisplayControlLease) -> Parking | None:
    """A server of the version before clears nothing: then it is that of an earlier holder."""
    at = lease.parked_at
    if at is None or at < (lease.acquired_at or at):
        return None
    return Parking(lease.parked_by, lease.parked_reason, at)


def _lapse_of_a_person(lease: DisplayControlLease) -> Parking | None:
    """An agent waits, and a person's control has run out, which is no consent."""
    if lease.controller != Controller.USER or lease.agent_id is None or lease.expires_at is None:
        return None
    by = access.display_name(lease.holder) if lease.holder else ""
    return Parking(by, expiry_reason(lease, lease.workspace), lease.expires_at)


def waiting_first(workspaces: QuerySet[Workspace]) -> QuerySet[Workspace]:
    """Order by what is waited for: parked ones first, then where an agent asks for a person."""
    is_persons = Q(lease__controller=Controller.USER, lease__agent__isnull=False)
    has_lapsed = is_persons & Q(lease__expires_at__lte=Now())  # and nobody has recorded it
    goes_on = Q(parked_until=None) | Q(parked_until__gt=Now())  # None: until a person says so
    is_parked = (Q(lease__parked_at__isnull=False) | has_lapsed) & goes_on
    rank = Case(When(is_parked, then=0), When(lease__help_at__isnull=False, then=1), default=2)
    return workspaces.alias(parked_until=_PARKED_UNTIL).order_by(rank, "name", "slug")


# SQLite has neither type: Django multiplies an IntegerField only, and adds what is a whole number.
_PARKED_FOR = Cast(Cast("parked_seconds", IntegerField()) * timedelta(seconds=1), DurationField())
_PARKED_UNTIL = ExpressionWrapper(
    Coalesce("lease__parked_at", "lease__expires_at") + _PARKED_FOR, DateTimeField()
)
