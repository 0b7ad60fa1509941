"""The admin inspects: what it shows, what it keeps to itself, and its one action on leases."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from controlplane import leases
from controlplane.models import (
    ControlEvent,
    DisplayControlLease,
    DisplayStream,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.people import (
    UPSTREAM,
    assert_free,
    assert_held_by,
    lease_of,
    let_expire,
    open_stream,
    person,
    tab,
    view_of,
)

LEASES = "controlplane_displaycontrollease"
EVENTS = "controlplane_controlevent"
STREAMS = "controlplane_displaystream"
WORKSPACES = "controlplane_workspace"


@pytest.fixture
def office(admin: User) -> Client:
    """The admin's browser."""
    client = Client()
    client.force_login(admin)
    return client


def text_of(
    client: Client, model: str, page: str = "changelist", *args: Any, query: str = ""
) -> str:
    """Return a page of the admin."""
    answer = client.get(reverse(f"admin:{model}_{page}", args=args) + query)
    assert answer.status_code == 200
    return answer.content.decode()


def row_of(page: str, slug_or_name: str) -> list[str]:
    """Return the cells of the changelist's row that has this text in it."""
    rows = re.findall(r"<tr>(?:(?!</tr>).)*</tr>", page, re.DOTALL)
    (row,) = [each for each in rows if slug_or_name in each and "<td" in each]
    cells = re.findall(r'<t[dh] class="field-[^>]*>(.*?)</t[dh]>', row, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", cell) for cell in cells]


# --- Leases ---------------------------------------------------------------------------------------
def test_the_list_of_leases_tells_who_until_when_and_how_each_ended(
    office: Client, desk: Workspace, operator: User, admin: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    others = {}
    for slug in ("expired-one", "forced-one", "free-one"):
        others[slug] = Workspace.objects.create(slug=slug, name=slug, upstream_url=UPSTREAM)
    for slug in ("expired-one", "forced-one"):
        leases.acquire(others[slug], tab(admin), ttl=300)
    let_expire(others["expired-one"])
    leases.force_release(others["forced-one"], by="Mary Manager", note="why")
    page = text_of(office, LEASES)
    workspace, who, _, _, remaining, epoch, state = row_of(page, "Desk 12")
    assert (workspace, who, epoch, state) == ("Desk 12", "Olive Operator", "1", "held")
    assert re.fullmatch(r"(29\d|300) s", remaining)
    assert [row_of(page, name)[1:2] + row_of(page, name)[4:] for name in sorted(others)] == [
        ["–", "–", "1", "expired"],
        ["–", "–", "1", "ended: forced"],
        ["–", "–", "0", "free"],
    ]


def test_leases_are_found_by_workspace_and_by_holder(
    office: Client, desk: Workspace, operator: User
) -> None:
    Workspace.objects.create(slug="another", name="Another")
    leases.acquire(desk, tab(operator), ttl=300)
    for query in ("desk", "Desk 12", "operator"):
        page = text_of(office, LEASES, query=f"?q={query}")
        assert "Desk 12" in page
        assert "Another" not in page


@pytest.mark.parametrize("model", [LEASES, EVENTS, STREAMS])
def test_nobody_adds_changes_or_deletes_what_the_control_plane_writes(
    model: str, office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    row = {LEASES: DisplayControlLease, EVENTS: ControlEvent, STREAMS: DisplayStream}[model]
    pk = row.objects.get().pk  # type: ignore[attr-defined]  # each is a model
    before = row.objects.values().get()  # type: ignore[attr-defined]  # as above
    assert office.get(reverse(f"admin:{model}_add")).status_code == 403
    assert office.get(reverse(f"admin:{model}_delete", args=[pk])).status_code == 403
    assert office.post(reverse(f"admin:{model}_change", args=[pk]), {"epoch": 9}).status_code == 403
    assert "delete_selected" not in text_of(office, model)
    assert "_save" not in text_of(office, model, "change", pk)
    assert row.objects.values().get() == before  # type: ignore[attr-defined]  # as above


def test_no_client_id_and_no_token_is_shown_anywhere(
    office: Client, desk: Workspace, operator: User
) -> None:
    holder = tab(operator, "a-secret-client-id", login="a-secret-login")
    leases.acquire(desk, holder, ttl=300)
    stream = open_stream(desk, operator, "a-secret-client-id")
    pages = [text_of(office, model) for model in (LEASES, EVENTS, STREAMS, WORKSPACES)]
    pages += [
        text_of(office, LEASES, "change", lease_of(desk).pk),
        text_of(office, EVENTS, "change", ControlEvent.objects.get().pk),
        text_of(office, STREAMS, "change", stream.pk),
        text_of(office, WORKSPACES, "change", desk.pk),
    ]
    for page in pages:
        assert "secret" not in page
        assert stream.token_id not in page


# --- Force-release --------------------------------------------------------------------------------
def force(client: Client, *chosen: Workspace, **more: str) -> Any:
    """Press the action, or the button of the page that asks for a note."""
    data = {
        "action": "force_release",
        "_selected_action": [str(lease_of(each).pk) for each in chosen],
        **{f"epoch-{lease_of(each).pk}": str(lease_of(each).epoch) for each in chosen},
        **more,
    }
    return client.post(reverse(f"admin:{LEASES}_changelist"), data, follow=True)


def test_force_release_asks_for_a_note_first(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    page = force(office, desk).content.decode()
    assert 'name="note"' in page
    assert "Desk 12" in page
    assert_held_by(desk, tab(operator), epoch=1)


@pytest.mark.parametrize("note", ["", "   ", "x" * 501])
def test_a_note_that_is_missing_or_too_long_is_asked_for_again(
    note: str, office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    assert "errorlist" in force(office, desk, apply="yes", note=note).content.decode()
    assert_held_by(desk, tab(operator), epoch=1)


def test_with_a_note_control_ends_in_the_admins_name(
    office: Client, desk: Workspace, operator: User
) -> None:
    free = Workspace.objects.create(slug="free", name="Free")
    leases.acquire(desk, tab(operator), ttl=300)
    page = force(office, desk, free, apply="yes", note="maintenance").content.decode()
    assert "1 ended; 1 had no holder, or another by now." in page
    assert_free(desk, reason="forced", epoch=1)
    end = view_of(desk).last_end
    assert end is not None
    assert (end.by, end.note) == ("Ada Admin", "maintenance")
    assert ControlEvent.objects.get(what="forced").ip == "127.0.0.1"


def test_who_got_control_after_the_note_was_asked_for_keeps_it(
    office: Client, desk: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    page = force(office, desk).content.decode()
    shown = dict(re.findall(r'name="(epoch-\d+)" value="(\d+)"', page))
    assert shown == {f"epoch-{lease_of(desk).pk}": "1"}
    leases.release(desk, tab(operator))
    leases.acquire(desk, tab(colleague), ttl=300)
    answer = force(office, desk, apply="yes", note="maintenance", **shown)
    assert "0 ended; 1 had no holder, or another by now." in answer.content.decode()
    assert_held_by(desk, tab(colleague), epoch=2)


def test_without_the_epoch_that_was_shown_nobody_is_ended(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    force(office, desk, apply="yes", note="maintenance", **{f"epoch-{lease_of(desk).pk}": ""})
    assert_held_by(desk, tab(operator), epoch=1)


def test_staff_without_the_permission_have_no_such_action(desk: Workspace, operator: User) -> None:
    clerk = person("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_displaycontrollease"))
    client = Client()
    client.force_login(clerk)
    leases.acquire(desk, tab(operator), ttl=300)
    assert "force_release" not in text_of(client, LEASES)
    force(client, desk, apply="yes", note="mine")
    assert_held_by(desk, tab(operator), epoch=1)


# --- Events and streams ---------------------------------------------------------------------------
def test_events_are_searchable_and_newest_first(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    leases.force_release(desk, by="Mary Manager", note="fire drill", ip="198.51.100.9")
    page = text_of(office, EVENTS)
    assert page.index("Mary Manager") < page.index("Olive Operator")
    for query in ("Mary", "drill", "198.51.100"):
        page = text_of(office, EVENTS, query=f"?q={query}")
        assert "Mary Manager" in page
        assert "Olive Operator" not in page
    assert "Mary Manager" not in text_of(office, EVENTS, query="?q=nothing-like-it")
    assert "Mary Manager" not in text_of(office, EVENTS, query="?what=acquired")


def test_events_of_a_deleted_workspace_are_still_found(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    desk.delete()
    assert "Olive Operator" in text_of(office, EVENTS, query="?q=desk")


def test_streams_are_listed(office: Client, desk: Workspace, operator: User) -> None:
    open_stream(desk, operator)
    assert row_of(text_of(office, STREAMS), "Desk 12")[:3] == ["Desk 12", "operator", "observe"]


# --- Workspaces -----------------------------------------------------------------------------------
def form_of(workspace: Workspace | None = None, **fields: Any) -> dict[str, Any]:
    """What the form of a workspace sends, with no grants beside it."""
    values = {
        "name": "Desk 12",
        "slug": "desk",
        "upstream_url": UPSTREAM,
        "enabled": "on",
        "new_password": "",
        "grants-TOTAL_FORMS": "0",
        "grants-INITIAL_FORMS": "0",
    }
    return {name: value for name, value in (values | fields).items() if value is not None}


def save(client: Client, workspace: Workspace | None = None, **fields: Any) -> Any:
    page = "change" if workspace else "add"
    args = [workspace.pk] if workspace else []
    return client.post(reverse(f"admin:{WORKSPACES}_{page}", args=args), form_of(**fields))


def test_a_workspace_is_added_with_password_grant_and_lease(office: Client, stranger: User) -> None:
    grants = {
        "grants-TOTAL_FORMS": "1",
        "grants-0-user": str(stranger.pk),
        "grants-0-role": "operator",
    }
    assert save(office, new_password="geheim12", **grants).status_code == 302
    workspace = Workspace.objects.get()
    assert (workspace.vnc_password, lease_of(workspace).epoch) == ("geheim12", 0)
    assert WorkspaceGrant.objects.get().user == stranger


def test_the_password_is_never_shown(office: Client, desk: Workspace) -> None:
    desk.vnc_password = "geheim12"
    desk.save()
    page = text_of(office, WORKSPACES, "change", desk.pk)
    assert "geheim12" not in page
    assert desk.vnc_password not in page
    answer = save(office, desk, new_password="another-secret", name="")
    assert (answer.status_code, b"another-secret" in answer.content) == (200, False)


def test_an_empty_password_field_keeps_what_is_stored(office: Client, desk: Workspace) -> None:
    desk.vnc_password = "geheim12"
    desk.save()
    assert save(office, desk, name="Renamed").status_code == 302
    desk.refresh_from_db()
    assert (desk.name, desk.vnc_password) == ("Renamed", "geheim12")
    save(office, desk, new_password=" with blanks ")
    desk.refresh_from_db()
    assert desk.vnc_password == " with blanks "


def test_query_and_headers_are_stored_and_never_shown(office: Client, desk: Workspace) -> None:
    save(
        office,
        desk,
        upstream_url="ws://desk:6080/",
        new_query="?token=geheim",
        new_headers="X-Key: geheim\n",
    )
    desk.refresh_from_db()
    assert (desk.upstream_query, desk.headers) == ("token=geheim", (("X-Key", "geheim"),))
    page = text_of(office, WORKSPACES, "change", desk.pk)
    assert "geheim" not in page
    assert "ws://desk:6080/?•••• with headers" in page


def test_a_new_address_loses_the_secrets_of_the_old_one(office: Client, desk: Workspace) -> None:
    save(office, desk, upstream_url="ws://desk:6080/?token=geheim", new_headers="X-Key: geheim")
    save(office, desk, upstream_url="ws://desk:6080/", name="Renamed")
    desk.refresh_from_db()
    assert (desk.upstream_url, desk.upstream_query) == ("ws://desk:6080/", "token=geheim")
    save(office, desk, upstream_url="ws://elsewhere:6080/")
    desk.refresh_from_db()
    assert (desk.upstream_query, desk.headers) == ("", ())


@pytest.mark.parametrize("query", ["token=a b", "token=a#b", "token=ä"])
def test_a_bad_query_is_refused(query: str, office: Client, desk: Workspace) -> None:
    answer = save(office, desk, upstream_url="ws://desk/", new_query=query)
    assert answer.status_code == 200
    assert b"Only printable characters" in answer.content


@pytest.mark.parametrize("headers", ["no colon", "Host: other", "X-Key: a\nUpgrade: b"])
def test_bad_headers_are_refused_by_their_line(
    headers: str, office: Client, desk: Workspace
) -> None:
    answer = save(office, desk, upstream_url="ws://desk/", new_headers=headers)
    assert answer.status_code == 200
    assert f"Line {headers.count(chr(10)) + 1}" in answer.content.decode()


def test_an_address_that_is_not_allowed_is_refused_in_the_form(
    office: Client, desk: Workspace
) -> None:
    answer = save(office, desk, upstream_url="tcp://169.254.169.254:80")
    assert (answer.status_code, b"DISPLAY_UPSTREAM_ALLOW" in answer.content) == (200, True)


def test_a_bad_address_is_refused_in_the_form(office: Client, desk: Workspace) -> None:
    answer = save(office, desk, upstream_url="http://desk")
    assert (answer.status_code, b"must start with tcp://" in answer.content) == (200, True)


def test_disabling_a_workspace_ends_control_of_it(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    save(office, desk, enabled=None)
    assert_free(desk, reason="access_ended", epoch=1)


def test_a_grant_to_nobody_is_refused_in_the_form(office: Client, desk: Workspace) -> None:
    grants = {"grants-TOTAL_FORMS": "1", "grants-0-role": "operator"}
    answer = save(office, desk, **grants)
    assert b"either a user or a group" in answer.content
    assert not WorkspaceGrant.objects.exists()


def test_an_admin_can_delete_a_workspace_with_its_lease_and_streams(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    office.post(reverse(f"admin:{WORKSPACES}_delete", args=[desk.pk]), {"post": "yes"})
    assert not Workspace.objects.exists()
    assert ControlEvent.objects.filter(workspace_slug="desk").exists()


def test_an_admin_can_delete_an_account_that_has_had_streams(
    office: Client, desk: Workspace, operator: User
) -> None:
    open_stream(desk, operator)
    office.post(reverse("admin:auth_user_delete", args=[operator.pk]), {"post": "yes"})
    assert not User.objects.filter(pk=operator.pk).exists()


def test_the_admin_is_closed_to_all_but_staff(operator: User) -> None:
    client = Client()
    client.force_login(operator)
    for model in (LEASES, EVENTS, STREAMS, WORKSPACES):
        answer = client.get(reverse(f"admin:{model}_changelist"))
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/admin/login/")
