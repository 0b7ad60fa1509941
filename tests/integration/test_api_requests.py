"""Asking for control, keeping it, closing and opening, as the API tells of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse

from controlplane.models import ControlRequest, Workspace, WorkspaceGrant
from tests.integration.people import OTHER_TAB, Browser

CONTROL = "/api/workspaces/desk/display/control"


@pytest.fixture
def holder(desk: Workspace, operator: User) -> Browser:
    """The operator, who has control in epoch 1."""
    browser = Browser(operator)
    assert browser.acquire().status_code == 200
    return browser


@pytest.fixture
def asker(colleague: User) -> Browser:
    """The colleague, in another tab."""
    return Browser(colleague)


def call(browser: Browser, what: str, **body: Any) -> HttpResponse:
    return browser.post(f"{CONTROL}/{what}", {"client_id": OTHER_TAB, **body})


def ok(answer: HttpResponse) -> Any:
    assert answer.status_code == 200, answer.content
    return json.loads(answer.content)


def assert_refused(answer: HttpResponse, status: int, code: str) -> Any:
    body = json.loads(answer.content)
    assert (answer.status_code, body["error"]["code"]) == (status, code)
    return body


# --- Asking ---------------------------------------------------------------------------------------
def test_asking_is_seen_by_asker_and_holder(holder: Browser, asker: Browser) -> None:
    (mine,) = ok(call(asker, "request", message=" captcha "))["requests"]
    assert (mine["by"], mine["message"], mine["yours"]) == ("colleague", "captcha", True)
    (theirs,) = ok(holder.get(CONTROL))["requests"]
    assert mine["this_client"]
    assert theirs == mine | {"yours": False, "this_client": False}
    assert theirs["granted_at"] is None


def test_handing_over_makes_the_asker_the_holder(holder: Browser, asker: Browser) -> None:
    (request,) = ok(call(asker, "request"))["requests"]
    body = {"client_id": "this-tab-0001", "epoch": 1, "request": request["id"], "accept": True}
    told = ok(holder.post(f"{CONTROL}/request/answer", body))
    assert (told["controlled_by"], told["yours"], told["epoch"]) == ("colleague", False, 2)
    assert told["last_end"]["reason"] == "handed_over"
    assert ok(asker.get(CONTROL, **{"X-Client-Id": OTHER_TAB}))["this_client"]
    assert_refused(holder.acquire(epoch=1), 409, "handed_over")


def test_keeping_control_ends_the_request(holder: Browser, asker: Browser) -> None:
    (request,) = ok(call(asker, "request"))["requests"]
    body = {"client_id": "this-tab-0001", "epoch": 1, "request": request["id"], "accept": False}
    assert ok(holder.post(f"{CONTROL}/request/answer", body))["requests"] == []
    refused = assert_refused(call(asker, "request"), 429, "asked_lately")
    assert "ask again in" in refused["error"]["message"]
    assert int(call(asker, "request").headers["Retry-After"]) > 0
    body["accept"] = True
    assert_refused(holder.post(f"{CONTROL}/request/answer", body), 409, "not_asked")


def test_asking_for_what_can_be_taken_is_refused(desk: Workspace, asker: Browser) -> None:
    body = assert_refused(call(asker, "request"), 409, "not_needed")
    assert body["current"]["controller"] == "none"


def test_who_may_only_watch_may_not_ask(holder: Browser, observer: User) -> None:
    assert_refused(call(Browser(observer), "request"), 403, "forbidden")


def test_withdrawing_is_harmless_where_nobody_has_asked(holder: Browser, asker: Browser) -> None:
    ok(call(asker, "request"))
    for _ in range(2):
        assert ok(call(asker, "request/withdraw"))["requests"] == []
    assert ControlRequest.objects.get().outcome == "withdrawn"


@pytest.mark.parametrize("message", ["x" * 201, "a\0b"])
def test_a_message_has_to_fit(holder: Browser, asker: Browser, message: str) -> None:
    body = assert_refused(call(asker, "request", message=message), 400, "invalid")
    assert "message" in body["error"]["message"]


# --- Keeping --------------------------------------------------------------------------------------
def test_a_limit_is_told_and_put_off(holder: Browser) -> None:
    Workspace.objects.update(max_hold_seconds=3600)
    before = ok(holder.get(CONTROL))["ends"]
    assert before["reason"] == "max_hold"
    body = {"client_id": "this-tab-0001", "epoch": 1}
    after = ok(holder.post(f"{CONTROL}/keep", body))["ends"]
    assert after["at"] > before["at"]


def test_keeping_what_one_has_not_is_refused(holder: Browser, asker: Browser) -> None:
    assert_refused(call(asker, "keep", epoch=1), 409, "held")
    assert_refused(call(holder, "keep", epoch=1), 409, "held_elsewhere")


def test_keeping_without_the_permission_any_more_is_refused(holder: Browser) -> None:
    WorkspaceGrant.objects.update(role="observer")  # no signal has ended the lease
    body = {"client_id": "this-tab-0001", "epoch": 1}
    assert_refused(holder.post(f"{CONTROL}/keep", body), 403, "forbidden")


# --- Closing --------------------------------------------------------------------------------------
def test_a_closed_workspace_is_had_by_nobody_until_it_is_opened(
    holder: Browser, asker: Browser, manager: User
) -> None:
    boss = Browser(manager)
    late = ok(call(boss, "release", force=True, close=True, note="maintenance", epoch=99))
    assert (late["controller"], late["closed"]) == ("user", None), "that epoch is not the newest"
    told = ok(call(boss, "release", force=True, close=True, note="maintenance"))
    assert (told["controller"], told["closed"]["by"]) == ("none", "Mary Manager")
    assert told["closed"]["note"] == "maintenance"
    assert_refused(holder.acquire(epoch=1), 409, "forced")
    for browser in (holder, asker, boss):
        body = assert_refused(browser.acquire(), 409, "closed")
        assert "Mary Manager" in body["error"]["message"]
    assert ok(call(boss, "open"))["closed"] is None
    assert ok(asker.acquire())["epoch"] == 2


def test_what_nobody_has_can_be_closed_too(desk: Workspace, manager: User) -> None:
    assert ok(call(Browser(manager), "release", force=True, close=True, note="x"))["closed"]


def test_only_managers_close_and_open(holder: Browser, asker: Browser) -> None:
    body = {"force": True, "close": True, "note": "x"}
    assert_refused(call(asker, "release", **body), 403, "forbidden")
    assert_refused(call(asker, "open"), 403, "forbidden")


def test_closing_without_a_note_is_refused(holder: Browser, manager: User) -> None:
    body = assert_refused(call(Browser(manager), "release", force=True, close=True), 400, "invalid")
    assert "note" in body["error"]["message"]


def test_close_without_force_is_refused(holder: Browser, manager: User) -> None:
    body = assert_refused(call(Browser(manager), "release", close=True, note="x"), 400, "invalid")
    assert "force" in body["error"]["message"]
