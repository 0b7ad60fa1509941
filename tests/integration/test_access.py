"""Who may do what, and how control ends when access does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.test import Client

from controlplane import access, leases, leasestate
from controlplane.access import ALL, NONE, Permissions
from controlplane.models import ControlEvent, Role, Workspace, WorkspaceGrant
from tests.integration.people import (
    THIS_TAB,
    UPSTREAM,
    Browser,
    assert_free,
    assert_held_by,
    person,
    tab,
    transitions,
    view_of,
)

WATCH = Permissions(observe=True)
CONTROL = Permissions(observe=True, control=True)
MANAGE = Permissions(observe=True, control=True, force=True)


# --- Permissions ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("observer", WATCH),
        ("operator", CONTROL),
        ("manager", MANAGE),
        ("admin", ALL),
        ("stranger", NONE),
    ],
)
def test_each_role_includes_the_ones_before_it(
    who: str, expected: Permissions, desk: Workspace, request: pytest.FixtureRequest
) -> None:
    assert access.permissions(request.getfixturevalue(who), desk) == expected


def test_members_of_a_group_have_what_the_group_is_granted(desk: Workspace, stranger: User) -> None:
    crew = Group.objects.create(name="crew")
    WorkspaceGrant.objects.create(workspace=desk, group=crew, role=Role.OPERATOR)
    assert access.permissions(stranger, desk) == NONE
    stranger.groups.add(crew)
    assert access.permissions(stranger, desk) == CONTROL


@pytest.mark.parametrize(("own", "of_group"), [("observer", "manager"), ("manager", "observer")])
def test_the_best_role_counts_wherever_it_comes_from(
    own: str, of_group: str, desk: Workspace
) -> None:
    user = person("someone", role=Role(own))
    for number, role in enumerate([of_group, Role.OBSERVER]):
        group = Group.objects.create(name=f"group {number}")
        WorkspaceGrant.objects.create(workspace=desk, group=group, role=role)
        user.groups.add(group)
    assert access.permissions(user, desk) == MANAGE


def test_a_grant_counts_for_its_own_workspace_only(desk: Workspace, operator: User) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url=UPSTREAM)
    assert access.permissions_of(operator, [desk.pk, other.pk]) == {
        desk.pk: CONTROL,
        other.pk: NONE,
    }


@pytest.mark.parametrize("who", ["operator", "manager", "admin"])
def test_a_disabled_account_may_nothing(
    who: str, desk: Workspace, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(who)
    user.is_active = False
    assert access.permissions(user, desk) == NONE
    assert not access.visible(user).exists()


def test_people_see_the_workspaces_they_may_watch_once_each_and_by_name(
    desk: Workspace, observer: User, stranger: User, admin: User
) -> None:
    for slug, name in [("b", "Zebra"), ("c", "Antelope")]:
        Workspace.objects.create(slug=slug, name=name)
    group = Group.objects.create(name="crew")
    observer.groups.add(group)
    for slug in ("desk", "b"):
        workspace = Workspace.objects.get(slug=slug)
        WorkspaceGrant.objects.create(workspace=workspace, group=group, role=Role.OBSERVER)
    assert [each.slug for each in access.visible(observer)] == ["desk", "b"]
    assert [each.slug for each in access.visible(admin)] == ["c", "desk", "b"]
    assert list(access.visible(stranger)) == []


def test_many_workspaces_cost_no_more_queries_than_one(
    desk: Workspace, operator: User, django_assert_num_queries: Any
) -> None:
    ids = [desk.pk, *(Workspace.objects.create(slug=f"w{n}", name="W").pk for n in range(5))]
    with django_assert_num_queries(2):
        assert sum(each.control for each in access.permissions_of(operator, ids).values()) == 1


def test_people_are_shown_by_full_name_else_by_username(operator: User, colleague: User) -> None:
    assert access.display_name(operator) == "Olive Operator"
    assert access.display_name(colleague) == "colleague"


# --- Logins ---------------------------------------------------------------------------------------
def test_a_login_stands_until_logout(operator: User) -> None:
    browser = Browser(operator)
    key = browser.session_key
    assert access.is_logged_in(operator, key)
    browser.client.logout()
    assert not access.is_logged_in(operator, key)


def test_a_login_does_not_outlive_the_password(operator: User) -> None:
    key = Browser(operator).session_key
    operator.set_unusable_password()
    operator.save()
    assert not access.is_logged_in(operator, key)


def test_a_login_is_its_own_users_alone(operator: User, colleague: User) -> None:
    assert not access.is_logged_in(colleague, Browser(operator).session_key)


def test_a_login_does_not_outlive_its_session(operator: User, settings: Any) -> None:
    settings.SESSION_COOKIE_AGE = -10
    assert not access.is_logged_in(operator, Browser(operator).session_key)


def test_a_login_survives_a_new_secret_key_while_the_old_one_is_a_fallback(
    operator: User, settings: Any
) -> None:
    key = Browser(operator).session_key
    old, settings.SECRET_KEY = settings.SECRET_KEY, "a-new-key-" * 6
    assert not access.is_logged_in(operator, key)
    settings.SECRET_KEY_FALLBACKS = [old]
    assert access.is_logged_in(operator, key)


@pytest.mark.parametrize("key", ["", "unknown", "\x01"])
def test_no_session_is_no_login(key: str, operator: User) -> None:
    assert not access.is_logged_in(operator, key)


def test_a_session_that_cannot_be_decoded_is_no_login(operator: User) -> None:
    key = Browser(operator).session_key
    Session.objects.update(session_data="garbage")
    assert not access.is_logged_in(operator, key)


def test_the_stored_name_of_a_login_is_not_its_key(operator: User) -> None:
    browser = Browser(operator)
    assert browser.session_key not in browser.login
    assert browser.login == access.login_id(browser.session_key)
    assert browser.login != access.login_id("another")


# --- When access ends, control ends ---------------------------------------------------------------
@pytest.fixture
def browser(desk: Workspace, operator: User) -> Browser:
    """The operator's browser, in control."""
    browser = Browser(operator)
    assert browser.acquire().status_code == 200
    return browser


def _log_out(user: User, browser: Browser) -> None:
    assert browser.client.post(
        "/accounts/logout/", headers={"X-CSRFToken": browser.client.cookies["csrftoken"].value}
    ).status_code in {200, 302}


def _change_password(user: User, browser: Browser) -> None:
    user.set_unusable_password()
    user.save()


def _disable(user: User, browser: Browser) -> None:
    user.is_active = False
    user.save(update_fields=["is_active"])


def _revoke(user: User, browser: Browser) -> None:
    WorkspaceGrant.objects.get(user=user).delete()


def _revoke_in_bulk(user: User, browser: Browser) -> None:
    WorkspaceGrant.objects.filter(user=user).delete()


def _demote(user: User, browser: Browser) -> None:
    grant = WorkspaceGrant.objects.get(user=user)
    grant.role = Role.OBSERVER
    grant.save()


def _disable_workspace(user: User, browser: Browser) -> None:
    workspace = Workspace.objects.get(slug="desk")
    workspace.enabled = False
    workspace.save()


def _remove_upstream(user: User, browser: Browser) -> None:
    workspace = Workspace.objects.get(slug="desk")
    workspace.upstream_url = ""
    workspace.save()


ENDS = [
    _log_out,
    _change_password,
    _disable,
    _revoke,
    _revoke_in_bulk,
    _demote,
    _disable_workspace,
    _remove_upstream,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
def test_control_ends_with_access(
    end: Callable[[User, Browser], None], browser: Browser, desk: Workspace, operator: User
) -> None:
    end(operator, browser)
    assert_free(desk, reason="access_ended", epoch=1)
    assert transitions(desk) == [("acquired", 1), ("access_ended", 1)]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
def test_whose_access_has_ended_does_not_renew_back(
    end: Callable[[User, Browser], None], browser: Browser, desk: Workspace, operator: User
) -> None:
    end(operator, browser)
    assert browser.acquire(epoch=1).status_code in {401, 403, 404, 409}
    assert_free(desk, reason="access_ended", epoch=1)


def test_logging_out_elsewhere_leaves_control_alone(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    _log_out(operator, Browser(operator))
    assert_held_by(desk, tab(operator), epoch=1)


def test_a_logout_without_a_login_is_harmless(browser: Browser, desk: Workspace) -> None:
    Client().post("/accounts/logout/")
    assert view_of(desk).is_held


def test_saving_a_user_without_a_new_password_leaves_control_alone(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    operator.first_name = "Olivia"
    operator.save()
    Browser(operator)  # another login, which notes the time of it
    assert_held_by(desk, tab(operator), epoch=1)


def test_a_better_role_leaves_control_alone(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    WorkspaceGrant.objects.update_or_create(
        workspace=desk, user=operator, defaults={"role": Role.MANAGER}
    )
    assert_held_by(desk, tab(operator), epoch=1)


def test_renaming_a_workspace_leaves_control_alone(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    desk.name = "Desk 13"
    desk.save()
    assert_held_by(desk, tab(operator), epoch=1)


def test_the_revocation_of_one_person_leaves_another_in_control(
    browser: Browser, desk: Workspace, operator: User, colleague: User
) -> None:
    WorkspaceGrant.objects.filter(user=colleague).delete()
    assert_held_by(desk, tab(operator), epoch=1)


def test_a_role_that_remains_through_a_group_keeps_control(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    crew = Group.objects.create(name="crew")
    WorkspaceGrant.objects.create(workspace=desk, group=crew, role=Role.OPERATOR)
    operator.groups.add(crew)
    WorkspaceGrant.objects.filter(user=operator).delete()
    assert_held_by(desk, tab(operator), epoch=1)


@pytest.fixture
def member(desk: Workspace, stranger: User) -> User:
    """In control through a group's grant alone."""
    crew = Group.objects.create(name="crew")
    WorkspaceGrant.objects.create(workspace=desk, group=crew, role=Role.OPERATOR)
    stranger.groups.add(crew)
    leases.acquire(desk, tab(stranger), ttl=300)
    return stranger


GROUP_ENDS: dict[str, Callable[[User, Group], object]] = {
    "leaves": lambda user, group: user.groups.remove(group),
    "is removed": lambda user, group: group.user_set.remove(user),
    "has no groups any more": lambda user, group: user.groups.clear(),
    "is not in the new set": lambda user, group: user.groups.set([]),
    "group is emptied": lambda user, group: group.user_set.clear(),
    "group is deleted": lambda user, group: group.delete(),
    "grant is revoked": lambda user, group: WorkspaceGrant.objects.filter(group=group).delete(),
    "account is deleted": lambda user, group: user.delete(),
}


@pytest.mark.parametrize("end", GROUP_ENDS)
def test_control_that_came_through_a_group_ends_with_it(
    end: str, desk: Workspace, member: User
) -> None:
    GROUP_ENDS[end](member, Group.objects.get(name="crew"))
    assert_free(desk, reason="access_ended", epoch=1)


def test_deleting_an_account_ends_its_control_and_keeps_what_happened(
    desk: Workspace, admin: User
) -> None:
    leases.acquire(desk, tab(admin), ttl=300)
    admin.delete()
    assert_free(desk, reason="access_ended", epoch=1)
    assert ControlEvent.objects.filter(who="Ada Admin", what="acquired").exists()


def test_an_admin_who_is_made_an_ordinary_user_loses_control(desk: Workspace, admin: User) -> None:
    leases.acquire(desk, tab(admin), ttl=300)
    admin.is_superuser = False
    admin.save()
    assert_free(desk, reason="access_ended", epoch=1)


def test_deleting_a_workspace_keeps_the_record_of_it(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    desk.delete()
    event = ControlEvent.objects.get()
    assert (event.workspace, event.workspace_slug) == (None, "desk")


def test_a_change_past_the_signals_is_seen_by_who_looks(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    User.objects.filter(pk=operator.pk).update(is_active=False)
    (lease,) = leasestate.held()
    assert leasestate.has_lost_access(lease)
    assert lease.client_id == THIS_TAB


def test_a_new_grant_or_a_changed_workspace_is_announced(
    desk: Workspace,
    stranger: User,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("controlplane.events._broker.send", sent.append)
    with django_capture_on_commit_callbacks(execute=True):
        WorkspaceGrant.objects.create(workspace=desk, user=stranger, role=Role.OBSERVER)
        WorkspaceGrant.objects.all().delete()
        desk.save()
    assert sent == [{"type": "access"}] * 3
