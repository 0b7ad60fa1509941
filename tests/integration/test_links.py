"""Control links: a person without an account, in one tab, once, for a while."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import Client

from controlplane import access, apitokens, handovers, leases, links, ratelimits, tokens
from controlplane.exceptions import ControlRefused, LinkRefused, StreamForbidden
from controlplane.models import ApiToken, ControlEvent, Controller, ControlRequest, Role, Workspace
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    UPSTREAM,
    Browser,
    agent,
    assert_free,
    assert_held_by,
    lease_of,
    tab,
    token_of,
    view_of,
)
from tests.integration.programs import Program, token

PATH = "/api/workspaces/desk/links"
EXCHANGE = "/api/links/exchange"
CONTROL = "/api/workspaces/desk/display/control"
GUEST = "Gesine Guest"


def ok(answer: HttpResponse, status: int = 200) -> Any:
    assert answer.status_code == status, answer.content
    return json.loads(answer.content)


class Guest(Program):
    """The tab in which a link has been opened: its bearer, and its client_id with every call."""

    def __init__(self, bearer: str, client_id: str = THIS_TAB) -> None:
        super().__init__(bearer)
        self.client_id = client_id

    def send(self, method: str, path: str, body: object, **headers: str) -> HttpResponse:
        return super().send(method, path, body, **{"X-Client-Id": self.client_id, **headers})


def make(desk: Workspace, role: Role = Role.OPERATOR, ttl: float = 600) -> links.Made:
    return links.make(desk, GUEST, role, ttl, by="Mary Manager")


def open_link(desk: Workspace, role: Role = Role.OPERATOR) -> tuple[ApiToken, Guest]:
    """Make a link and open it in ``THIS_TAB``."""
    opened = links.exchange(make(desk, role).ticket, THIS_TAB)
    return opened.link, Guest(opened.bearer)


def exchange(ticket: str, client_id: str = THIS_TAB, **headers: str) -> HttpResponse:
    """Open a link as its page does: with nothing but the ticket."""
    return Client(enforce_csrf_checks=True).post(  # type: ignore[return-value]
        EXCHANGE,
        {"ticket": ticket, "client_id": client_id},
        content_type="application/json",
        headers=headers,
    )


def happened(desk: Workspace) -> list[tuple[str, str, str]]:
    """Return what the events tell of links, oldest first: what, who, about which."""
    rows = ControlEvent.objects.filter(workspace=desk, what__startswith="link_").order_by("id")
    return [(row.what, row.who, row.note) for row in rows]


# --- Making ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["manager", "token"])
def test_a_manager_or_a_token_makes_a_link_that_opens_once(
    by: str, desk: Workspace, manager: User
) -> None:
    maker = Browser(manager) if by == "manager" else Program(token("manage")[1])
    answer = maker.send("POST", PATH, {"name": GUEST, "role": "operator", "ttl_seconds": 600})
    made = ok(answer, 201)
    page, _, ticket = made["url"].partition("#ticket=")
    assert page == "http://testserver/workspaces/desk/embed"
    assert (made["name"], made["role"], made["state"]) == (GUEST, "operator", "unopened")
    assert answer["Cache-Control"] == "no-store"

    answer = exchange(ticket)
    opened = ok(answer)
    assert (opened["role"], opened["workspace"]) == ("operator", {"id": "desk", "name": "Desk 12"})
    assert opened["expires_at"] == made["expires_at"]
    assert answer["Cache-Control"] == "no-store"
    control = ok(Guest(opened["bearer"]).get(CONTROL))
    assert control["can"] == {"observe": True, "control": True, "force": False}

    again = exchange(ticket)
    assert again.status_code == 410
    assert json.loads(again.content)["error"] == {
        "code": "link_ended",
        "message": "This link has been used or has expired. Ask for a new one.",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "manager"},
        {"role": ""},
        {"ttl_seconds": 59},
        {"ttl_seconds": 24 * 3600 + 1},
        {"ttl_seconds": "600"},
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 81},
        {"name": "a\0b"},
        {"scopes": ["manage"]},
    ],
)
def test_a_link_can_give_no_more_than_it_may(
    wrong: dict[str, Any], desk: Workspace, manager: User
) -> None:
    body = {"name": GUEST, "role": "operator", "ttl_seconds": 600} | wrong
    assert Browser(manager).post(PATH, body).status_code == 400
    assert not ApiToken.objects.exists()


def test_two_links_may_have_the_same_name(desk: Workspace) -> None:
    assert make(desk).link.name != make(desk).link.name


def test_nothing_is_kept_that_could_open_it(desk: Workspace) -> None:
    made = make(desk)
    kept = [str(value) for value in [*vars(made.link).values(), *vars(made.link.account).values()]]
    assert not [value for value in kept if made.ticket in value]
    opened = links.exchange(made.ticket, THIS_TAB)
    kept = [str(value) for value in vars(ApiToken.objects.get()).values()]
    assert not [value for value in kept if opened.bearer in value]


# --- Opening --------------------------------------------------------------------------------------
def test_no_credential_is_good_before_the_exchange(desk: Workspace) -> None:
    made = make(desk)
    texts = [made.ticket, made.link.digest, apitokens.LINK_PREFIX + made.ticket, ""]
    assert [text for text in texts if apitokens.find(text)] == []
    for text in (made.ticket, made.link.digest):
        assert Guest(text).get(CONTROL).status_code == 401


@pytest.mark.parametrize(
    "state",
    [
        {"expires_at": Now()},
        {"revoked_at": Now()},
        {"exchanged_at": Now()},
        {"kind": Controller.AGENT},
    ],
)
def test_a_link_that_has_ended_is_not_opened(state: dict[str, Any], desk: Workspace) -> None:
    made = make(desk)
    ApiToken.objects.update(**state)
    with pytest.raises(LinkRefused):
        links.exchange(made.ticket, THIS_TAB)
    assert ApiToken.objects.get().digest == made.link.digest


def test_a_link_to_a_workspace_that_is_gone_is_not_opened(desk: Workspace) -> None:
    made = make(desk)
    desk.delete()
    assert exchange(made.ticket).status_code == 410


@pytest.mark.parametrize("ticket", ["", "no such ticket", "\0", "ü" * 100])
def test_what_is_no_ticket_opens_nothing(ticket: str, desk: Workspace) -> None:
    make(desk)
    assert exchange(ticket).status_code == 410


def test_what_is_no_text_is_refused_as_such(desk: Workspace) -> None:
    assert exchange("\ud800").status_code == 400


def test_a_wrong_ticket_is_counted_like_a_bad_token(desk: Workspace) -> None:
    made = make(desk)
    for _ in range(ratelimits.FAILURES.amount):
        assert exchange("guess").status_code == 410
    answer = exchange(made.ticket)
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 0
    assert ApiToken.objects.get().exchanged_at is None


@pytest.mark.django_db(transaction=True)
def test_of_ten_who_open_it_at_once_exactly_one_gets_in(desk: Workspace) -> None:
    ticket = make(desk).ticket
    start = Barrier(10)

    def try_it(number: int) -> links.Opened | None:
        start.wait()
        try:
            return links.exchange(ticket, f"{THIS_TAB}-{number}")
        except LinkRefused:
            return None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(10) as threads:
        got_in = [opened for opened in threads.map(try_it, range(10)) if opened]
    assert len(got_in) == 1
    bound = ApiToken.objects.get()
    assert apitokens.find(got_in[0].bearer) == bound
    assert [what for what, _, _ in happened(desk)] == ["link_made", "link_opened"]


def test_it_starts_no_session_and_reads_none(desk: Workspace, admin: User) -> None:
    browser = Browser(admin)
    answer = browser.client.post(
        EXCHANGE,
        {"ticket": make(desk).ticket, "client_id": THIS_TAB},
        content_type="application/json",
    )
    bearer = ok(answer)["bearer"]
    guest = Guest(bearer)
    guest.client.force_login(admin)
    before = dict(guest.client.cookies)
    for response in (answer, guest.acquire(THIS_TAB), guest.get(CONTROL)):
        assert response.status_code == 200
        assert not response.cookies
    assert dict(guest.client.cookies) == before
    assert ok(guest.get(CONTROL))["can"]["force"] is False, "the link counts, not the cookie"


# --- What it is good for --------------------------------------------------------------------------
def test_it_holds_control_as_a_person_under_its_name(
    desk: Workspace, operator: User, manager: User
) -> None:
    link, guest = open_link(desk)
    leases.acquire(desk, agent(operator), ttl=300)
    taken = ok(guest.acquire(THIS_TAB, controller="user"))
    assert (taken["controller"], taken["controlled_by"]) == ("user", GUEST)
    assert_held_by(desk, tab(link.account), epoch=2)
    assert lease_of(desk).login == ""
    assert Browser(operator).acquire(OTHER_TAB).status_code == 409, "a person is not taken over"
    assert Program(token("control")[1]).acquire().status_code == 409

    hide = {"client_id": THIS_TAB, "epoch": 2, "hidden": True}
    assert ok(guest.send("POST", f"{CONTROL}/hide", hide))["hidden"]
    asked = ok(
        Browser(operator).post(f"{CONTROL}/request", {"client_id": OTHER_TAB, "message": ""})
    )
    answer = {
        "client_id": THIS_TAB,
        "epoch": 2,
        "request": asked["requests"][0]["id"],
        "accept": True,
    }
    ok(guest.send("POST", f"{CONTROL}/request/answer", answer))
    assert_held_by(desk, tab(operator, OTHER_TAB), epoch=3)
    assert ok(
        guest.send("POST", f"{CONTROL}/request", {"client_id": THIS_TAB, "message": "please"})
    )["requests"]


def test_it_cannot_pass_for_an_agent(desk: Workspace) -> None:
    _, guest = open_link(desk)
    assert guest.acquire(THIS_TAB, controller="agent").status_code == 403


def test_an_observer_only_watches(desk: Workspace) -> None:
    _, guest = open_link(desk, Role.OBSERVER)
    ok(guest.session())
    assert guest.acquire(THIS_TAB).status_code == 403


def test_it_sees_its_own_workspace_alone(desk: Workspace) -> None:
    Workspace.objects.create(slug="other", name="Other", upstream_url=UPSTREAM)
    _, guest = open_link(desk)
    listed = ok(guest.get("/api/workspaces"))["workspaces"]
    assert [workspace["id"] for workspace in listed] == ["desk"]
    assert guest.acquire(THIS_TAB, slug="other").status_code == 404
    assert guest.send("PUT", "/api/workspaces/new", {}).status_code == 404
    assert guest.send("PATCH", "/api/workspaces/desk", {"name": "Mine"}).status_code == 403
    assert guest.get(PATH).status_code == 403


def test_a_stream_that_it_has_asked_for_belongs_to_its_tab(desk: Workspace) -> None:
    link, guest = open_link(desk)
    admission = tokens.spend(token_of(guest.session()), "desk", "process")
    assert (admission.user, admission.token.client_id) == (link.account, THIS_TAB)
    assert admission.token.session_key == ""


# --- Its tab --------------------------------------------------------------------------------------
def test_its_bearer_works_in_its_own_tab_alone(desk: Workspace) -> None:
    _, guest = open_link(desk)
    thief = Guest(guest.authorization.removeprefix("Bearer "), OTHER_TAB)
    bare = Program(guest.authorization.removeprefix("Bearer "))
    for other in (thief, bare):
        assert other.get(CONTROL).status_code == 401
        assert other.get("/api/workspaces").status_code == 401
        assert other.acquire(THIS_TAB).status_code == 401
        assert other.session(OTHER_TAB).status_code == 401
    # The header of one tab, the body or the query of another.
    assert guest.acquire(OTHER_TAB).status_code == 401
    assert guest.session(OTHER_TAB).status_code == 401
    assert guest.get(f"/api/events?client_id={OTHER_TAB}").status_code == 401
    for body in (
        {"client_id": [THIS_TAB]},
        {"client_id": None},
        {"client_id": "\ud800"},
    ):
        assert guest.send("POST", f"{CONTROL}/acquire", body).status_code == 401
    twice = f'{{"client_id": "{THIS_TAB}", "client_id": "{OTHER_TAB}"}}'
    broken = twice[:-1]
    for text in (twice, broken):
        answer = guest.client.generic(
            "POST",
            f"{CONTROL}/acquire",
            text,
            content_type="application/json",
            headers={"Authorization": guest.authorization, "X-Client-Id": THIS_TAB},
        )
        assert answer.status_code == 401
    assert not view_of(desk).is_held
    assert guest.acquire(THIS_TAB).status_code == 200


def test_a_link_that_is_bound_to_no_tab_works_in_none(desk: Workspace) -> None:
    _, guest = open_link(desk)
    ApiToken.objects.update(client_id="")
    assert guest.get(CONTROL, **{"X-Client-Id": ""}).status_code == 401
    assert guest.get(CONTROL).status_code == 401


def test_a_server_of_the_version_before_finds_no_link(desk: Workspace) -> None:
    """It looks for the SHA-256 of what it is sent, and would take a link for a program."""
    link, guest = open_link(desk)
    bearer = guest.authorization.removeprefix("Bearer ")
    assert apitokens.find(bearer) == link
    plain = apitokens.hashlib.sha256(bearer.encode()).hexdigest()
    assert not ApiToken.objects.filter(digest=plain).exists()


def test_rows_of_a_server_of_the_version_before_are_programs(desk: Workspace) -> None:
    row, text = token("observe")
    ApiToken.objects.filter(pk=row.pk).update(kind=ApiToken._meta.get_field("kind").db_default)
    assert not ApiToken.objects.get().is_link
    assert Program(text).get(CONTROL).status_code == 200


# --- Its end --------------------------------------------------------------------------------------
def by_the_api(desk: Workspace, link: ApiToken) -> str:
    path = f"{PATH}/{link.pk}"
    browser = Browser(User.objects.get(username="manager"))
    assert browser.send("DELETE", path).status_code == 204
    assert browser.send("DELETE", path).status_code == 204, "again changes nothing"
    return "Mary Manager"


def by_the_service(desk: Workspace, link: ApiToken) -> str:
    assert apitokens.revoke(link, by="the administrator")
    assert not apitokens.revoke(link, by="somebody else")
    return "the administrator"


@pytest.mark.parametrize("end", [by_the_api, by_the_service])
def test_its_revocation_ends_all_that_it_has(
    end: Callable[[Workspace, ApiToken], str], desk: Workspace, manager: User
) -> None:
    link, guest = open_link(desk)
    waiting = token_of(guest.acquire(THIS_TAB))
    by = end(desk, link)
    assert_free(desk, reason="access_ended", epoch=1)
    assert guest.get(CONTROL).status_code == 401
    assert guest.acquire(THIS_TAB, epoch=1).status_code == 401
    with pytest.raises(StreamForbidden):
        tokens.spend(waiting, "desk", "process")
    assert happened(desk) == [
        ("link_made", "Mary Manager", link.name),
        ("link_opened", GUEST, link.name),
        ("link_revoked", by, link.name),
    ]


def test_a_link_is_revoked_before_it_is_opened(desk: Workspace, manager: User) -> None:
    made = make(desk)
    by_the_api(desk, made.link)
    assert exchange(made.ticket).status_code == 410


def test_a_link_is_revoked_in_its_own_workspace_alone(desk: Workspace, manager: User) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url=UPSTREAM)
    elsewhere, program = make(other).link, token("observe")[0]
    for pk in (elsewhere.pk, program.pk, 4711):
        assert Browser(manager).send("DELETE", f"{PATH}/{pk}").status_code == 404
    assert not ApiToken.objects.exclude(revoked_at=None).exists()


def test_what_it_has_asked_for_is_not_granted_any_more(desk: Workspace, operator: User) -> None:
    link, guest = open_link(desk)
    leases.acquire(desk, tab(operator, OTHER_TAB), ttl=300)
    body = {"client_id": THIS_TAB, "message": "please"}
    asked = ok(guest.send("POST", f"{CONTROL}/request", body))
    apitokens.revoke(link)
    request = asked["requests"][0]["id"]
    with pytest.raises(ControlRefused):
        handovers.answer(desk, tab(operator, OTHER_TAB), request, epoch=1, accept=True, ttl=300)
    assert_held_by(desk, tab(operator, OTHER_TAB), epoch=1)
    handovers.settle(desk.pk)
    assert ControlRequest.objects.get().outcome == "withdrawn"


def test_its_time_is_counted_from_when_it_was_made(desk: Workspace) -> None:
    link, guest = open_link(desk)
    ok(guest.acquire(THIS_TAB))
    ApiToken.objects.update(expires_at=Now())
    assert guest.acquire(THIS_TAB, epoch=1).status_code == 401
    assert not access.standing_logins([(link.account, "")])


def test_it_ends_where_its_workspace_is_taken_from_it(desk: Workspace) -> None:
    link, guest = open_link(desk)
    ok(guest.acquire(THIS_TAB))
    link.workspaces.clear()
    assert_free(desk, reason="access_ended", epoch=1)
    assert guest.get(CONTROL).status_code == 404


# --- What is told of it ---------------------------------------------------------------------------
def test_managers_see_which_links_there_are(desk: Workspace, manager: User) -> None:
    open_link(desk)
    revoked, expired, old, _ = (make(desk).link for _ in range(4))
    apitokens.revoke(revoked)
    ApiToken.objects.filter(pk=expired.pk).update(expires_at=Now())
    ApiToken.objects.filter(pk=old.pk).update(expires_at="2026-01-01T00:00Z")
    token("observe")
    listed = ok(Browser(manager).get(PATH))["links"]
    assert [each["state"] for each in listed] == ["unopened", "expired", "revoked", "opened"]
    assert {each["name"] for each in listed} == {GUEST}
    assert [each["used_at"] is None for each in listed] == [True, True, True, False]
    assert set(listed[0]) == {"id", "name", "role", "state", "expires_at", "used_at"}


def test_the_event_of_its_opening_tells_from_where(desk: Workspace) -> None:
    ok(exchange(make(desk).ticket))
    event = ControlEvent.objects.get(what="link_opened")
    assert (event.client_id, event.ip) == (THIS_TAB, "127.0.0.1")


def test_no_log_line_and_no_event_holds_what_opens_it(
    desk: Workspace, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"name": GUEST, "role": "operator", "ttl_seconds": 600}
    ticket = ok(Browser(manager).post(PATH, body), 201)["url"].partition("#ticket=")[2]
    bearer = ok(exchange(ticket))["bearer"]
    exchange(ticket)
    guest = Guest(bearer)
    guest.acquire(THIS_TAB)
    Guest(bearer, OTHER_TAB).get(CONTROL)
    told = [*caplog.messages, *map(str, ControlEvent.objects.values_list())]
    for secret in (ticket, bearer):
        assert not [line for line in told if secret in line]


# --- Its page -------------------------------------------------------------------------------------
def test_its_page_may_be_framed_by_embed_origins_alone_and_other_pages_by_nobody(
    desk: Workspace, operator: User, settings: Any
) -> None:
    settings.EMBED_ORIGINS = ["https://platform.example", "http://portal.example:8080"]
    answer = Client().get("/workspaces/desk/embed")
    assert answer.status_code == 200
    assert "frame-ancestors 'self' https://platform.example http://portal.example:8080" in (
        answer["Content-Security-Policy"].split("; ")
    )
    assert "X-Frame-Options" not in answer
    assert answer["Referrer-Policy"] == "no-referrer"
    assert answer["Cache-Control"] == "no-store"
    assert not answer.cookies
    for path in ("/", "/workspaces/desk/", "/accounts/login/"):
        assert Browser(operator).get(path)["X-Frame-Options"] == "DENY"


def test_its_page_knows_the_longest_text_that_may_be_pasted_as_that_of_a_login_does(
    desk: Workspace, operator: User, settings: Any
) -> None:
    settings.DISPLAY = replace(settings.DISPLAY, clipboard_bytes=1_000_000)
    for page in (
        Client().get("/workspaces/desk/embed"),
        Browser(operator).get("/workspaces/desk/"),
    ):
        assert b' data-clipboard="1000000"' in page.content


def test_its_page_is_the_same_for_everybody_and_every_workspace(
    desk: Workspace, operator: User
) -> None:
    page = Client().get("/workspaces/desk/embed").content
    assert page == Client().get("/workspaces/no-such-desk/embed").content
    assert page == Browser(operator).get("/workspaces/desk/embed").content
    assert b"Desk 12" not in page
    assert b"operator" not in page
