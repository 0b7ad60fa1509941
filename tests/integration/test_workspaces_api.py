"""Workspaces as data: reading, adding, changing and removing them over the API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse

from controlplane import apitokens, crypto, leases
from controlplane.destinations import parse_destinations
from controlplane.models import (
    ControlEvent,
    DisplayStatus,
    DisplayStream,
    Role,
    Workspace,
)
from controlplane.workspaces import configuring
from tests.integration.people import (
    UPSTREAM,
    Browser,
    assert_free,
    lease_of,
    open_stream,
    person,
    tab,
)
from tests.integration.programs import Program, token
from tests.integration.test_api import assert_error, assert_invalid, body_of, ok
from tests.support.timing import limit

DESK = "/api/workspaces/desk"
SETTINGS = {
    *("upstream_url", "address", "enabled", "idle_seconds", "max_hold_seconds"),
    *("parked_seconds", "accepts_clipboard", "agents_see_people", "secrets_set"),
}


@pytest.fixture
def office(admin: User) -> Browser:
    """The admin's browser."""
    return Browser(admin)


def program(*scopes: str, workspaces: list[Workspace] | None = None) -> Program:
    """Return a program with an API token of its own; None are all workspaces."""
    return Program(token(*scopes, name=f"With {scopes}", workspaces=workspaces)[1])


def created(answer: HttpResponse) -> Any:
    body = body_of(answer)
    assert answer.status_code == 201, body
    return body


# --- Reading --------------------------------------------------------------------------------------
def test_one_workspace_is_told_as_in_the_list(desk: Workspace, observer: User) -> None:
    browser = Browser(observer)
    (item,) = ok(browser.get("/api/workspaces"))["workspaces"]
    found = ok(browser.get(DESK))
    assert found.pop("settings") is None
    item["control"].pop("server_time"), found["control"].pop("server_time")
    assert found == item


def test_settings_are_told_to_those_who_may_change_them_and_secrets_to_nobody(
    office: Browser, desk: Workspace, manager: User
) -> None:
    desk.vnc_password, desk.upstream_headers = "geheim12", "X-Key: geheim"
    desk.save()
    answer = office.get(DESK)
    settings = ok(answer)["settings"]
    assert set(settings) == SETTINGS
    assert (settings["upstream_url"], settings["address"]) == (UPSTREAM, UPSTREAM)
    assert settings["secrets_set"] == ["vnc_password", "upstream_headers"]
    assert b"geheim" not in answer.content
    assert ok(Browser(manager).get(DESK))["settings"] is None


def test_a_secret_that_no_key_fits_is_still_told_to_be_stored(
    office: Browser, desk: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.vnc_password = "geheim12"
    desk.save()

    def fail(*_: object) -> str:
        raise crypto.Unreadable

    monkeypatch.setattr(crypto, "decrypt", fail)
    assert ok(office.get(DESK))["settings"]["secrets_set"] == ["vnc_password"]
    monkeypatch.undo()
    assert ok(office.send("PATCH", DESK, {"vnc_password": ""}))["settings"]["secrets_set"] == []


def test_an_address_by_the_template_is_told_beside_the_missing_one(
    office: Browser, desk: Workspace, settings: Any
) -> None:
    settings.DISPLAY = replace(settings.DISPLAY, upstream_template="tcp://{slug}.desktops:5900")
    found = ok(office.send("PATCH", DESK, {"upstream_url": ""}))
    assert found["display"]["status"] == "unknown"
    shown = found["settings"]
    assert (shown["upstream_url"], shown["address"]) == ("", "tcp://desk.desktops:5900")


# --- Adding and replacing -------------------------------------------------------------------------
def test_put_adds_a_workspace_and_then_says_the_same_again(office: Browser) -> None:
    body = {
        "name": "Desk 12",
        "upstream_url": "ws://desk:6080/?token=geheim",
        "vnc_password": "geheim12",
        "upstream_headers": "X-Key: geheim",
        "idle_seconds": 600,
        "max_hold_seconds": 3600,
    }
    answer = office.send("PUT", DESK, body)
    first = created(answer)
    assert b"geheim" not in answer.content
    assert (first["id"], first["name"]) == ("desk", "Desk 12")
    assert first["settings"]["upstream_url"] == "ws://desk:6080/"
    assert set(first["settings"]["secrets_set"]) == {
        "vnc_password",
        "upstream_query",
        "upstream_headers",
    }
    workspace = Workspace.objects.get()
    assert (workspace.upstream_query, workspace.vnc_password) == ("token=geheim", "geheim12")
    assert (workspace.idle_seconds, workspace.max_hold_seconds) == (600, 3600)
    assert lease_of(workspace).epoch == 0
    second = ok(office.send("PUT", DESK, body))
    assert second["settings"] == first["settings"]
    workspace.refresh_from_db()
    assert workspace.upstream_version == 0


def test_put_without_anything_makes_a_workspace_of_defaults(office: Browser) -> None:
    found = created(office.send("PUT", DESK, {}))
    assert (found["name"], found["display"]["status"]) == ("desk", "not_configured")
    assert found["settings"] == {
        "upstream_url": "",
        "address": "",
        "enabled": True,
        "idle_seconds": None,
        "max_hold_seconds": None,
        "parked_seconds": None,
        "accepts_clipboard": True,
        "agents_see_people": False,
        "secrets_set": [],
    }


def test_put_replaces_settings_and_keeps_secrets_that_are_left_out(
    office: Browser, desk: Workspace
) -> None:
    configuring.patch("desk", {"vnc_password": "geheim12", "idle_seconds": 60, "enabled": False})
    found = ok(office.send("PUT", DESK, {"upstream_url": UPSTREAM}))
    assert (found["name"], found["settings"]["enabled"]) == ("desk", True)
    assert found["settings"]["idle_seconds"] is None
    assert found["settings"]["secrets_set"] == ["vnc_password"]
    assert ok(office.send("PUT", DESK, {"vnc_password": ""}))["settings"]["secrets_set"] == []


# --- Changing -------------------------------------------------------------------------------------
def test_patch_changes_what_it_names_and_nothing_else(office: Browser, desk: Workspace) -> None:
    configuring.patch("desk", {"vnc_password": "geheim12", "idle_seconds": 600})
    before = ok(office.get(DESK))["settings"]
    found = ok(office.send("PATCH", DESK, {"name": "Renamed"}))
    assert (found["name"], found["settings"]) == ("Renamed", before)
    found = ok(office.send("PATCH", DESK, {"idle_seconds": None, "enabled": False}))
    assert found["settings"] == before | {"idle_seconds": None, "enabled": False}
    assert ok(office.send("PATCH", DESK, {}))["settings"] == found["settings"]


def test_a_new_address_counts_up_loses_old_secrets_and_what_was_found(
    office: Browser, desk: Workspace
) -> None:
    configuring.patch("desk", {"upstream_query": "token=geheim", "upstream_url": "ws://desk:6080/"})
    Workspace.objects.update(display_status=DisplayStatus.UNREACHABLE, display_width=800)
    desk.refresh_from_db()
    version = desk.upstream_version
    found = ok(office.send("PATCH", DESK, {"upstream_url": "ws://elsewhere:6080/"}))
    assert found["settings"]["secrets_set"] == []
    assert (found["display"]["status"], found["display"]["width"]) == ("unknown", None)
    desk.refresh_from_db()
    assert desk.upstream_version == version + 1
    ok(office.send("PATCH", DESK, {"name": "Renamed", "enabled": False}))
    desk.refresh_from_db()
    assert desk.upstream_version == version + 1
    ok(office.send("PATCH", DESK, {"vnc_password": "new"}))
    desk.refresh_from_db()
    assert desk.upstream_version == version + 2


def test_who_saves_an_older_copy_does_not_undo_the_count_of_moves(desk: Workspace) -> None:
    older = Workspace.objects.get()
    configuring.patch("desk", {"upstream_url": "tcp://a:1"})
    older.upstream_url = "tcp://b:1"
    older.save()
    desk.refresh_from_db()
    assert (desk.upstream_url, desk.upstream_version) == ("tcp://b:1", 2)


def test_disabling_ends_control(office: Browser, desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    ok(office.send("PATCH", DESK, {"enabled": False}))
    assert_free(desk, reason="access_ended", epoch=1)


# --- Removing -------------------------------------------------------------------------------------
def test_delete_removes_all_but_what_happened(
    office: Browser, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    answer = office.send("DELETE", DESK)
    assert (answer.status_code, answer.content) == (204, b"")
    assert not Workspace.objects.exists()
    assert not DisplayStream.objects.exists()
    assert ControlEvent.objects.get().workspace_slug == "desk"
    assert_error(office.send("DELETE", DESK), 404, "not_found")


def test_what_has_been_removed_in_mid_call_is_404(
    desk: Workspace, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(operator)
    acquire = leases.acquire

    def remove_first(*args: Any, **options: Any) -> Any:
        configuring.remove("desk")
        return acquire(*args, **options)

    monkeypatch.setattr(leases, "acquire", remove_first)
    assert_error(browser.acquire(), 404, "not_found")


# --- Who may --------------------------------------------------------------------------------------
WRITES = [("PUT", {}), ("PATCH", {}), ("DELETE", None)]


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_only_those_who_may_configure_change_anything(
    method: str, body: Any, desk: Workspace, stranger: User
) -> None:
    for role in Role:
        browser = Browser(person(f"a-{role}", role=role))
        assert_error(browser.send(method, DESK, body), 403, "forbidden")
    for scope in ("observe", "control"):
        assert_error(program(scope).send(method, DESK, body), 403, "forbidden")
    hidden = assert_error(Browser(stranger).send(method, DESK, body), 404, "not_found")
    absent = Browser(stranger).send(method, DESK.replace("desk", "nowhere"), body)
    expected = json.dumps(hidden).replace("desk", "nowhere")
    assert json.dumps(assert_error(absent, 404, "not_found")) == expected
    assert_error(Browser().send(method, DESK, body), 401, "unauthenticated")
    assert Workspace.objects.get().name == "Desk 12"


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_a_change_needs_the_csrf_token(
    method: str, body: Any, desk: Workspace, admin: User
) -> None:
    answer = Browser(admin).send(method, DESK, body, **{"X-CSRFToken": ""})
    assert_error(answer, 403, "csrf")


def test_a_token_that_manages_all_workspaces_adds_changes_and_removes(db: None) -> None:
    manages = program("manage")
    created(manages.send("PUT", DESK, {"upstream_url": UPSTREAM}))
    ok(manages.send("PUT", DESK, {"upstream_url": UPSTREAM}))
    ok(manages.send("PATCH", DESK, {"name": "Renamed"}))
    assert manages.send("DELETE", DESK, None).status_code == 204


def test_a_token_that_manages_some_changes_those_and_adds_none(desk: Workspace) -> None:
    Workspace.objects.create(slug="other", name="Other")
    manages = program("manage", workspaces=[desk])
    ok(manages.send("PUT", DESK, {"upstream_url": UPSTREAM}))
    for slug in ("other", "new"):
        for method, body in WRITES:
            answer = manages.send(method, f"/api/workspaces/{slug}", body)
            assert_error(answer, 404, "not_found")
    assert Workspace.objects.count() == 2


def test_a_revoked_token_and_a_disabled_superuser_add_nothing(admin: User) -> None:
    row, text = token("manage")
    apitokens.revoke(row)
    assert_error(Program(text).send("PUT", DESK, {}), 401, "unauthenticated")
    browser = Browser(admin)
    User.objects.update(is_active=False)
    assert_error(browser.send("PUT", DESK, {}), 401, "unauthenticated")
    assert not Workspace.objects.exists()


# --- Bad values -----------------------------------------------------------------------------------
BAD = [
    ({"upstream_url": "http://desk"}, "must start with tcp://"),
    ({"upstream_url": "tcp://169.254.169.254:80"}, "DISPLAY_UPSTREAM_ALLOW"),
    ({"upstream_url": "tcp://a:1/" + "x" * 500}, "at most 500"),
    ({"upstream_url": "tcp://me:secret@desk:1"}, "must not contain a user or a password"),
    ({"upstream_url": "ws://desk/?token=a b"}, "Only printable"),
    ({"upstream_query": "token=a b"}, "Only printable"),
    ({"upstream_headers": "Host: other"}, "Line 1: Host belongs to the handshake"),
    ({"upstream_headers": "X-One: 1\nno colon"}, "Line 2 is not"),
    ({"name": ""}, "blank"),
    ({"name": "x" * 201}, "at most 200"),
    ({"name": "a\0b"}, "characters that no text can have"),
    ({"name": None}, "valid string"),
    ({"idle_seconds": 59}, "greater than or equal to 60"),
    ({"max_hold_seconds": 10**30}, ""),
    ({"max_hold_seconds": 31_536_001}, "a year"),
    ({"idle_seconds": "60"}, "valid integer"),
    ({"enabled": "yes"}, "valid boolean"),
    ({"nonsense": 1}, "not permitted"),
]


@pytest.mark.parametrize(("values", "problem"), BAD)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_value_that_cannot_be_is_refused_with_its_field_and_changes_nothing(
    method: str, values: dict[str, Any], problem: str, office: Browser, desk: Workspace
) -> None:
    before = Workspace.objects.values().get()
    answer = office.send(method, DESK, values)
    field = next(iter(values))
    assert_invalid(answer, "upstream_query" if "a b" in str(values) else field)
    message = body_of(answer)["error"]["message"]
    assert problem in message
    assert "secret" not in message
    assert Workspace.objects.values().get() == before


def test_where_desktops_may_be_holds_for_addresses_that_come_over_the_api(
    office: Browser, desk: Workspace, settings: Any
) -> None:
    allowed = parse_destinations("", ["10.0.0.0/8"])
    settings.DISPLAY = replace(settings.DISPLAY, upstream_allow=allowed)
    assert_invalid(office.send("PATCH", DESK, {"upstream_url": "tcp://11.0.0.1"}), "ALLOW")
    ok(office.send("PATCH", DESK, {"upstream_url": "tcp://10.0.0.1"}))


def test_a_name_that_is_too_long_is_refused(office: Browser) -> None:
    assert_invalid(office.send("PUT", f"/api/workspaces/{'x' * 65}", {}), "slug")


# --- At the same time -----------------------------------------------------------------------------
def at_once(*calls: Callable[[], HttpResponse]) -> list[int]:
    """Make the calls together, each in a thread; return their statuses, in order of the calls."""
    start = threading.Barrier(len(calls))
    statuses = [0] * len(calls)

    def run(place: int, call: Callable[[], HttpResponse]) -> None:
        start.wait(limit(1))
        try:
            statuses[place] = call().status_code
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit(5))
    return statuses


@pytest.mark.django_db(transaction=True)
def test_of_those_who_put_the_same_at_once_one_adds_it() -> None:
    admin = person("admin", is_superuser=True)
    browsers = [Browser(admin) for _ in range(8)]
    body = {"upstream_url": UPSTREAM}

    def put(browser: Browser) -> Callable[[], HttpResponse]:
        return lambda: browser.send("PUT", DESK, body)

    assert sorted(at_once(*map(put, browsers))) == [200] * 7 + [201]
    assert Workspace.objects.count() == 1
    assert lease_of(Workspace.objects.get()).epoch == 0


@pytest.mark.django_db(transaction=True)
def test_changes_removals_and_control_at_once_wait_for_each_other_and_never_for_ever() -> None:
    admin = person("admin", is_superuser=True)
    for number in range(5):
        Workspace.objects.create(slug="desk", name="Desk", upstream_url=UPSTREAM)
        urls = [f"tcp://10.0.0.{number}:{port}" for port in (1, 2)]
        browsers = [Browser(admin) for _ in range(5)]
        moves = [
            lambda b=browser, u=url: b.send("PATCH", DESK, {"upstream_url": u})
            for browser, url in zip(browsers, urls, strict=False)
        ]
        takes = [lambda b=browser: b.acquire("t" * 8) for browser in browsers[2:4]]
        removes = [lambda b=browsers[4]: b.send("DELETE", DESK)]
        statuses = at_once(*moves, *takes, *removes)
        assert set(statuses[:2]) <= {200, 404}
        assert set(statuses[2:4]) <= {200, 404, 409}
        assert statuses[4] == 204
        assert not Workspace.objects.exists()
