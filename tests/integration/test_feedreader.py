"""What the listeners of the feed are told, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from controlplane import apitokens, events, leases
from controlplane.exceptions import ControlRefused
from controlplane.feed import tail
from controlplane.feed.reader import Caller, Message, Reader
from controlplane.models import (
    ControlEvent,
    DisplayStatus,
    DisplayStream,
    Role,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    UPSTREAM,
    Browser,
    age,
    let_expire,
    now,
    open_stream,
    person,
    tab,
)


class Someone:
    """A caller who listens: whatever the reader tells is kept, and understood as a page would."""

    def __init__(self, caller: Caller, resume_after: int | None = None) -> None:
        self.caller = caller
        self.resume_after = resume_after
        self.last_id = resume_after
        self.is_over = False

    def hear(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            if message.resume is not None:
                self.last_id = message.resume
        return messages


class Room:
    """A reader and all who listen to it."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.listeners: list[Someone] = []

    def join(self, user: User, client_id: str = THIS_TAB, **more: Any) -> Someone:
        """Let a user listen in a login of their own."""
        caller = Caller(user.pk, client_id, Browser(user).session_key)
        self.listeners.append(Someone(caller, **more))
        return self.listeners[-1]

    def look(self, *, checks_access: bool = False) -> dict[Someone, list[Message]]:
        outcomes = self.reader.look(self.listeners, checks_access)
        for each in self.listeners:
            each.is_over = outcomes[each].is_over
        return {each: each.hear(outcomes[each].messages) for each in self.listeners}

    def told(self, someone: Someone, *, checks_access: bool = False) -> list[Message]:
        return self.look(checks_access=checks_access)[someone]


@pytest.fixture
def room() -> Room:
    """A fresh reader."""
    return Room()


@pytest.fixture
def listening(room: Room, desk: Workspace, observer: User) -> Someone:
    """The observer, who has been told how things are."""
    events.record(desk, ControlEvent.What.KEPT, at=now(), epoch=0)  # where PostgreSQL counts from
    someone = room.join(observer)
    room.look()
    return someone


def another_desk(slug: str = "desk-2", role_of: User | None = None) -> Workspace:
    workspace = Workspace.objects.create(slug=slug, name=slug.title(), upstream_url=UPSTREAM)
    if role_of:
        WorkspaceGrant.objects.create(workspace=workspace, user=role_of, role=Role.OBSERVER)
    return workspace


def kinds(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message.event, message.slug) for message in messages]


def happenings(messages: list[Message]) -> list[tuple[str, str]]:
    return [
        (message.slug, message.data["happened"]["what"])
        for message in messages
        if message.event == "control" and message.data["happened"]
    ]


def event_ids() -> list[int]:
    return list(ControlEvent.objects.order_by("id").values_list("id", flat=True))


# --- Who is new -----------------------------------------------------------------------------------
def test_who_is_new_is_told_of_all_that_they_may_watch(
    room: Room, desk: Workspace, observer: User, operator: User
) -> None:
    another_desk("hidden")
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    hello, control, viewers, display = room.told(room.join(observer))
    assert hello.data == {"resumed": False, "workspaces": ["desk"]}
    assert control.data["workspace"] == "desk"
    assert control.data["control"]["controlled_by"] == "Olive Operator"
    assert control.data["control"]["can"] == {"observe": True, "control": False, "force": False}
    assert control.data["happened"] is None
    assert viewers.data == {"workspace": "desk", "viewers": 1}
    assert display.data["display"]["status"] == "unknown"
    assert [each.resume for each in (hello, control, viewers)] == [None] * 3
    assert display.resume == event_ids()[-1]


def test_who_may_watch_nothing_is_greeted_all_the_same(room: Room, stranger: User) -> None:
    (hello,) = room.told(room.join(stranger))
    assert (hello.event, hello.data["workspaces"]) == ("hello", [])
    assert hello.resume is not None


def test_each_sees_control_with_their_own_eyes(
    room: Room, desk: Workspace, operator: User, observer: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    holder, elsewhere, other = (
        room.join(operator),
        room.join(operator, OTHER_TAB),
        room.join(observer),
    )
    seen = {someone: messages[1].data["control"] for someone, messages in room.look().items()}
    views = [
        (seen[each]["yours"], seen[each]["this_client"]) for each in (holder, elsewhere, other)
    ]
    assert views == [(True, True), (True, False), (False, False)]


def test_nobody_is_told_anybodys_client_id(
    room: Room, desk: Workspace, operator: User, observer: User
) -> None:
    someone = room.join(observer, OTHER_TAB)
    text = "".join(map(str, room.told(someone)))
    leases.acquire(desk, tab(operator), ttl=300)
    text += "".join(map(str, room.told(someone)))
    assert "acquired" in text
    assert THIS_TAB not in text
    assert OTHER_TAB not in text


# --- What changes ---------------------------------------------------------------------------------
def test_nothing_is_told_twice(room: Room, listening: Someone) -> None:
    assert room.told(listening) == []
    assert room.told(listening, checks_access=True) == []


def test_what_happens_is_told_with_who_and_why(
    room: Room, listening: Someone, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    (acquired,) = room.told(listening)
    assert acquired.data["control"]["controlled_by"] == "Olive Operator"
    assert acquired.data["happened"]["what"] == "acquired"
    assert acquired.resume == event_ids()[-1]
    leases.force_release(desk, by="Mary Manager", note="maintenance")
    (forced,) = room.told(listening)
    assert forced.data["control"]["controller"] == "none"
    happened = forced.data["happened"]
    assert (happened["what"], happened["who"], happened["note"]) == (
        "forced",
        "Mary Manager",
        "maintenance",
    )
    assert set(happened) == {"what", "who", "reason", "note", "at"}


def test_each_of_several_events_is_told_in_order_with_how_things_are_now(
    room: Room, listening: Someone, desk: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    leases.release(desk, tab(operator))
    leases.acquire(desk, tab(colleague), ttl=300)
    messages = room.told(listening)
    assert [what for _, what in happenings(messages)] == ["acquired", "released", "acquired"]
    assert {each.data["control"]["controlled_by"] for each in messages} == {"colleague"}
    assert [each.resume for each in messages] == event_ids()[1:]


@pytest.mark.parametrize("what", ["requested", "declined", "withdrawn"])
def test_requests_are_told_as_control(
    what: str, room: Room, listening: Someone, desk: Workspace
) -> None:
    events.record(desk, ControlEvent.What(what), at=now(), epoch=1, who="Olive", note="please")
    (message,) = room.told(listening)
    assert (message.event, message.data["happened"]["what"]) == ("control", what)
    assert "requests" in message.data["control"]


def test_what_is_refused_is_not_told(
    room: Room, listening: Someone, desk: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    room.look()
    with pytest.raises(ControlRefused):
        leases.acquire(desk, tab(colleague), ttl=300)
    assert room.told(listening) == []


def test_a_renewal_and_an_expiry_are_told_without_an_event(
    room: Room, listening: Someone, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    room.look()
    leases.acquire(desk, tab(operator), ttl=300, epoch=1)
    (renewed,) = room.told(listening)
    let_expire(desk)
    (expired,) = room.told(listening)
    assert (renewed.data["happened"], renewed.resume) == (None, None)
    assert (expired.data["happened"], expired.data["control"]["controller"]) == (None, "none")


def test_viewers_and_displays_are_told_when_they_change(
    room: Room, listening: Someone, desk: Workspace, operator: User
) -> None:
    stream = open_stream(desk, operator)
    assert kinds(room.told(listening)) == [("viewers", "desk")]
    DisplayStream.objects.filter(pk=stream.pk).update(closed_at=Now())
    (left,) = room.told(listening)
    assert left.data == {"workspace": "desk", "viewers": 0}
    Workspace.objects.update(display_status=DisplayStatus.UNREACHABLE)
    (display,) = room.told(listening)
    assert display.data["display"]["status"] == "unreachable"


# --- Access ---------------------------------------------------------------------------------------
def test_a_workspace_that_is_deleted_is_gone(
    room: Room, listening: Someone, desk: Workspace, observer: User
) -> None:
    another_desk(role_of=observer)
    room.look(checks_access=True)
    desk.delete()
    assert kinds(room.told(listening)) == [("gone", "desk")]
    assert room.told(listening, checks_access=True) == []


def test_who_loses_a_grant_is_told_that_it_is_gone_and_nothing_more_of_it(
    room: Room, listening: Someone, desk: Workspace, operator: User
) -> None:
    WorkspaceGrant.objects.filter(user=listening.caller.user_id)._raw_delete("default")
    leases.acquire(desk, tab(operator), ttl=300)
    (gone,) = room.told(listening, checks_access=True)
    assert (gone.event, gone.data) == ("gone", {"workspace": "desk"})
    leases.release(desk, tab(operator))
    assert room.told(listening) == []


def test_who_is_granted_more_is_told_of_it(room: Room, listening: Someone, observer: User) -> None:
    another_desk(role_of=observer)
    news = room.told(listening, checks_access=True)
    assert kinds(news) == [(event, "desk-2") for event in ("control", "viewers", "display")]
    WorkspaceGrant.objects.filter(workspace__slug="desk").update(role=Role.OPERATOR)
    (control,) = room.told(listening, checks_access=True)
    assert control.data["control"]["can"]["control"] is True


def test_a_workspace_under_a_new_name_is_told_under_it(
    room: Room, listening: Someone, desk: Workspace
) -> None:
    Workspace.objects.filter(pk=desk.pk).update(slug="renamed")
    assert kinds(room.told(listening)) == [
        ("gone", "desk"),
        *((event, "renamed") for event in ("control", "viewers", "display")),
    ]


def _disable(someone: Someone) -> None:
    User.objects.filter(pk=someone.caller.user_id).update(is_active=False)


def _delete(someone: Someone) -> None:
    User.objects.get(pk=someone.caller.user_id).delete()


def _log_out(someone: Someone) -> None:
    Session.objects.filter(pk=someone.caller.session_key).delete()


def _change_password(someone: Someone) -> None:
    User.objects.filter(pk=someone.caller.user_id).update(password="another")


@pytest.mark.parametrize("end", [_disable, _delete, _log_out, _change_password])
def test_the_stream_of_somebody_who_is_signed_out_is_over(
    end: Callable[[Someone], None], room: Room, listening: Someone, operator: User
) -> None:
    other = room.join(operator)
    room.look()
    end(listening)
    assert room.told(listening, checks_access=True) == []
    assert (listening.is_over, other.is_over) == (True, False)


def test_a_revoked_token_ends_its_stream(room: Room, desk: Workspace) -> None:
    token, _ = apitokens.create("robot", ["observe"], workspaces=[desk])
    someone = Someone(Caller(token.account_id, "", ""))
    room.listeners.append(someone)
    assert [kind for kind, _ in kinds(room.told(someone))][:2] == ["hello", "control"]
    apitokens.revoke(token)
    room.look(checks_access=True)
    assert someone.is_over


# --- Resuming -------------------------------------------------------------------------------------
@pytest.fixture
def two_desks(desk: Workspace, observer: User, operator: User) -> Workspace:
    """A second desktop, which the operator has controlled for a minute."""
    other = another_desk(role_of=observer)
    WorkspaceGrant.objects.create(workspace=other, user=operator, role=Role.OPERATOR)
    leases.acquire(other, tab(operator), ttl=300)
    open_stream(other, operator)
    _let_a_minute_pass(other)
    return other


def _let_a_minute_pass(workspace: Workspace) -> None:
    age(workspace, 60)
    ControlEvent.objects.update(at=Now() - timedelta(seconds=60))
    DisplayStream.objects.update(opened_at=Now() - timedelta(seconds=90))


def test_who_resumes_is_told_of_what_has_changed_and_of_nothing_else(
    room: Room, two_desks: Workspace, desk: Workspace, observer: User, operator: User
) -> None:
    first = room.join(observer)
    room.look()
    room.listeners.clear()
    leases.acquire(desk, tab(operator), ttl=300)
    leases.release(desk, tab(operator))
    again = room.join(observer, resume_after=first.last_id)
    hello, *missed = room.told(again)
    assert hello.data == {"resumed": True, "workspaces": ["desk", "desk-2"]}
    assert happenings(missed) == [("desk", "acquired"), ("desk", "released")]
    assert len(missed) == 2
    assert again.last_id == event_ids()[-1]


def test_who_has_missed_nothing_is_told_nothing(
    room: Room, two_desks: Workspace, observer: User
) -> None:
    (hello,) = room.told(room.join(observer, resume_after=event_ids()[-1]))
    assert hello.data["resumed"] is True
    assert hello.resume == event_ids()[-1]


def test_who_resumes_is_told_of_changes_that_no_event_stands_for(
    room: Room, two_desks: Workspace, desk: Workspace, observer: User, operator: User
) -> None:
    last = event_ids()[-1]
    leases.acquire(two_desks, tab(operator), ttl=300, epoch=1)  # a renewal
    open_stream(desk, operator)
    Workspace.objects.filter(pk=desk.pk).update(display_checked_at=Now())
    _, *missed = room.told(room.join(observer, resume_after=last))
    assert sorted(kinds(missed)) == [
        ("control", "desk-2"),
        ("display", "desk"),
        ("viewers", "desk"),
    ]


def test_who_resumes_is_told_that_control_has_run_out(
    room: Room, two_desks: Workspace, observer: User
) -> None:
    last = event_ids()[-1]
    let_expire(two_desks)
    _, control = room.told(room.join(observer, resume_after=last))
    assert (control.slug, control.data["control"]["controller"]) == ("desk-2", "none")


@pytest.mark.parametrize("shift", [1, 1000])
def test_an_id_that_never_was_means_a_fresh_start(
    shift: int, room: Room, two_desks: Workspace, observer: User
) -> None:
    someone = room.join(observer, resume_after=event_ids()[-1] + shift)
    hello, *told = room.told(someone)
    assert hello.data["resumed"] is False
    assert len(told) == 6


def test_an_id_from_before_all_that_is_kept_means_a_fresh_start(
    room: Room, two_desks: Workspace, observer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = event_ids()[-1]
    ControlEvent.objects.all().delete()
    hello, *_ = room.told(room.join(observer, resume_after=last))
    assert hello.data["resumed"] is False


def test_an_event_that_is_committed_after_a_younger_one_is_told_and_can_be_resumed_to(
    room: Room, listening: Someone, desk: Workspace, observer: User
) -> None:
    """As PostgreSQL shows them when the transaction that was first to write is last to commit."""
    (settled,) = event_ids()
    _record(desk, settled + 2)
    (early,) = room.told(listening)
    assert early.resume == settled, "resuming must not skip what is still missing"
    _record(desk, settled + 1)
    (late,) = room.told(listening)
    assert late.resume == settled + 2
    assert room.told(listening) == []

    again = room.join(observer, resume_after=settled)
    _, *missed = room.told(again)
    assert [each.resume for each in missed] == [settled + 1, settled + 2]


def test_a_reader_that_begins_looks_for_what_is_still_missing(
    room: Room, desk: Workspace, observer: User
) -> None:
    events.record(desk, ControlEvent.What.KEPT, at=now(), epoch=1)
    (first,) = event_ids()
    _record(desk, first + 2)
    someone = room.join(observer)
    room.look()
    assert someone.last_id == first
    _record(desk, first + 1)
    assert happenings(room.told(someone)) == [("desk", "kept")]
    assert someone.last_id == first + 2


def _record(workspace: Workspace, event_id: int) -> None:
    ControlEvent.objects.create(
        pk=event_id,
        workspace=workspace,
        workspace_slug=workspace.slug,
        what=ControlEvent.What.KEPT,
        epoch=1,
        at=now(),
    )


def test_more_events_than_are_read_at_once_are_told_one_look_after_the_other(
    room: Room, listening: Someone, desk: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "READ_AT_ONCE", 3)
    for _ in range(7):
        events.record(desk, ControlEvent.What.KEPT, at=now(), epoch=1)
    assert [len(room.told(listening)) for _ in range(4)] == [3, 3, 1, 0]


# --- Failure and cost -----------------------------------------------------------------------------
def test_what_could_not_be_read_is_told_after_the_next_look(
    room: Room,
    listening: Someone,
    desk: Workspace,
    operator: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)

    def fail(*_: object) -> Any:
        raise OperationalError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("controlplane.feed.reader.leaseviews.read", fail)
        with pytest.raises(OperationalError):
            room.look()
    assert happenings(room.told(listening)) == [("desk", "acquired")]


TELLING = ("new", "resuming", "news")


@pytest.mark.parametrize("situation", [*TELLING, "idle", "checked"])
def test_two_hundred_listeners_and_many_workspaces_cost_as_many_queries_as_one(
    situation: str, desk: Workspace, operator: User, observer: User
) -> None:
    counts = []
    for number_of_listeners, number_of_desks in ((1, 1), (200, 5)):
        for number in range(number_of_desks):
            another_desk(f"more-{number_of_listeners}-{number}", observer)
        leases.acquire(desk, tab(operator), ttl=300)
        room, everybody = Room(), [observer, operator]
        session_keys = {user.pk: Browser(user).session_key for user in everybody}
        for number in range(number_of_listeners):
            user = everybody[number % 2]
            resume_after = event_ids()[-1] if situation == "resuming" else None
            caller = Caller(user.pk, f"client-{number:04}", session_keys[user.pk])
            room.listeners.append(Someone(caller, resume_after))
        if situation not in {"new", "resuming"}:
            room.look()
        if situation == "news":
            leases.release(desk, tab(operator))
        with CaptureQueriesContext(connection) as queries:
            told = room.look(checks_access=situation == "checked")
        assert {bool(messages) for messages in told.values()} == {situation in TELLING}
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert counts[0] <= 20


def test_many_people_cost_as_many_queries_as_one(room: Room, desk: Workspace) -> None:
    room.join(person("first", role=Role.OBSERVER))
    with CaptureQueriesContext(connection) as for_one:
        room.look()
    for number in range(20):
        room.join(person(f"person-{number}", role=Role.OBSERVER))
    with CaptureQueriesContext(connection) as for_many:
        room.look()
    assert len(for_many) <= len(for_one)
