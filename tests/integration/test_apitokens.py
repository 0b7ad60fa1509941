"""API tokens: what each may do in each of its states, and how all that it has ends with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import Client

from controlplane import access, apitokens, leases, leasestate, tokens
from controlplane.backends import PeopleBackend
from controlplane.exceptions import StreamForbidden, TokenRefused
from controlplane.models import ApiToken, ControlEvent, Role, Workspace, WorkspaceGrant
from tests.integration.people import (
    THIS_TAB,
    UPSTREAM,
    Browser,
    assert_free,
    lease_of,
    now,
    person,
    tab,
    token_of,
    transitions,
    view_of,
)
from tests.integration.programs import PROCESS, Program, token

BASE = "/api/workspaces/desk/display"


def ok(answer: HttpResponse) -> Any:
    assert answer.status_code == 200, answer.content
    return json.loads(answer.content)


def code_of(answer: HttpResponse) -> tuple[int, str]:
    return answer.status_code, json.loads(answer.content)["error"]["code"]


def change(row: ApiToken, **values: Any) -> None:
    """Change a row past all signals, as time or another process does."""
    ApiToken.objects.filter(pk=row.pk).update(**values)


# --- Making and finding ---------------------------------------------------------------------------
def test_a_token_is_kept_as_a_digest_alone(desk: Workspace) -> None:
    row, text = token("observe")
    assert text.startswith("dctl_")
    kept = [str(value) for value in [*vars(row).values(), *vars(row.account).values()]]
    assert not [value for value in kept if text in value or text[5:] in value]
    assert apitokens.find(text) == row


def test_two_tokens_are_never_alike(desk: Workspace) -> None:
    (_, one), (_, two) = token("observe", name="One"), token("observe", name="Two")
    assert one != two


@pytest.mark.parametrize("scopes", [[], ["everything"], ["observe", "everything"]])
def test_an_unknown_scope_makes_no_token(scopes: list[str], desk: Workspace) -> None:
    with pytest.raises(ValueError, match="observe, control, manage"):
        token(*scopes)
    assert not ApiToken.objects.exists()
    assert not User.objects.exists()


@pytest.mark.parametrize("text", ["", "dctl_", "dctl_unknown", "\x00", "ä" * 50])
def test_a_text_that_is_no_token_finds_none(text: str, desk: Workspace) -> None:
    token("observe")
    assert apitokens.find(text) is None


def test_its_use_is_noted_once_a_minute(desk: Workspace, django_assert_num_queries: Any) -> None:
    row, text = token("observe")
    with django_assert_num_queries(2):
        apitokens.find(text)
    row.refresh_from_db()
    first = row.last_used_at
    assert first is not None
    with django_assert_num_queries(1):
        apitokens.find(text)
    change(row, last_used_at=Now() - timedelta(seconds=61))
    apitokens.find(text)
    row.refresh_from_db()
    assert row.last_used_at is not None
    assert row.last_used_at >= first


# --- Scopes and workspaces ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (["observe"], access.Permissions(observe=True)),
        (["control"], access.Permissions(observe=True, control=True)),
        (["manage"], access.Permissions(observe=True, force=True, configure=True)),
        (["control", "manage"], access.ALL),
    ],
)
def test_scopes_say_what_a_token_may_do(
    scopes: list[str], expected: access.Permissions, desk: Workspace
) -> None:
    row, _ = token(*scopes)
    assert access.permissions(row.account, desk) == expected


def test_a_token_counts_in_its_own_workspaces_only(desk: Workspace) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url=UPSTREAM)
    row, text = token("control", workspaces=[other])
    program = Program(text)
    assert access.permissions(row.account, desk) == access.NONE
    assert [each["id"] for each in ok(program.get("/api/workspaces"))["workspaces"]] == ["other"]
    assert code_of(program.acquire()) == (404, "not_found")
    assert ok(program.acquire(slug="other"))["yours"]


def test_a_token_for_all_counts_in_those_that_come_later(desk: Workspace) -> None:
    _, text = token("control")
    Workspace.objects.create(slug="later", name="Later", upstream_url=UPSTREAM)
    assert ok(Program(text).acquire(slug="later"))["yours"]


@pytest.mark.parametrize("gift", ["grant", "superuser"])
def test_nothing_but_its_scopes_gives_a_token_anything(gift: str, desk: Workspace) -> None:
    row, text = token("observe")
    if gift == "grant":
        WorkspaceGrant.objects.create(workspace=desk, user=row.account, role=Role.MANAGER)
    User.objects.filter(pk=row.account_id).update(is_superuser=gift == "superuser")
    assert code_of(Program(text).acquire()) == (403, "forbidden")
    change(row, revoked_at=Now())
    account = User.objects.get(pk=row.account_id)
    assert access.permissions(account, desk) == access.NONE
    assert list(access.visible(account)) == []


# --- States × calls -------------------------------------------------------------------------------
STATES: dict[str, Callable[[ApiToken], None]] = {
    "revoked": apitokens.revoke,
    "expired": lambda row: change(row, expires_at=Now()),
    "disabled": lambda row: disable(row.account),
    "deleted": lambda row: row.account.delete() and None,
}
CALLS: dict[str, Callable[[Program], HttpResponse]] = {
    "list": lambda program: program.get("/api/workspaces"),
    "display": lambda program: program.get(BASE),
    "control": lambda program: program.get(f"{BASE}/control"),
    "acquire": lambda program: program.acquire(),
    "release": lambda program: program.release(),
    "force": lambda program: program.release(force=True, note="why"),
    "session": lambda program: program.session(),
}


def disable(account: User) -> None:
    account.is_active = False
    account.save()


@pytest.mark.parametrize("call", CALLS)
def test_a_good_token_may_call(call: str, desk: Workspace) -> None:
    _, text = token("control", "manage", expires_at=now() + timedelta(hours=1))
    ok(CALLS[call](Program(text)))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
def test_a_token_that_is_good_no_more_may_call_nothing(
    call: str, state: str, desk: Workspace
) -> None:
    row, text = token("control", "manage")
    STATES[state](row)
    answer = CALLS[call](Program(text))
    assert code_of(answer) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert text not in answer.content.decode()


def test_the_databases_clock_says_when_a_token_expires(
    desk: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = token("observe", expires_at=now() + timedelta(minutes=30))
    program = Program(text)
    in_an_hour = now() + timedelta(hours=1)
    monkeypatch.setattr("django.utils.timezone.now", lambda: in_an_hour)
    ok(program.get(BASE))
    change(ApiToken.objects.get(), expires_at=Now() - timedelta(seconds=1))
    an_hour_ago = now() - timedelta(hours=1)
    monkeypatch.setattr("django.utils.timezone.now", lambda: an_hour_ago)
    assert program.get(BASE).status_code == 401


# --- Credentials side by side ---------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "dctl_wrong", " ", "dctl wrong"])
def test_a_bad_token_never_falls_back_to_the_cookie(
    text: str, desk: Workspace, operator: User
) -> None:
    browser = Browser(operator)
    assert ok(browser.get("/api/workspaces"))
    answer = browser.get("/api/workspaces", Authorization=f"Bearer {text}")
    assert code_of(answer) == (401, "unauthenticated")


def test_a_token_counts_and_not_the_cookie_that_comes_along(
    desk: Workspace, operator: User
) -> None:
    browser = Browser(operator)
    _, text = token("control")
    body = ok(
        browser.post(
            f"{BASE}/control/acquire", {"client_id": PROCESS}, Authorization=f"Bearer {text}"
        )
    )
    assert (body["controller"], body["controlled_by"]) == ("agent", "Builder")
    assert lease_of(desk).login == ""


def test_a_program_needs_no_csrf_token_and_a_page_does(desk: Workspace, operator: User) -> None:
    _, text = token("control")
    ok(Program(text).acquire())
    page = Client(enforce_csrf_checks=True)
    page.force_login(operator)
    answer = page.post(f"{BASE}/session", {"client_id": THIS_TAB}, "application/json")
    assert code_of(answer) == (403, "csrf")  # type: ignore[arg-type]  # a test's response


def test_a_token_starts_no_session(desk: Workspace) -> None:
    _, text = token("control")
    program = Program(text)
    ok(program.acquire())
    assert not program.client.cookies


def test_a_token_cannot_pass_for_a_person(desk: Workspace) -> None:
    _, text = token("control")
    assert code_of(Program(text).acquire(controller="user")) == (403, "wrong_controller")
    assert ok(Program(text).acquire(controller="agent"))["controller"] == "agent"


# --- Beside people --------------------------------------------------------------------------------
def test_people_see_the_tokens_name_and_take_over(desk: Workspace, operator: User) -> None:
    _, text = token("control")
    program, browser = Program(text), Browser(operator)
    ok(program.acquire())
    seen = ok(browser.get(f"{BASE}/control"))
    assert (seen["controller"], seen["controlled_by"]) == ("agent", "Builder")
    taken = ok(browser.acquire())
    assert (taken["yours"], taken["last_end"]["by"]) == (True, "Olive Operator")
    assert code_of(program.acquire(epoch=1)) == (409, "preempted")
    assert code_of(program.acquire()) == (409, "human_in_control")
    assert transitions(desk) == [("acquired", 1), ("preempted", 2)]
    who = ControlEvent.objects.order_by("id").values_list("who", flat=True)
    assert list(who)[:2] == ["Builder", "Olive Operator"]


def test_a_token_takes_over_from_no_other(desk: Workspace) -> None:
    programs = [Program(token("control", name=name)[1]) for name in ("One", "Two")]
    ok(programs[0].acquire())
    answer = programs[1].acquire()
    assert code_of(answer) == (409, "held")
    assert json.loads(answer.content)["current"]["controlled_by"] == "One"
    assert PROCESS not in answer.content.decode()


def test_a_manage_token_ends_a_persons_control(desk: Workspace, operator: User) -> None:
    ok(Browser(operator).acquire())
    _, text = token("manage")
    ok(Program(text).release(force=True, note="maintenance"))
    end = view_of(desk).last_end
    assert end is not None
    assert (end.reason, end.by, end.note) == ("forced", "Builder", "maintenance")


# --- Session tokens -------------------------------------------------------------------------------
@pytest.mark.parametrize("call", ["acquire", "session"])
def test_a_session_that_a_token_has_minted_works_once(call: str, desk: Workspace) -> None:
    row, text = token("control")
    minted = token_of(getattr(Program(text), call)())
    assert text not in minted
    assert tokens.spend(minted, "desk", "tests").user == row.account
    with pytest.raises(TokenRefused):
        tokens.spend(minted, "desk", "tests")


@pytest.mark.parametrize("state", ["revoked", "expired", "disabled"])
def test_a_session_does_not_outlive_its_token(state: str, desk: Workspace) -> None:
    row, text = token("control")
    minted = token_of(Program(text).session())
    STATES[state](row)
    with pytest.raises(StreamForbidden):
        tokens.spend(minted, "desk", "tests")


def test_a_session_is_lost_with_its_workspace(desk: Workspace) -> None:
    row, text = token("control", workspaces=[desk])
    minted = token_of(Program(text).session())
    row.workspaces.clear()
    with pytest.raises(StreamForbidden):
        tokens.spend(minted, "desk", "tests")


# --- Control ends with the token ------------------------------------------------------------------
ENDS: dict[str, Callable[[ApiToken], object]] = {
    "revoked": apitokens.revoke,
    "disabled": lambda row: disable(row.account),
    "expires at once": lambda row: narrow(row, expires_at=Now()),
    "loses its scope": lambda row: narrow(row, scopes="observe"),
    "loses the workspace": lambda row: row.workspaces.remove(*Workspace.objects.all()),
    "has no workspaces any more": lambda row: row.workspaces.clear(),
    "account is deleted": lambda row: row.account.delete(),
}


def narrow(row: ApiToken, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


@pytest.mark.parametrize("end", ENDS)
def test_a_tokens_control_ends_at_once_when_it(end: str, desk: Workspace) -> None:
    row, text = token("control", workspaces=[desk])
    ok(Program(text).acquire())
    ENDS[end](row)
    assert_free(desk, reason="access_ended", epoch=1)
    assert transitions(desk) == [("acquired", 1), ("access_ended", 1)]


def test_a_token_that_expires_by_itself_cannot_renew(desk: Workspace) -> None:
    row, text = token("control")
    ok(Program(text).acquire())
    change(row, expires_at=Now())
    assert Program(text).acquire(epoch=1).status_code == 401
    (lease,) = leasestate.held()
    assert leasestate.has_lost_access(lease)


def test_the_revocation_of_one_token_leaves_another_in_control(desk: Workspace) -> None:
    row, _ = token("control", name="One")
    ok(Program(token("control", name="Two")[1]).acquire())
    apitokens.revoke(row)
    assert view_of(desk).is_held


def test_a_tokens_stream_that_is_signed_out_takes_no_other_tokens_control_along(
    desk: Workspace,
) -> None:
    ok(Program(token("control")[1]).acquire())
    signed_out = frozenset({access.login_id("")})  # as the watch finds it
    leases.end_lost_access(leasestate.held(), logins_ended=signed_out)
    assert view_of(desk).is_held


# --- Accounts -------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_superuser", [False, True])
def test_nobody_logs_in_with_a_tokens_account_whatever_its_password(
    is_superuser: bool, desk: Workspace
) -> None:
    row, _ = token("control")
    account = row.account
    assert not account.has_usable_password()
    account.is_staff = account.is_superuser = is_superuser
    account.set_password("somebody-set-one")
    account.save()
    name = account.get_username()
    assert authenticate(username=name, password="somebody-set-one") is None
    answer = Client().post("/accounts/login/", {"username": name, "password": "somebody-set-one"})
    assert answer.status_code == 200
    assert "sessionid" not in answer.cookies


def test_a_session_of_a_tokens_account_is_nobodys(desk: Workspace) -> None:
    row, _ = token("control")
    browser = Browser(row.account)
    assert browser.get("/api/workspaces").status_code == 401
    assert browser.get("/").status_code == 302


def test_people_log_in_as_ever(operator: User) -> None:
    operator.set_password("olives-password")
    operator.save()
    assert authenticate(username="operator", password="olives-password") == operator
    disabled = person("gone", is_active=False)
    assert Browser(disabled).get("/").status_code == 302


def test_where_nothing_may_block_the_session_is_found_as_well(
    desk: Workspace, operator: User
) -> None:
    row, _ = token("control")
    find = async_to_sync(PeopleBackend().aget_user)
    found = [find(pk) for pk in (operator.pk, row.account_id, 0)]
    assert found == [operator, None, None]


# --- Never told -----------------------------------------------------------------------------------
def test_no_log_line_and_no_event_holds_a_token(
    desk: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    row, text = token("control")
    program = Program(text)
    ok(program.acquire())
    program.send("POST", f"{BASE}/control/acquire", {"client_id": "x"})
    program.get("/api/nothing")
    apitokens.revoke(row)
    program.acquire()
    assert "Builder" in caplog.text
    assert text not in caplog.text
    assert text not in json.dumps(list(ControlEvent.objects.values()), default=str)


def test_a_person_in_the_tab_of_a_tokens_process_is_another_holder(
    desk: Workspace, operator: User
) -> None:
    _, text = token("control")
    ok(Program(text).acquire(THIS_TAB))
    assert not ok(Browser(operator).get(f"{BASE}/control", **{"X-Client-Id": THIS_TAB}))["yours"]
    leases.acquire(desk, tab(operator), ttl=300)
    assert transitions(desk) == [("acquired", 1), ("preempted", 2)]
