"""Desktops that report where they are, each with the registration token of its workspace."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client

from controlplane import apitokens
from controlplane.destinations import parse_destinations
from controlplane.models import Workspace
from controlplane.workspaces import configuring, registration
from tests.integration.people import Browser
from tests.integration.test_api import assert_error, assert_invalid, ok

REGISTER = "/api/workspaces/desk/register"


@pytest.fixture
def token(desk: Workspace) -> str:
    """The desk's."""
    return registration.new_token(desk)


def register(token: str, body: object = None, ip: str = "192.0.2.7", **more: str) -> HttpResponse:
    """Call as the desktop at this address does."""
    return Client().post(  # type: ignore[return-value]
        more.pop("path", REGISTER),
        json.dumps(body or {}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}", **more},
        REMOTE_ADDR=ip,
    )


def address() -> str:
    return Workspace.objects.get(slug="desk").upstream_url


# --- What is reported -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ip", "body", "expected"),
    [
        ("192.0.2.7", {}, "tcp://192.0.2.7:5900"),
        ("192.0.2.7", {"port": 5901}, "tcp://192.0.2.7:5901"),
        ("2001:db8::7", {"port": 5901}, "tcp://[2001:db8::7]:5901"),
        ("::ffff:192.0.2.7", {}, "tcp://192.0.2.7:5900"),
        ("", {"upstream_url": "wss://desk.example/"}, "wss://desk.example/"),
        ("192.0.2.7", {"upstream_url": "tcp://192.0.2.8"}, "tcp://192.0.2.8"),
    ],
)
def test_a_desktop_reports_where_it_is(
    ip: str, body: dict[str, Any], expected: str, token: str
) -> None:
    assert ok(register(token, body, ip)) == {"id": "desk", "upstream_url": expected}
    assert address() == expected


def test_the_same_report_again_changes_nothing(token: str) -> None:
    ok(register(token))
    before = Workspace.objects.values().get()
    ok(register(token))
    assert Workspace.objects.values().get() == before
    ok(register(token, {"port": 5999}))
    assert Workspace.objects.get().upstream_version == before["upstream_version"] + 1


def test_only_the_address_changes_and_a_query_in_it_is_a_secret(
    token: str, desk: Workspace
) -> None:
    configuring.patch("desk", {"vnc_password": "geheim12", "enabled": False})
    before = Workspace.objects.get()
    answer = register(token, {"upstream_url": "ws://192.0.2.7/?token=geheim"})
    assert ok(answer)["upstream_url"] == "ws://192.0.2.7/"
    after = Workspace.objects.get()
    assert after.upstream_query == "token=geheim"
    for name in ("name", "enabled", "vnc_password", "registration_digest", "upstream_headers"):
        assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize(
    ("ip", "body", "problem"),
    [
        ("", {}, "give upstream_url"),
        ("unknown", {"port": 5901}, "give upstream_url"),
        ("192.0.2.7", {"upstream_url": "tcp://a:1", "port": 5901}, "not both"),
        ("192.0.2.7", {"upstream_url": ""}, "blank"),
        ("192.0.2.7", {"upstream_url": "unix:///run/other.sock"}, "tcp://, ws:// or wss:// only"),
        ("192.0.2.7", {"upstream_url": "http://a"}, "must start with"),
        ("169.254.169.254", {}, "DISPLAY_UPSTREAM_ALLOW"),
        ("fe80::1", {}, "DISPLAY_UPSTREAM_ALLOW"),
        ("192.0.2.7", {"port": 0}, "port"),
        ("192.0.2.7", {"port": 65536}, "port"),
        ("192.0.2.7", {"port": "5900"}, "port"),
        ("192.0.2.7", {"name": "mine"}, "name"),
    ],
)
def test_a_report_that_cannot_be_is_refused_and_changes_nothing(
    ip: str, body: dict[str, Any], problem: str, token: str
) -> None:
    before = address()
    assert_invalid(register(token, body, ip), problem)
    assert address() == before


def test_where_desktops_may_be_holds_for_what_they_report(token: str, settings: Any) -> None:
    allowed = parse_destinations("", ["192.0.2.0/24"])
    settings.DISPLAY = replace(settings.DISPLAY, upstream_allow=allowed)
    assert_invalid(register(token, {}, "198.51.100.7"), "DISPLAY_UPSTREAM_ALLOW")
    ok(register(token))


# --- With which token -----------------------------------------------------------------------------
def test_a_wrong_token_is_401_and_does_not_tell_whether_there_is_such_a_workspace(
    token: str, admin: User
) -> None:
    other = Workspace.objects.create(slug="other", name="Other")
    api_token = apitokens.create("ci", ["manage"], workspaces=None)[1]
    for wrong in ("", "x", f"{token}x", registration.new_token(other), api_token):
        answer = register(wrong)
        assert_error(answer, 401, "unauthenticated")
        absent = register(wrong, path="/api/workspaces/nowhere/register")
        assert absent.content == answer.content
    assert_error(Browser(admin).post(REGISTER, {}), 401, "unauthenticated")
    assert address() == "tcp://127.0.0.1:5999"


def test_whoever_guesses_is_not_listened_to_any_more(token: str) -> None:
    statuses = {register("dreg_guess").status_code for _ in range(200)}
    assert statuses == {401, 429}
    refused = assert_error(register(token), 429, "too_many_requests")
    assert "Try again" in refused["error"]["message"]
    ok(register(token, ip="192.0.2.8"))


def test_a_registration_token_opens_nothing_else(token: str, desk: Workspace) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/api/workspaces", "/api/workspaces/desk"):
        assert_error(Browser().get(path, **headers), 401, "unauthenticated")
    assert_error(
        Browser().send("DELETE", "/api/workspaces/desk", **headers), 401, "unauthenticated"
    )


def test_a_new_token_voids_the_former_one_and_neither_is_stored(
    token: str, desk: Workspace
) -> None:
    newer = registration.new_token(desk)
    assert_error(register(token), 401, "unauthenticated")
    ok(register(newer))
    stored = str(Workspace.objects.values().get())
    assert token not in stored
    assert newer not in stored
    assert newer.startswith("dreg_")


def test_the_command_prints_the_token_alone_and_says_once_what_it_is_for(desk: Workspace) -> None:
    output, remarks = StringIO(), StringIO()
    call_command("registration_token", "desk", stdout=output, stderr=remarks)
    ok(register(output.getvalue().strip()))
    assert output.getvalue().count("\n") == 1
    assert "/api/workspaces/desk/register" in remarks.getvalue()
    assert "former" not in remarks.getvalue()
    call_command("registration_token", "desk", stdout=output, stderr=remarks)
    assert "the former token is void" in remarks.getvalue()
    assert output.getvalue().split()[0] not in remarks.getvalue()
