"""Asking for control: what the holder, the asker and time make of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.models import F
from django.db.models.functions import Now

from controlplane import handovers, leases
from controlplane.exceptions import TooManyRequests, WorkspaceNotFound
from controlplane.models import (
    ControlEvent,
    ControlRequest,
    DisplayControlLease,
    DisplayStream,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    Browser,
    agent,
    assert_held_by,
    history,
    lease_of,
    open_stream,
    refusal,
    tab,
    view_of,
)

TTL = 300.0


@pytest.fixture
def held(desk: Workspace, operator: User) -> Workspace:
    """The workspace, which the operator has just taken, with a stream open."""
    leases.acquire(desk, tab(operator), ttl=TTL)
    open_stream(desk, operator)
    return desk


@pytest.fixture
def asked(held: Workspace, colleague: User) -> ControlRequest:
    """The colleague's request; their page is open."""
    open_stream(held, colleague, OTHER_TAB)
    return ask(held, colleague)


def ask(desk: Workspace, user: User, message: str = "please") -> ControlRequest:
    handovers.ask(desk, tab(user, OTHER_TAB), message)
    return ControlRequest.objects.get(workspace=desk, user=user, ended_at=None)


def answer(asked: ControlRequest, holder: User, *, accept: bool, epoch: int = 1) -> None:
    handovers.answer(asked.workspace, tab(holder), asked.pk, epoch=epoch, accept=accept, ttl=TTL)


def outcome(asked: ControlRequest) -> str:
    return ControlRequest.objects.get(pk=asked.pk).outcome


def shift(model: Any, seconds: float, *columns: str) -> None:
    """Let these moments be so many seconds longer ago."""
    by = timedelta(seconds=seconds)
    model.objects.update(**{column: F(column) - by for column in columns})


def pass_time(seconds: float) -> None:
    """Let time go by, in which everybody's streams are stamped and nobody gives any input."""
    shift(ControlRequest, seconds, "asked_at", "granted_at", "ended_at")
    shift(DisplayControlLease, seconds, "kept_at", "acquired_at")
    shift(DisplayStream, seconds, "last_input_at", "closed_at")
    live = DisplayStream.objects.filter(stamped_at__gt=Now() - timedelta(seconds=30))
    live.update(stamped_at=Now())


def give_input(user: User) -> None:
    """Let the user's streams report input at this very moment."""
    DisplayStream.objects.filter(user=user).update(last_input_at=Now(), stamped_at=Now())


def last_event(desk: Workspace) -> ControlEvent:
    return ControlEvent.objects.filter(workspace=desk).latest("id")


# --- Asking ---------------------------------------------------------------------------------------
def test_a_request_is_shown_to_all_with_name_and_message(
    asked: ControlRequest, operator: User
) -> None:
    (shown,) = view_of(asked.workspace).requests
    assert (shown.user, shown.message, shown.granted_at) == (asked.user, "please", None)
    event = last_event(asked.workspace)
    assert (event.what, event.epoch) == ("requested", 1)
    assert (event.who, event.note) == ("colleague", "please")


def test_asking_again_changes_the_message_and_the_tab(
    asked: ControlRequest, colleague: User
) -> None:
    handovers.ask(asked.workspace, tab(colleague, "third-tab-003"), "really")
    (shown,) = view_of(asked.workspace).requests
    assert (shown.pk, shown.message, shown.client_id) == (asked.pk, "really", "third-tab-003")
    assert history(asked.workspace).count(("requested", 1)) == 1


def test_nobody_asks_for_what_is_free(desk: Workspace, colleague: User) -> None:
    assert refusal(handovers.ask, desk, tab(colleague), "") == "not_needed"


def test_nobody_asks_for_what_they_have(held: Workspace, operator: User) -> None:
    assert refusal(handovers.ask, held, tab(operator, OTHER_TAB), "") == "not_needed"


def test_nobody_asks_an_agent(desk: Workspace, operator: User, colleague: User) -> None:
    leases.acquire(desk, agent(operator), ttl=TTL)
    assert refusal(handovers.ask, desk, tab(colleague), "") == "not_needed"


def test_who_was_declined_has_to_rest(
    asked: ControlRequest, operator: User, colleague: User
) -> None:
    answer(asked, operator, accept=False)
    with pytest.raises(TooManyRequests) as caught:
        ask(asked.workspace, colleague)
    assert 1 <= (caught.value.retry_after or 0) <= 30
    pass_time(30)
    assert ask(asked.workspace, colleague).pk != asked.pk


def test_who_takes_a_request_back_may_soon_ask_again(
    asked: ControlRequest, colleague: User
) -> None:
    handovers.withdraw(asked.workspace, colleague, OTHER_TAB)
    with pytest.raises(TooManyRequests):
        ask(asked.workspace, colleague)
    pass_time(3)
    assert ask(asked.workspace, colleague).pk != asked.pk


@pytest.mark.django_db(transaction=True)
def test_of_many_who_ask_at_once_each_has_one_request(held: Workspace, colleague: User) -> None:
    def ask_once(_: int) -> None:
        try:
            handovers.ask(held, tab(colleague, OTHER_TAB), "please")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask_once, range(16)))
    assert ControlRequest.objects.count() == 1
    assert history(held).count(("requested", 1)) == 1


# --- Answering ------------------------------------------------------------------------------------
def test_handing_over_is_one_change_of_holder(
    asked: ControlRequest, operator: User, colleague: User
) -> None:
    desk = asked.workspace
    answer(asked, operator, accept=True)
    assert_held_by(desk, tab(colleague, OTHER_TAB), epoch=2)
    event = last_event(desk)
    assert (event.what, event.reason, event.ended_epoch) == ("handed_over", "handed_over", 1)
    assert (outcome(asked), event.who) == ("granted", "colleague")
    assert refusal(leases.acquire, desk, tab(operator), ttl=TTL, epoch=1) == "handed_over"
    assert view_of(desk).requests == ()


def test_keeping_control_declines(asked: ControlRequest, operator: User) -> None:
    answer(asked, operator, accept=False)
    assert_held_by(asked.workspace, tab(operator), epoch=1)
    assert outcome(asked) == "declined"
    event = last_event(asked.workspace)
    assert (event.what, event.who, event.reason) == ("declined", "Olive Operator", "")


def test_only_the_holder_answers(asked: ControlRequest, manager: User, colleague: User) -> None:
    for user in (manager, colleague):
        assert refusal(answer, asked, user, accept=True) == "held"
    assert outcome(asked) == ""


def test_an_answer_of_an_epoch_that_is_over_counts_for_nothing(
    asked: ControlRequest, operator: User
) -> None:
    leases.force_release(asked.workspace, by="Root", note="enough")
    assert refusal(answer, asked, operator, accept=True) == "forced"


def test_a_request_is_answered_once(asked: ControlRequest, operator: User) -> None:
    answer(asked, operator, accept=False)
    assert refusal(answer, asked, operator, accept=True) == "not_asked"
    assert_held_by(asked.workspace, tab(operator), epoch=1)


def test_control_is_not_handed_to_who_may_not_have_it(
    asked: ControlRequest, operator: User, colleague: User
) -> None:
    WorkspaceGrant.objects.filter(user=colleague).update(role="observer")
    assert refusal(answer, asked, operator, accept=True) == "not_asked"
    assert_held_by(asked.workspace, tab(operator), epoch=1)
    assert outcome(asked) == "", "the request stands as it was"


def test_the_asker_may_take_it_back(asked: ControlRequest, colleague: User) -> None:
    handovers.withdraw(asked.workspace, colleague, OTHER_TAB)
    handovers.withdraw(asked.workspace, colleague, OTHER_TAB)
    assert outcome(asked) == "withdrawn"
    assert history(asked.workspace).count(("withdrawn", 1)) == 1


def test_nobody_takes_back_what_another_tab_has_asked(
    asked: ControlRequest, colleague: User, operator: User
) -> None:
    handovers.withdraw(asked.workspace, colleague, THIS_TAB)
    handovers.withdraw(asked.workspace, operator, OTHER_TAB)
    assert outcome(asked) == ""


@pytest.mark.parametrize("how", ["logout", "password"])
def test_who_has_logged_out_is_handed_nothing(
    how: str, held: Workspace, operator: User, colleague: User
) -> None:
    browser = Browser(colleague)
    handovers.ask(held, tab(colleague, OTHER_TAB, login=browser.login), "please")
    asked = ControlRequest.objects.get()
    if how == "logout":
        browser.client.logout()
    else:
        colleague.set_password("another")
        colleague.save()
    assert outcome(asked) == "withdrawn"
    assert refusal(answer, asked, operator, accept=True) == "not_asked"


# --- Time -----------------------------------------------------------------------------------------
def settle(asked: ControlRequest) -> ControlRequest:
    handovers.settle(asked.workspace_id)
    return ControlRequest.objects.get(pk=asked.pk)


def test_a_request_that_is_not_answered_is_declined(
    asked: ControlRequest, operator: User, settings: Any
) -> None:
    give_input(operator)
    pass_time(settings.DISPLAY.request_seconds - 1)
    assert settle(asked).outcome == ""
    pass_time(1)
    assert settle(asked).outcome == "declined"
    event = last_event(asked.workspace)
    assert (event.who, event.reason) == ("Olive Operator", "unanswered")


def be_idle(settings: Any) -> None:
    pass_time(settings.DISPLAY.request_idle_seconds)
    ControlRequest.objects.update(asked_at=Now())


def be_away(user: User) -> None:
    shift(DisplayStream, 60, "stamped_at")
    DisplayStream.objects.exclude(user=user).update(stamped_at=Now())


@pytest.mark.parametrize("why", ["idle", "away"])
def test_a_holder_who_is_idle_or_away_is_warned_and_then_loses_control(
    why: str, asked: ControlRequest, operator: User, colleague: User, settings: Any
) -> None:
    if why == "idle":
        be_idle(settings)
    else:
        be_away(operator)
    warned = settle(asked)
    assert (warned.outcome, warned.granted_at is not None) == ("", True)
    assert settle(asked).granted_at == warned.granted_at, "the countdown does not begin anew"
    pass_time(settings.DISPLAY.request_countdown_seconds)
    assert settle(asked).outcome == "granted"
    assert_held_by(asked.workspace, tab(colleague, OTHER_TAB), epoch=2)


def test_any_input_ends_the_countdown(asked: ControlRequest, operator: User, settings: Any) -> None:
    be_idle(settings)
    settle(asked)
    give_input(operator)
    assert settle(asked).granted_at is None
    pass_time(settings.DISPLAY.request_countdown_seconds)
    assert settle(asked).outcome == ""
    assert_held_by(asked.workspace, tab(operator), epoch=1)


def test_nobody_loses_control_before_the_newest_input_is_known(
    asked: ControlRequest, operator: User, settings: Any
) -> None:
    be_idle(settings)
    settle(asked)
    pass_time(settings.DISPLAY.request_countdown_seconds)
    DisplayStream.objects.filter(user=operator).update(stamped_at=Now() - timedelta(seconds=1.5))
    pass_time(-1)  # the countdown has been over for less than since the newest stamp
    assert settle(asked).outcome == ""
    pass_time(1)
    DisplayStream.objects.filter(user=operator).update(stamped_at=Now())
    assert settle(asked).outcome == "granted"


def test_a_holder_who_has_just_reconnected_is_not_idle(
    asked: ControlRequest, operator: User, settings: Any
) -> None:
    be_idle(settings)
    DisplayStream.objects.filter(user=operator).update(last_input_at=Now(), closed_at=Now())
    open_stream(asked.workspace, operator)
    assert settle(asked).granted_at is None


def test_who_has_just_taken_control_is_not_idle(asked: ControlRequest) -> None:
    assert settle(asked).granted_at is None


def _release(desk: Workspace, operator: User, colleague: User) -> None:
    leases.release(desk, tab(operator))


def _force(desk: Workspace, operator: User, colleague: User) -> None:
    leases.force_release(desk, by="Root", note="enough")


def _take(desk: Workspace, operator: User, colleague: User) -> None:
    leases.release(desk, tab(operator))
    leases.acquire(desk, tab(colleague, OTHER_TAB), ttl=TTL)


def _revoke(desk: Workspace, operator: User, colleague: User) -> None:
    WorkspaceGrant.objects.filter(user=colleague).update(role="observer")


def _leave(desk: Workspace, operator: User, colleague: User) -> None:
    gone = Now() - timedelta(seconds=handovers.LEFT_AFTER_SECONDS + 1)
    DisplayStream.objects.filter(user=colleague).update(closed_at=gone)
    shift(ControlRequest, 20, "asked_at")


@pytest.mark.parametrize("event", [_release, _force, _take, _revoke, _leave])
def test_a_request_that_has_become_pointless_is_withdrawn(
    event: Callable[..., None], asked: ControlRequest, operator: User, colleague: User
) -> None:
    event(asked.workspace, operator, colleague)
    assert settle(asked).outcome == "withdrawn"
    assert last_event(asked.workspace).what == "withdrawn"


def test_an_asker_whose_page_reconnects_has_not_left(
    asked: ControlRequest, colleague: User
) -> None:
    shift(ControlRequest, 20, "asked_at")
    DisplayStream.objects.filter(user=colleague).update(closed_at=Now() - timedelta(seconds=5))
    assert settle(asked).outcome == ""


def test_a_request_without_any_stream_waits_for_its_answer(
    held: Workspace, colleague: User
) -> None:
    assert settle(ask(held, colleague)).outcome == ""


def test_of_two_who_ask_the_holder_chooses(
    asked: ControlRequest, operator: User, manager: User
) -> None:
    second = ask(asked.workspace, manager)
    answer(second, operator, accept=True)
    assert lease_of(asked.workspace).holder == manager
    assert outcome(asked) == "", "the new holder is asked now"


def test_who_asks_for_a_workspace_that_has_just_been_removed_is_told_so(
    desk: Workspace, operator: User
) -> None:
    found = Workspace.objects.get(pk=desk.pk)
    desk.delete()
    with pytest.raises(WorkspaceNotFound, match="desk"):
        handovers.ask(found, tab(operator), "please")
