"""The lease watch: what one pass finds, and when streams are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from controlplane import driving, events, handovers, leases, watch
from controlplane.closecodes import CloseCode
from controlplane.driving import Claim, Driver
from controlplane.exceptions import ControlRefused
from controlplane.gate import Gate
from controlplane.models import ControlEvent, DisplayStream, Role, Workspace, WorkspaceGrant
from controlplane.verdicts import Cause, Question, Seen, Verdict, examine
from controlplane.watch import Watch
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    Browser,
    age,
    agent,
    assert_free,
    assert_held_by,
    let_expire,
    open_stream,
    person,
    question,
    tab,
    transitions,
    view_of,
)
from tests.support.timing import await_until, limit


# --- One pass -------------------------------------------------------------------------------------
def question_of(workspace: Workspace, browser: Browser, client_id: str = THIS_TAB) -> Question:
    """Open a stream, and return what it asks at first."""
    user = User.objects.get(pk=browser.client.session["_auth_user_id"])
    return question(
        open_stream(workspace, user, client_id).pk,
        workspace.pk,
        user.pk,
        client_id=client_id,
        session_key=browser.session_key,
        upstream_version=workspace.upstream_version,
    )


@pytest.fixture
def asked(desk: Workspace, observer: User) -> Question:
    """What an observer's stream asks."""
    return question_of(desk, Browser(observer))


@pytest.fixture
def holders(desk: Workspace, operator: User) -> Question:
    """What the operator's stream asks while the operator, in this tab, has control."""
    browser = Browser(operator)
    leases.acquire(desk, tab(operator, login=browser.login), ttl=300)
    return answered(question_of(desk, browser), driven_epoch=1)


def look(question: Question, *, checks_access: bool = False) -> Verdict:
    return examine([question], checks_access)[question]


def answered(question: Question, **more: Any) -> Question:
    """Return what the stream asks after it has been told of things as they are."""
    view = look(question).view
    assert view is not None
    return replace(question, seen=Seen.of(view), **more)


def assert_ended(verdict: Verdict, code: CloseCode) -> None:
    assert verdict.end is not None
    assert verdict.end[0] is code
    assert verdict.end[1]


def test_a_new_stream_is_told_who_has_control(asked: Question, desk: Workspace) -> None:
    verdict = look(asked)
    assert verdict.control is not None
    assert (verdict.control["controller"], verdict.end) == ("none", None)
    assert verdict.control["can"] == {"observe": True, "control": False, "force": False}


def test_a_stream_is_told_nothing_twice(asked: Question) -> None:
    verdict = look(answered(asked))
    assert (verdict.control, verdict.cause, verdict.end) == (None, Cause(), None)
    assert verdict.view is not None


def test_a_stream_is_told_who_takes_control(
    asked: Question, desk: Workspace, operator: User
) -> None:
    asked = answered(asked)
    leases.acquire(desk, tab(operator), ttl=300)
    verdict = look(asked)
    assert verdict.control is not None
    assert verdict.control["controlled_by"] == "Olive Operator"
    assert not verdict.control["yours"]
    assert verdict.cause == Cause("acquired", "Olive Operator", None)


def test_a_renewal_is_told_without_a_cause(
    asked: Question, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    asked = answered(asked)
    leases.acquire(desk, tab(operator), ttl=300, epoch=1)
    verdict = look(asked)
    assert verdict.control is not None
    assert verdict.cause == Cause()


def test_the_coming_and_going_of_the_holder_is_told_without_a_cause(
    asked: Question, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    asked = answered(asked)
    open_stream(desk, operator)
    came = look(asked)
    assert came.control is not None
    assert (came.control["holder_connected"], came.cause) == (True, Cause())
    asked = answered(asked)
    DisplayStream.objects.filter(user=operator).update(closed_at=Now())
    went = look(asked)
    assert went.control is not None
    assert (went.control["holder_connected"], went.cause) == (False, Cause())


def test_a_refused_request_is_not_news(asked: Question, desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    asked = answered(asked)
    with pytest.raises(ControlRefused):
        leases.acquire(desk, tab(operator, OTHER_TAB), ttl=300)
    assert look(asked).control is None


def test_an_expiry_that_nobody_has_recorded_is_told_once(
    asked: Question, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    asked = answered(asked)
    let_expire(desk)
    verdict = look(asked)
    assert verdict.control is not None
    assert (verdict.control["controller"], verdict.cause) == ("none", Cause("expired"))
    assert look(answered(asked)).control is None
    assert transitions(desk) == [("acquired", 1)]


def test_the_holders_stream_sees_its_lease(holders: Question, operator: User) -> None:
    view = look(holders).view
    assert view is not None
    assert view.is_held_by(operator.pk, THIS_TAB)
    assert 300 - limit(1) < view.remaining <= 300


def test_who_was_forced_out_is_told_by_whom_and_why_though_others_came_since(
    holders: Question, desk: Workspace, colleague: User
) -> None:
    leases.force_release(desk, by="Mary Manager", note="maintenance")
    leases.acquire(desk, tab(colleague), ttl=300)
    verdict = look(holders)
    assert verdict.cause == Cause("forced", "Mary Manager", "maintenance")
    assert verdict.control is not None
    assert verdict.control["controlled_by"] == "colleague"


def test_whose_lease_ran_out_is_told_so(holders: Question, desk: Workspace) -> None:
    let_expire(desk)
    assert look(holders).cause == Cause("expired")


def test_a_lease_that_ran_out_and_was_taken_since_is_told_as_expired(
    holders: Question, desk: Workspace, colleague: User
) -> None:
    let_expire(desk)
    leases.acquire(desk, tab(colleague), ttl=300)
    assert look(holders).cause.reason == "expired"


def test_a_preempted_agent_is_told_by_whom(
    desk: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, agent(operator, THIS_TAB), ttl=300)
    asked = answered(question_of(desk, Browser(operator)), driven_epoch=1)
    leases.acquire(desk, tab(colleague), ttl=300)
    assert look(asked).cause == Cause("preempted", "colleague", None)


def test_a_resumption_is_no_end_to_its_own_holder(
    holders: Question, desk: Workspace, operator: User
) -> None:
    let_expire(desk)
    leases.acquire(desk, tab(operator), ttl=300, epoch=1)
    verdict = look(holders)
    assert verdict.control is not None
    assert verdict.control["this_client"]
    assert verdict.cause.reason == "resumed"


def test_a_newer_stream_of_the_same_tab_supersedes(holders: Question, desk: Workspace) -> None:
    newer = DisplayStream.objects.create(
        workspace=desk,
        user_id=holders.user_id,
        client_id=THIS_TAB,
        token_id="newer",
        process="another process",
    )
    assert_ended(look(holders), CloseCode.SUPERSEDED)
    assert look(replace(holders, stream_id=newer.pk)).end is None
    newer.closed_at = newer.opened_at
    newer.save()
    assert look(holders).end is None


def test_other_tabs_and_other_people_do_not_supersede(
    holders: Question, desk: Workspace, operator: User, observer: User
) -> None:
    open_stream(desk, operator, OTHER_TAB)
    open_stream(desk, observer, THIS_TAB)
    assert look(holders).end is None


def test_a_workspace_that_is_gone_ends_its_streams(asked: Question, desk: Workspace) -> None:
    desk.delete()
    assert_ended(look(asked), CloseCode.MISSING)
    assert_ended(look(asked, checks_access=True), CloseCode.MISSING)  # though no grant is left


@pytest.mark.parametrize("change", [{"enabled": False}, {"upstream_url": ""}])
def test_a_display_that_is_disabled_ends_its_streams(
    change: dict[str, Any], holders: Question, desk: Workspace
) -> None:
    Workspace.objects.update(**change)
    assert_ended(look(holders, checks_access=True), CloseCode.MISSING)
    assert_free(desk, reason="access_ended", epoch=1)


# Each goes past the signals: what these miss, the watch must find.
def _disable(question: Question) -> None:
    User.objects.filter(pk=question.user_id).update(is_active=False)


def _delete(question: Question) -> None:
    User.objects.get(pk=question.user_id).delete()


def _log_out(question: Question) -> None:
    Session.objects.filter(pk=question.session_key).delete()


def _change_password(question: Question) -> None:
    User.objects.filter(pk=question.user_id).update(password="another")


def _revoke(question: Question) -> None:
    WorkspaceGrant.objects.filter(user=question.user_id)._raw_delete("default")


@pytest.mark.parametrize("end", [_disable, _delete, _log_out, _change_password, _revoke])
def test_whose_access_has_ended_is_sent_away_and_loses_control(
    end: Callable[[Question], None], holders: Question, desk: Workspace
) -> None:
    end(holders)
    assert_ended(look(holders, checks_access=True), CloseCode.FORBIDDEN)
    assert_free(desk, reason="access_ended", epoch=1)


def test_the_end_of_one_login_leaves_the_streams_of_another(
    holders: Question, desk: Workspace, operator: User
) -> None:
    other = question_of(desk, Browser(operator), OTHER_TAB)
    _log_out(other)
    verdicts = examine([holders, other], True)
    assert verdicts[holders].end is None
    assert_ended(verdicts[other], CloseCode.FORBIDDEN)
    assert_held_by(desk, tab(operator), epoch=1)


def test_who_may_only_watch_any_more_loses_control_and_goes_on_watching(
    holders: Question, desk: Workspace
) -> None:
    WorkspaceGrant.objects.update(role=Role.OBSERVER)
    verdict = look(holders, checks_access=True)
    assert verdict.end is None
    assert verdict.control is not None
    assert verdict.control["can"]["control"] is False
    assert verdict.cause.reason == "access_ended"
    assert_free(desk, reason="access_ended", epoch=1)


def test_the_watch_ends_the_lease_of_a_holder_who_has_no_stream(
    asked: Question, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    User.objects.filter(pk=operator.pk).update(is_active=False)
    look(asked, checks_access=True)
    assert_free(desk, reason="access_ended", epoch=1)


def test_between_looks_at_access_nobody_is_sent_away(asked: Question) -> None:
    _revoke(asked)
    assert look(asked).end is None


def test_an_account_deleted_between_looks_at_access_ends_its_own_stream_only(
    asked: Question, desk: Workspace, stranger: User
) -> None:
    WorkspaceGrant.objects.create(workspace=desk, user=stranger, role=Role.OBSERVER)
    deleted = question_of(desk, Browser(stranger))
    User.objects.get(pk=stranger.pk).delete()
    verdicts = examine([deleted, asked], False)
    assert_ended(verdicts[deleted], CloseCode.FORBIDDEN)
    assert verdicts[asked].control is not None


def test_a_pass_stamps_the_rows_by_the_databases_clock(asked: Question) -> None:
    DisplayStream.objects.update(stamped_at=Now() - timedelta(hours=1))
    look(asked)
    assert DisplayStream.objects.filter(
        stamped_at__gt=Now() - timedelta(seconds=5), stamped_at__lte=Now(), last_input_at=None
    ).exists()


def test_a_pass_notes_who_is_in_control(asked: Question) -> None:
    look(replace(asked, mode="control"))
    assert DisplayStream.objects.get().mode == "control"
    look(asked)
    assert DisplayStream.objects.get().mode == "observe"


def test_a_pass_notes_when_there_was_input(asked: Question) -> None:
    look(replace(asked, input_age=20.0))
    lower, upper = Now() - timedelta(seconds=25), Now() - timedelta(seconds=19)
    assert DisplayStream.objects.filter(last_input_at__range=(lower, upper)).exists()
    look(asked)
    assert not DisplayStream.objects.filter(last_input_at=None).exists()


@pytest.mark.parametrize("checks_access", [False, True])
@pytest.mark.parametrize("is_news", [False, True])
def test_a_pass_over_many_streams_costs_as_many_queries_as_over_one(
    checks_access: bool, is_news: bool, desk: Workspace, operator: User
) -> None:
    questions = []
    for number in range(10):
        browser = Browser(person(f"person-{number}", role=Role.OBSERVER))
        questions.append(replace(answered(question_of(desk, browser)), input_age=1.0))
    if is_news:
        leases.acquire(desk, tab(operator), ttl=300)
    counts = []
    for several in (questions[:1], questions):
        with CaptureQueriesContext(connection) as queries:
            verdicts = examine(several, checks_access)
        assert all(bool(verdict.control) == is_news for verdict in verdicts.values())
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- Ends that somebody else has decided ----------------------------------------------------------
def test_a_new_address_ends_the_streams_to_the_old_one(asked: Question, desk: Workspace) -> None:
    desk.upstream_url = "tcp://127.0.0.1:5998"
    desk.save()
    assert_ended(look(asked), CloseCode.RESTARTING)
    assert look(replace(asked, upstream_version=1)).end is None


@pytest.mark.parametrize("field", ["vnc_password", "upstream_query", "upstream_headers"])
def test_a_new_secret_ends_the_streams_that_used_the_old_one(
    field: str, asked: Question, desk: Workspace
) -> None:
    setattr(desk, field, "a: b")
    desk.save()
    assert_ended(look(asked), CloseCode.RESTARTING)


def test_a_new_name_ends_no_stream(asked: Question, desk: Workspace) -> None:
    desk.name = "Desk 13"
    desk.save()
    assert look(asked).end is None


def test_an_administrator_can_end_a_connection(asked: Question) -> None:
    DisplayStream.objects.update(disconnected_by="Ada Admin")
    verdict = look(asked)
    assert_ended(verdict, CloseCode.FORBIDDEN)
    assert "Ada Admin" in verdict.end[1]  # type: ignore[index]  # assert_ended has looked


@pytest.mark.parametrize("how", ["closed", "removed"])
def test_a_stream_whose_row_is_gone_is_dialled_again(how: str, asked: Question) -> None:
    if how == "closed":
        DisplayStream.objects.update(closed_at=Now())
    else:
        DisplayStream.objects.all().delete()
    assert_ended(look(asked), CloseCode.RESTARTING)


# --- News that leave control where it is ----------------------------------------------------------
def test_everybody_who_watches_is_told_that_somebody_asks(
    asked: Question, desk: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    asked = answered(asked)
    handovers.ask(desk, tab(colleague), "please")
    verdict = look(asked)
    assert verdict.control is not None
    assert [each["message"] for each in verdict.control["requests"]] == ["please"]
    assert verdict.cause == Cause("requested", "colleague", "please")
    handovers.withdraw(desk, colleague, THIS_TAB)
    assert look(answered(asked)).control is None
    assert look(asked).cause.reason != "requested"


def test_a_page_is_told_that_control_is_about_to_end(holders: Question, desk: Workspace) -> None:
    Workspace.objects.update(idle_seconds=120)
    holders = answered(holders)
    age(desk, 100)
    verdict = look(holders)
    assert verdict.control is not None
    assert verdict.control["ends"]["reason"] == "idle"
    assert verdict.cause == Cause()


def test_ageing_a_lease_in_these_tests_is_what_time_does(holders: Question) -> None:
    desk = Workspace.objects.get()
    before = view_of(desk).remaining
    age(desk, 100)
    assert before - 101 < view_of(desk).remaining <= before - 100
    assert ControlEvent.objects.count() == 1


# --- The reader -----------------------------------------------------------------------------------
class FakeStream:
    """A stream with a real gate, which opens while the fake database says that it is held."""

    def __init__(self, workspace_id: int = 1) -> None:
        self.workspace_id = workspace_id
        self.gate = Gate()
        self.answers: list[Verdict] = []
        self.seen_version = 1
        self.seat = (workspace_id, 1, f"tab-{id(self)}")

    def question(self) -> Question:
        return question(id(self), self.workspace_id, user_id=1)

    def answer(self, verdict: Verdict, started: float) -> None:
        self.answers.append(verdict)
        if verdict.end is None:
            self.gate.allow(read_started=started, remaining=300, fence=10)

    def shut_gate(self) -> None:
        self.gate.shut()


class FakeDatabase:
    """Stands in for ``examine``: it can be slow, it can fail, and it remembers what was asked."""

    def __init__(self) -> None:
        self.passes: list[tuple[list[int], bool]] = []
        self.verdict_on: Callable[[Question], Verdict] = lambda question: Verdict()
        self.failure: Exception | None = None
        self.flows = threading.Event()
        self.flows.set()
        self.entered = 0

    def examine(self, questions: list[Question], checks_access: bool) -> dict[Question, Verdict]:
        self.entered += 1
        verdicts = {each: self.verdict_on(each) for each in questions}  # as things are now
        if not self.flows.wait(limit(1)):
            raise AssertionError("a test left the database blocked")
        if self.failure:
            raise self.failure
        self.passes.append(([each.stream_id for each in questions], checks_access))
        return verdicts


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    fake = FakeDatabase()
    monkeypatch.setattr(watch, "examine", fake.examine)
    return fake


@pytest.fixture
async def the_watch(database: FakeDatabase, settings: Any) -> AsyncIterator[Watch]:
    """A watch that polls often, and is stopped at the end."""
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=0.02)
    watch_ = Watch()
    yield watch_
    database.flows.set()
    for stream in list(watch_._streams):
        watch_.leave(stream)


def slow_polls(settings: Any) -> None:
    """From now on nothing but being woken makes the watch read."""
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=3600, fence_seconds=7200)


async def joined(the_watch: Watch, workspace_id: int = 1) -> FakeStream:
    """Return a stream that has had its first answer."""
    stream = FakeStream(workspace_id)
    the_watch.join(stream)
    the_watch.wake(stream)
    await await_until(lambda: stream.answers, "the first answer")
    return stream


async def test_who_asks_is_answered_at_once_and_nobody_else_is_looked_at(
    the_watch: Watch, database: FakeDatabase, settings: Any
) -> None:
    slow_polls(settings)
    first = await joined(the_watch)
    second = await joined(the_watch)
    assert second.gate.is_open
    assert len(first.answers) == 1
    assert database.passes[-1][0] == [id(second)]


async def test_a_newer_stream_of_the_same_seat_shuts_the_older_one_first(
    the_watch: Watch, database: FakeDatabase, settings: Any
) -> None:
    slow_polls(settings)
    older, newer = await joined(the_watch), FakeStream()
    newer.seat = older.seat
    database.flows.clear()
    the_watch.join(newer)
    assert not older.gate.is_open
    assert newer.gate.is_open is False


async def test_a_read_that_a_notice_has_overtaken_is_known_to_be_old(the_watch: Watch) -> None:
    await joined(the_watch)
    view: Any = SimpleNamespace(lease=SimpleNamespace(workspace_id=1, version=4))
    assert not the_watch.has_newer(view)
    the_watch.notice(1, version=4)
    assert not the_watch.has_newer(view)
    the_watch.notice(1, version=5)
    the_watch.notice(1, version=3)  # notices overtake each other
    assert the_watch.has_newer(view)


async def test_the_watch_reads_again_and_again(the_watch: Watch) -> None:
    stream = await joined(the_watch)
    await await_until(lambda: len(stream.answers) > 5, "five more answers")


async def test_one_pass_reads_for_all_streams(
    the_watch: Watch, database: FakeDatabase, settings: Any
) -> None:
    slow_polls(settings)
    streams = [FakeStream(number) for number in range(20)]
    for stream in streams:
        the_watch.join(stream)
        the_watch.wake(stream)
    await await_until(lambda: all(stream.answers for stream in streams), "answers for all")
    assert len(database.passes) <= 2
    assert set(database.passes[-1][0]) == {id(stream) for stream in streams}


async def test_a_notice_shuts_the_gates_of_its_workspace_at_once(
    the_watch: Watch, database: FakeDatabase
) -> None:
    concerned, other = await joined(the_watch, 1), await joined(the_watch, 2)
    database.flows.clear()
    the_watch.notice(1, version=concerned.seen_version + 1)
    assert (concerned.gate.is_open, other.gate.is_open) == (False, True)


async def test_a_notice_of_what_has_been_read_already_interrupts_nobody(
    the_watch: Watch, database: FakeDatabase
) -> None:
    stream = await joined(the_watch)
    database.flows.clear()
    the_watch.notice(1, version=stream.seen_version)
    assert stream.gate.is_open


async def test_a_change_of_access_interrupts_nobody_until_it_has_been_read(
    the_watch: Watch, database: FakeDatabase
) -> None:
    stream = await joined(the_watch)
    database.flows.clear()
    the_watch.notice_access()
    assert stream.gate.is_open


async def test_only_a_read_that_began_after_the_notice_opens_the_gate_again(
    the_watch: Watch, database: FakeDatabase, settings: Any
) -> None:
    stream = await joined(the_watch)
    slow_polls(settings)
    database.flows.clear()
    entered, told = database.entered, len(stream.answers)
    await await_until(lambda: database.entered > entered or the_watch.wake(stream), "a slow read")
    told = len(stream.answers)
    the_watch.notice(1, stream.seen_version + 1)  # while that read is under way
    assert not stream.gate.is_open
    seen_at_answers: list[bool] = []
    real = stream.answer

    def answer(verdict: Verdict, started: float) -> None:
        real(verdict, started)
        seen_at_answers.append(stream.gate.is_open)

    stream.answer = answer  # type: ignore[method-assign]  # to look right after each answer
    database.flows.set()
    await await_until(lambda: len(stream.answers) >= told + 2, "the slow answer and the next")
    assert seen_at_answers[:2] == [False, True]


async def test_notices_come_over_the_channel_layer(
    the_watch: Watch, database: FakeDatabase, settings: Any
) -> None:
    slow_polls(settings)
    stream = await joined(the_watch)
    layer: Any = events.channel_layer()
    await await_until(lambda: layer.groups.get(events.GROUP), "the watch listens")
    told = len(stream.answers)
    await layer.group_send(events.GROUP, {"type": "access"})
    await await_until(lambda: len(stream.answers) > told, "an answer to the notice")
    assert database.passes[-1][1] is True


async def test_an_announcement_reaches_the_watch(
    the_watch: Watch, settings: Any, database: FakeDatabase
) -> None:
    slow_polls(settings)
    stream = await joined(the_watch, 7)
    layer: Any = events.channel_layer()
    await await_until(lambda: layer.groups.get(events.GROUP), "the watch listens")
    told = len(stream.answers)
    await asyncio.to_thread(events._broker.send, {"type": "lease", "workspace_id": 7, "version": 1})
    await await_until(lambda: len(stream.answers) > told, "an answer to the announcement")


async def test_without_a_broker_polling_goes_on(
    the_watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise OSError("connection refused")

    monkeypatch.setattr(events, "channel_layer", away)
    stream = await joined(the_watch)
    await await_until(lambda: len(stream.answers) > 2, "answers")


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
async def test_a_blind_watch_tells_nobody_anything_until_it_sees_again(
    error: Exception, the_watch: Watch, database: FakeDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    stream = await joined(the_watch)
    database.failure = error
    entered = database.entered
    await await_until(lambda: database.entered > entered + 3, "failing reads")
    told = len(stream.answers)
    entered = database.entered
    await await_until(lambda: database.entered > entered + 3, "more failing reads")
    assert len(stream.answers) == told
    database.failure = None
    await await_until(lambda: len(stream.answers) > told, "an answer after the outage")
    texts = [each.message for each in caplog.records if each.name == "controlplane.watch"]
    assert len(texts) == 2
    assert "cannot be read" in texts[0]
    assert texts[1] == "leases can be read again"


async def test_the_lag_grows_while_reads_fail_and_is_nought_while_nobody_is_watched(
    the_watch: Watch, database: FakeDatabase
) -> None:
    assert the_watch.lag == 0
    stream = await joined(the_watch)
    database.failure = OperationalError("gone")
    await await_until(lambda: the_watch._blindness.is_on, "the watch is blind")
    before = the_watch.lag
    entered = database.entered
    await await_until(lambda: database.entered > entered + 3, "more failing reads")
    lag = the_watch.lag
    assert lag > before >= 0
    database.failure = None
    await await_until(lambda: the_watch.lag < lag, "a read that succeeds")
    the_watch.leave(stream)
    assert the_watch.lag == 0


async def test_a_notice_to_a_blind_watch_leaves_the_gate_shut(
    the_watch: Watch, database: FakeDatabase
) -> None:
    stream = await joined(the_watch)
    database.failure = OperationalError("gone")
    await await_until(lambda: the_watch._blindness.is_on, "the watch is blind")
    assert stream.gate.is_open  # the fence has not passed
    the_watch.notice(1, stream.seen_version + 1)
    entered = database.entered
    await await_until(lambda: database.entered > entered + 2, "failing reads")
    assert not stream.gate.is_open
    database.failure = None
    await await_until(lambda: stream.gate.is_open, "the gate opens again")


async def test_access_is_looked_at_in_the_first_pass_after_such_a_notice_and_every_few_seconds(
    the_watch: Watch, database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await joined(the_watch)
    await await_until(lambda: len(database.passes) > 3, "a few passes")
    assert [checks for _, checks in database.passes][:3] == [True, False, False]
    the_watch.notice_access()
    passes = len(database.passes)
    await await_until(lambda: len(database.passes) > passes + 2, "a few passes")
    assert True in [checks for _, checks in database.passes[passes:]]
    monkeypatch.setattr(watch, "ACCESS_SECONDS", 0.0)
    passes = len(database.passes)
    await await_until(lambda: len(database.passes) > passes + 3, "a few passes")
    assert all(checks for _, checks in database.passes[passes + 1 :])
    assert stream.gate.is_open


def test_a_lost_login_is_noticed_within_five_seconds() -> None:
    assert watch.ACCESS_SECONDS + 1 < 5


async def test_a_stream_that_has_left_is_told_nothing_more(
    the_watch: Watch, database: FakeDatabase
) -> None:
    leaving, staying = await joined(the_watch), await joined(the_watch)
    database.flows.clear()
    entered = database.entered
    await await_until(lambda: database.entered > entered, "a read under way")
    told = len(leaving.answers)
    the_watch.leave(leaving)
    told_staying = len(staying.answers)
    database.flows.set()
    await await_until(lambda: len(staying.answers) > told_staying, "an answer to who stays")
    assert len(leaving.answers) == told


async def test_the_last_stream_to_leave_stops_the_watch_and_the_next_starts_it(
    the_watch: Watch, database: FakeDatabase
) -> None:
    stream = await joined(the_watch)
    task = the_watch._task
    assert task is not None
    the_watch.leave(stream)
    the_watch.leave(stream)
    await asyncio.wait([task])
    assert task.cancelled()
    await joined(the_watch)


async def test_a_stream_that_fails_to_take_its_answer_does_not_take_the_watch_from_others(
    the_watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeStream):
        def answer(self, verdict: Verdict, started: float) -> None:
            super().answer(verdict, started)
            raise ZeroDivisionError

    broken = Broken()
    the_watch.join(broken)
    healthy = await joined(the_watch)
    await await_until(lambda: len(healthy.answers) > 3, "answers go on")
    assert broken.answers
    assert "failed to take its answer" in caplog.text


async def test_a_stream_that_fails_to_ask_does_not_take_the_watch_from_others(
    the_watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeStream):
        def question(self) -> Question:
            raise ZeroDivisionError

    broken = Broken()
    the_watch.join(broken)
    healthy = await joined(the_watch)
    await await_until(lambda: len(healthy.answers) > 3, "answers go on")
    assert not broken.answers
    assert "failed to ask" in caplog.text


# --- Claims ---------------------------------------------------------------------------------------
class FakeBarrier:
    """Stands in for ``driving.claim``: it grants each claim, and remembers them."""

    def __init__(self) -> None:
        self.claims: list[tuple[Driver, bool]] = []

    def claim(self, driver: Driver, process: str, *, is_first: bool) -> Claim:
        self.claims.append((driver, is_first))
        return Claim(is_granted=True)


@pytest.fixture
def barrier(monkeypatch: pytest.MonkeyPatch, database: FakeDatabase) -> FakeBarrier:
    """From now on, every pass finds that it is for each stream to claim that it drives."""
    fake = FakeBarrier()
    monkeypatch.setattr(driving, "claim", fake.claim)
    database.verdict_on = lambda question: wanting(question, epoch=1)
    return fake


def wanting(question: Question, epoch: int) -> Verdict:
    return Verdict(wants_to_drive=Driver(question.stream_id, 1, 1, THIS_TAB, epoch))


async def test_only_the_first_claim_in_an_epoch_says_that_it_is(
    the_watch: Watch, barrier: FakeBarrier, database: FakeDatabase
) -> None:
    await joined(the_watch)
    await await_until(lambda: len(barrier.claims) > 2, "three claims")
    assert [is_first for _, is_first in barrier.claims][:3] == [True, False, False]
    database.verdict_on = lambda question: wanting(question, epoch=2)
    await await_until(lambda: barrier.claims[-1][0].epoch == 2, "a claim in the next epoch")
    firsts = [is_first for driver, is_first in barrier.claims if driver.epoch == 2]
    assert firsts[0] is True


async def test_nothing_is_claimed_and_nothing_kept_for_a_stream_that_leaves_during_a_pass(
    the_watch: Watch, barrier: FakeBarrier, database: FakeDatabase, settings: Any
) -> None:
    slow_polls(settings)
    leaving, staying = FakeStream(), FakeStream()
    database.flows.clear()
    the_watch.join(leaving)
    await await_until(lambda: database.entered, "a read under way")
    the_watch.join(staying)
    the_watch.leave(leaving)
    database.flows.set()
    the_watch.wake(staying)
    await await_until(lambda: barrier.claims, "a claim of a later pass")
    assert leaving not in the_watch._claimed
    assert {driver.stream_id for driver, _ in barrier.claims} == {id(staying)}


async def test_nothing_is_kept_for_a_stream_that_leaves_before_its_claim_has_begun(
    the_watch: Watch, barrier: FakeBarrier
) -> None:
    stream = FakeStream()
    real = stream.answer

    def answer(verdict: Verdict, started: float) -> None:
        real(verdict, started)
        the_watch.leave(stream)

    stream.answer = answer  # type: ignore[method-assign]  # right after its claim was begun
    the_watch.join(stream)
    await await_until(lambda: barrier.claims and not the_watch._claim_tasks, "its claim is over")
    assert the_watch._claimed == {}
