"""The HTTP contract (design §6), through Django's test client: every route, shape and refusal."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import Client

from controlplane import leases, tokens
from controlplane.api import workspaces as api_module
from controlplane.models import (
    ControlEvent,
    DisplayStatus,
    DisplayStream,
    Role,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.people import (
    CSRF,
    OTHER_TAB,
    THIS_TAB,
    Browser,
    agent,
    assert_free,
    assert_held_by,
    history,
    lease_of,
    let_expire,
    now,
    open_stream,
    person,
    tab,
    token_of,
    transitions,
    view_of,
)

BASE = "/api/workspaces/desk/display"
CONTROL_KEYS = {
    "controller",
    "controlled_by",
    "yours",
    "this_client",
    "epoch",
    "version",
    "acquired_at",
    "expires_at",
    "server_time",
    "holder_connected",
    "last_input_at",
    "last_end",
    "ends",
    "hidden",
    "accepts_clipboard",
    "closed",
    "agent",
    "help",
    "parked",
    "handed_back",
    "requests",
    "can",
}
ACQUIRED_KEYS = CONTROL_KEYS | {"session_url", "session_expires_at", "renew_after_seconds"}
DISPLAY_KEYS = {"available", "reason", "protocol", "status", "width", "height", "checked_at"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

READS = ["/api/workspaces", BASE, f"{BASE}/control"]
WRITES = [f"{BASE}/control/acquire", f"{BASE}/control/release", f"{BASE}/session"]
# Tested in test_workspaces_api.py and test_registration.py.
DATA = {(method, "/api/workspaces/desk") for method in ("GET", "PUT", "PATCH", "DELETE")}
DATA |= {("POST", "/api/workspaces/desk/register")}
HIDDEN = [path for path in [*READS, *WRITES] if path.startswith(BASE)]


def body_of(answer: HttpResponse) -> Any:
    """Return the JSON of an answer, which must be nothing else."""
    assert answer.headers["Content-Type"].startswith("application/json"), answer.content[:200]
    return json.loads(answer.content)


def ok(answer: HttpResponse) -> Any:
    body = body_of(answer)
    assert answer.status_code == 200, body
    return body


def assert_error(answer: HttpResponse, status: int, code: str) -> Any:
    """Fail unless the answer is this error, in JSON of the one shape; return it."""
    body = body_of(answer)
    assert (answer.status_code, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"code", "message"}
    assert set(body) <= {"error", "current"}
    assert body["error"]["message"]
    return body


def assert_invalid(answer: HttpResponse, field: str) -> None:
    """Fail unless the answer is a 400 that names the field."""
    assert field in assert_error(answer, 400, "invalid")["error"]["message"]


def send(browser: Browser, path: str) -> HttpResponse:
    """Ask for ``path`` as the contract does."""
    return browser.get(path) if path in READS else browser.post(path, {"client_id": THIS_TAB})


@pytest.fixture
def browser(desk: Workspace, operator: User) -> Browser:
    """The operator's."""
    return Browser(operator)


# --- Reading --------------------------------------------------------------------------------------
def test_the_list_holds_what_the_caller_may_watch(browser: Browser) -> None:
    Workspace.objects.create(slug="secret", name="Not for everybody")
    body = ok(browser.get("/api/workspaces"))
    (item,) = body["workspaces"]
    assert set(body) == {"workspaces", "next"}
    assert set(item) == {"id", "name", "display", "control", "viewers"}
    assert (item["id"], item["name"], item["viewers"], body["next"]) == ("desk", "Desk 12", 0, None)
    assert (set(item["display"]), set(item["control"])) == (DISPLAY_KEYS, CONTROL_KEYS)


def test_a_stranger_sees_an_empty_list(stranger: User, desk: Workspace) -> None:
    assert ok(Browser(stranger).get("/api/workspaces")) == {"workspaces": [], "next": None}


def test_viewers_are_counted_by_tab_and_as_long_as_they_are_stamped(
    browser: Browser, desk: Workspace, operator: User, observer: User
) -> None:
    for user, client_id in [(operator, THIS_TAB), (operator, THIS_TAB), (observer, OTHER_TAB)]:
        open_stream(desk, user, client_id)
    assert ok(browser.get("/api/workspaces"))["workspaces"][0]["viewers"] == 2
    DisplayStream.objects.filter(user=observer).update(closed_at=Now())
    assert ok(browser.get("/api/workspaces"))["workspaces"][0]["viewers"] == 1


def test_two_people_whose_tabs_chose_the_same_id_are_two_viewers(
    browser: Browser, desk: Workspace, operator: User, observer: User
) -> None:
    open_stream(desk, operator)
    open_stream(desk, observer)
    assert ok(browser.get("/api/workspaces"))["workspaces"][0]["viewers"] == 2


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PAGE_SIZE", 2)


@pytest.mark.usefixtures("small_pages")
def test_the_pages_of_the_list_lead_from_one_to_the_next(browser: Browser, admin: User) -> None:
    for number in range(4):
        Workspace.objects.create(slug=f"w{number}", name=f"W {number}")
    admins, found = Browser(admin), []
    url: str | None = "/api/workspaces"
    while url:
        page = ok(admins.get(url))
        found += [item["id"] for item in page["workspaces"]]
        url = page["next"]
        assert url is None or url.startswith("http://testserver/api/workspaces?page=")
    assert found == ["desk", "w0", "w1", "w2", "w3"]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sales", ["w0", "w1", "w2"]),
        ("MAD sales", ["w1"]),
        ("w2", ["w2"]),
        ("100%", []),
        ("\0", ["desk", "secret", "w0", "w1", "w2"]),
        ("", ["desk", "secret", "w0", "w1", "w2"]),
    ],
)
def test_a_search_finds_what_has_all_the_words_in_its_name_or_id(
    words: str, found: list[str], desk: Workspace, admin: User
) -> None:
    Workspace.objects.create(slug="secret", name="For few")
    for number, town in enumerate(["Lima", "Madrid", "Rome"]):
        Workspace.objects.create(slug=f"w{number}", name=f"Sales {town}")
    names: list[str] = []
    url: str | None = f"/api/workspaces?{urlencode({'q': words})}"
    while url:
        page = ok(Browser(admin).get(url))
        names += [item["id"] for item in page["workspaces"]]
        url = page["next"]
    assert sorted(names) == found


def test_a_search_shows_nobody_what_they_may_not_watch(browser: Browser) -> None:
    Workspace.objects.create(slug="secret", name="Not for everybody")
    assert ok(browser.get("/api/workspaces?q=secret"))["workspaces"] == []


@pytest.mark.usefixtures("small_pages")
def test_a_page_after_the_last_is_the_last(browser: Browser) -> None:
    page = ok(browser.get("/api/workspaces?page=99"))
    assert ([item["id"] for item in page["workspaces"]], page["next"]) == (["desk"], None)


@pytest.mark.parametrize("page", ["0", "-1", "two", "1.5", ""])
def test_a_page_that_is_no_page_is_refused(page: str, browser: Browser) -> None:
    assert_invalid(browser.get(f"/api/workspaces?page={page}"), "page")


def test_the_list_costs_the_same_number_of_queries_for_one_workspace_as_for_many(
    browser: Browser, admin: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(10):
        workspace = Workspace.objects.create(slug=f"w{number}", name="W", upstream_url="tcp://a:1")
        leases.acquire(workspace, tab(admin), ttl=300)
    admins = Browser(admin)
    with django_assert_max_num_queries(11):
        assert len(ok(admins.get("/api/workspaces"))["workspaces"]) == 11


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (True, None, "unknown")),
        ({"display_status": DisplayStatus.READY}, (True, None, "ready")),
        (
            {"display_status": DisplayStatus.UNREACHABLE},
            (False, "display_unreachable", "unreachable"),
        ),
        ({"enabled": False}, (False, "display_not_enabled", "not_configured")),
        ({"upstream_url": ""}, (False, "display_not_enabled", "not_configured")),
        (
            {"enabled": False, "display_status": DisplayStatus.UNREACHABLE},
            (False, "display_not_enabled", "not_configured"),
        ),
    ],
)
def test_the_display_tells_what_the_last_check_found(
    values: dict[str, Any], expected: tuple[Any, ...], browser: Browser
) -> None:
    Workspace.objects.update(**values)
    display = ok(browser.get(BASE))
    assert set(display) == DISPLAY_KEYS
    assert (display["available"], display["reason"], display["status"]) == expected
    assert display["protocol"] == "vnc"


def test_the_display_tells_its_size_and_when_it_was_checked(browser: Browser) -> None:
    Workspace.objects.update(display_width=1280, display_height=800, display_checked_at=Now())
    display = ok(browser.get(BASE))
    assert (display["width"], display["height"]) == (1280, 800)
    assert TIME.fullmatch(display["checked_at"])


def test_control_of_a_free_workspace(browser: Browser) -> None:
    control = ok(browser.get(f"{BASE}/control"))
    assert TIME.fullmatch(control.pop("server_time"))
    assert control == {
        "controller": "none",
        "controlled_by": None,
        "yours": False,
        "this_client": False,
        "epoch": 0,
        "version": 0,
        "acquired_at": None,
        "expires_at": None,
        "holder_connected": None,
        "last_input_at": None,
        "last_end": None,
        "ends": None,
        "hidden": None,
        "accepts_clipboard": True,
        "closed": None,
        "agent": None,
        "help": None,
        "parked": None,
        "handed_back": None,
        "requests": [],
        "can": {"observe": True, "control": True, "force": False},
    }


def test_control_of_a_held_workspace_as_the_holder_and_others_see_it(
    browser: Browser, desk: Workspace, operator: User, observer: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    DisplayStream.objects.update(last_input_at=Now())
    own = ok(browser.get(f"{BASE}/control", **{"X-Client-Id": THIS_TAB}))
    assert (own["controller"], own["controlled_by"]) == ("user", "Olive Operator")
    assert (own["yours"], own["this_client"], own["epoch"]) == (True, True, 1)
    assert own["holder_connected"] is True
    times = [own[name] for name in ("acquired_at", "expires_at", "server_time", "last_input_at")]
    assert all(TIME.fullmatch(each) for each in times)

    for path in ("/api/workspaces/desk", "/api/workspaces"):
        found = ok(browser.get(path, **{"X-Client-Id": THIS_TAB}))
        detail = found["workspaces"][0] if "workspaces" in found else found
        assert detail["control"]["this_client"] is True, path
        assert browser.get(path, **{"X-Client-Id": "no!"}).status_code == 400, path

    elsewhere = ok(browser.get(f"{BASE}/control", **{"X-Client-Id": OTHER_TAB}))
    assert (elsewhere["yours"], elsewhere["this_client"]) == (True, False)
    anonymous_tab = ok(browser.get(f"{BASE}/control"))
    assert (anonymous_tab["yours"], anonymous_tab["this_client"]) == (True, False)
    others = ok(Browser(observer).get(f"{BASE}/control", **{"X-Client-Id": THIS_TAB}))
    assert (others["yours"], others["this_client"]) == (False, False)
    assert others["can"] == {"observe": True, "control": False, "force": False}


def test_control_of_an_agent_says_so(browser: Browser, desk: Workspace, colleague: User) -> None:
    leases.acquire(desk, agent(colleague), ttl=300)
    control = ok(browser.get(f"{BASE}/control"))
    assert (control["controller"], control["controlled_by"]) == ("agent", "colleague")


def test_an_expired_lease_reads_as_free_and_as_expired(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    let_expire(desk)
    control = ok(browser.get(f"{BASE}/control"))
    assert (control["controller"], control["controlled_by"], control["yours"]) == (
        "none",
        None,
        False,
    )
    assert (control["last_end"]["reason"], control["expires_at"]) == ("expired", None)


@pytest.mark.parametrize("client_id", ["short", "x" * 65, "with space", "späß-tab-1", "a/b/c/d/e"])
def test_a_bad_client_id_in_the_header_is_refused(client_id: str, browser: Browser) -> None:
    answer = browser.get(f"{BASE}/control", **{"X-Client-Id": client_id})
    assert_invalid(answer, "client")


def test_a_get_never_dials(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def dial(*_: object, **__: object) -> None:
        raise AssertionError("dialled")

    monkeypatch.setattr("controlplane.upstream.dial", dial)
    monkeypatch.setattr("socket.socket.connect", dial)
    for path in [BASE, f"{BASE}/control"]:
        connection.ensure_connection()
        ok(browser.get(path))


# --- Acquire --------------------------------------------------------------------------------------
def test_acquiring_answers_with_control_and_a_session(
    browser: Browser, desk: Workspace, operator: User
) -> None:
    body = ok(browser.acquire(controller="user", ttl_seconds=300))
    assert set(body) == ACQUIRED_KEYS
    assert (body["controller"], body["controlled_by"]) == ("user", "Olive Operator")
    assert (body["yours"], body["this_client"], body["epoch"]) == (True, True, 1)
    assert body["renew_after_seconds"] == 120
    assert_held_by(desk, tab(operator), epoch=1)


def test_the_holder_is_written_down_with_login_and_address(browser: Browser) -> None:
    ok(browser.acquire())
    event = ControlEvent.objects.get()
    assert (event.client_id, event.ip) == (THIS_TAB, "127.0.0.1")
    assert Workspace.objects.get().lease.login == browser.login


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("2001:db8::7", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", None),
        ("192.0.2.7:5999", None),
        ("", None),
    ],
)
def test_an_address_that_is_none_does_not_stop_anybody(
    address: str, expected: str | None, desk: Workspace, manager: User
) -> None:
    browser = Browser(manager, REMOTE_ADDR=address)
    ok(browser.acquire())
    ok(browser.release(force=True, note="why not"))
    assert set(ControlEvent.objects.values_list("ip", flat=True)) == {expected}


def test_all_but_the_client_id_may_be_left_out(browser: Browser) -> None:
    body = ok(browser.acquire())
    acquired = datetime.fromisoformat(body["acquired_at"])
    assert (datetime.fromisoformat(body["expires_at"]) - acquired).total_seconds() == 300


@pytest.mark.parametrize(
    ("secure", "host", "expected"),
    [
        (False, "testserver", "ws://testserver/"),
        (True, "testserver", "wss://testserver/"),
        (False, "localhost:8123", "ws://localhost:8123/"),
    ],
)
def test_the_session_url_is_built_from_the_requests_own_origin(
    secure: bool, host: str, expected: str, browser: Browser, desk: Workspace
) -> None:
    answer = browser.client.post(
        f"{BASE}/session",
        {"client_id": THIS_TAB},
        content_type="application/json",
        headers={"X-CSRFToken": CSRF, "Host": host, "Referer": f"https://{host}/"},
        secure=secure,
    )
    body = ok(answer)  # type: ignore[arg-type]  # a test's response
    pattern = rf"{re.escape(expected)}api/workspaces/desk/display/session/websockify#token=(.+)"
    match = re.fullmatch(pattern, body["session_url"])
    assert match, body["session_url"]
    assert tokens.spend(match[1], "desk", "tests").workspace == desk


@pytest.mark.parametrize("call", ["acquire", "session"])
def test_the_session_says_until_when_it_can_be_dialled(call: str, browser: Browser) -> None:
    before = now()
    body = ok(getattr(browser, call)())
    left = datetime.fromisoformat(body["session_expires_at"]) - before
    assert 59 < left.total_seconds() < 70


def test_every_answer_carries_a_fresh_token(browser: Browser) -> None:
    answers = [browser.acquire(), browser.acquire(epoch=1), browser.session(), browser.session()]
    found = [token_of(answer) for answer in answers]
    assert len(set(found)) == 4
    for each in found:
        tokens.spend(each, "desk", "tests")


@pytest.mark.parametrize(
    ("ttl", "renew_after"), [(30, 12), (100, 40), (299.5, 119.8), (300, 120), (3600, 120)]
)
def test_a_page_renews_after_two_fifths_of_its_ttl_at_the_latest(
    ttl: float, renew_after: float, browser: Browser, desk: Workspace
) -> None:
    body = ok(browser.acquire(ttl_seconds=ttl))
    assert body["renew_after_seconds"] == pytest.approx(renew_after)
    assert ttl - 5 < view_of(desk).remaining <= ttl


@pytest.mark.parametrize(
    "ttl", [29.9, 3600.1, 0, -5, 1e308, "300", True, [], {}, float("nan"), float("inf")]
)
def test_a_ttl_out_of_range_is_refused(ttl: Any, browser: Browser, desk: Workspace) -> None:
    assert_invalid(browser.acquire(ttl_seconds=ttl), "ttl_seconds")
    assert not view_of(desk).is_held


def test_where_leases_are_short_a_short_ttl_may_be_asked_for(
    browser: Browser, settings: Any
) -> None:
    settings.DISPLAY = type(settings.DISPLAY)(lease_seconds=3, renew_seconds=1)
    assert ok(browser.acquire())["renew_after_seconds"] == 1
    ok(browser.acquire(ttl_seconds=3))
    assert_invalid(browser.acquire(ttl_seconds=2.9), "ttl_seconds")


def test_acquiring_with_the_epoch_renews(browser: Browser) -> None:
    first = ok(browser.acquire())
    again = ok(browser.acquire(epoch=first["epoch"]))
    assert (again["epoch"], again["version"]) == (1, first["version"] + 1)
    assert again["acquired_at"] == first["acquired_at"]


def test_a_loser_is_told_the_winners_name_and_never_an_id(
    browser: Browser, desk: Workspace, colleague: User
) -> None:
    leases.acquire(desk, tab(colleague, "the-winners-tab"), ttl=300)
    answers = [browser.acquire(), browser.acquire(epoch=1), browser.release(), browser.acquire("x")]
    for answer in answers[:3]:
        body = assert_error(answer, 409, "held")
        assert set(body["current"]) == CONTROL_KEYS
        assert body["current"]["controlled_by"] == "colleague"
        assert "colleague" in body["error"]["message"]
    for answer in [*answers, browser.get(f"{BASE}/control"), browser.get("/api/workspaces")]:
        assert b"the-winners-tab" not in answer.content
        assert b"token" not in answer.content


def test_the_own_other_tab_is_told_so_and_may_move(browser: Browser, desk: Workspace) -> None:
    ok(browser.acquire(OTHER_TAB))
    body = assert_error(browser.acquire(), 409, "held_elsewhere")
    assert (body["current"]["yours"], body["current"]["this_client"]) == (True, False)
    assert OTHER_TAB not in json.dumps(body)
    assert_error(browser.release(), 409, "held_elsewhere")
    assert ok(browser.acquire(move=True))["epoch"] == 2


def test_a_person_takes_over_from_an_agent(
    browser: Browser, desk: Workspace, colleague: User
) -> None:
    leases.acquire(desk, agent(colleague), ttl=300)
    body = ok(browser.acquire())
    assert (body["epoch"], body["controller"]) == (2, "user")
    assert (body["last_end"]["reason"], body["last_end"]["by"]) == ("preempted", "Olive Operator")


def test_a_person_cannot_pass_for_an_agent(browser: Browser, desk: Workspace) -> None:
    assert_error(browser.acquire(controller="agent"), 403, "wrong_controller")
    assert not view_of(desk).is_held


@pytest.mark.parametrize("controller", ["none", "admin", "", 1])
def test_an_unknown_controller_is_refused(controller: Any, browser: Browser) -> None:
    assert_invalid(browser.acquire(controller=controller), "controller")


def test_an_observer_may_not_take_control(observer: User) -> None:
    assert_error(Browser(observer).acquire(), 403, "forbidden")


def test_a_disabled_display_cannot_be_taken(browser: Browser) -> None:
    Workspace.objects.update(enabled=False)
    body = assert_error(browser.acquire(), 409, "display_not_enabled")
    assert set(body["current"]) == CONTROL_KEYS


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("forced", "Your control was ended by Mary Manager."),
        ("released", "You released control."),
        ("moved", "You moved control to another tab."),
        ("expired", "Your control ran out."),
        ("taken", "Your control ran out, and somebody else has had it since."),
        ("access_ended", "Your access to control this workspace has ended."),
        ("preempted", "colleague took control."),
    ],
)
def test_a_refused_renewal_says_why_in_a_sentence(
    end: str,
    expected: str,
    browser: Browser,
    desk: Workspace,
    operator: User,
    colleague: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ok(browser.acquire())
    if end == "forced":
        leases.force_release(desk, by="Mary Manager", note="maintenance")
    elif end == "released":
        ok(browser.release())
    elif end == "moved":
        ok(browser.acquire(OTHER_TAB, move=True))
    elif end == "access_ended":
        leases.end_lost_access([lease_of(desk)], logins_ended=frozenset({browser.login}))
    elif end == "preempted":  # this tab becomes an agent's, which API tokens bring later
        desk.lease.__class__.objects.update(controller="agent")
        ok(Browser(colleague).acquire(OTHER_TAB))
    else:
        let_expire(desk, 700)
    if end == "taken":
        ok(Browser(colleague).acquire(OTHER_TAB))
    body = assert_error(browser.acquire(epoch=1), 409, end)
    assert body["error"]["message"] == expected
    assert set(body["current"]) == CONTROL_KEYS


def test_the_sentence_names_who_ended_this_control_and_not_who_ended_the_last_one(
    browser: Browser, desk: Workspace, colleague: User
) -> None:
    ok(browser.acquire())
    leases.force_release(desk, by="Mary Manager", note="maintenance")
    leases.acquire(desk, tab(colleague), ttl=300)
    leases.release(desk, tab(colleague))
    body = assert_error(browser.acquire(epoch=1), 409, "forced")
    assert body["error"]["message"] == "Your control was ended by Mary Manager."


# --- Release --------------------------------------------------------------------------------------
def test_releasing_answers_with_control_and_can_be_repeated(
    browser: Browser, desk: Workspace
) -> None:
    ok(browser.acquire())
    for _ in range(2):
        body = ok(browser.release(epoch=1))
        assert set(body) == CONTROL_KEYS
        assert (body["controller"], body["last_end"]["reason"]) == ("none", "released")
    assert transitions(desk) == [("acquired", 1), ("released", 1)]


def test_a_stale_epoch_releases_nothing(browser: Browser, desk: Workspace, operator: User) -> None:
    ok(browser.acquire())
    ok(browser.release())
    ok(browser.acquire())
    body = ok(browser.release(epoch=1))
    assert (body["this_client"], body["epoch"]) == (True, 2)
    assert_held_by(desk, tab(operator), epoch=2)


def test_a_manager_ends_control_with_a_note_that_its_holder_reads(
    browser: Browser, desk: Workspace, manager: User
) -> None:
    ok(browser.acquire())
    body = ok(Browser(manager).release("managers-tab", force=True, note="maintenance"))
    assert body["controller"] == "none"
    assert_free(desk, reason="forced", epoch=1)
    end = ok(browser.get(f"{BASE}/control"))["last_end"]
    assert (end["reason"], end["by"], end["note"]) == ("forced", "Mary Manager", "maintenance")
    assert TIME.fullmatch(end["at"])


@pytest.mark.parametrize("who", ["operator", "observer"])
def test_forcing_needs_the_permission(
    who: str, desk: Workspace, colleague: User, request: pytest.FixtureRequest
) -> None:
    leases.acquire(desk, tab(colleague), ttl=300)
    answer = Browser(request.getfixturevalue(who)).release(force=True, note="mine now")
    assert_error(answer, 403, "forbidden")
    assert_held_by(desk, tab(colleague), epoch=1)


@pytest.mark.parametrize("more", [{}, {"note": ""}, {"note": " \n "}])
def test_forcing_needs_a_note(
    more: dict[str, str], browser: Browser, desk: Workspace, admin: User
) -> None:
    ok(browser.acquire())
    assert_invalid(Browser(admin).release(force=True, **more), "note")
    assert view_of(desk).is_held


def test_forcing_a_free_lease_changes_nothing(desk: Workspace, manager: User) -> None:
    assert ok(Browser(manager).release(force=True, note="why"))["controller"] == "none"
    assert history(desk) == []


def test_forcing_with_a_stale_epoch_spares_the_newer_lease(
    browser: Browser, desk: Workspace, operator: User, manager: User
) -> None:
    ok(browser.acquire())
    ok(browser.release())
    ok(browser.acquire())
    body = ok(Browser(manager).release(force=True, note="too late", epoch=1))
    assert body["controlled_by"] == "Olive Operator"
    assert_held_by(desk, tab(operator), epoch=2)


@pytest.mark.parametrize("note", ["x" * 501, "a\x00b", 5, None])
def test_a_note_that_cannot_be_stored_is_refused(note: Any, desk: Workspace, admin: User) -> None:
    leases.acquire(desk, tab(admin), ttl=300)
    assert_invalid(Browser(admin).release(force=True, note=note), "note")


# --- Session --------------------------------------------------------------------------------------
def test_an_observer_is_given_an_address_to_watch_at(observer: User, desk: Workspace) -> None:
    answer = Browser(observer).session(mode="observe")
    assert set(ok(answer)) == {"session_url", "session_expires_at"}
    admission = tokens.spend(token_of(answer), "desk", "tests")
    assert (admission.user, admission.token.client_id) == (observer, THIS_TAB)


@pytest.mark.parametrize("mode", ["control", "", None, 1])
def test_nobody_is_given_a_session_of_another_mode(mode: Any, browser: Browser) -> None:
    assert_invalid(browser.session(mode=mode), "mode")


# --- Who may come in ------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [*READS, *WRITES])
def test_who_is_not_logged_in_is_401(path: str, desk: Workspace) -> None:
    assert_error(send(Browser(), path), 401, "unauthenticated")


@pytest.mark.parametrize("path", [*READS, *WRITES])
def test_whose_account_is_disabled_is_401(path: str, browser: Browser, operator: User) -> None:
    User.objects.filter(pk=operator.pk).update(is_active=False)
    assert_error(send(browser, path), 401, "unauthenticated")


def test_whose_session_is_unknown_is_401_also_without_a_csrf_token(desk: Workspace) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["sessionid"] = "made-up"
    answer = client.post(WRITES[0], "{}", content_type="application/json")
    assert_error(answer, 401, "unauthenticated")  # type: ignore[arg-type]  # a test's response


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("token", ["", "d" * 32, "short"])
def test_a_change_without_the_csrf_token_is_403(
    path: str, token: str, browser: Browser, desk: Workspace
) -> None:
    answer = browser.post(path, {"client_id": THIS_TAB}, **{"X-CSRFToken": token})
    assert_error(answer, 403, "csrf")
    assert not view_of(desk).is_held


@pytest.mark.parametrize("path", WRITES)
def test_a_change_from_a_foreign_page_is_403(path: str, browser: Browser) -> None:
    answer = browser.post(path, {"client_id": THIS_TAB}, Origin="http://evil.example")
    assert_error(answer, 403, "csrf")


@pytest.mark.parametrize("path", HIDDEN)
def test_a_workspace_that_one_may_not_see_is_as_if_it_were_not(
    path: str, desk: Workspace, stranger: User
) -> None:
    browser = Browser(stranger)
    hidden = assert_error(send(browser, path), 404, "not_found")
    missing = path.replace("desk", "nowhere")
    answer = (
        browser.get(missing) if path in READS else browser.post(missing, {"client_id": THIS_TAB})
    )
    absent = assert_error(answer, 404, "not_found")
    assert json.dumps(hidden).replace("desk", "nowhere") == json.dumps(absent)


@pytest.mark.parametrize("slug", ["a%00b", "a%20b", "%F0%9F%98%80", "..", "a%2Fb", "x" * 300])
def test_a_slug_that_cannot_be_one_is_404(slug: str, browser: Browser) -> None:
    assert_error(browser.get(f"/api/workspaces/{slug}/display"), 404, "not_found")


# --- Bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "client_id",
    ["", "short-7", "x" * 65, "with space", "a.b.c.d.e", "späß-tab-1", "tab-0001\n", None, 5, []],
)
def test_a_bad_client_id_is_refused(path: str, client_id: Any, browser: Browser) -> None:
    assert_invalid(browser.post(path, {"client_id": client_id}), "client_id")


@pytest.mark.parametrize("client_id", ["12345678", "x" * 64, "A-Z_a-z-0"])
def test_a_good_client_id_is_accepted(client_id: str, browser: Browser) -> None:
    assert ok(browser.acquire(client_id))["this_client"]


@pytest.mark.parametrize("path", WRITES)
def test_a_missing_client_id_is_named(path: str, browser: Browser) -> None:
    assert_invalid(browser.post(path, {}), "client_id")


@pytest.mark.parametrize("path", WRITES)
def test_an_unknown_field_is_named(path: str, browser: Browser, desk: Workspace) -> None:
    answer = browser.post(path, {"client_id": THIS_TAB, "ttl_secs": 300})
    assert_invalid(answer, "ttl_secs")
    assert not view_of(desk).is_held


@pytest.mark.parametrize(
    "field",
    [{"epoch": "1"}, {"epoch": 1.5}, {"epoch": True}, {"move": "yes"}, {"move": 1}, {"move": None}],
)
def test_a_field_of_the_wrong_type_is_named(field: dict[str, Any], browser: Browser) -> None:
    assert_invalid(browser.acquire(**field), next(iter(field)))


@pytest.mark.parametrize("epoch", [-1, 0, 2**31, 2**63, 10**30])
def test_an_epoch_that_never_was_is_no_error_of_the_server(epoch: int, browser: Browser) -> None:
    ok(browser.acquire())
    assert browser.acquire(epoch=epoch).status_code == 409
    ok(browser.release(epoch=epoch))


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"[]", b"null", b'"text"', b"5", b"\xff\xfe", b"[" * 100_000],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_object_is_400(path: str, body: bytes, browser: Browser) -> None:
    assert_error(browser.post(path, body), 400, "invalid")


def test_a_huge_body_is_refused(browser: Browser) -> None:
    body = json.dumps({"client_id": THIS_TAB, "note": "x" * 3_000_000})
    assert body_of(browser.post(f"{BASE}/control/release", body))["error"]["code"] == "invalid"


def test_half_a_character_is_refused(browser: Browser) -> None:
    answer = browser.post(
        f"{BASE}/control/release", b'{"client_id": "this-tab-0001", "note": "\\ud800"}'
    )
    assert_error(answer, 400, "invalid")


# --- Never HTML -----------------------------------------------------------------------------------
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, path, "GET") for path in READS for method in METHODS if method != "GET"),
        *((method, path, "POST") for path in WRITES for method in METHODS if method != "POST"),
    ],
)
def test_a_method_that_is_not_taken_is_405(
    method: str, path: str, allowed: str, browser: Browser
) -> None:
    answer = browser.client.generic(method, path, headers={"X-CSRFToken": CSRF})
    assert_error(answer, 405, "method_not_allowed")  # type: ignore[arg-type]  # a test's response
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/api/nothing",
        "/api/",
        "/api/workspaces/",
        "/api/workspaces/desk/nothing",
        f"{BASE}/",
        f"{BASE}/nothing",
        f"{BASE}/session/websockify",
    ],
)
@pytest.mark.parametrize("is_logged_in", [True, False])
def test_an_address_that_does_not_exist_is_404_in_json(
    path: str, is_logged_in: bool, browser: Browser
) -> None:
    assert_error((browser if is_logged_in else Browser()).get(path), 404, "not_found")


def test_a_host_that_is_not_ours_is_400_in_json(browser: Browser) -> None:
    assert_error(browser.get("/api/workspaces", Host="evil.example"), 400, "invalid")


def test_a_bug_of_ours_is_500_in_json_without_a_word_about_it(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("the inside story")

    monkeypatch.setattr(api_module, "overview", fail)
    browser.client.raise_request_exception = False
    answer = browser.get("/api/workspaces")
    assert_error(answer, 500, "internal")
    assert b"inside" not in answer.content
    assert "the inside story" in caplog.text


# --- The database is away -------------------------------------------------------------------------
@contextmanager
def database_away(error: type[Exception], after: int = 0) -> Iterator[None]:
    """Let every query fail, but for the first ``after``."""
    seen = 0

    def fail(execute: Any, *args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > after:
            raise error("server closed the connection unexpectedly on 10.1.2.3")
        return execute(*args)

    with connection.execute_wrapper(fail):
        yield


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
@pytest.mark.parametrize("path", [*READS, *WRITES])
def test_while_the_database_is_away_the_api_answers_503(
    path: str, error: type[Exception], browser: Browser
) -> None:
    with database_away(error):
        answer = send(browser, path)
    body = assert_error(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "10.1.2.3" not in json.dumps(body)


@pytest.mark.django_db(transaction=True)
def test_whenever_the_database_goes_away_during_an_acquire_it_is_503_and_nothing_half_done(
    browser: Browser, desk: Workspace
) -> None:
    for after in itertools.count():
        with database_away(OperationalError, after):
            answer = browser.acquire()
        lease = view_of(desk).lease
        taken = [("acquired", 1)] if lease.epoch else []
        assert (transitions(desk), view_of(desk).is_held) == (taken, bool(taken))
        if answer.status_code == 200:
            break
        assert_error(answer, 503, "unavailable")
    assert after > 8


def test_while_the_database_is_away_pages_say_so_too(browser: Browser) -> None:
    browser.client.raise_request_exception = False
    with database_away(OperationalError):
        answer = browser.get("/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "text/html" in answer.headers["Content-Type"]
    assert b"10.1.2.3" not in answer.content


def test_while_the_database_is_away_the_process_is_still_alive(db: None) -> None:
    with database_away(OperationalError):
        answer = Client().get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok")


# --- Documents ------------------------------------------------------------------------------------
def test_the_openapi_document_tells_of_every_route_of_the_contract(db: None) -> None:
    document = json.loads(Client().get("/api/openapi.json").content)
    routes = {
        (method.upper(), path.replace("{slug}", "desk"))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert routes >= {("GET", path) for path in READS} | {("POST", path) for path in WRITES} | DATA
    assert {"AcquireBody", "Control", "Display", "Conflict"} <= set(
        document["components"]["schemas"]
    )


def test_the_documentation_is_a_page_of_our_own_without_foreign_scripts(db: None) -> None:
    answer = Client().get("/api/docs")
    assert answer.status_code == 200
    assert not re.search(rb'(src|href)="(https?:)?//', answer.content)


# --- A workspace in somebody's hands --------------------------------------------------------------
def test_a_whole_shift_through_the_api(desk: Workspace, manager: User) -> None:
    day, night = (Browser(person(name, role=Role.OPERATOR)) for name in ("day", "night"))
    epoch = ok(day.acquire())["epoch"]
    assert_error(night.acquire(), 409, "held")
    assert ok(day.acquire(epoch=epoch))["epoch"] == epoch
    ok(Browser(manager).release(force=True, note="shift is over"))
    assert_error(day.acquire(epoch=epoch), 409, "forced")
    assert ok(night.acquire())["epoch"] == epoch + 1
    WorkspaceGrant.objects.filter(user__username="night").delete()
    assert_error(night.acquire(epoch=epoch + 1), 404, "not_found")
    assert ok(day.get(f"{BASE}/control"))["last_end"]["reason"] == "access_ended"
