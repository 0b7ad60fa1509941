"""Who may call what: docs/permissions.md, each of its cells tried against the API.

A new route needs a row there, and its body in ``CALLS``. A row may name a case in brackets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from controlplane import handovers, leases, links, screenshots
from controlplane.exceptions import ControlForbidden, ControlRefused
from controlplane.leases import Holder
from controlplane.models import Controller, ControlRequest, Role, Workspace
from controlplane.workspaces import configuring
from tests.integration.people import CSRF, OTHER_TAB, THIS_TAB, person, tab
from tests.integration.programs import Program, token

PAGE = Path(__file__).resolve().parents[2] / "docs/permissions.md"
CONTROL = "/api/workspaces/{slug}/display/control"
SCREENSHOT = "/api/workspaces/{slug}/desktop/screenshot"


# --- The page -------------------------------------------------------------------------------------
def read_table() -> tuple[list[str], dict[str, list[str]]]:
    """Return the callers, and the statuses of each call in their order."""
    table = PAGE.read_text().partition("| call |")
    lines = [line for line in "".join(table[1:]).splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return head[1:], {row[0].replace("`", ""): row[1:] for row in rows}


CALLERS, TABLE = read_table()
CELLS = [
    pytest.param(call, caller, int(status), id=f"{call} by {caller}")
    for call, statuses in TABLE.items()
    for caller, status in zip(CALLERS, statuses, strict=True)
]


def route_of(call: str) -> str:
    """Return ``GET /api/…`` without the case that a row is about."""
    return call.partition(" (")[0]


# --- Callers --------------------------------------------------------------------------------------
class Page:
    """A person's browser, or that of nobody."""

    def __init__(self, user: User | None = None) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.client.cookies["csrftoken"] = CSRF
        if user:
            self.client.force_login(user)

    def send(self, method: str, path: str, body: object) -> HttpResponse:
        """Send JSON with the CSRF token."""
        return self.client.generic(  # type: ignore[return-value]  # a test's response
            method,
            path,
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"X-CSRFToken": CSRF},
        )


@dataclass
class Caller:
    """Who calls, and what would have control if it got it."""

    sends: Page | Program
    holder: Holder | None = None

    def try_to_hold(self, desk: Workspace) -> None:
        """Take control, if this caller may."""
        if self.holder is None:
            return
        try:
            leases.acquire(desk, self.holder, ttl=300)
        except ControlForbidden:
            return


def caller(name: str) -> Caller:
    """Return the caller that a column is about."""
    if name == "anonymous":
        return Caller(Page())
    kind, _, scope = name.partition(" ")
    if kind == "token":
        row, text = token(scope)
        return Caller(Program(text), tab(row.account, kind=Controller.AGENT))
    roles = {role.value: role for role in Role}
    user = person(name, role=roles.get(name), is_superuser=name == "superuser")
    return Caller(Page(user), tab(user))


# --- Calls ----------------------------------------------------------------------------------------
Prepare = Callable[[Workspace, Caller], dict[str, Any]]


def nothing(desk: Workspace, caller: Caller) -> dict[str, Any]:
    return {}


def held_by_the_caller(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """The caller has control, if it may have it."""
    caller.try_to_hold(desk)
    return {"epoch": 1}


def held_by_another(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """Somebody else has control."""
    leases.acquire(desk, tab(person("colleague", role=Role.OPERATOR), OTHER_TAB), ttl=300)
    return {}


def hidden_by_another(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """Somebody else has control, and hides the desktop."""
    held_by_another(desk, caller)
    colleague = tab(User.objects.get(username="colleague"), OTHER_TAB)
    leases.hide(desk, colleague, epoch=1, hidden=True)
    return {}


def held_by_a_token(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """Some other program has control."""
    row, _ = token("control", name="Another")
    leases.acquire(desk, tab(row.account, OTHER_TAB, Controller.AGENT), ttl=300)
    return {}


def an_agent_waits(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """Some other program asks for a person."""
    row, _ = token("control", name="Another")
    leases.ask_for_help(desk, tab(row.account, OTHER_TAB, Controller.AGENT), "captcha")
    return {}


def asked_for(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """The caller has control, if it may have it, and somebody asks for it, if a person has it."""
    caller.try_to_hold(desk)
    asker = tab(person("colleague", role=Role.OPERATOR), OTHER_TAB)
    try:
        handovers.ask(desk, asker, "please")
    except ControlRefused:
        return {"epoch": 1, "request": 1}
    return {"epoch": 1, "request": ControlRequest.objects.get().pk}


def with_a_link(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """There is a control link."""
    return {"link_id": links.make(desk, "Gesine Guest", Role.OBSERVER, 600, by="x").link.pk}


def used(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """There is a control link, and somebody has opened it."""
    made = links.make(desk, "Gesine Guest", Role.OBSERVER, 600, by="x")
    links.exchange(made.ticket, OTHER_TAB)
    return {"ticket": made.ticket}


def removed(desk: Workspace, caller: Caller) -> dict[str, Any]:
    """There is no such workspace."""
    configuring.remove(desk.slug)
    return {}


@dataclass
class Call:
    """What a row's call sends; ``prepare`` brings about its case and returns more of the body."""

    body: dict[str, Any] | None = None
    prepare: Prepare = nothing


TAB = {"client_id": THIS_TAB}
FORCE = TAB | {"force": True, "note": "why"}
CALLS = {
    "GET /api/events": Call(),
    "GET /api/workspaces": Call(),
    "GET /api/workspaces/{slug}": Call(),
    "PUT /api/workspaces/{slug}": Call({}),
    "PUT /api/workspaces/{slug} (there is none yet)": Call({}, removed),
    "PATCH /api/workspaces/{slug}": Call({"name": "Renamed"}),
    "DELETE /api/workspaces/{slug}": Call(),
    "POST /api/workspaces/{slug}/register": Call({}),
    "GET /api/workspaces/{slug}/display": Call(),
    f"GET {SCREENSHOT}": Call(),
    f"GET {SCREENSHOT} (another person has control)": Call(None, held_by_another),
    f"GET {SCREENSHOT} (another person hides it)": Call(None, hidden_by_another),
    "POST /api/workspaces/{slug}/links": Call(
        {"name": "Gesine Guest", "role": "operator", "ttl_seconds": 600}
    ),
    "GET /api/workspaces/{slug}/links": Call(),
    "DELETE /api/workspaces/{slug}/links/{link_id}": Call(None, with_a_link),
    "POST /api/links/exchange (with a ticket that was used)": Call(TAB, used),
    f"GET {CONTROL}": Call(),
    "POST /api/workspaces/{slug}/display/session": Call(TAB),
    f"POST {CONTROL}/acquire": Call(TAB),
    f"POST {CONTROL}/acquire (another person has it)": Call(TAB, held_by_another),
    f"POST {CONTROL}/acquire (a token has it)": Call(TAB, held_by_a_token),
    f"POST {CONTROL}/release": Call(TAB),
    f"POST {CONTROL}/release (force)": Call(FORCE, held_by_another),
    f"POST {CONTROL}/release (force, close)": Call(FORCE | {"close": True}),
    f"POST {CONTROL}/open": Call(TAB),
    f"POST {CONTROL}/release (outcome; an agent waits)": Call(
        TAB | {"outcome": "done"}, an_agent_waits
    ),
    f"POST {CONTROL}/free": Call(TAB),
    f"POST {CONTROL}/request-human": Call(TAB | {"reason": "captcha"}),
    f"POST {CONTROL}/request-human/withdraw": Call(TAB),
    f"POST {CONTROL}/keep (has control, if it may)": Call(TAB, held_by_the_caller),
    f"POST {CONTROL}/hide (has control, if it may)": Call(
        TAB | {"hidden": True}, held_by_the_caller
    ),
    f"POST {CONTROL}/request (a person has it)": Call(TAB, held_by_another),
    f"POST {CONTROL}/request/withdraw": Call(TAB),
    f"POST {CONTROL}/request/answer (has control, if it may)": Call(
        TAB | {"accept": True}, asked_for
    ),
}


@pytest.fixture(autouse=True)
def _any_desktop_gives_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none to be dialled; what one says is the matter of test_screenshots.py."""
    picture = screenshots.Picture(32, 24, bytearray(32 * 24 * 4))
    monkeypatch.setattr(screenshots, "take", lambda *_: picture)


@pytest.mark.parametrize(("call", "by", "expected"), CELLS)
def test_the_answer_is_the_one_of_the_table(
    call: str, by: str, expected: int, desk: Workspace
) -> None:
    method, path = route_of(call).split(" ")
    calling = caller(by)
    more = CALLS[call].prepare(desk, calling)
    body = None if CALLS[call].body is None else CALLS[call].body | more
    path = path.replace("{slug}", "desk").replace("{link_id}", str(more.get("link_id")))
    answer = calling.sends.send(method, path, body)
    assert answer.status_code == expected, answer.content


def test_the_table_has_a_row_for_each_route_and_for_no_other(db: None) -> None:
    document = json.loads(Client().get("/api/openapi.json").content)
    routes = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert {route_of(call) for call in TABLE} == routes
    assert set(TABLE) == set(CALLS)


def test_no_caller_is_left_out() -> None:
    people = ["anonymous", "stranger", "observer", "operator", "manager", "superuser"]
    programs = ["token observe", "token control", "token manage"]
    assert people + programs == CALLERS
