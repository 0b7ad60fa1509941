"""What one pass of the watch finds out for all streams of this process together.

A pass first stamps the rows of those streams, then reads: a row that it has stamped cannot be taken
for abandoned any more (driving.py), so what it reads of that row holds until the next pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Max

from controlplane import (
    access,
    driving,
    handovers,
    leases,
    leasestate,
    leaseviews,
    presenters,
    streamrows,
)
from controlplane.closecodes import CloseCode
from controlplane.dbthreads import time_limit
from controlplane.driving import Driver
from controlplane.leaseviews import LeaseView
from controlplane.models import ControlEvent, DisplayStream, EndReason
from controlplane.presenters import Json
from controlplane.streamrows import PROCESS, Report

_NO_ACCOUNT = "Your account has been disabled."
_SIGNED_OUT = "You are signed out."


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a lease decides whether the page must be told again."""

    version: int
    epoch: int
    is_held: bool
    is_holder_connected: bool
    accepts_clipboard: bool = True
    warns: str | None = None
    requests: tuple[tuple[int, datetime | None], ...] = ()

    @classmethod
    def of(cls, view: LeaseView) -> Seen:
        """Return what a page knows that has been told of ``view``."""
        return cls(
            view.lease.version,
            view.lease.epoch,
            view.is_held,
            view.is_holder_connected,
            view.lease.workspace.accepts_clipboard,
            view.warns,
            tuple((request.pk, request.granted_at) for request in view.requests),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Report):
    """What a stream wants to know from the next pass, and what it has to report."""

    workspace_id: int
    user_id: int
    client_id: str
    session_key: str
    upstream_version: int  # of the address that it has dialled
    seen: Seen | None
    driven_epoch: int | None  # the epoch in which this stream's gate was open
    has_let_go: bool  # its gate is shut, and the desktop has been told of every key-up


@dataclass(frozen=True, slots=True)
class Cause:
    """Why control changed: the event's reason, who did it, and the note."""

    reason: str | None = None
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass found for one stream. ``control`` is set where the page must be told.

    ``may_drive`` says that the lease is this stream's, and that nobody else's input can come any
    more; where only the first is known, ``wants_to_drive`` is set.
    """

    view: LeaseView | None = None
    may_drive: bool = False
    wants_to_drive: Driver | None = None
    control: Json | None = None
    cause: Cause = Cause()
    end: tuple[CloseCode, str] | None = None


def examine(questions: list[Question], checks_access: bool) -> dict[Question, Verdict]:
    """Answer all questions with a handful of queries, whatever their number."""
    with time_limit(settings.DISPLAY.fence_seconds / 2):
        refused = _check_access(questions) if checks_access else {}
        streamrows.stamp(questions)
        found = _Pass(questions)
        found.clear_those_who_let_go()
        return {
            each: found.gone(each) or refused.get(each) or found.verdict(each) for each in questions
        }


class _Pass:
    """What one pass reads for all questions together, and its verdict about each."""

    def __init__(self, questions: list[Question]) -> None:
        self._views = leaseviews.read({question.workspace_id for question in questions})
        self._newest = _newest_streams(questions)
        self._rows = {
            row.pk: row
            for row in DisplayStream.objects.select_related("workspace")
            .only(
                *("process", "driving_epoch", "disconnected_by", "closed_at"),
                "workspace__upstream_version",
            )
            .filter(pk__in=[question.stream_id for question in questions])
        }
        self._questions = questions
        told = [question for question in questions if self._is_news(question)]
        self._users = User.objects.in_bulk({question.user_id for question in told})
        self._permissions = access.permission_table(
            self._users.values(), {question.workspace_id for question in told}
        )
        # Many watch the same desktop: each question about the past is asked once.
        self._end_of = cache(leasestate.end_of)
        self._newest_transition = cache(_newest_transition)
        self._newest_about_requests = cache(_newest_about_requests)

    def gone(self, question: Question) -> Verdict | None:
        """Whether its workspace is no more; that its user lost access to it then says nothing."""
        if question.workspace_id in self._views:
            return None
        return Verdict(end=(CloseCode.MISSING, "This workspace no longer exists."))

    def verdict(self, question: Question) -> Verdict:
        """Judge one stream of a workspace that there is."""
        view = self._views[question.workspace_id]
        if not view.lease.workspace.is_configured:
            return Verdict(end=(CloseCode.MISSING, "The display of this workspace is not enabled."))
        end = self._end_of_stream(question)
        if end:
            return Verdict(end=end)
        if view.hides_from(question.user_id, question.client_id):
            return Verdict(end=(CloseCode.HIDDEN, presenters.why_hidden(view)))
        may_drive = self._may_drive(question)
        wants_to_drive = None if may_drive else self._driver_for(question, view)
        if Seen.of(view) == question.seen:
            return Verdict(view, may_drive, wants_to_drive)
        user = self._users.get(question.user_id)
        if user is None:  # deleted since the last look at accounts
            return Verdict(end=(CloseCode.FORBIDDEN, _NO_ACCOUNT))
        control, cause = self._control(question, view, user), self._cause(question, view)
        return Verdict(view, may_drive, wants_to_drive, control, cause)

    def _end_of_stream(self, question: Question) -> tuple[CloseCode, str] | None:
        key = (question.workspace_id, question.user_id, question.client_id)
        if self._newest.get(key, 0) > question.stream_id:
            return CloseCode.SUPERSEDED, "This display was opened again elsewhere."
        row = self._rows.get(question.stream_id)
        if row is None and not User.objects.filter(pk=question.user_id).exists():
            return CloseCode.FORBIDDEN, _NO_ACCOUNT
        if row is None or row.closed_at is not None:
            return CloseCode.RESTARTING, "The server has lost track of this stream."
        if row.disconnected_by:
            return CloseCode.FORBIDDEN, f"{row.disconnected_by} has ended this connection."
        if row.workspace.upstream_version != question.upstream_version:
            return CloseCode.RESTARTING, "The address of this desktop has changed."
        return None

    def _may_drive(self, question: Question) -> bool:
        """Whether its row says so, and is not in another's hands: it has just been stamped."""
        row, view = self._rows.get(question.stream_id), self._views.get(question.workspace_id)
        if row is None or view is None or row.process != PROCESS:
            return False
        if self._end_of_stream(question):
            return False
        is_own = view.is_held_by(question.user_id, question.client_id)
        return is_own and row.driving_epoch == view.lease.epoch

    def _driver_for(self, question: Question, view: LeaseView) -> Driver | None:
        if not view.is_held_by(question.user_id, question.client_id):
            return None
        return Driver(
            stream_id=question.stream_id,
            workspace_id=question.workspace_id,
            user_id=question.user_id,
            client_id=question.client_id,
            epoch=view.lease.epoch,
        )

    def clear_those_who_let_go(self) -> None:
        """Tell other processes that these streams do not drive any more."""
        done = [question for question in self._questions if self._is_done(question)]
        if done:
            ids = [question.stream_id for question in done]
            driving.clear(ids, {question.workspace_id for question in done}, PROCESS)

    def _is_done(self, question: Question) -> bool:
        row = self._rows.get(question.stream_id)
        is_driving = row is not None and row.driving_epoch is not None and row.process == PROCESS
        return is_driving and question.has_let_go and not self._may_drive(question)

    def _is_news(self, question: Question) -> bool:
        view = self._views.get(question.workspace_id)
        return view is not None and Seen.of(view) != question.seen

    def _control(self, question: Question, view: LeaseView, user: User) -> Json:
        can = self._permissions[user.pk, question.workspace_id]
        return presenters.control(view, presenters.Viewer(user, question.client_id, can))

    def _cause(self, question: Question, view: LeaseView) -> Cause:
        """Why this page is told: what ended its own epoch counts before what happened last."""
        is_mine = view.is_held_by(question.user_id, question.client_id)
        if question.driven_epoch is not None and not is_mine:
            ended = self._end_of(question.workspace_id, question.driven_epoch)
            return _told(ended) if ended else Cause(EndReason.EXPIRED)
        seen = question.seen
        if seen is None:
            return Cause()  # it has just come
        if (seen.epoch, seen.is_held) == (view.lease.epoch, view.is_held):
            return self._minor_cause(question, view)
        if seen.version == view.lease.version:
            return Cause(EndReason.EXPIRED)  # by time alone: nobody has recorded it yet
        newest = self._newest_transition(question.workspace_id)
        return _told(newest) if newest else Cause()

    def _minor_cause(self, question: Question, view: LeaseView) -> Cause:
        """Who has control still has it: somebody asks for it, or it was renewed, and so on."""
        assert question.seen is not None
        asked = {request.pk for request in view.requests}
        if {pk for pk, _ in question.seen.requests} == asked:
            return Cause()
        newest = self._newest_about_requests(question.workspace_id)
        return _told(newest) if newest else Cause()


def _newest_transition(workspace_id: int) -> ControlEvent | None:
    transitions = ControlEvent.objects.filter(
        workspace=workspace_id, what__in=ControlEvent.TRANSITIONS
    )
    return transitions.order_by("-id").first()


def _newest_about_requests(workspace_id: int) -> ControlEvent | None:
    told = ControlEvent.objects.filter(workspace=workspace_id, what__in=_ABOUT_REQUESTS)
    return told.order_by("-id").first()


_ABOUT_REQUESTS = (
    ControlEvent.What.REQUESTED,
    ControlEvent.What.DECLINED,
    ControlEvent.What.WITHDRAWN,
)


def _told(event: ControlEvent) -> Cause:
    is_unanswered = event.reason == handovers.UNANSWERED  # declined, but by nobody
    reason = event.reason if is_unanswered else event.what
    return Cause(reason, event.who or None, event.note or None)


def _check_access(questions: list[Question]) -> dict[Question, Verdict]:
    """Find the streams whose user, grant or login is gone, and end the leases they held."""
    workspaces = {question.workspace_id for question in questions}
    users = User.objects.in_bulk({question.user_id for question in questions})
    logins = access.standing_logins(
        (users[question.user_id], question.session_key)
        for question in questions
        if question.user_id in users
    )
    table = access.permission_table(users.values(), workspaces)
    refused, ended = {}, set()
    for question in questions:
        problem = _problem(question, users.get(question.user_id), logins, table)
        if problem:
            refused[question] = Verdict(end=(CloseCode.FORBIDDEN, problem))
        if problem is _SIGNED_OUT:
            ended.add(access.login_id(question.session_key))
    _end_leases(workspaces, frozenset(ended))
    return refused


def _end_leases(workspaces: set[int], logins_ended: frozenset[str]) -> None:
    """End the leases without access all in one call, which locks them in order."""
    held = list(leasestate.held().filter(workspace__in=workspaces))
    lost = {lease.pk: lease for lease in leasestate.without_access(held)}
    lost |= {lease.pk: lease for lease in held if lease.login in logins_ended}
    leases.end_lost_access(lost.values(), logins_ended=logins_ended)


def _problem(
    question: Question,
    user: User | None,
    logins: set[tuple[int, str]],
    table: dict[tuple[int, int], access.Permissions],
) -> str | None:
    if user is None or not user.is_active:
        return _NO_ACCOUNT
    if (user.pk, question.session_key) not in logins:
        return _SIGNED_OUT
    if not table[user.pk, question.workspace_id].observe:
        return "You may not watch this workspace any more."
    return None


def _newest_streams(questions: list[Question]) -> dict[tuple[int, int, str], int]:
    rows = (
        DisplayStream.objects.filter(
            workspace__in={question.workspace_id for question in questions},
            client_id__in={question.client_id for question in questions},
            closed_at=None,
        )
        .values_list("workspace", "user", "client_id")
        .annotate(newest=Max("id"))
    )
    return {(workspace, user, client): newest for workspace, user, client, newest in rows}
