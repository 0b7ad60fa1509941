"""Who has control may hide the desktop from all who watch, until control ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db.models import F

from controlplane import leases, presenters, tokens
from controlplane.exceptions import ControlForbidden, DisplayHidden
from controlplane.models import DisplayControlLease, Workspace, WorkspaceGrant
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    Browser,
    history,
    lease_of,
    refusal,
    tab,
    view_of,
)

TTL = 300.0
BASE = "/api/workspaces/desk/display/control"


@pytest.fixture
def hidden(desk: Workspace, operator: User) -> Workspace:
    """The workspace, which the operator controls and hides."""
    epoch = leases.acquire(desk, tab(operator), ttl=TTL).epoch
    leases.hide(desk, tab(operator), epoch=epoch, hidden=True)
    return desk


def test_it_is_hidden_from_everybody_but_the_holders_own_tab(
    hidden: Workspace, operator: User, admin: User
) -> None:
    view = view_of(hidden)
    assert not view.hides_from(operator.pk, THIS_TAB)
    assert view.hides_from(operator.pk, OTHER_TAB)
    assert view.hides_from(admin.pk, OTHER_TAB)


def test_it_is_recorded_once_however_often_it_is_asked_for(
    hidden: Workspace, operator: User
) -> None:
    for _ in range(2):
        leases.hide(hidden, tab(operator), epoch=1, hidden=True)
    for _ in range(2):
        leases.hide(hidden, tab(operator), epoch=1, hidden=False)
    assert history(hidden) == [("acquired", 1), ("hidden", 1), ("shown", 1)]
    assert not view_of(hidden).is_hidden


def release(desk: Workspace, operator: User, _: User) -> None:
    leases.release(desk, tab(operator), epoch=1)


def force(desk: Workspace, _: User, __: User) -> None:
    leases.force_release(desk, by="Root User", note="enough")


def hand_over(desk: Workspace, operator: User, colleague: User) -> None:
    leases.hand_over(desk, tab(operator), tab(colleague, OTHER_TAB), epoch=1, ttl=TTL)


def move(desk: Workspace, operator: User, _: User) -> None:
    leases.acquire(desk, tab(operator, OTHER_TAB), ttl=TTL, move=True)


def run_out(desk: Workspace, _: User, __: User) -> None:
    DisplayControlLease.objects.update(expires_at=F("acquired_at"))


def run_out_and_resume(desk: Workspace, operator: User, _: User) -> None:
    run_out(desk, operator, _)
    assert leases.acquire(desk, tab(operator), ttl=TTL, epoch=1).epoch == 2


@pytest.mark.parametrize("end", [release, force, hand_over, move, run_out, run_out_and_resume])
def test_whatever_ends_control_shows_it_again(
    end: Callable[[Workspace, User, User], None],
    hidden: Workspace,
    operator: User,
    colleague: User,
) -> None:
    end(hidden, operator, colleague)
    assert not view_of(hidden).is_hidden


def test_a_renewal_leaves_it_hidden(hidden: Workspace, operator: User) -> None:
    leases.acquire(hidden, tab(operator), ttl=TTL, epoch=1)
    assert view_of(hidden).is_hidden


def test_what_an_older_server_has_left_behind_hides_nothing(hidden: Workspace) -> None:
    DisplayControlLease.objects.update(hidden_at=F("acquired_at") - timedelta(milliseconds=1))
    assert not view_of(hidden).is_hidden


def test_it_may_be_hidden_in_the_very_moment_in_which_control_begins(hidden: Workspace) -> None:
    DisplayControlLease.objects.update(hidden_at=F("acquired_at"))
    assert view_of(hidden).is_hidden


def test_who_has_no_control_hides_nothing(hidden: Workspace, operator: User, admin: User) -> None:
    leases.hide(hidden, tab(operator), epoch=1, hidden=False)
    assert refusal(leases.hide, hidden, tab(admin, OTHER_TAB), epoch=1, hidden=True) == "held"
    assert lease_of(hidden).hidden_at is None


def test_who_may_not_control_any_more_cannot_show_it_again(
    hidden: Workspace, operator: User
) -> None:
    WorkspaceGrant.objects.filter(user=operator)._raw_delete("default")  # past the signals
    with pytest.raises(ControlForbidden):
        leases.hide(hidden, tab(operator), epoch=1, hidden=False)
    assert view_of(hidden).is_hidden


def test_no_token_that_was_minted_before_opens_a_hidden_desktop(
    desk: Workspace, operator: User, admin: User
) -> None:
    everywhere = Browser(admin)
    early = tokens.mint(desk, admin, OTHER_TAB, everywhere.session_key)
    epoch = leases.acquire(desk, tab(operator), ttl=TTL).epoch
    leases.hide(desk, tab(operator), epoch=epoch, hidden=True)
    with pytest.raises(DisplayHidden, match="Olive Operator"):
        tokens.spend(early.token, desk.slug, "this process")
    leases.hide(desk, tab(operator), epoch=epoch, hidden=False)
    assert tokens.spend(early.token, desk.slug, "this process").user == admin


def test_everybody_is_told_since_when_it_is_hidden(hidden: Workspace, observer: User) -> None:
    control = Browser(observer).get(BASE).json()
    assert control["hidden"] == {"at": presenters.iso(lease_of(hidden).hidden_at)}
