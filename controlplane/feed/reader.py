"""What the listeners of the feed are told: one look reads for all of them, then compares.

What differs from the look before goes to everybody who may see it; who is new is told of
everything, and who resumes of what has changed since. The number of queries does not depend on the
number of listeners or workspaces.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Q
from django.db.models.functions import Now

from controlplane import access, leaseviews, presenters, streamrows
from controlplane.access import Permissions
from controlplane.dbthreads import time_limit
from controlplane.feed import tail
from controlplane.feed.tail import Mark
from controlplane.leaseviews import LeaseView
from controlplane.models import ControlEvent, DisplayStream, Workspace
from controlplane.presenters import Json, Viewer
from controlplane.verdicts import Seen

Visible = dict[int, Permissions]  # by workspace


@dataclass(frozen=True, slots=True)
class Caller:
    """Who listens; ``session_key`` is empty for an API token."""

    user_id: int
    client_id: str
    session_key: str


class Listening(Protocol):
    """A listener, as the reader sees it: known by its identity."""

    @property
    def caller(self) -> Caller:
        """Whom the stream is for."""

    @property
    def resume_after(self) -> int | None:
        """The resume id of the last message that the caller has had; None for a first visit."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event of the stream. ``resume`` is the id to come back with after it."""

    event: str
    slug: str
    data: Json
    resume: int | None = None

    def __str__(self) -> str:
        """Return it as it is sent (HTML standard, section 9.2.6)."""
        mark = "" if self.resume is None else f"id: {self.resume}\n"
        return f"event: {self.event}\n{mark}data: {json.dumps(self.data)}\n\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look found for one listener. ``is_over``: its caller's login has ended."""

    messages: list[Message]
    is_over: bool = False


class Reader:
    """Remembers what has been told to whom; its looks follow one another."""

    def __init__(self) -> None:
        self._mark: Mark | None = None
        self._access: Access | None = None
        self._pictures: dict[int, Picture] = {}
        self._told: dict[Listening, Visible] = {}

    def look(self, listeners: Sequence[Listening], checks_access: bool) -> dict[Listening, Outcome]:
        """Read, and return what each listener is to be told. What fails here is looked at again."""
        newcomers = [each for each in listeners if each not in self._told]
        with time_limit(settings.DISPLAY.fence_seconds / 2):
            is_known = self._access is not None and not newcomers and not checks_access
            seen = _read(self._mark, self._access if is_known else None, listeners, newcomers)
        changed = Changed.between(self._pictures, seen.pictures)
        outcomes = {each: self._outcome(each, seen, changed) for each in listeners}
        self._told = {
            each: seen.access.visible_to(each.caller)
            for each, outcome in outcomes.items()
            if not outcome.is_over
        }
        self._mark, self._access, self._pictures = seen.mark, seen.access, seen.pictures
        return outcomes

    def _outcome(self, listener: Listening, seen: Look, changed: Changed) -> Outcome:
        if listener.caller not in seen.access.users:
            return Outcome([], is_over=True)
        teller = _Teller(seen, listener.caller)
        told = self._told.get(listener)
        if told is None:
            return Outcome(teller.greeting(listener.resume_after))
        gone = told.keys() - (teller.visible.keys() - changed.renamed)
        if gone:
            told = {pk: can for pk, can in told.items() if pk not in gone}
        farewells = [_gone(self._pictures[pk].slug) for pk in gone]
        return Outcome(farewells + teller.news(told, changed))


# --- Reading --------------------------------------------------------------------------------------
class Access:
    """Who may watch what, and whose login stands: for all callers together, as of one time."""

    def __init__(self, callers: set[Caller]) -> None:
        known = User.objects.in_bulk({each.user_id for each in callers})
        claims = {each: known[each.user_id] for each in callers if each.user_id in known}
        standing = access.standing_logins((user, each.session_key) for each, user in claims.items())
        self.users = {
            each: user
            for each, user in claims.items()
            if user.is_active and (user.pk, each.session_key) in standing
        }
        self.workspaces = set(Workspace.objects.values_list("pk", flat=True))
        self._visible: dict[int, Visible] = {pk: {} for pk in known}
        table = access.permission_table(known.values(), self.workspaces)
        for (user_id, workspace_id), can in table.items():
            if can.observe:
                self._visible[user_id][workspace_id] = can

    def visible_to(self, caller: Caller) -> Visible:
        """Return what the caller may do with each workspace that they may watch."""
        return self._visible[caller.user_id]

    def forget(self, deleted: set[int]) -> None:
        """Take away workspaces that have been deleted since."""
        self.workspaces -= deleted
        self._visible = {
            user_id: {pk: can for pk, can in visible.items() if pk not in deleted}
            for user_id, visible in self._visible.items()
        }


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is told of one workspace."""

    slug: str
    view: LeaseView
    seen: Seen
    viewers: int
    display: Json

    def may_differ_since(self, since: datetime) -> bool:
        """Whether Control may have changed after ``since`` without an event."""
        lease, view = self.view.lease, self.view
        if view.is_held:
            is_renewed = lease.renewed_at is not None and lease.renewed_at > since
            return is_renewed or not view.is_holder_connected
        return lease.ended_at is None and lease.expires_at is not None and lease.expires_at > since

    def is_checked_since(self, since: datetime) -> bool:
        """Whether something new may be known of the display."""
        checked_at = self.view.lease.workspace.display_checked_at
        return checked_at is not None and checked_at > since


@dataclass(frozen=True, slots=True)
class Past:
    """What happened before this look, for those who resume."""

    events: tuple[ControlEvent, ...] = ()
    ids: tuple[int, ...] = ()
    viewers: frozenset[int] = frozenset()  # workspaces where somebody came or went

    def time_of(self, event_id: int | None) -> datetime | None:
        """Return when the event of this id happened; None where it is not known any more."""
        if event_id is None or not (count := bisect_right(self.ids, event_id)):
            return None
        return self.events[count - 1].at


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has read; ``events`` are those since the look before."""

    mark: Mark
    access: Access
    pictures: dict[int, Picture]
    events: list[ControlEvent]
    past: Past


@dataclass(frozen=True, slots=True)
class Changed:
    """In which workspaces one look differs from the look before, and in what."""

    renamed: frozenset[int]
    control: frozenset[int]
    viewers: frozenset[int]
    display: frozenset[int]

    @classmethod
    def between(cls, before: dict[int, Picture], after: dict[int, Picture]) -> Changed:
        """Compare what both have."""
        both = [(pk, before[pk], now) for pk, now in after.items() if pk in before]
        return cls(
            renamed=frozenset(pk for pk, was, now in both if was.slug != now.slug),
            control=frozenset(pk for pk, was, now in both if was.seen != now.seen),
            viewers=frozenset(pk for pk, was, now in both if was.viewers != now.viewers),
            display=frozenset(pk for pk, was, now in both if was.display != now.display),
        )


def _read(
    mark: Mark | None,
    known: Access | None,
    listeners: Sequence[Listening],
    newcomers: Sequence[Listening],
) -> Look:
    now = time.monotonic()
    mark = mark or tail.begin(now)
    events = tail.read(mark)  # before the leases: what is told with an event is no older
    mark = mark.after((event.pk for event in events), now)
    may = known or Access({each.caller for each in listeners})
    pictures = _pictures(may.workspaces)
    if deleted := may.workspaces - pictures.keys():
        may.forget(deleted)
    return Look(mark, may, pictures, _told_of(events), _read_past(newcomers, mark))


def _told_of(events: Iterable[ControlEvent]) -> list[ControlEvent]:
    """Leave out what changes nothing, and what nobody may see any more."""
    refused = ControlEvent.What.REFUSED
    return [event for event in events if event.what != refused and event.workspace_id]


def _pictures(workspaces: set[int]) -> dict[int, Picture]:
    viewers = streamrows.count_viewers(workspaces)
    return {
        pk: Picture(
            slug=view.lease.workspace.slug,
            view=view,
            seen=Seen.of(view),
            viewers=viewers.get(pk, 0),
            display=presenters.display(view.lease.workspace),
        )
        for pk, view in leaseviews.read(workspaces).items()
    }


def _read_past(newcomers: Sequence[Listening], mark: Mark) -> Past:
    """Read what those who resume may have missed; an id that never was means: everything."""
    wanted = [each.resume_after for each in newcomers if each.resume_after is not None]
    if not wanted:
        return Past()
    events = tuple(event for event in tail.recent() if mark.has_seen(event.pk))
    past = Past(events, tuple(event.pk for event in events))
    times = [at for each in wanted if (at := past.time_of(each))]
    return replace(past, viewers=_crowds_since(min(times))) if times else past


def _crowds_since(since: datetime) -> frozenset[int]:
    """Return the workspaces where a stream was opened or closed, or went stale, after ``since``."""
    stale = timedelta(seconds=streamrows.STALE_SECONDS)
    went_stale = Q(closed_at=None, stamped_at__gt=since - stale, stamped_at__lte=Now() - stale)
    rows = DisplayStream.objects.filter(
        Q(opened_at__gt=since) | Q(closed_at__gt=since) | went_stale
    )
    return frozenset(rows.values_list("workspace", flat=True))


# --- Telling --------------------------------------------------------------------------------------
class _Teller:
    """What one caller is told of a look."""

    def __init__(self, look: Look, caller: Caller) -> None:
        self._look = look
        self._user = look.access.users[caller]
        self._client_id = caller.client_id
        self.visible = look.access.visible_to(caller)

    def greeting(self, resume_after: int | None) -> list[Message]:
        """Return a picture of everything, or what has changed since ``resume_after``."""
        since = None
        if resume_after is not None and resume_after <= self._look.mark.top:
            since = self._look.past.time_of(resume_after)
        slugs = sorted(self._look.pictures[pk].slug for pk in self.visible)
        hello = Message("hello", "", {"resumed": since is not None, "workspaces": slugs})
        if since is None or resume_after is None:
            told = [message for pk in self.visible for message in self._all_of(pk)]
        else:
            told = self._since(resume_after, since)
        # Whoever loses the connection before the last of these begins again as before.
        *first, last = [hello, *told]
        return [*first, replace(last, resume=self._look.mark.resume_point)]

    def news(self, told: Visible, changed: Changed) -> list[Message]:
        """Return what differs from the look before, for a caller who knows all of that."""
        events = self._look.events
        messages = self._replay([event for event in events if event.workspace_id in told])
        happened = {event.workspace_id for event in events}
        allowed = set() if told is self.visible else self._allowed_otherwise(told)
        quietly = (changed.control - happened) | allowed
        for pk in (quietly | changed.viewers | changed.display) & self.visible.keys():
            if pk not in told:
                messages += self._all_of(pk)
                continue
            if pk in quietly:
                messages.append(self._control(pk))
            messages += self._surroundings(pk, pk in changed.viewers, pk in changed.display)
        return messages

    def _allowed_otherwise(self, told: Visible) -> set[int]:
        return {pk for pk, can in self.visible.items() if told.get(pk) != can}

    def _since(self, resume_after: int, since: datetime) -> list[Message]:
        look = self._look
        missed = _told_of(event for event in look.past.events if event.pk > resume_after)
        messages = self._replay(missed)
        happened = {event.workspace_id for event in missed}
        for pk in self.visible:
            picture = look.pictures[pk]
            if pk not in happened and picture.may_differ_since(since):
                messages.append(self._control(pk))
            messages += self._surroundings(
                pk, pk in look.past.viewers, picture.is_checked_since(since)
            )
        return messages

    def _replay(self, events: list[ControlEvent]) -> list[Message]:
        """Return a message for each event that the caller may know of, oldest first."""
        mine = [event for event in events if event.workspace_id in self.visible]
        points = self._look.mark.resume_points([event.pk for event in mine])
        return [
            replace(self._control(event.workspace_id, event), resume=point)
            for event, point in zip(mine, points, strict=True)
            if event.workspace_id
        ]

    def _all_of(self, pk: int) -> list[Message]:
        return [self._control(pk), *self._surroundings(pk, True, True)]

    def _control(self, pk: int, event: ControlEvent | None = None) -> Message:
        picture = self._look.pictures[pk]
        viewer = Viewer(self._user, self._client_id, self.visible[pk])
        data = {
            "workspace": picture.slug,
            "control": presenters.control(picture.view, viewer),
            "happened": _happened(event) if event else None,
        }
        return Message("control", picture.slug, data)

    def _surroundings(self, pk: int, viewers: bool, display: bool) -> Iterator[Message]:
        picture = self._look.pictures[pk]
        if viewers:
            data = {"workspace": picture.slug, "viewers": picture.viewers}
            yield Message("viewers", picture.slug, data)
        if display:
            data = {"workspace": picture.slug, "display": picture.display}
            yield Message("display", picture.slug, data)


def _gone(slug: str) -> Message:
    return Message("gone", slug, {"workspace": slug})


def _happened(event: ControlEvent) -> Json:
    return {
        "what": event.what,
        "who": event.who or None,
        "reason": event.reason or None,
        "note": event.note or None,
        "at": presenters.iso(event.at),
    }
