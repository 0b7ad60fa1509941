"""The lease of each workspace: the only module that writes lease rows.

Every call is decided in one short transaction under the row's lock, by the database's clock, and
writes the row and its event together. Nothing is decided on what was read before.

    free  → held           acquire by anybody with the control permission       epoch + 1
    held  → held           acquire again, or renew, by the same holder          same epoch
    agent → user           a person always wins over an agent (preempted)       epoch + 1
    held  → held (moved)   same user and kind, other client_id, ``move``        epoch + 1
    held  → held           handed over to somebody who has asked for it         epoch + 1
    held  → free           released, expired, idle, max_hold, forced, access_ended
    held  → parked         a person's end other than by their own release, where an agent waits
    parked → free          handed back, or freed; for a person it is free anyway
    expired → held         renewed in time, and nobody has held since (resumed) epoch + 1

Expiry is a fact about time: nothing has to run for it to be true. Whoever notices records it. So is
the longest hold, for no lease is extended beyond it. A closed lease can be had by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from controlplane import access, events
from controlplane.exceptions import ControlForbidden, ControlRefused
from controlplane.leasestate import (
    belongs_to,
    end_of,
    expiry_reason,
    has_lost_access,
    hold_ends_at,
    is_held,
    overdue,
    parking,
)
from controlplane.models import (
    LIMITS,
    ControlEvent,
    Controller,
    DisplayControlLease,
    EndReason,
    HandBack,
    Workspace,
)
from controlplane.statements import Select, Update

What = ControlEvent.What


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks: a user in one browser tab, or one agent process. ``login`` see access.login_id."""

    user: User
    client_id: str
    kind: Controller = Controller.USER
    login: str = ""
    ip: str | None = None

    @property
    def name(self) -> str:
        """How others see the holder."""
        return access.display_name(self.user)


@dataclass(slots=True)
class _Case:
    """One lease under its lock: the row, the time, and what is being decided."""

    lease: DisplayControlLease
    now: datetime
    before: dict[str, Any]
    is_changed: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_held(self) -> bool:
        return is_held(self.lease, self.now)


# --- What callers ask for -------------------------------------------------------------------------
def acquire(
    workspace: Workspace,
    holder: Holder,
    *,
    ttl: float,
    epoch: int | None = None,
    move: bool = False,
) -> DisplayControlLease:
    """Take control for ``ttl`` seconds, or renew it where ``epoch`` is given.

    Without ``epoch`` it is a deliberate click. Raises ControlForbidden, or ControlRefused with
    ``held``, ``held_elsewhere``, ``display_not_enabled``, ``closed``, to an agent
    ``human_in_control`` and ``parked``, or for renewals why that epoch ended.
    """

    def decide(case: _Case) -> None:
        _check_permission(case, holder)
        if epoch is None:
            _take(case, holder, ttl, move)
        else:
            _renew(case, holder, ttl, epoch)

    return _decide(workspace, holder, decide)


def release(
    workspace: Workspace, holder: Holder, *, epoch: int | None = None
) -> DisplayControlLease:
    """Give control back. Harmless where nothing is held or ``epoch`` is over already.

    Raises ControlRefused (``held``, ``held_elsewhere``) where another holder has control.
    """

    def decide(case: _Case) -> None:
        is_over = epoch is not None and epoch != case.lease.epoch
        if not case.is_held or is_over:
            return
        if not _is_holder(case.lease, holder):
            raise ControlRefused(_held_code(case.lease, holder))
        _end(case, EndReason.RELEASED, by=holder.name, ip=holder.ip)

    return _decide(workspace, holder, decide)


def hand_back(
    workspace: Workspace,
    person: Holder,
    outcome: HandBack,
    *,
    note: str = "",
    epoch: int | None = None,
) -> DisplayControlLease:
    """Give control, or a parked desktop, back to the agent that waits for it, with the outcome.

    It answers the agent's request for a person as well. Raises ControlForbidden where the person
    may not control, and ControlRefused (``held``, ``held_elsewhere``) where another holder has
    control, or ``nothing_to_hand_back`` where no agent waits.
    """

    def decide(case: _Case) -> None:
        lease = case.lease
        if case.is_held and not _is_holder(lease, person):
            raise ControlRefused(_held_code(lease, person))
        if epoch is not None and epoch != lease.epoch:
            return
        if lease.agent_id is None:
            raise ControlRefused("nothing_to_hand_back")
        if case.is_held:
            _end(case, EndReason.RELEASED, by=person.name, note=note, ip=person.ip)
        else:
            _check_permission(case, person)
        lease.handed_back_at, lease.handed_back_epoch = case.now, lease.epoch
        lease.handed_back_by, lease.handed_back_outcome = person.name, outcome
        lease.handed_back_note = note
        _clear_parking(lease)
        _clear_help(lease)
        case.is_changed = True
        _note_by(case, person, What.HANDED_BACK, outcome, note=note)

    return _decide(workspace, person, decide)


def ask_for_help(workspace: Workspace, agent: Holder, reason: str) -> DisplayControlLease:
    """Ask for a person; asking again changes the reason. Raises ControlRefused.

    Of several agents the last counts: it is to this one that control is handed back, whichever
    agent has control meanwhile.
    """

    def decide(case: _Case) -> None:
        _check_permission(case, agent)
        lease = case.lease
        if lease.help_at and (lease.agent_id, lease.help_reason) == (agent.user.pk, reason):
            return
        lease.agent = agent.user
        lease.help_at, lease.help_reason = case.now, reason
        case.is_changed = True
        _note_by(case, agent, What.HELP_ASKED, "", note=reason)

    return _decide(workspace, agent, decide)


def withdraw_help(workspace: Workspace, agent: Holder) -> DisplayControlLease:
    """Need no person any more; harmless where this agent has not asked."""

    def decide(case: _Case) -> None:
        if case.lease.help_at is None or case.lease.agent_id != agent.user.pk:
            return
        _clear_help(case.lease)
        if _is_an_agents(case):
            case.lease.agent = case.lease.holder
        case.is_changed = True
        _note_by(case, agent, What.HELP_WITHDRAWN, "")

    return _decide(workspace, agent, decide)


def free(workspace: Workspace, *, by: str, ip: str | None = None) -> bool:
    """Let agents have a parked desktop; return whether it was parked. The caller checks permission.

    Nothing is handed back: an agent learns only that it may acquire.
    """
    with _deciding(workspace) as case:
        if parking(case.lease, case.now) is None:
            return False
        _clear_parking(case.lease)
        case.is_changed = True
        _note(case, What.FREED, who=by, ip=ip)
    return True


def keep(workspace: Workspace, holder: Holder, *, epoch: int, ttl: float) -> DisplayControlLease:
    """Answer a warning: idle time and the longest hold count from now on anew.

    Raises ControlRefused, as a renewal does, where ``epoch`` is not, or no longer, this holder's.
    """

    def decide(case: _Case) -> None:
        _check_holds(case, holder, epoch)
        _check_permission(case, holder)  # it extends the lease, as a renewal does
        case.lease.kept_at = case.now
        _extend(case, holder, ttl)
        _note_by(case, holder, What.KEPT, "")

    return _decide(workspace, holder, decide)


def hide(workspace: Workspace, holder: Holder, *, epoch: int, hidden: bool) -> DisplayControlLease:
    """Let nobody but the holder see the desktop until ``epoch`` ends, or let all see it again.

    Only what the holder's own tab has on its screen is exempt. Raises ControlRefused, as a renewal
    does, where ``epoch`` is not, or no longer, this holder's.
    """

    def decide(case: _Case) -> None:
        _check_holds(case, holder, epoch)
        _check_permission(case, holder)
        if hidden == (case.lease.hidden_at is not None):
            return
        case.lease.hidden_at = case.now if hidden else None
        case.is_changed = True
        _note_by(case, holder, What.HIDDEN if hidden else What.SHOWN, "")

    return _decide(workspace, holder, decide)


def check_holder(workspace: Workspace, holder: Holder, *, epoch: int) -> None:
    """Raise ControlRefused, as a renewal would, where ``epoch`` is not this holder's any more."""
    _decide(workspace, holder, lambda case: _check_holds(case, holder, epoch))


def hand_over(
    workspace: Workspace, holder: Holder | None, to: Holder, *, epoch: int, ttl: float
) -> bool:
    """Give control of ``epoch`` to whoever asked for it, in one write; return whether it was done.

    ``holder`` is who gives it; None where nobody is asked any more (handovers.py). It is not done
    where that epoch is over or another's, where ``to`` has it already, or may not control (any
    more).
    """
    with _deciding(workspace) as case:
        is_current = case.is_held and epoch == case.lease.epoch and not _is_holder(case.lease, to)
        if not is_current or not (holder is None or _is_holder(case.lease, holder)):
            return False
        try:
            _check_permission(case, to)
        except ControlRefused:
            return False
        _replace(case, to, ttl, What.HANDED_OVER)
    return True


def end_overdue(workspace: Workspace) -> None:
    """Record what time alone has ended: an expiry, the longest hold, the idle limit."""
    with _deciding(workspace):
        pass  # it notices by itself


@dataclass(frozen=True, slots=True)
class Closing:
    """Whether a call has closed the workspace, and the lease that it ended, if anybody held it."""

    is_closed: bool
    ended: DisplayControlLease | None = None


def close(
    workspace: Workspace, *, by: str, note: str, ip: str | None = None, epoch: int | None = None
) -> Closing:
    """End whoever's control it is, and let nobody have it until ``open_again``.

    Nothing is done where ``epoch`` is not the newest. The caller checks permission.
    """
    if not note.strip():
        raise ValueError("close: say why in a note")
    with _deciding(workspace) as case:
        lease, was_held = case.lease, case.is_held
        if epoch is not None and epoch != lease.epoch:
            return Closing(is_closed=False)
        if was_held:
            _end(case, EndReason.FORCED, by=by, note=note.strip(), ip=ip)
        lease.closed_at, lease.closed_by, lease.closed_note = case.now, by, note.strip()
        case.is_changed = True
        _note(case, What.CLOSED, who=by, note=note.strip(), ip=ip)
    return Closing(is_closed=True, ended=lease if was_held else None)


def open_again(workspace: Workspace, *, by: str, ip: str | None = None) -> bool:
    """Let control be had again; return whether it was closed. The caller checks permission."""
    with _deciding(workspace) as case:
        lease = case.lease
        if lease.closed_at is None:
            return False
        lease.closed_at, lease.closed_by, lease.closed_note = None, "", ""
        case.is_changed = True
        _note(case, What.OPENED, who=by, ip=ip)
    return True


def force_release(
    workspace: Workspace, *, by: str, note: str, ip: str | None = None, epoch: int | None = None
) -> DisplayControlLease | None:
    """End whoever's control it is; return the lease that has ended, None where nobody held it.

    Nothing is done where ``epoch`` is not the newest. The caller checks permission.
    """
    if not note.strip():
        raise ValueError("force_release: say why in a note")
    with _deciding(workspace) as case:
        if not case.is_held or (epoch is not None and epoch != case.lease.epoch):
            return None
        _end(case, EndReason.FORCED, by=by, note=note.strip(), ip=ip)
    return case.lease


def end_lost_access(
    leases: Iterable[DisplayControlLease],
    *,
    logins_ended: frozenset[str] = frozenset(),
    by: str = "",
) -> int:
    """End those leases whose holder may no longer control, or whose login has ended.

    ``leases`` only names candidates: each is decided anew under its lock, and one that has been
    removed meanwhile is passed over. Returns how many ended.
    """
    ended = 0
    for candidate in sorted(leases, key=lambda lease: lease.pk):
        with suppress(DisplayControlLease.DoesNotExist), _deciding(candidate.workspace) as case:
            if case.is_held and has_lost_access(case.lease, logins_ended):
                _end(case, EndReason.ACCESS_ENDED, by=by)
                ended += 1
    return ended


def forget_agents(leases: Iterable[DisplayControlLease]) -> None:
    """Where the agent may not control any more, hand nothing back to it, nor answer what it asks.

    ``leases`` only names candidates, as above. One that has control still is left alone: that ends
    first. What is parked stays so: it is not for this agent alone that a person has to consent.
    """
    for candidate in sorted(leases, key=lambda lease: lease.pk):
        with suppress(DisplayControlLease.DoesNotExist), _deciding(candidate.workspace) as case:
            agent = case.lease.agent
            if agent is None or (_is_an_agents(case) and case.lease.holder_id == agent.pk):
                continue
            if not access.permissions_now(agent.pk, candidate.workspace_id).control:
                _forget_agent(case, access.display_name(agent))


# --- Deciding -------------------------------------------------------------------------------------
def _decide(
    workspace: Workspace, holder: Holder, decide: Callable[[_Case], None]
) -> DisplayControlLease:
    """Decide what is asked for; a refusal is counted with it, and raised after the commit."""
    refusal: ControlRefused | None = None
    with _deciding(workspace) as case:
        try:
            decide(case)
        except ControlRefused as error:
            refusal = error
            _note_refusal(case, holder, error.code)
    if refusal:
        raise refusal
    return case.lease


@contextmanager
def _deciding(workspace: Workspace) -> Iterator[_Case]:
    """Lock the row, read clock and workspace after the wait, record an expiry; write at the end."""
    with transaction.atomic():
        lease = _LOCKED_LEASE.get(workspace.pk)
        fresh = _FRESH_WORKSPACE.get(workspace.pk)
        lease.workspace = fresh
        case = _Case(lease, fresh.db_now, _values(lease))
        _notice_end(case)
        yield case
        _write(case)


# Now() is the time of its own statement: after the lock, not at the transaction's start.
_FRESH = Workspace.objects.annotate(db_now=Now()).only(
    *("slug", "name", "enabled", "upstream_url", "accepts_clipboard", *LIMITS),
)
_FRESH_WORKSPACE: Select[Any] = Select(lambda pk: _FRESH.filter(pk=pk))
_LOCKED_LEASE = Select(
    lambda pk: DisplayControlLease.objects.select_for_update().filter(workspace=pk)
)


def _write(case: _Case) -> None:
    lease = case.lease
    if case.is_changed:
        _update(case)
    for record in case.records:
        events.record(lease.workspace, at=case.now, **record)
    for refusal in case.refusals:
        events.record_refusal(lease.workspace, at=case.now, epoch=lease.epoch, **refusal)
    happened = {record["what"] for record in case.records}
    if happened - _LEAVES_CONTROL:
        events.announce(lease.workspace_id, lease.version)
    elif happened:
        events.announce_look(lease.workspace_id)


# Whoever has control still has it: no gate needs to be shut before the next look.
_LEAVES_CONTROL = {
    *(What.KEPT, What.OPENED, What.HIDDEN, What.SHOWN),
    *(What.HELP_ASKED, What.HELP_WITHDRAWN, What.HANDED_BACK, What.FREED),
}


_WRITTEN = [
    each.attname
    for each in DisplayControlLease._meta.concrete_fields
    if each.name not in {"id", "workspace"}
]


_WRITE_LEASE = Update(DisplayControlLease)


def _values(lease: DisplayControlLease) -> dict[str, Any]:
    return {name: getattr(lease, name) for name in _WRITTEN}


def _update(case: _Case) -> None:
    lease = case.lease
    read_version, lease.version = lease.version, lease.version + 1
    values = {k: value for k, value in _values(lease).items() if value != case.before[k]}
    # The lock makes a second writer impossible; if it ever fails us, nothing must be overwritten.
    if _WRITE_LEASE(lease.pk, read_version, values) != 1:
        raise RuntimeError(f"lease of {lease.workspace.slug}: written by another under our lock")


def _check_permission(case: _Case, holder: Holder) -> None:
    # Read anew: the account may have been disabled since the request was let in.
    if not access.permissions_now(holder.user.pk, case.lease.workspace_id).control:
        raise ControlForbidden
    if not case.lease.workspace.is_configured:
        raise ControlRefused("display_not_enabled")


def _check_open(case: _Case) -> None:
    if case.lease.closed_at is not None:
        raise ControlRefused("closed", case.lease.closed_by)


def _check_holds(case: _Case, holder: Holder, epoch: int) -> None:
    if not _holds(case, holder, epoch):
        raise _why_ended(case, holder, epoch)


def _take(case: _Case, holder: Holder, ttl: float, move: bool) -> None:
    lease = case.lease
    _check_open(case)
    if not case.is_held:
        _check_not_parked(case, holder)
        return _start(case, holder, ttl, What.ACQUIRED)
    if _is_holder(lease, holder):
        return _extend(case, holder, ttl)
    if lease.controller == Controller.AGENT and holder.kind == Controller.USER:
        return _replace(case, holder, ttl, What.PREEMPTED)
    if move and _held_code(lease, holder) == "held_elsewhere":
        return _replace(case, holder, ttl, What.MOVED)
    if holder.kind == Controller.AGENT and lease.controller == Controller.USER:
        raise ControlRefused("human_in_control")
    raise ControlRefused(_held_code(lease, holder))


def _check_not_parked(case: _Case, holder: Holder) -> None:
    """A lease that has lapsed is no consent: an agent waits until a person has said so."""
    parked = parking(case.lease, case.now) if holder.kind == Controller.AGENT else None
    if parked:
        raise ControlRefused("parked", parked.by)


def _renew(case: _Case, holder: Holder, ttl: float, epoch: int) -> None:
    lease = case.lease
    epoch = _resumed_as(lease, epoch)
    if epoch == lease.epoch and belongs_to(lease, holder.user.pk, holder.client_id):
        if case.is_held and lease.controller == holder.kind:
            return _extend(case, holder, ttl)
        if _may_resume(case):
            _check_open(case)
            return _start(case, holder, ttl, What.RESUMED, resumes=True)
    raise _why_ended(case, holder, epoch)


def _may_resume(case: _Case) -> bool:
    lease = case.lease
    if lease.ended_reason != EndReason.EXPIRED or lease.expires_at is None:
        return False
    if overdue(lease, case.now):  # limits go on counting: it would end as soon as it resumes
        return False
    return case.now - lease.expires_at <= timedelta(seconds=settings.DISPLAY.resume_seconds)


def _resumed_as(lease: DisplayControlLease, epoch: int) -> int:
    """Return the epoch in which ``epoch`` lives on: a resumption's answer may have been lost."""
    if epoch == lease.epoch:
        return epoch
    resumptions = ControlEvent.objects.filter(
        workspace=lease.workspace_id, what=What.RESUMED, epoch__gt=epoch
    )
    for resumed in resumptions.order_by("epoch").values_list("epoch", flat=True):
        if resumed != epoch + 1:
            break
        epoch = resumed
    return epoch


def _why_ended(case: _Case, holder: Holder, epoch: int) -> ControlRefused:
    """Return the reason for which ``epoch`` is not, or no longer, this holder's."""
    lease = case.lease
    if epoch == lease.epoch and case.is_held:
        return ControlRefused(_held_code(lease, holder))
    if epoch == lease.epoch and lease.ended_reason:  # perhaps just now: without an event yet
        return ControlRefused(lease.ended_reason, lease.ended_by)
    # An epoch that never was has no end.
    ended = end_of(lease.workspace_id, epoch)
    if ended and ended.reason != EndReason.EXPIRED:
        return ControlRefused(ended.reason, ended.who)
    return ControlRefused("taken" if lease.epoch > epoch else EndReason.EXPIRED)


def _is_holder(lease: DisplayControlLease, holder: Holder) -> bool:
    is_same = belongs_to(lease, holder.user.pk, holder.client_id)
    return is_same and lease.controller == holder.kind


def _is_an_agents(case: _Case) -> bool:
    return case.is_held and case.lease.controller == Controller.AGENT


def _holds(case: _Case, holder: Holder, epoch: int) -> bool:
    return case.is_held and epoch == case.lease.epoch and _is_holder(case.lease, holder)


def _held_code(lease: DisplayControlLease, holder: Holder) -> str:
    is_own = lease.holder_id == holder.user.pk and lease.controller == holder.kind
    return "held_elsewhere" if is_own else "held"


# --- Changing the row, in memory; _deciding writes it ---------------------------------------------
def _extend(case: _Case, holder: Holder, ttl: float) -> None:
    lease = case.lease
    case.is_changed = True
    lease.login = holder.login  # they may have signed in anew: it is this one's end that counts
    assert lease.expires_at is not None
    lease.expires_at = _within_limit(case, max(lease.expires_at, _after(case, ttl)))
    lease.renewed_at = case.now
    lease.renewals += 1


def _after(case: _Case, ttl: float) -> datetime:
    return case.now + timedelta(seconds=ttl)


def _within_limit(case: _Case, end: datetime) -> datetime:
    """No lease outlasts the longest hold, so nothing has to run to end it then."""
    limit = hold_ends_at(case.lease, case.lease.workspace)
    return min(end, limit) if limit else end


def _replace(case: _Case, holder: Holder, ttl: float, what: What) -> None:
    """Another holder takes over without a moment in between: one transition, one event."""
    _start(case, holder, ttl, what, ended_epoch=case.lease.epoch)


def _start(
    case: _Case,
    holder: Holder,
    ttl: float,
    what: What,
    *,
    resumes: bool = False,
    ended_epoch: int | None = None,
) -> None:
    lease = case.lease
    case.is_changed = True
    lease.epoch += 1
    lease.controller = holder.kind
    lease.holder = holder.user
    lease.client_id = holder.client_id
    lease.login = holder.login
    if not resumes:
        lease.acquired_at = lease.kept_at = case.now
    lease.renewed_at = case.now
    lease.expires_at = _within_limit(case, _after(case, ttl))
    lease.ended_at = lease.hidden_at = None
    lease.ended_reason = lease.ended_by = lease.ended_note = ""
    _clear_parking(lease)
    if holder.kind == Controller.USER:
        _clear_handed_back(lease)
    elif lease.help_at is None:
        lease.agent = holder.user
    _note_by(case, holder, what, what if ended_epoch is not None else "", ended_epoch=ended_epoch)


def _clear_parking(lease: DisplayControlLease) -> None:
    lease.parked_at, lease.parked_by, lease.parked_reason = None, "", ""


def _clear_help(lease: DisplayControlLease) -> None:
    lease.help_at, lease.help_reason = None, ""


def _forget_agent(case: _Case, name: str) -> None:
    lease = case.lease
    case.is_changed = True
    if lease.help_at:
        _note(case, What.HELP_WITHDRAWN, who=name, reason=EndReason.ACCESS_ENDED)
    _clear_help(lease)
    lease.agent = lease.holder if _is_an_agents(case) else None


def _clear_handed_back(lease: DisplayControlLease) -> None:
    lease.handed_back_at = lease.handed_back_epoch = None
    lease.handed_back_by = lease.handed_back_outcome = lease.handed_back_note = ""


def _end(case: _Case, reason: EndReason, *, by: str, note: str = "", ip: str | None = None) -> None:
    lease = case.lease
    ended = lease.controller
    case.is_changed = True
    lease.ended_at = case.now if case.is_held else lease.expires_at
    lease.ended_reason, lease.ended_by, lease.ended_note = reason, by, note
    lease.controller, lease.hidden_at = Controller.NONE, None
    _note(
        case,
        What(reason),
        who=by,
        client_id=lease.client_id,
        ended_epoch=lease.epoch,
        reason=reason,
        note=note,
        ip=ip,
    )
    is_release = reason == EndReason.RELEASED
    if ended == Controller.AGENT and is_release and lease.agent_id == lease.holder_id:
        lease.agent = None  # else another one has asked for a person, and waits on
        _clear_help(lease)
    if ended == Controller.USER and not is_release and lease.agent_id is not None:
        _park(case, reason)


def _park(case: _Case, reason: EndReason) -> None:
    """Its agent goes on only when a person has said so: control that was lost is no consent."""
    lease = case.lease
    lease.parked_at, lease.parked_reason = lease.ended_at, reason
    lease.parked_by = access.display_name(lease.holder) if lease.holder else ""
    _note(case, What.PARKED, who=lease.parked_by, reason=reason)


def _notice_end(case: _Case) -> None:
    """Record what time alone has ended."""
    lease = case.lease
    if lease.controller == Controller.NONE:
        return
    if not case.is_held:
        _end(case, expiry_reason(lease, lease.workspace), by="")
    elif reason := overdue(case.lease, case.now):
        _end(case, reason, by="")


def _note_refusal(case: _Case, holder: Holder, code: str) -> None:
    case.refusals.append(
        {"who": holder.name, "client_id": holder.client_id, "reason": code, "ip": holder.ip}
    )


def _note_by(case: _Case, holder: Holder, what: What, reason: str, **more: Any) -> None:
    by = {"who": holder.name, "client_id": holder.client_id, "ip": holder.ip}
    _note(case, what, reason=reason, **by, **more)


def _note(case: _Case, what: What, **more: Any) -> None:
    """Record an event with the change, by the epoch that the row has now."""
    case.records.append({"what": what, "epoch": case.lease.epoch, **more})
