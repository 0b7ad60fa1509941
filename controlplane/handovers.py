"""Asking the holder for control, and what becomes of it.

    open → granted     the holder hands over; or is idle or away, and lets the countdown pass
         → declined    the holder keeps control, or does not answer in time
         → withdrawn   the asker takes it back, leaves, or may no longer control; or control ended

Only people ask: an agent is refused, never queued. A hand-over is decided under the lease's lock.
What time brings about is settled by housekeeping.py, in whichever process comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from controlplane import access, events, leases, leaseviews, presenters, streamrows
from controlplane.exceptions import ControlRefused, TooManyRequests, WorkspaceNotFound
from controlplane.leases import Holder
from controlplane.leaseviews import LeaseView
from controlplane.models import (
    ControlEvent,
    Controller,
    ControlRequest,
    DisplayStream,
    Workspace,
)

Outcome = ControlRequest.Outcome
What = ControlEvent.What

# A page that is reloaded has withdrawn, and asks again.
_REST_SECONDS = {Outcome.DECLINED: 30, Outcome.WITHDRAWN: 3}
LEFT_AFTER_SECONDS = 10.0  # without a stream, an asker who had one is taken to have left

CONTROL_ENDED = "control_ended"
UNANSWERED = "unanswered"


# --- What callers ask for -------------------------------------------------------------------------
def ask(workspace: Workspace, asker: Holder, message: str) -> None:
    """Ask the holder for control. Asking again changes the message and the tab that will get it.

    The caller checks permission. Raises ControlRefused ``not_needed`` where control can simply be
    taken or is the asker's, TooManyRequests soon after a request of theirs has ended, and
    WorkspaceNotFound.
    """
    view = _view(workspace)
    lease = view.lease
    is_anothers = view.is_held and lease.holder_id != asker.user.pk
    if not is_anothers or lease.controller != Controller.USER:
        raise ControlRefused("not_needed")
    with transaction.atomic():
        if not _change_open(workspace, asker, message):
            _rest(workspace, asker.user, view.now)
            _open(workspace, asker, message, lease.epoch)
    events.announce_look(workspace.pk)


def _change_open(workspace: Workspace, asker: Holder, message: str) -> bool:
    own = _open_requests(workspace).filter(user=asker.user)
    changed = own.update(client_id=asker.client_id, login=asker.login, message=message)
    return bool(changed)


def _rest(workspace: Workspace, user: User, now: datetime) -> None:
    """Nobody is asked again and again: there is a rest after each request that led to nothing."""
    ended = ControlRequest.objects.filter(workspace=workspace, user=user, outcome__in=_REST_SECONDS)
    newest = ended.order_by("-ended_at").first()
    if newest is None or newest.ended_at is None:
        return
    rest = _REST_SECONDS[Outcome(newest.outcome)]
    left = ceil(rest - (now - newest.ended_at).total_seconds())
    if left > 0:
        raise TooManyRequests(left, f"You can ask again in {left} s.", "asked_lately")


def _open(workspace: Workspace, asker: Holder, message: str, epoch: int) -> None:
    try:
        with transaction.atomic():
            ControlRequest.objects.create(
                workspace=workspace,
                user=asker.user,
                client_id=asker.client_id,
                login=asker.login,
                message=message,
            )
    except IntegrityError:  # another tab of theirs was faster: it is the same request
        _change_open(workspace, asker, message)
        return
    events.record(
        workspace,
        What.REQUESTED,
        at=Now(),
        epoch=epoch,
        who=asker.name,
        client_id=asker.client_id,
        note=message,
        ip=asker.ip,
    )


def answer(
    workspace: Workspace, holder: Holder, request_id: int, *, epoch: int, accept: bool, ttl: float
) -> None:
    """Hand control over to the person who asked, or keep it.

    Raises ControlRefused ``not_asked`` where that request is no longer open, and as a renewal does
    where control is not, or no longer, this holder's.
    """
    request = _open_requests(workspace).select_related("user").filter(pk=request_id).first()
    if request is None:
        raise ControlRefused("not_asked")
    leases.check_holder(workspace, holder, epoch=epoch)
    if accept:
        if not _grant(request, epoch=epoch, ttl=ttl, holder=holder):
            raise ControlRefused("not_asked")
    else:
        _end(request, Outcome.DECLINED, epoch=epoch, who=holder.name)


def withdraw(workspace: Workspace, user: User, client_id: str) -> None:
    """Take one's own request back; harmless where there is none."""
    own = _open_requests(workspace).filter(user=user, client_id=client_id).first()
    if own:
        _end(own, Outcome.WITHDRAWN, epoch=_epoch(workspace), who=access.display_name(user))


def withdraw_all(**condition: Any) -> None:
    """Take back the open requests of people who may not get control any more, as by ``login``."""
    for request in ControlRequest.objects.filter(ended_at=None, **condition):
        _end(request, Outcome.WITHDRAWN, epoch=_epoch(request.workspace), who=_asker(request))


def _asker(request: ControlRequest) -> str:
    return access.display_name(request.user)


# --- What time brings about -----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Holding:
    """How active the holder is."""

    view: LeaseView

    @property
    def active_at(self) -> datetime | None:
        moments = (self.view.lease.kept_at, self.view.last_input_at)
        return max((moment for moment in moments if moment), default=None)

    @property
    def is_idle_or_away(self) -> bool:
        if not self.view.is_holder_connected or self.active_at is None:
            return True
        idle = (self.view.now - self.active_at).total_seconds()
        return idle >= settings.DISPLAY.request_idle_seconds

    def has_let_pass(self, moment: datetime) -> bool:
        """Whether no input until ``moment`` is certain: streams report theirs with each poll."""
        if moment > self.view.now:
            return False
        stamped = self.view.holder_stamped_at
        return not self.view.is_holder_connected or (stamped is not None and stamped >= moment)


def settle(workspace_id: int) -> None:
    """Do what is due with the open requests of a workspace."""
    view = leaseviews.read_one(workspace_id)
    if view is None:
        return
    for request in view.requests:
        _settle(request, view)


def _settle(request: ControlRequest, view: LeaseView) -> None:
    holding = _Holding(view)
    if _is_moot(request, view):
        _end(request, Outcome.WITHDRAWN, epoch=view.lease.epoch, reason=CONTROL_ENDED)
    elif _has_left(request, view.now) or not _may_control(request):
        _end(request, Outcome.WITHDRAWN, epoch=view.lease.epoch, who=_asker(request))
    elif request.granted_at is not None:
        _count_down(request, holding, request.granted_at)
    elif holding.is_idle_or_away:
        _set_countdown(request, view.now + _countdown())
    elif _is_overdue(request, view.now):
        who = presenters.holder_name(view.lease)
        _end(request, Outcome.DECLINED, epoch=view.lease.epoch, who=who, reason=UNANSWERED)


def _countdown() -> timedelta:
    return timedelta(seconds=settings.DISPLAY.request_countdown_seconds)


def _is_moot(request: ControlRequest, view: LeaseView) -> bool:
    """Whether there is nobody left to ask: control is free, an agent's, or the asker's."""
    is_a_persons = view.is_held and view.lease.controller == Controller.USER
    return not is_a_persons or view.lease.holder_id == request.user_id


def _has_left(request: ControlRequest, now: datetime) -> bool:
    own = DisplayStream.objects.filter(
        workspace=request.workspace_id, user=request.user_id, client_id=request.client_id
    )
    if own.filter(pk__in=streamrows.open_streams().values("pk")).exists():
        return False
    newest = own.filter(closed_at__gt=request.asked_at).order_by("-closed_at").first()
    grace = timedelta(seconds=LEFT_AFTER_SECONDS)
    return newest is not None and newest.closed_at is not None and now - newest.closed_at > grace


def _may_control(request: ControlRequest) -> bool:
    return access.permissions(request.user, request.workspace).control


def _is_overdue(request: ControlRequest, now: datetime) -> bool:
    return now - request.asked_at >= timedelta(seconds=settings.DISPLAY.request_seconds)


def _count_down(request: ControlRequest, holding: _Holding, granted_at: datetime) -> None:
    active_at = holding.active_at
    if active_at is not None and active_at > granted_at - _countdown():
        _set_countdown(request, None)
    elif holding.has_let_pass(granted_at):
        _grant(request, epoch=holding.view.lease.epoch, ttl=settings.DISPLAY.lease_seconds)


def _set_countdown(request: ControlRequest, granted_at: datetime | None) -> None:
    before = request.granted_at
    same = ControlRequest.objects.filter(pk=request.pk, ended_at=None, granted_at=before)
    if same.update(granted_at=granted_at):
        events.announce_look(request.workspace_id)


# --- Shared steps ---------------------------------------------------------------------------------
def _open_requests(workspace: Workspace) -> QuerySet[ControlRequest]:
    return ControlRequest.objects.filter(workspace=workspace, ended_at=None)


def _view(workspace: Workspace) -> LeaseView:
    view = leaseviews.read_one(workspace.pk)
    if view is None:  # it has been removed since it was found
        raise WorkspaceNotFound(workspace.slug)
    return view


def _epoch(workspace: Workspace) -> int:
    return _view(workspace).lease.epoch


class _NotDone(Exception):
    """Control could not be handed over after all: the request stays as it was."""


def _grant(
    request: ControlRequest, *, epoch: int, ttl: float, holder: Holder | None = None
) -> bool:
    """End the request and hand control over, both or neither."""
    to = Holder(request.user, request.client_id, Controller.USER, request.login)
    try:
        with transaction.atomic():
            if not _mark_ended(request, Outcome.GRANTED):
                return False
            if not leases.hand_over(request.workspace, holder, to, epoch=epoch, ttl=ttl):
                raise _NotDone
    except _NotDone:
        return False
    return True


def _end(
    request: ControlRequest, outcome: Outcome, *, epoch: int, who: str = "", reason: str = ""
) -> None:
    with transaction.atomic():
        if not _mark_ended(request, outcome):
            return
        events.record(
            request.workspace,
            What(outcome),
            at=Now(),
            epoch=epoch,
            who=who,
            client_id=request.client_id,
            reason=reason,
        )
        events.announce_look(request.workspace_id)


def _mark_ended(request: ControlRequest, outcome: Outcome) -> bool:
    """Return whether it was this call that ended it."""
    still_open = ControlRequest.objects.filter(pk=request.pk, ended_at=None)
    return bool(still_open.update(ended_at=Now(), outcome=outcome))
