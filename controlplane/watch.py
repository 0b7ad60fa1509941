"""The lease watch: one reader per process that keeps the gates of its streams true.

Notify, to be fast: a notice from the channel layer shuts the gates of a workspace and wakes the
reader. Poll, to be right: every second, one pass reads the leases of all streams of this process;
in between, passes look at streams that are new or that a notice concerns.
Only a pass that started after the last shut can open a gate (gate.py). When no pass succeeds for
DISPLAY_FENCE_SECONDS, every gate shuts by its own deadline; the watch need not do anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Protocol

from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error as AnyDatabaseError
from django.db.models import Case, F, Max, Value, When
from django.db.models.functions import Now

from controlplane import access, events, leases, presenters
from controlplane.closecodes import CloseCode
from controlplane.dbthreads import DatabaseThreads, time_limit
from controlplane.models import ControlEvent, DisplayStream, EndReason
from controlplane.presenters import Json, LeaseView

logger = logging.getLogger(__name__)

PROCESS = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
ACCESS_SECONDS = 3.0  # how often users, grants and logins are checked again without a notice
TIDY_SECONDS = 600.0
KEEP_STREAMS = timedelta(days=1)
RETRY_SECONDS = 1.0

_NO_ACCOUNT = "Your account has been disabled."
_SIGNED_OUT = "You are signed out."


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a lease decides whether the page must be told again."""

    version: int
    epoch: int
    is_held: bool
    is_holder_connected: bool
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
            view.warns,
            tuple((request.pk, request.granted_at) for request in view.requests),
        )


@dataclass(frozen=True, slots=True)
class Question:
    """What a stream wants to know from the next pass, and what it has to report."""

    stream_id: int
    workspace_id: int
    user_id: int
    client_id: str
    session_key: str
    mode: str
    seen: Seen | None
    driven_epoch: int | None  # the epoch in which this stream's gate was open
    input_age: float | None  # seconds since its newest input, if there was any since last asked


@dataclass(frozen=True, slots=True)
class Cause:
    """Why control changed: the event's reason, who did it, and the note."""

    reason: str | None = None
    by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass found for one stream. ``control`` is set where the page must be told."""

    view: LeaseView | None = None
    control: Json | None = None
    cause: Cause = Cause()
    end: tuple[CloseCode, str] | None = None


class Watched(Protocol):
    """A stream, as the watch sees it. All calls come from the event loop."""

    @property
    def workspace_id(self) -> int:
        """Whose notices concern it."""

    @property
    def seat(self) -> tuple[int, int, str]:
        """Workspace, user and client_id: of two streams with the same, the newer one lives."""

    @property
    def seen_version(self) -> int:
        """The version of the lease that its newest answer rests on; -1 before the first."""

    def question(self) -> Question:
        """What the next pass shall find out."""

    def answer(self, verdict: Verdict, started: float) -> None:
        """What a pass found that started at ``started`` (monotonic seconds)."""

    def shut_gate(self) -> None:
        """Something changed: no input until the next answer."""


class Watch:
    """Runs while there are streams; each process has one."""

    def __init__(self) -> None:
        self._streams: set[Watched] = set()
        self._newest_of_seat: dict[tuple[int, int, str], Watched] = {}
        self._told: dict[int, int] = {}  # by workspace, the newest version heard of
        self._due: set[Watched] = set()  # to be looked at before the next poll of all
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._checks_access = False
        self._threads = DatabaseThreads("watch", 1, keeps_connections=True)
        self._access_checked = self._tidied = -float("inf")
        self._is_blind = False

    def join(self, stream: Watched) -> None:
        """Watch ``stream`` from now on; an older one of its seat lets go and is looked at."""
        self._streams.add(stream)
        older = self._newest_of_seat.get(stream.seat)
        self._newest_of_seat[stream.seat] = stream
        if older:
            older.shut_gate()
            self.wake(older)
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._poll(), name="watch-poll"),
                asyncio.create_task(self._listen(), name="watch-listen"),
            ]
            for task in self._tasks:
                task.add_done_callback(_log_death)

    def leave(self, stream: Watched) -> None:
        """Forget ``stream``; the last one stops the watch."""
        self._streams.discard(stream)
        self._due.discard(stream)
        if self._newest_of_seat.get(stream.seat) is stream:
            del self._newest_of_seat[stream.seat]
        if not self._streams:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            self._threads.release()

    def has_newer(self, view: LeaseView) -> bool:
        """Whether a notice or a pass has told of a newer version of this lease."""
        return self._told.get(view.lease.workspace_id, -1) > view.lease.version

    def wake(self, *streams: Watched) -> None:
        """Look at these now instead of at the next poll."""
        self._due.update(streams)
        self._wake.set()

    def notice(self, workspace_id: int, version: int) -> None:
        """A lease has changed: shut the gates that rest on an older read, then look.

        A gate that a read has opened which saw this version already stays open: its holder may be
        typing, and nothing has changed since.
        """
        self._hear_of(workspace_id, version)
        concerned = [each for each in self._streams if each.workspace_id == workspace_id]
        for stream in concerned:
            if stream.seen_version < version:
                stream.shut_gate()
        self.wake(*concerned)

    def _hear_of(self, workspace_id: int, version: int) -> None:
        """Remember the newest version: notices overtake each other."""
        self._told[workspace_id] = max(version, self._told.get(workspace_id, -1))

    def notice_look(self, workspace_id: int) -> None:
        """Something about control is to be told; who has it has not changed."""
        self.wake(*(each for each in self._streams if each.workspace_id == workspace_id))

    def notice_access(self) -> None:
        """Somebody may have lost access. What that ends of leases has a notice of its own."""
        self._checks_access = True
        self.wake()

    # --- notify -----------------------------------------------------------------------------------
    async def _listen(self) -> None:
        while True:
            try:
                await self._receive_notices()
            except Exception as error:  # whatever the broker's client raises: polling goes on
                logger.warning("no notices (%s): polling every second instead", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _receive_notices(self) -> None:
        layer = events.channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(events.GROUP, channel)
        try:
            while True:
                self._take_in(await layer.receive(channel))
        finally:
            with suppress(Exception):  # the broker is away, or we are: nothing hangs on it
                await layer.group_discard(events.GROUP, channel)

    def _take_in(self, message: Json) -> None:
        match message["type"]:
            case "access":
                self.notice_access()
            case "look":
                self.notice_look(message["workspace_id"])
            case _:
                self.notice(message["workspace_id"], message["version"])

    # --- poll -------------------------------------------------------------------------------------
    async def _poll(self) -> None:
        """Look at all streams every second, and in between at those that are due."""
        polled = -float("inf")
        while True:
            self._wake.clear()
            now = time.monotonic()
            if self._checks_access or now - polled >= settings.DISPLAY.watch_seconds:
                polled = now
                await self._pass(self._streams, self._is_access_due(), is_poll=True)
                await self._tidy_sometimes()
            elif self._due:
                await self._pass(self._due, checks_access=False, is_poll=False)
            left = polled + settings.DISPLAY.watch_seconds - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _pass(self, looked_at: set[Watched], checks_access: bool, *, is_poll: bool) -> None:
        streams = {stream.question(): stream for stream in looked_at}
        self._due -= looked_at
        started = time.monotonic()
        try:
            verdicts = await self._threads.run(examine, list(streams), checks_access, is_poll)
        except Exception as error:  # any failure of the database: the fence handles what follows
            self._note_blindness(error)
            return
        self._note_blindness(None)
        if checks_access:
            self._access_checked = started
        for question, verdict in verdicts.items():
            if verdict.view:
                self._hear_of(question.workspace_id, verdict.view.lease.version)
            if streams[question] in self._streams:
                _answer(streams[question], verdict, started)

    async def _tidy_sometimes(self) -> None:
        if self._is_blind or time.monotonic() - self._tidied < TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        try:
            await self._threads.run(tidy)
        except AnyDatabaseError as error:  # InterfaceError is no DatabaseError
            logger.warning("old stream rows were not removed: %s", error)

    def _is_access_due(self) -> bool:
        asked, self._checks_access = self._checks_access, False
        return asked or time.monotonic() - self._access_checked >= ACCESS_SECONDS

    def _note_blindness(self, error: Exception | None) -> None:
        was_blind, self._is_blind = self._is_blind, error is not None
        if error and not was_blind:
            logger.error(
                "leases cannot be read, gates shut at the fence: %s", error, exc_info=error
            )
        if was_blind and not error:
            logger.warning("leases can be read again")


def _answer(stream: Watched, verdict: Verdict, started: float) -> None:
    try:
        stream.answer(verdict, started)
    except Exception:  # a bug in one stream must not take the watch away from the others
        logger.exception("a stream of workspace %s failed to take its answer", stream.workspace_id)


# --- One pass, in the watch's own thread ----------------------------------------------------------
def examine(
    questions: list[Question], checks_access: bool, stamps: bool
) -> dict[Question, Verdict]:
    """Answer all questions with a handful of queries, whatever their number."""
    with time_limit(settings.DISPLAY.fence_seconds / 2):
        refused = _check_access(questions) if checks_access else {}
        found = _Pass(questions)
        if stamps:
            _stamp(questions)
        return {each: refused.get(each) or found.verdict(each) for each in questions}


class _Pass:
    """What one pass reads for all questions together, and its verdict about each."""

    def __init__(self, questions: list[Question]) -> None:
        self._views = presenters.read({question.workspace_id for question in questions})
        self._newest = _newest_streams(questions)
        told = [question for question in questions if self._is_news(question)]
        self._users = User.objects.in_bulk({question.user_id for question in told})
        self._permissions = access.permission_table(
            self._users.values(), {question.workspace_id for question in told}
        )
        # Many watch the same desktop: each question about the past is asked once.
        self._end_of = cache(leases.end_of)
        self._newest_transition = cache(_newest_transition)

    def verdict(self, question: Question) -> Verdict:
        """Judge one stream."""
        view = self._views.get(question.workspace_id)
        if view is None:
            return Verdict(end=(CloseCode.MISSING, "This workspace no longer exists."))
        if not view.lease.workspace.is_configured:
            return Verdict(end=(CloseCode.MISSING, "The display of this workspace is not enabled."))
        key = (question.workspace_id, question.user_id, question.client_id)
        if self._newest.get(key, 0) > question.stream_id:
            return Verdict(end=(CloseCode.SUPERSEDED, "This display was opened again elsewhere."))
        if Seen.of(view) == question.seen:
            return Verdict(view)
        user = self._users.get(question.user_id)
        if user is None:  # deleted since the last look at accounts
            return Verdict(end=(CloseCode.FORBIDDEN, _NO_ACCOUNT))
        return Verdict(view, self._control(question, view, user), self._cause(question, view))

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
            return Cause()  # renewed, or the holder came or went
        if seen.version == view.lease.version:
            return Cause(EndReason.EXPIRED)  # by time alone: nobody has recorded it yet
        newest = self._newest_transition(question.workspace_id)
        return _told(newest) if newest else Cause()


def _newest_transition(workspace_id: int) -> ControlEvent | None:
    transitions = ControlEvent.objects.filter(workspace=workspace_id)
    return transitions.exclude(what=ControlEvent.What.REFUSED).order_by("-id").first()


def _told(event: ControlEvent) -> Cause:
    return Cause(event.what, event.who or None, event.note or None)


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
    held = list(leases.held().filter(workspace__in=workspaces))
    lost = {lease.pk: lease for lease in leases.without_access(held)}
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


def _stamp(questions: list[Question]) -> None:
    """Say, in one write, that these streams live, in which mode, and when they last had input."""
    in_control = [question.stream_id for question in questions if question.mode == "control"]
    inputs = [
        When(pk=question.stream_id, then=Now() - timedelta(seconds=question.input_age))
        for question in questions
        if question.input_age is not None
    ]
    DisplayStream.objects.filter(pk__in=[question.stream_id for question in questions]).update(
        stamped_at=Now(),
        last_input_at=Case(*inputs, default=F("last_input_at")),
        mode=Case(When(pk__in=in_control, then=Value("control")), default=Value("observe")),
    )


def tidy() -> None:
    """Remove stream rows that nobody has stamped for a day: their tokens are long expired."""
    DisplayStream.objects.filter(stamped_at__lt=Now() - KEEP_STREAMS).delete()


def _log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        logger.critical("%s died: no gate will open", task.get_name(), exc_info=task.exception())


@cache
def current() -> Watch:
    """Return this process's watch."""
    return Watch()
