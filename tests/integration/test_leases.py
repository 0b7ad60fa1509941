"""Every row of the lease's table (design §3), every rule of renewing, and the races."""

from __future__ import annotations

import asyncio
import datetime as datetime_module
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from controlplane import access, events, leases, leasestate
from controlplane.exceptions import ControlForbidden, ControlRefused
from controlplane.leases import Holder
from controlplane.models import (
    ControlEvent,
    Controller,
    DisplayControlLease,
    EndReason,
    HandBack,
    Role,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.locks import in_thread, is_still_waiting, row_locked_by_another
from tests.integration.people import (
    OTHER_TAB,
    UPSTREAM,
    age,
    agent,
    assert_free,
    assert_held_by,
    history,
    lease_of,
    let_expire,
    now,
    open_stream,
    person,
    refusal,
    tab,
    transitions,
    view_of,
)
from tests.support.timing import limit

TTL = 300.0
RESUME = 600.0


def take(workspace: Workspace, holder: Holder, **more: Any) -> int:
    """Acquire, and return the epoch."""
    return leases.acquire(workspace, holder, **{"ttl": TTL, **more}).epoch


def give_back(workspace: Workspace, holder: Holder, **more: Any) -> None:
    leases.release(workspace, holder, **more)


def force(
    workspace: Workspace, note: str = "maintenance", **more: Any
) -> DisplayControlLease | None:
    return leases.force_release(workspace, by="Mary Manager", note=note, **more)


# --- free → held ----------------------------------------------------------------------------------
def test_a_new_workspace_has_a_free_lease_that_nobody_ever_held(desk: Workspace) -> None:
    lease = lease_of(desk)
    assert (lease.epoch, lease.version, lease.controller) == (0, 0, Controller.NONE)
    assert (view_of(desk).is_held, view_of(desk).last_end) == (False, None)


def test_an_operator_takes_a_free_lease(desk: Workspace, operator: User) -> None:
    before = now()
    assert take(desk, tab(operator)) == 1
    assert_held_by(desk, tab(operator), epoch=1)
    lease = lease_of(desk)
    assert lease.acquired_at is not None
    assert lease.expires_at is not None
    assert before <= lease.acquired_at <= now()
    assert lease.renewed_at == lease.acquired_at
    assert lease.expires_at - lease.acquired_at == timedelta(seconds=TTL)
    assert history(desk) == [("acquired", 1)]


def test_a_manager_and_an_admin_may_take_control(
    desk: Workspace, manager: User, admin: User
) -> None:
    take(desk, tab(manager))
    give_back(desk, tab(manager))
    assert take(desk, tab(admin)) == 2


@pytest.mark.parametrize("who", ["observer", "stranger"])
def test_who_may_not_control_gets_nothing(
    who: str, desk: Workspace, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(who)
    with pytest.raises(ControlForbidden):
        take(desk, tab(user))
    assert (lease_of(desk).epoch, transitions(desk)) == (0, [])


def test_what_somebody_may_not_do_is_recorded_as_refused(desk: Workspace, observer: User) -> None:
    with pytest.raises(ControlForbidden):
        take(desk, tab(observer))
    event = ControlEvent.objects.get()
    assert (event.what, event.reason, event.who) == ("refused", "forbidden", "Oscar Observer")


def test_a_workspace_without_a_display_cannot_be_taken(desk: Workspace, operator: User) -> None:
    Workspace.objects.filter(pk=desk.pk).update(enabled=False)
    assert refusal(take, desk, tab(operator)) == "display_not_enabled"
    Workspace.objects.filter(pk=desk.pk).update(enabled=True, upstream_url="")
    assert refusal(take, desk, tab(operator)) == "display_not_enabled"
    assert history(desk) == [("refused", 0)] * 2


def test_the_event_of_an_acquisition_says_who_from_where(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    event = ControlEvent.objects.get()
    assert (event.who, event.client_id, event.ip) == (
        "Olive Operator",
        tab(operator).client_id,
        "192.0.2.7",
    )
    assert (event.workspace_slug, event.ended_epoch, event.at) == (
        "desk",
        None,
        lease_of(desk).acquired_at,
    )


# --- held → held ----------------------------------------------------------------------------------
def test_acquiring_again_in_the_same_tab_extends_the_same_epoch(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    age(desk, 100)
    assert take(desk, tab(operator)) == 1
    assert TTL - limit(1) < view_of(desk).remaining <= TTL
    assert transitions(desk) == [("acquired", 1)]
    lease = lease_of(desk)
    assert lease.acquired_at is not None
    assert lease.renewed_at is not None
    assert lease.renewed_at - lease.acquired_at >= timedelta(seconds=100)


def test_a_renewal_extends_the_same_epoch_and_is_counted_on_the_row(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    since = lease_of(desk).acquired_at
    for _ in range(3):
        assert take(desk, tab(operator), epoch=1) == 1
    lease = lease_of(desk)
    assert (lease.renewals, lease.version, lease.acquired_at) == (3, 4, since)
    assert history(desk) == [("acquired", 1)]


@pytest.mark.parametrize("epoch", [None, 1])
def test_a_shorter_ttl_never_brings_the_end_nearer(
    epoch: int | None, desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator), ttl=1000)
    end = lease_of(desk).expires_at
    take(desk, tab(operator), ttl=30, epoch=epoch)
    assert lease_of(desk).expires_at == end


def test_somebody_else_has_to_wait(desk: Workspace, operator: User, colleague: User) -> None:
    take(desk, tab(operator))
    assert refusal(take, desk, tab(colleague)) == "held"
    assert refusal(take, desk, tab(colleague), move=True) == "held"
    assert_held_by(desk, tab(operator), epoch=1)
    assert history(desk) == [("acquired", 1), ("refused", 1), ("refused", 1)]


def test_a_tab_that_copies_the_holders_client_id_is_still_somebody_else(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator, "the-same-id"))
    copy = tab(colleague, "the-same-id")
    assert refusal(take, desk, copy) == "held"
    assert refusal(take, desk, copy, epoch=1) == "held"
    assert refusal(give_back, desk, copy, epoch=1) == "held"


def test_an_admin_does_not_displace_a_person_by_taking_control(
    desk: Workspace, operator: User, admin: User
) -> None:
    take(desk, tab(operator))
    assert refusal(take, desk, tab(admin)) == "held"


# --- agent → user, and never the reverse ----------------------------------------------------------
def test_a_person_takes_over_from_an_agent_in_one_transition(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    assert take(desk, tab(colleague)) == 2
    assert_held_by(desk, tab(colleague), epoch=2)
    assert history(desk) == [("acquired", 1), ("preempted", 2)]
    ended = leasestate.end_of(desk.pk, 1)
    assert ended is not None
    assert (ended.reason, ended.epoch, ended.who) == ("preempted", 2, "colleague")


def test_the_end_of_an_epoch_is_that_of_its_own_workspace(desk: Workspace, operator: User) -> None:
    other = Workspace.objects.create(slug="desk-2", name="Desk 13", upstream_url=UPSTREAM)
    WorkspaceGrant.objects.create(workspace=other, user=operator, role=Role.OPERATOR)
    for workspace in (other, desk):
        take(workspace, tab(operator))
        leases.release(workspace, tab(operator))
    ends = [leasestate.end_of(each.pk, 1) for each in (other, desk)]
    assert [end.workspace_id for end in ends if end] == [other.pk, desk.pk]


def test_a_person_takes_over_from_their_own_agent_without_moving(
    desk: Workspace, operator: User
) -> None:
    take(desk, agent(operator, "one-and-the-same"))
    assert take(desk, tab(operator, "one-and-the-same")) == 2
    assert transitions(desk)[-1] == ("preempted", 2)


def test_taking_over_from_ones_agent_is_no_move_even_when_a_move_is_asked_for(
    desk: Workspace, operator: User
) -> None:
    take(desk, agent(operator))
    take(desk, tab(operator), move=True)
    assert transitions(desk)[-1] == ("preempted", 2)


@pytest.mark.parametrize("move", [False, True])
def test_an_agent_never_displaces_a_person(
    move: bool, desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    for each in (agent(colleague), agent(operator), agent(operator, tab(operator).client_id)):
        assert refusal(take, desk, each, move=move) == "human_in_control"
    assert_held_by(desk, tab(operator), epoch=1)


def test_an_agent_never_displaces_another_agent(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    assert refusal(take, desk, agent(colleague)) == "held"


def test_a_preempted_agent_cannot_renew_itself_back(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    take(desk, tab(colleague))
    assert refusal(take, desk, agent(operator), epoch=1) == "preempted"
    give_back(desk, tab(colleague))
    assert refusal(take, desk, agent(operator), epoch=1) == "preempted"
    assert_free(desk, reason="released", epoch=2)


def test_a_person_cannot_renew_the_lease_of_their_agent(desk: Workspace, operator: User) -> None:
    take(desk, agent(operator, "one-and-the-same"))
    assert refusal(take, desk, tab(operator, "one-and-the-same"), epoch=1) == "held"
    assert_held_by(desk, agent(operator, "one-and-the-same"), epoch=1)


def test_an_agent_cannot_renew_the_lease_of_its_person(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator, "one-and-the-same"))
    assert refusal(take, desk, agent(operator, "one-and-the-same"), epoch=1) == "held"
    assert_held_by(desk, tab(operator, "one-and-the-same"), epoch=1)


# --- held → held (moved) --------------------------------------------------------------------------
def test_another_tab_of_the_holder_must_ask_to_move(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    assert refusal(take, desk, tab(operator, OTHER_TAB)) == "held_elsewhere"
    assert_held_by(desk, tab(operator), epoch=1)


def test_moving_starts_an_epoch_and_ends_the_old_tabs(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    assert take(desk, tab(operator, OTHER_TAB), move=True) == 2
    assert_held_by(desk, tab(operator, OTHER_TAB), epoch=2)
    assert history(desk) == [("acquired", 1), ("moved", 2)]
    assert refusal(take, desk, tab(operator), epoch=1) == "moved"
    assert refusal(give_back, desk, tab(operator), epoch=2) == "held_elsewhere"


def test_moving_within_one_tab_is_a_renewal(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    assert take(desk, tab(operator), move=True) == 1


def test_the_other_tab_cannot_move_by_knowing_the_epoch(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    other = tab(operator, OTHER_TAB)
    assert refusal(take, desk, other, epoch=1, move=True) == "held_elsewhere"


# --- held → free ----------------------------------------------------------------------------------
def test_the_holder_releases(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator), epoch=1)
    assert_free(desk, reason="released", epoch=1)
    assert lease_of(desk).ended_by == "Olive Operator"
    assert history(desk) == [("acquired", 1), ("released", 1)]


def test_releasing_twice_changes_nothing(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    for _ in range(3):
        give_back(desk, tab(operator), epoch=1)
    assert (lease_of(desk).version, lease_of(desk).epoch) == (2, 1)
    assert transitions(desk) == [("acquired", 1), ("released", 1)]


def test_releasing_what_was_never_held_is_harmless(desk: Workspace, operator: User) -> None:
    give_back(desk, tab(operator))
    assert (lease_of(desk).version, history(desk)) == (0, [])


def test_nobody_releases_for_another(desk: Workspace, operator: User, colleague: User) -> None:
    take(desk, tab(operator))
    assert refusal(give_back, desk, tab(colleague)) == "held"
    assert refusal(give_back, desk, tab(operator, OTHER_TAB)) == "held_elsewhere"
    assert refusal(give_back, desk, agent(operator, tab(operator).client_id)) == "held"
    assert_held_by(desk, tab(operator), epoch=1)


def test_a_stale_release_never_ends_a_newer_lease_of_the_same_tab(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator), epoch=1)
    take(desk, tab(operator))
    give_back(desk, tab(operator), epoch=1)
    assert_held_by(desk, tab(operator), epoch=2)


def test_a_stale_release_never_ends_a_newer_lease_of_another(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    take(desk, tab(colleague))
    give_back(desk, tab(operator), epoch=1)
    assert_held_by(desk, tab(colleague), epoch=2)


def test_force_release_ends_whoevers_control_and_says_who_and_why(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    assert force(desk, " maintenance ")
    assert_free(desk, reason="forced", epoch=1)
    assert not leasestate.held().exists()
    end = view_of(desk).last_end
    assert end is not None
    assert (end.reason, end.by, end.note) == ("forced", "Mary Manager", "maintenance")
    assert end.at == lease_of(desk).ended_at
    assert history(desk) == [("acquired", 1), ("forced", 1)]


def test_force_release_of_a_free_lease_says_so(desk: Workspace, operator: User) -> None:
    assert not force(desk)
    take(desk, tab(operator))
    let_expire(desk)
    assert not force(desk)
    assert_free(desk, reason="expired", epoch=1)


def test_force_release_of_a_named_epoch_spares_every_other(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator))
    take(desk, tab(operator))
    for epoch in (1, 3):
        assert not force(desk, epoch=epoch)
    assert_held_by(desk, tab(operator), epoch=2)
    ended = force(desk, epoch=2)
    assert ended is not None
    assert (ended.holder, ended.epoch, ended.ended_reason) == (operator, 2, "forced")


def test_closing_a_named_epoch_spares_every_other(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    mary = {"by": "Mary Manager", "note": "repairs"}
    assert not leases.close(desk, epoch=2, **mary).is_closed
    assert not leases.close(desk, epoch=0, **mary).is_closed
    assert_held_by(desk, tab(operator), epoch=1)
    closing = leases.close(desk, epoch=1, **mary)
    assert closing.is_closed
    assert closing.ended is not None
    assert (closing.ended.holder, closing.ended.epoch) == (operator, 1)
    assert leases.close(desk, epoch=1, **mary) == leases.Closing(is_closed=True)


@pytest.mark.parametrize("note", ["", "  \n"])
def test_force_release_without_a_note_is_an_error(note: str, desk: Workspace) -> None:
    with pytest.raises(ValueError, match="note"):
        force(desk, note)


@pytest.mark.parametrize("note", ["", "  \n"])
def test_nothing_is_closed_without_a_note(note: str, desk: Workspace) -> None:
    with pytest.raises(ValueError, match="note"):
        leases.close(desk, by="Mary Manager", note=note)
    assert lease_of(desk).closed_at is None


def test_who_was_forced_out_does_not_renew_back_but_may_click_again(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    force(desk)
    for _ in range(2):
        assert refusal(take, desk, tab(operator), epoch=1) == "forced"
    assert_free(desk, reason="forced", epoch=1)
    assert take(desk, tab(operator)) == 2


def test_the_end_of_access_ends_the_lease(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    WorkspaceGrant.objects.filter(user=operator)._raw_delete("default")  # past the signals
    assert leases.end_lost_access([lease_of(desk)]) == 1
    assert_free(desk, reason="access_ended", epoch=1)
    assert history(desk) == [("acquired", 1), ("access_ended", 1)]


def test_the_end_of_a_display_ends_the_lease(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    Workspace.objects.filter(pk=desk.pk).update(enabled=False)
    assert leases.end_lost_access([lease_of(desk)]) == 1
    assert_free(desk, reason="access_ended", epoch=1)


@pytest.fixture
def other_desk(operator: User) -> Workspace:
    """Another workspace that the operator may control."""
    workspace = Workspace.objects.create(slug="other", upstream_url="tcp://127.0.0.1:5998")
    WorkspaceGrant.objects.create(workspace=workspace, user=operator, role=Role.OPERATOR)
    return workspace


def test_the_end_of_an_account_ends_all_its_leases(
    desk: Workspace, other_desk: Workspace, operator: User
) -> None:
    for each in (desk, other_desk):
        take(each, tab(operator))
    User.objects.filter(pk=operator.pk).update(is_active=False)
    assert leases.end_lost_access(leasestate.held()) == 2
    assert not leasestate.held().exists()


def test_what_happened_to_another_workspace_neither_resumes_nor_ends_anything_here(
    desk: Workspace, other_desk: Workspace, operator: User
) -> None:
    take(other_desk, tab(operator))
    let_expire(other_desk)
    take(other_desk, tab(operator), epoch=1)
    take(desk, tab(operator))
    give_back(desk, tab(operator))
    take(desk, tab(operator))
    assert refusal(take, desk, tab(operator), epoch=1) == "released"


def test_who_still_has_access_keeps_control(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    assert leases.end_lost_access([lease_of(desk)]) == 0
    assert_held_by(desk, tab(operator), epoch=1)


def end_login(desk: Workspace, login: str) -> None:
    leases.end_lost_access([lease_of(desk)], logins_ended=frozenset({login}))


def test_the_end_of_a_login_ends_only_what_was_taken_in_it(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator, login="login-a"))
    end_login(desk, "login-b")
    assert_held_by(desk, tab(operator), epoch=1)
    end_login(desk, "login-a")
    assert_free(desk, reason="access_ended", epoch=1)


@pytest.mark.parametrize("renewal", [{"epoch": 1}, {}], ids=["renewed", "clicked again"])
def test_who_signs_in_anew_has_control_by_the_new_login(
    renewal: dict[str, int], desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator, login="login-a"))
    take(desk, tab(operator, login="login-b"), **renewal)
    end_login(desk, "login-a")
    assert_held_by(desk, tab(operator), epoch=1)
    end_login(desk, "login-b")
    assert_free(desk, reason="access_ended", epoch=1)


def test_a_workspace_that_is_removed_meanwhile_keeps_no_other_from_being_ended(
    desk: Workspace, operator: User
) -> None:
    gone = Workspace.objects.create(slug="gone", name="Gone", upstream_url=UPSTREAM)
    take(desk, tab(operator, login="login"))
    candidates = [lease_of(gone), lease_of(desk)]
    gone.delete()
    assert leases.end_lost_access(candidates, logins_ended=frozenset({"login"})) == 1
    assert_free(desk, reason="access_ended", epoch=1)


# --- Expiry ---------------------------------------------------------------------------------------
def test_expiry_is_a_fact_that_nobody_has_to_record(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    let_expire(desk, seconds_ago=0.01)
    assert_free(desk, reason="expired", epoch=1)
    assert not leasestate.held().exists()
    assert history(desk) == [("acquired", 1)]


def test_in_the_moment_in_which_it_ends_a_lease_is_over(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    lease = lease_of(desk)
    assert lease.expires_at is not None
    assert leasestate.is_held(lease, lease.expires_at - timedelta(microseconds=1))
    assert not leasestate.is_held(lease, lease.expires_at)


def test_whoever_notices_an_expiry_records_it_once_at_its_own_time(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk, seconds_ago=42)
    expired_at = lease_of(desk).expires_at
    give_back(desk, tab(colleague))
    give_back(desk, tab(colleague))
    assert (lease_of(desk).ended_at, lease_of(desk).ended_reason) == (expired_at, "expired")
    assert history(desk) == [("acquired", 1), ("expired", 1)]


def test_an_expired_lease_is_free_for_others(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    assert take(desk, tab(colleague)) == 2
    assert history(desk) == [("acquired", 1), ("expired", 1), ("acquired", 2)]
    assert refusal(take, desk, tab(operator), epoch=1) == "taken"


def test_a_late_refusal_records_the_expiry_with_it(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    let_expire(desk, RESUME + 1)
    assert refusal(take, desk, tab(operator), epoch=1) == "expired"
    assert history(desk) == [("acquired", 1), ("expired", 1), ("refused", 1)]


# --- Resuming -------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_recorded", [False, True])
def test_control_resumes_within_ten_minutes_whether_or_not_the_expiry_was_recorded(
    is_recorded: bool, desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk, RESUME - 2)
    since = lease_of(desk).acquired_at
    if is_recorded:
        give_back(desk, tab(colleague))
    assert take(desk, tab(operator), epoch=1) == 2
    assert_held_by(desk, tab(operator), epoch=2)
    assert lease_of(desk).acquired_at == since
    assert TTL - limit(1) < view_of(desk).remaining <= TTL
    assert history(desk) == [("acquired", 1), ("expired", 1), ("resumed", 2)]


@pytest.mark.parametrize("is_recorded", [False, True])
def test_control_does_not_resume_after_ten_minutes(
    is_recorded: bool, desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk, RESUME + 2)
    if is_recorded:
        give_back(desk, tab(colleague))
    assert refusal(take, desk, tab(operator), epoch=1) == "expired"
    assert_free(desk, reason="expired", epoch=1)


def test_what_was_closed_meanwhile_is_not_resumed(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    leases.close(desk, by="Mary Manager", note="repairs")
    with pytest.raises(ControlRefused) as caught:
        take(desk, tab(operator), epoch=1)
    assert (caught.value.code, caught.value.by) == ("closed", "Mary Manager")


def test_how_long_control_can_be_resumed_is_a_setting(
    desk: Workspace, operator: User, settings: Any
) -> None:
    settings.DISPLAY = type(settings.DISPLAY)(resume_seconds=10)
    take(desk, tab(operator))
    let_expire(desk, 12)
    assert refusal(take, desk, tab(operator), epoch=1) == "expired"


def test_another_tab_cannot_resume(desk: Workspace, operator: User, colleague: User) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    assert refusal(take, desk, tab(operator, OTHER_TAB), epoch=1) == "expired"
    assert refusal(take, desk, tab(colleague), epoch=1) == "expired"
    assert_free(desk, reason="expired", epoch=1)


def test_a_click_after_an_expiry_is_a_new_acquisition(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    let_expire(desk, 30)
    before = lease_of(desk).acquired_at
    assert take(desk, tab(operator)) == 2
    assert lease_of(desk).acquired_at != before
    assert transitions(desk)[-1] == ("acquired", 2)


def test_nothing_resumes_when_somebody_has_held_since(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    take(desk, tab(colleague))
    give_back(desk, tab(colleague))
    assert refusal(take, desk, tab(operator), epoch=1) == "taken"
    assert_free(desk, reason="released", epoch=2)


def test_a_renewal_with_an_old_epoch_of_ones_own_is_not_a_renewal_of_the_new_one(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator))
    take(desk, tab(operator))
    assert refusal(take, desk, tab(operator), epoch=1) == "released"


def test_when_the_answer_of_a_resumption_was_lost_the_old_epoch_still_renews(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    take(desk, tab(operator), epoch=1)  # its answer never arrives
    assert take(desk, tab(operator), epoch=1) == 2
    assert transitions(desk) == [("acquired", 1), ("expired", 1), ("resumed", 2)]


def test_two_lost_answers_in_a_row_are_followed_to_the_living_epoch(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    for epoch in (2, 3):
        let_expire(desk)
        assert take(desk, tab(operator), epoch=1) == epoch
    for known in (1, 2, 3):
        assert take(desk, tab(operator), epoch=known) == 3


def test_a_lost_resumption_that_was_ended_by_force_stays_ended(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    let_expire(desk)
    take(desk, tab(operator), epoch=1)
    force(desk)
    assert refusal(take, desk, tab(operator), epoch=1) == "forced"


def test_a_resumption_of_another_holder_is_never_ones_own(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator))
    take(desk, tab(colleague))
    let_expire(desk)
    assert take(desk, tab(colleague), epoch=2) == 3
    assert refusal(take, desk, tab(operator), epoch=1) == "released"


# --- Why an epoch ended ---------------------------------------------------------------------------
def _end_by_release(desk: Workspace, holder: Holder, other: Holder) -> None:
    leases.release(desk, holder)


def _end_by_force(desk: Workspace, holder: Holder, other: Holder) -> None:
    force(desk)


def _end_by_access(desk: Workspace, holder: Holder, other: Holder) -> None:
    end_login(desk, holder.login)


def _end_by_move(desk: Workspace, holder: Holder, other: Holder) -> None:
    take(desk, tab(holder.user, OTHER_TAB), move=True)


def _end_by_expiry(desk: Workspace, holder: Holder, other: Holder) -> None:
    let_expire(desk, RESUME + 5)


def _end_by_expiry_and_another(desk: Workspace, holder: Holder, other: Holder) -> None:
    let_expire(desk)
    take(desk, other)


ENDS = {
    "released": _end_by_release,
    "forced": _end_by_force,
    "access_ended": _end_by_access,
    "moved": _end_by_move,
    "expired": _end_by_expiry,
    "taken": _end_by_expiry_and_another,
}


@pytest.mark.parametrize("reason", ENDS)
def test_a_renewal_is_told_why_its_epoch_ended(
    reason: str, desk: Workspace, operator: User, colleague: User
) -> None:
    holder = tab(operator, login="login")
    take(desk, holder)
    ENDS[reason](desk, holder, tab(colleague))
    version = lease_of(desk).version
    assert refusal(take, desk, holder, epoch=1) == reason
    assert lease_of(desk).version <= version + 1  # an expiry may have been recorded, no more


@pytest.mark.parametrize("reason", ENDS)
def test_the_reason_is_still_known_after_others_have_come_and_gone(
    reason: str, desk: Workspace, operator: User, colleague: User, manager: User
) -> None:
    holder = tab(operator, login="login")
    take(desk, holder)
    ENDS[reason](desk, holder, tab(colleague))
    force(desk, "next, please")
    take(desk, tab(manager))
    give_back(desk, tab(manager))
    later = "taken" if reason == "expired" else reason
    assert refusal(take, desk, holder, epoch=1) == later


def test_the_refusal_names_who_ended_that_epoch_and_not_who_ended_the_last_one(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    force(desk)
    take(desk, tab(colleague))
    give_back(desk, tab(colleague))
    with pytest.raises(ControlRefused) as caught:
        take(desk, tab(operator), epoch=1)
    assert (caught.value.code, caught.value.by) == ("forced", "Mary Manager")


@pytest.mark.parametrize("epoch", [-(2**70), -1, 0, 7, 2**63, 2**70])
@pytest.mark.parametrize("is_held", [False, True])
def test_an_epoch_that_never_was_is_refused(
    epoch: int, is_held: bool, desk: Workspace, operator: User, colleague: User
) -> None:
    if is_held:
        take(desk, tab(colleague))
    assert refusal(take, desk, tab(operator), epoch=epoch) in {"expired", "taken"}
    give_back(desk, tab(operator), epoch=epoch)


def test_an_epoch_that_never_was_has_no_end_of_its_own(desk: Workspace, operator: User) -> None:
    assert refusal(take, desk, tab(operator), epoch=0) == "expired"
    take(desk, tab(operator))
    assert refusal(take, desk, tab(operator), epoch=2) == "expired"
    give_back(desk, tab(operator))
    assert refusal(take, desk, tab(operator), epoch=2) == "expired"


def test_a_refusal_reads_as_its_code() -> None:
    assert str(ControlRefused("forced", "Mary Manager")) == "forced"


def test_each_reason_of_the_row_is_also_the_name_of_an_event() -> None:
    assert set(EndReason.values) < set(ControlEvent.What.values)


# --- Delays ---------------------------------------------------------------------------------------
def test_a_renewal_that_arrives_after_the_release_does_not_restore_control(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator), epoch=1)
    assert refusal(take, desk, tab(operator), epoch=1) == "released"
    assert_free(desk, reason="released", epoch=1)


def test_an_acquire_that_arrives_after_the_release_can_be_undone_by_its_own_epoch(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator), epoch=1)
    late = take(desk, tab(operator))  # a click's request that the network held back
    give_back(desk, tab(operator), epoch=late)
    assert_free(desk, reason="released", epoch=2)


def test_a_late_heartbeat_does_not_resurrect_the_old_holder_over_a_takeover(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    take(desk, tab(colleague))
    assert refusal(take, desk, agent(operator), epoch=1) == "preempted"
    assert_held_by(desk, tab(colleague), epoch=2)


# --- Limits, and handing over ---------------------------------------------------------------------
LIMITS = {"max_hold": "max_hold_seconds", "idle": "idle_seconds"}


@pytest.mark.parametrize("reason", LIMITS)
def test_a_lease_that_has_expired_is_not_resumed_past_a_limit(
    reason: str, desk: Workspace, operator: User
) -> None:
    Workspace.objects.filter(pk=desk.pk).update(**{LIMITS[reason]: 420})
    take(desk, tab(operator), ttl=120)
    age(desk, 430)
    assert refusal(take, desk, tab(operator), epoch=1) == "expired"
    assert_free(desk, reason="expired", epoch=1)


@pytest.mark.parametrize("reason", LIMITS)
def test_whoever_finds_that_a_limit_is_over_is_told_so_at_once(
    reason: str, desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    Workspace.objects.filter(pk=desk.pk).update(**{LIMITS[reason]: 60})
    age(desk, 70)
    assert refusal(take, desk, tab(operator), epoch=1) == reason
    assert_free(desk, reason=reason, epoch=1)


def keep(workspace: Workspace, holder: Holder, epoch: int = 1) -> None:
    leases.keep(workspace, holder, epoch=epoch, ttl=TTL)


def test_who_may_not_control_any_more_cannot_keep_it(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    before = lease_of(desk).expires_at
    WorkspaceGrant.objects.filter(user=operator)._raw_delete("default")
    with pytest.raises(ControlForbidden):
        keep(desk, tab(operator))
    assert lease_of(desk).expires_at == before
    assert history(desk)[-1] == ("refused", 1)


@pytest.mark.parametrize(("epoch", "code"), [(1, "released"), (3, "expired")])
def test_the_holder_keeps_no_other_epoch_than_the_one_that_is_held(
    epoch: int, code: str, desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator))
    take(desk, tab(operator))
    assert refusal(keep, desk, tab(operator), epoch) == code
    assert transitions(desk)[-1] == ("acquired", 2)


def test_who_keeps_what_is_not_theirs_is_refused_and_counted(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    for _ in range(3):
        assert refusal(keep, desk, tab(colleague)) == "held"
    event = ControlEvent.objects.get(what="refused")
    assert (event.who, event.reason, event.count) == ("colleague", "held", 3)


def test_handing_over_to_who_has_it_already_changes_nothing(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    assert not leases.hand_over(desk, None, tab(operator), epoch=1, ttl=TTL)
    assert_held_by(desk, tab(operator), epoch=1)


@pytest.mark.parametrize("epoch", [1, 3])
def test_no_other_epoch_than_the_one_that_is_held_is_handed_over(
    epoch: int, desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    give_back(desk, tab(operator))
    take(desk, tab(operator))
    assert not leases.hand_over(desk, None, tab(colleague), epoch=epoch, ttl=TTL)
    assert_held_by(desk, tab(operator), epoch=2)


# --- Epoch and version ----------------------------------------------------------------------------
def test_the_epoch_only_ever_grows_by_one(desk: Workspace, operator: User, colleague: User) -> None:
    steps: list[Callable[[], object]] = [
        lambda: take(desk, agent(operator)),
        lambda: take(desk, tab(colleague)),
        lambda: take(desk, tab(colleague, OTHER_TAB), move=True),
        lambda: take(desk, tab(colleague, OTHER_TAB), epoch=3),
        lambda: give_back(desk, tab(colleague, OTHER_TAB)),
        lambda: take(desk, tab(operator)),
        lambda: force(desk),
        lambda: take(desk, tab(operator)),
        lambda: let_expire(desk),
        lambda: take(desk, tab(operator), epoch=5),
        lambda: end_login(desk, ""),
    ]
    epochs = []
    for step in steps:
        version = lease_of(desk).version
        step()
        epochs.append(lease_of(desk).epoch)
        assert lease_of(desk).version - version in {0, 1}
    assert epochs == [1, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6]


def test_every_epoch_has_one_beginning_and_at_most_one_end(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    take(desk, tab(colleague))
    take(desk, tab(colleague, OTHER_TAB), move=True)
    let_expire(desk)
    take(desk, tab(colleague, OTHER_TAB), epoch=3)
    give_back(desk, tab(colleague, OTHER_TAB))
    ends = ControlEvent.objects.filter(ended_epoch__isnull=False).order_by("ended_epoch")
    assert list(ends.values_list("ended_epoch", "reason")) == [
        (1, "preempted"),
        (2, "moved"),
        (3, "expired"),
        (4, "released"),
    ]
    begins = ControlEvent.objects.filter(what__in=["acquired", "preempted", "moved", "resumed"])
    assert sorted(begins.values_list("epoch", flat=True)) == [1, 2, 3, 4]


def test_a_refusal_does_not_touch_the_row(desk: Workspace, operator: User, colleague: User) -> None:
    take(desk, tab(operator))
    before = DisplayControlLease.objects.values().get()
    refusal(take, desk, tab(colleague))
    refusal(give_back, desk, tab(colleague))
    assert DisplayControlLease.objects.values().get() == before


def test_a_refused_call_is_recorded_with_its_reason(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    refusal(take, desk, tab(colleague, OTHER_TAB))
    event = ControlEvent.objects.filter(what="refused").get()
    assert (event.who, event.client_id, event.reason, event.epoch, event.ip) == (
        "colleague",
        OTHER_TAB,
        "held",
        1,
        "192.0.2.7",
    )
    assert event.ended_epoch is None


def test_every_event_says_who_in_which_tab_from_where_and_why(
    desk: Workspace, operator: User, colleague: User
) -> None:
    robot, person, ip = agent(operator), tab(colleague), "198.51.100.9"
    mary = {"by": "Mary Manager", "ip": ip}
    take(desk, robot)
    leases.ask_for_help(desk, robot, "captcha")
    leases.withdraw_help(desk, robot)
    take(desk, person)
    keep(desk, person, epoch=2)
    for hidden in (True, False):
        leases.hide(desk, person, epoch=2, hidden=hidden)
    leases.hand_back(desk, person, HandBack.DONE, note="solved")
    take(desk, person)
    force(desk, ip=ip)
    leases.free(desk, **mary)
    take(desk, person)
    leases.close(desk, note="repairs", **mary)
    leases.open_again(desk, **mary)
    take(desk, person)
    give_back(desk, person)
    take(desk, tab(colleague, login="login"))
    ended = frozenset({"login"})
    leases.end_lost_access([lease_of(desk)], logins_ended=ended, by="Mary Manager")
    rows = ControlEvent.objects.order_by("id").values_list(
        "what", "who", "client_id", "ip", "epoch", "ended_epoch", "reason", "note"
    )
    agents = ("Olive Operator", robot.client_id, robot.ip)
    persons = ("colleague", person.client_id, person.ip)
    forced = ("forced", "Mary Manager", person.client_id, ip)
    marys = ("Mary Manager", "", ip)
    assert list(rows) == [
        ("acquired", *agents, 1, None, "", ""),
        ("help_asked", *agents, 1, None, "", "captcha"),
        ("help_withdrawn", *agents, 1, None, "", ""),
        ("preempted", *persons, 2, 1, "preempted", ""),
        ("kept", *persons, 2, None, "", ""),
        ("hidden", *persons, 2, None, "", ""),
        ("shown", *persons, 2, None, "", ""),
        ("released", *persons, 2, 2, "released", "solved"),
        ("handed_back", *persons, 2, None, "done", "solved"),
        ("acquired", *persons, 3, None, "", ""),
        (*forced, 3, 3, "forced", "maintenance"),
        ("parked", "colleague", "", None, 3, None, "forced", ""),
        ("freed", *marys, 3, None, "", ""),
        ("acquired", *persons, 4, None, "", ""),
        (*forced, 4, 4, "forced", "repairs"),
        ("parked", "colleague", "", None, 4, None, "forced", ""),
        ("closed", *marys, 4, None, "", "repairs"),
        ("opened", *marys, 4, None, "", ""),
        ("acquired", *persons, 5, None, "", ""),
        ("released", *persons, 5, 5, "released", ""),
        ("acquired", *persons, 6, None, "", ""),
        ("access_ended", "Mary Manager", person.client_id, None, 6, 6, "access_ended", ""),
        ("parked", "colleague", "", None, 6, None, "access_ended", ""),
    ]


def test_the_longest_names_and_notes_fit(desk: Workspace, operator: User) -> None:
    User.objects.filter(pk=operator.pk).update(first_name="F" * 150, last_name="L" * 150)
    operator.refresh_from_db()
    take(desk, tab(operator, "c" * 64))
    give_back(desk, tab(operator, "c" * 64))
    assert lease_of(desk).ended_by == f"{'F' * 150} {'L' * 150}"
    take(desk, tab(operator))
    assert leases.force_release(desk, by=access.display_name(operator), note="n" * 500)


# --- Whose clock ----------------------------------------------------------------------------------
@pytest.fixture(params=[-3600, 3600], ids=["slow", "fast"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application server's clock goes an hour wrong, wherever Python could read it."""
    shift = timedelta(seconds=request.param)
    real = datetime_module.datetime

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + shift

    monkeypatch.setattr(timezone, "now", lambda: real.now(UTC) + shift)
    monkeypatch.setattr(leases, "datetime", Shifted)
    monkeypatch.setattr(events, "datetime", Shifted)


@pytest.mark.usefixtures("wrong_clock")
def test_the_clock_of_the_application_server_does_not_matter(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    assert TTL - limit(1) < view_of(desk).remaining <= TTL
    age(desk, 250)
    assert refusal(take, desk, tab(colleague)) == "held"
    assert take(desk, tab(operator), epoch=1) == 1
    let_expire(desk, RESUME - 5)
    assert take(desk, tab(operator), epoch=1) == 2
    let_expire(desk, 1)
    assert take(desk, tab(colleague)) == 3
    reference = now()
    assert all(at <= reference for at in ControlEvent.objects.values_list("at", flat=True))


def test_one_missed_renewal_leaves_a_minute_and_two_lose_the_lease(
    desk: Workspace, operator: User, settings: Any
) -> None:
    interval = settings.DISPLAY.renew_after_seconds(settings.DISPLAY.lease_seconds)
    assert interval == 120
    take(desk, tab(operator))
    age(desk, 2 * interval)
    assert 60 - limit(1) < view_of(desk).remaining <= 60
    age(desk, interval)
    assert not view_of(desk).is_held


# --- Announcing -----------------------------------------------------------------------------------
@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is announced to the watches."""
    messages: list[object] = []
    monkeypatch.setattr(events._broker, "send", messages.append)
    return messages


def test_a_transition_is_announced_after_commit_and_a_refusal_or_renewal_is_not(
    desk: Workspace,
    operator: User,
    colleague: User,
    sent: list[object],
    django_capture_on_commit_callbacks: Any,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        take(desk, tab(operator))
        assert sent == []
    assert sent == [{"type": "lease", "workspace_id": desk.pk, "version": lease_of(desk).version}]
    with django_capture_on_commit_callbacks(execute=True):
        take(desk, tab(operator), epoch=1)
        refusal(take, desk, tab(colleague))
    assert len(sent) == 1
    with django_capture_on_commit_callbacks(execute=True):
        give_back(desk, tab(operator))
    assert len(sent) == 2


def test_what_leaves_control_where_it_is_asks_for_a_look_and_shuts_no_gate(
    desk: Workspace, operator: User, sent: list[object], django_capture_on_commit_callbacks: Any
) -> None:
    take(desk, tab(operator))
    with django_capture_on_commit_callbacks(execute=True):
        keep(desk, tab(operator))
        leases.hide(desk, tab(operator), epoch=1, hidden=True)
        leases.hide(desk, tab(operator), epoch=1, hidden=False)
    assert sent == [{"type": "look", "workspace_id": desk.pk}] * 3


def test_a_broker_that_fails_does_not_fail_the_change_and_is_logged_once(
    desk: Workspace,
    operator: User,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    django_capture_on_commit_callbacks: Any,
) -> None:
    class Away:
        async def group_send(self, *_: object) -> None:
            raise OSError("connection refused")

    monkeypatch.setattr(events, "_broker", events._Broker())
    monkeypatch.setattr(events, "REST_SECONDS", 0)
    with monkeypatch.context() as broken:
        broken.setattr(events, "channel_layer", Away)
        with django_capture_on_commit_callbacks(execute=True):
            take(desk, tab(operator))
            give_back(desk, tab(operator))
    with django_capture_on_commit_callbacks(execute=True):
        take(desk, tab(operator))
    assert_held_by(desk, tab(operator), epoch=2)
    texts = [record.message for record in caplog.records if record.name == "controlplane.events"]
    assert len(texts) == 2
    assert "connection refused" in texts[0]
    assert texts[1] == "notices get out again"


def test_a_broker_that_was_restarted_since_costs_no_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[object] = []

    class Restarted:
        is_connected = False

        async def group_send(self, group: str, message: object) -> None:
            if not self.is_connected:
                self.is_connected = True
                raise OSError("connection closed by server")
            sent.append(message)

    layer = Restarted()
    monkeypatch.setattr(events, "channel_layer", lambda: layer)
    events._Broker().send({"type": "changed"})
    assert sent == [{"type": "changed"}]
    assert caplog.text == ""


def test_a_broker_that_hangs_delays_a_change_by_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging:
        async def group_send(self, *_: object) -> None:
            await asyncio.sleep(3600)

    monkeypatch.setattr(events, "ANNOUNCE_SECONDS", 0.05)
    monkeypatch.setattr(events, "channel_layer", Hanging)
    started = datetime.now(UTC)
    events._Broker().send({"type": "changed"})
    assert (datetime.now(UTC) - started).total_seconds() < limit(0.1)


def test_a_broker_that_hangs_delays_one_of_many_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[None] = []

    class Hanging:
        async def group_send(self, *_: object) -> None:
            tried.append(None)
            await asyncio.sleep(3600)

    monkeypatch.setattr(events, "ANNOUNCE_SECONDS", 0.05)
    monkeypatch.setattr(events, "channel_layer", Hanging)
    broker = events._Broker()
    for _ in range(20):
        broker.send({"type": "changed"})
    assert len(tried) == 1


# --- Decided under the row's lock -----------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_an_acquire_waits_for_the_lock_and_decides_on_what_it_finds_then(
    desk: Workspace, operator: User, colleague: User
) -> None:
    with row_locked_by_another(desk):
        late = in_thread(lambda: take(desk, tab(colleague)))
        assert is_still_waiting(late)
        take(desk, tab(operator))
    with pytest.raises(ControlRefused, match="held"):
        late.result(limit(1))
    assert_held_by(desk, tab(operator), epoch=1)


@pytest.mark.django_db(transaction=True)
def test_a_renewal_that_waited_for_a_takeover_finds_itself_preempted(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    with row_locked_by_another(desk):
        late = in_thread(lambda: take(desk, agent(operator), epoch=1))
        assert is_still_waiting(late)
        take(desk, tab(colleague))
    with pytest.raises(ControlRefused, match="preempted"):
        late.result(limit(1))
    assert_held_by(desk, tab(colleague), epoch=2)


@pytest.mark.django_db(transaction=True)
def test_the_time_is_read_after_the_wait_for_the_lock(desk: Workspace, operator: User) -> None:
    with row_locked_by_another(desk):
        late = in_thread(lambda: leases.acquire(desk, tab(operator), ttl=TTL))
        assert is_still_waiting(late)
        unlocked_at = now()
    lease = late.result(limit(1))
    assert lease.acquired_at >= unlocked_at


@pytest.mark.django_db(transaction=True)
def test_who_is_disabled_while_waiting_for_the_lock_gets_nothing(
    desk: Workspace, operator: User
) -> None:
    with row_locked_by_another(desk):
        late = in_thread(lambda: take(desk, tab(operator)))
        assert is_still_waiting(late)
        User.objects.filter(pk=operator.pk).update(is_active=False)
    with pytest.raises(ControlForbidden):
        late.result(limit(1))
    assert not view_of(desk).is_held


@pytest.mark.django_db(transaction=True)
def test_a_workspace_disabled_while_waiting_for_the_lock_is_not_taken(
    desk: Workspace, operator: User
) -> None:
    with row_locked_by_another(desk):
        late = in_thread(lambda: take(desk, tab(operator)))
        assert is_still_waiting(late)
        Workspace.objects.filter(pk=desk.pk).update(enabled=False)
    with pytest.raises(ControlRefused, match="display_not_enabled"):
        late.result(limit(1))


@pytest.mark.django_db(transaction=True)
def test_of_two_force_releases_one_ends_the_lease(desk: Workspace, operator: User) -> None:
    take(desk, tab(operator))
    with row_locked_by_another(desk):
        late = in_thread(lambda: force(desk, "the second"))
        assert is_still_waiting(late)
        assert force(desk, "the first")
    assert late.result(limit(1)) is None
    assert lease_of(desk).ended_note == "the first"
    assert transitions(desk) == [("acquired", 1), ("forced", 1)]


@pytest.mark.django_db(transaction=True)
def test_access_is_judged_anew_under_the_lock_and_not_by_the_candidate(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    candidate = lease_of(desk)
    WorkspaceGrant.objects.filter(user=operator)._raw_delete("default")
    with row_locked_by_another(desk):
        late = in_thread(lambda: leases.end_lost_access([candidate]))
        assert is_still_waiting(late)
        force(desk)
        take(desk, tab(colleague))
    assert late.result(limit(1)) == 0
    assert_held_by(desk, tab(colleague), epoch=2)


@pytest.mark.django_db(transaction=True)
def test_row_and_event_are_written_together_or_not_at_all(
    desk: Workspace, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(events, "record", fail)
    with pytest.raises(RuntimeError, match="disk"):
        take(desk, tab(operator))
    assert (lease_of(desk).epoch, history(desk)) == (0, [])


def test_a_write_past_the_lock_is_noticed_and_nothing_is_overwritten(
    desk: Workspace, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = leases._take

    def take_while_another_writes(*args: Any) -> None:
        real(*args)
        DisplayControlLease.objects.update(version=41)

    monkeypatch.setattr(leases, "_take", take_while_another_writes)
    with pytest.raises(RuntimeError, match="written by another"), transaction.atomic():
        take(desk, tab(operator))


@pytest.mark.django_db(transaction=True)
def test_fifty_callers_at_once_have_exactly_one_winner(desk: Workspace) -> None:
    crowd = [person(f"person-{number}", is_superuser=True) for number in range(50)]
    start = threading.Barrier(len(crowd))

    def try_once(user: User) -> str:
        start.wait(limit(2))
        try:
            take(desk, tab(user, f"tab-of-{user.username}"))
        except ControlRefused as error:
            return error.code
        finally:
            connection.close()
        return "won"

    with ThreadPoolExecutor(len(crowd)) as executor:
        results = list(executor.map(try_once, crowd))
    assert sorted(results) == ["held"] * 49 + ["won"]
    winner = crowd[results.index("won")]
    assert_held_by(desk, tab(winner, f"tab-of-{winner.username}"), epoch=1)
    assert lease_of(desk).version == 1
    assert transitions(desk) == [("acquired", 1)]
    assert len(history(desk)) == 50


@pytest.mark.django_db(transaction=True)
def test_twenty_tabs_that_renew_and_move_at_once_never_share_an_epoch(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    start = threading.Barrier(20)

    def move(number: int) -> int:
        start.wait(limit(2))
        try:
            return take(desk, tab(operator, f"moving-tab-{number}"), move=True)
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as executor:
        epochs = list(executor.map(move, range(20)))
    assert sorted(epochs) == list(range(2, 22))
    assert lease_of(desk).epoch == 21


# --- What is told of a lease ----------------------------------------------------------------------
def test_the_holder_counts_as_connected_while_a_stream_is_stamped(
    desk: Workspace, operator: User
) -> None:
    take(desk, tab(operator))
    assert not view_of(desk).is_holder_connected
    stream = open_stream(desk, operator)
    assert view_of(desk).is_holder_connected
    type(stream).objects.update(stamped_at=Now() - timedelta(seconds=31))
    assert not view_of(desk).is_holder_connected
    type(stream).objects.update(stamped_at=Now(), closed_at=Now())
    assert not view_of(desk).is_holder_connected


def test_a_stream_of_another_tab_does_not_make_the_holder_connected(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, tab(operator))
    open_stream(desk, operator, OTHER_TAB)
    open_stream(desk, colleague)
    assert not view_of(desk).is_holder_connected


def test_while_a_lease_is_held_the_end_before_it_is_told(
    desk: Workspace, operator: User, colleague: User
) -> None:
    take(desk, agent(operator))
    take(desk, tab(colleague))
    end = view_of(desk).last_end
    assert end is not None
    assert (end.reason, end.by, end.note) == ("preempted", "colleague", "")


def test_an_agent_whose_control_has_lapsed_is_nothing_that_is_waited_for(
    desk: Workspace, operator: User
) -> None:
    alpha = Workspace.objects.create(slug="alpha", name="Alpha")
    take(desk, agent(operator))
    age(desk, 301)
    assert list(leasestate.waiting_first(Workspace.objects.all())) == [alpha, desk]
