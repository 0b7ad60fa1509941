"""What the admin does to leases, streams and events, and which of them it finds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from controlplane import events, leases
from controlplane.models import ControlEvent, DisplayStream, Workspace
from tests.integration.people import (
    OTHER_TAB,
    UPSTREAM,
    agent,
    assert_free,
    assert_held_by,
    lease_of,
    let_expire,
    open_stream,
    person,
    refusal,
    tab,
)
from tests.integration.test_admin import EVENTS, LEASES, STREAMS, office, row_of, text_of

__all__ = ["office"]  # a fixture


def press(client: Client, model: str, action: str, *chosen: Any, **more: str) -> Any:
    """Choose rows of a list and press an action, or the button of the page that it asks with."""
    data = {"action": action, "_selected_action": [str(each.pk) for each in chosen], **more}
    return client.post(reverse(f"admin:{model}_changelist"), data, follow=True)


def clerk(*permissions: str) -> Client:
    """A member of the staff with these permissions."""
    user = person("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


# --- Leases: finding them -------------------------------------------------------------------------
@pytest.fixture
def many(desk: Workspace, operator: User, admin: User) -> None:
    """Leases in every state, each of a workspace that is named for it."""
    desks = {}
    for name in ("connected", "silent", "left", "agents", "expired", "ended", "closed", "free"):
        desks[name] = Workspace.objects.create(slug=name, name=f"Is-{name}", upstream_url=UPSTREAM)
    for name in ("connected", "silent", "left", "expired", "ended"):
        leases.acquire(desks[name], tab(admin), ttl=300)
    leases.acquire(desks["agents"], agent(admin), ttl=300)
    open_stream(desks["connected"], admin)
    open_stream(desks["silent"], admin)
    DisplayStream.objects.filter(workspace=desks["silent"]).update(
        stamped_at="2000-01-01T00:00:00Z"
    )
    open_stream(desks["left"], admin, OTHER_TAB)
    let_expire(desks["expired"])
    leases.release(desks["ended"], tab(admin))
    leases.close(desks["closed"], by="Mary Manager", note="why")
    desk.delete()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=held", {"connected", "silent", "left", "agents"}),
        ("state=closed", {"closed"}),
        ("state=free", {"expired", "ended", "free"}),
        ("controller=user", {"connected", "silent", "left"}),
        ("controller=agent", {"agents"}),
        ("connected=yes", {"connected"}),
        ("connected=no", {"silent", "left", "agents"}),
        ("connected=no&controller=user", {"silent", "left"}),
        ("state=held&q=silent", {"silent"}),
    ],
)
@pytest.mark.usefixtures("many")
def test_leases_are_found_by_state_controller_and_connection(
    query: str, expected: set[str], office: Client
) -> None:
    page = text_of(office, LEASES, query=f"?{query}")
    assert set(re.findall(r">Is-(\w+)<", page)) == expected


def test_a_closed_lease_is_shown_as_closed(office: Client, desk: Workspace) -> None:
    leases.close(desk, by="Mary Manager", note="fire drill")
    assert row_of(text_of(office, LEASES), "Desk 12")[-1] == "closed"
    page = text_of(office, LEASES, "change", lease_of(desk).pk)
    assert "Mary Manager" in page
    assert "fire drill" in page


# --- Leases: closing and opening ------------------------------------------------------------------
def test_closing_asks_for_a_note_first(office: Client, desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    page = press(office, LEASES, "close", lease_of(desk)).content.decode()
    assert 'name="note"' in page
    assert "Desk 12" in page
    assert "agents included" in page
    page = press(office, LEASES, "close", lease_of(desk), apply="yes", note=" ").content.decode()
    assert "errorlist" in page
    assert_held_by(desk, tab(operator), epoch=1)
    assert lease_of(desk).closed_at is None


def test_with_a_note_control_is_ended_and_kept_away(
    office: Client, desk: Workspace, operator: User
) -> None:
    free = Workspace.objects.create(slug="free", name="Free")
    leases.acquire(desk, tab(operator), ttl=300)
    chosen = [lease_of(desk), lease_of(free)]
    page = press(office, LEASES, "close", *chosen, apply="yes", note="maintenance")
    assert "2 closed; 1 had a holder." in page.content.decode()
    assert_free(desk, reason="forced", epoch=1)
    assert refusal(leases.acquire, desk, tab(operator), ttl=300) == "closed"
    assert (lease_of(desk).closed_by, lease_of(free).closed_note) == ("Ada Admin", "maintenance")
    assert ControlEvent.objects.filter(what="closed").first().ip == "127.0.0.1"  # type: ignore[union-attr]  # there are two


def test_what_was_closed_is_opened_again(office: Client, desk: Workspace, operator: User) -> None:
    free = Workspace.objects.create(slug="free", name="Free")
    leases.close(desk, by="Mary Manager", note="why")
    page = press(office, LEASES, "open_again", lease_of(desk), lease_of(free)).content.decode()
    assert "1 opened; 1 had not been closed." in page
    leases.acquire(desk, tab(operator), ttl=300)
    assert ControlEvent.objects.get(what="opened").who == "Ada Admin"


def test_staff_without_the_permission_neither_close_nor_open(
    desk: Workspace, operator: User
) -> None:
    client = clerk("view_displaycontrollease")
    leases.acquire(desk, tab(operator), ttl=300)
    page = text_of(client, LEASES)
    assert 'value="close"' not in page
    assert 'value="open_again"' not in page
    press(client, LEASES, "close", lease_of(desk), apply="yes", note="mine")
    assert_held_by(desk, tab(operator), epoch=1)
    leases.close(desk, by="Mary Manager", note="why")
    press(client, LEASES, "open_again", lease_of(desk))
    assert lease_of(desk).closed_at is not None


# --- Streams --------------------------------------------------------------------------------------
def test_streams_are_found_by_whether_they_live(
    office: Client, desk: Workspace, operator: User, observer: User, colleague: User
) -> None:
    open_stream(desk, operator)
    closed, silent = open_stream(desk, observer), open_stream(desk, colleague)
    DisplayStream.objects.filter(pk=closed.pk).update(closed_at=Now())
    DisplayStream.objects.filter(pk=silent.pk).update(stamped_at="2000-01-01T00:00:00Z")
    users = r'class="field-user[^"]*">(\w+)<'
    assert re.findall(users, text_of(office, STREAMS, query="?live=yes")) == ["operator"]
    ended = re.findall(users, text_of(office, STREAMS, query="?live=no"))
    assert sorted(ended) == ["colleague", "observer"]


def test_disconnecting_marks_live_streams_and_has_every_process_look_at_once(
    office: Client,
    desk: Workspace,
    operator: User,
    observer: User,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Callable[..., AbstractContextManager[Any]],
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(events._broker, "send", sent.append)
    live, closed, other = (open_stream(desk, user) for user in (operator, observer, operator))
    DisplayStream.objects.filter(pk=closed.pk).update(closed_at=Now())
    with django_capture_on_commit_callbacks(execute=True):
        page = press(office, STREAMS, "disconnect", live, closed).content.decode()
    assert "1 disconnected." in page
    by = dict(DisplayStream.objects.values_list("pk", "disconnected_by"))
    assert by == {live.pk: "Ada Admin", closed.pk: "", other.pk: ""}
    assert {"type": "access"} in sent
    page = press(office, STREAMS, "disconnect", closed).content.decode()
    assert "None of these was live." in page


def test_staff_without_the_permission_disconnect_nobody(desk: Workspace, operator: User) -> None:
    client = clerk("view_displaystream")
    stream = open_stream(desk, operator)
    assert 'value="disconnect"' not in text_of(client, STREAMS)
    press(client, STREAMS, "disconnect", stream)
    stream.refresh_from_db()
    assert stream.disconnected_by == ""


# --- Events ---------------------------------------------------------------------------------------
def exported(answer: Any) -> list[dict[str, Any]]:
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="events.jsonl"'
    return [json.loads(line) for line in answer.content.decode().splitlines()]


def test_chosen_events_are_exported_as_json_lines_without_client_ids(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator, "a-secret-client-id"), ttl=300)
    leases.force_release(desk, by="Mary Manager", note="fire drill")
    leases.acquire(desk, tab(operator), ttl=300)
    first, second, _ = ControlEvent.objects.order_by("id")
    answer = press(office, EVENTS, "export", second, first)
    assert [row["what"] for row in exported(answer)] == ["acquired", "forced"]
    assert b"secret" not in answer.content


def test_all_events_that_are_filtered_are_exported_at_once(
    office: Client, desk: Workspace, operator: User
) -> None:
    for _ in range(60):
        leases.acquire(desk, tab(operator), ttl=300)
        leases.release(desk, tab(operator))
    first = ControlEvent.objects.order_by("id")[0]
    data = {"action": "export", "_selected_action": [str(first.pk)], "select_across": "1"}
    answer = office.post(reverse(f"admin:{EVENTS}_changelist") + "?what=acquired", data)
    rows = exported(answer)
    assert (len(rows), {row["what"] for row in rows}) == (60, {"acquired"})
