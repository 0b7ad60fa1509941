"""Workspaces in the admin: limits, registration tokens, export and import of files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from controlplane import leases
from controlplane.models import DisplayControlLease, Role, Workspace, WorkspaceGrant
from controlplane.workspaces import configuring, registration
from tests.integration.people import UPSTREAM, assert_held_by, open_stream, tab
from tests.integration.test_admin import WORKSPACES, office, row_of, save, text_of
from tests.integration.test_admin_actions import clerk, press

__all__ = ["office"]  # a fixture

IMPORT = "admin:controlplane_workspace_import"


# --- The form -------------------------------------------------------------------------------------
def test_limits_are_set_and_checked_in_the_form(office: Client, desk: Workspace) -> None:
    assert save(office, desk, idle_seconds="600", max_hold_seconds="3600").status_code == 302
    desk.refresh_from_db()
    assert (desk.idle_seconds, desk.max_hold_seconds) == (600, 3600)
    for values in ({"idle_seconds": "59"}, {"max_hold_seconds": "99999999999"}):
        answer = save(office, desk, **values)
        assert (answer.status_code, b"errorlist" in answer.content) == (200, True)
    assert save(office, desk).status_code == 302
    desk.refresh_from_db()
    assert (desk.idle_seconds, desk.max_hold_seconds) == (None, None)


def test_where_the_template_leads_is_shown_in_the_list(
    office: Client, desk: Workspace, settings: Any
) -> None:
    Workspace.objects.create(slug="bare", name="Bare")
    assert row_of(text_of(office, WORKSPACES), "Bare")[2] == "-"
    settings.DISPLAY = replace(settings.DISPLAY, upstream_template="tcp://{slug}.desktops:5900")
    page = text_of(office, WORKSPACES)
    assert row_of(page, "Bare")[2] == "tcp://bare.desktops:5900 (by the template)"
    assert row_of(page, "Desk 12")[2] == UPSTREAM


def test_several_workspaces_are_deleted_with_all_that_is_theirs(
    office: Client, desk: Workspace, operator: User
) -> None:
    other = Workspace.objects.create(slug="other", name="Other")
    open_stream(desk, operator)
    leases.acquire(desk, tab(operator), ttl=300)
    press(office, WORKSPACES, "delete_selected", desk, other, post="yes")
    assert not Workspace.objects.exists()
    assert not DisplayControlLease.objects.exists()


# --- Registration tokens --------------------------------------------------------------------------
def test_registration_tokens_are_asked_for_made_and_shown_once(
    office: Client, desk: Workspace
) -> None:
    other = Workspace.objects.create(slug="other", name="Other")
    page = press(office, WORKSPACES, "make_registration_tokens", desk, other).content.decode()
    assert "voids the former one" in page
    assert not Workspace.objects.exclude(registration_digest=None).exists()
    answer = press(office, WORKSPACES, "make_registration_tokens", desk, other, apply="yes")
    assert "no-store" in answer.headers["Cache-Control"]
    text = answer.content.decode()
    tokens = [each.partition("<")[0] for each in text.split("<code>")[1:] if "dreg_" in each]
    assert registration.find("desk", tokens[0]) == desk
    assert registration.find("other", tokens[1]) == other
    assert LogEntry.objects.count() == 2
    for page in (text_of(office, WORKSPACES), text_of(office, WORKSPACES, "change", desk.pk)):
        assert tokens[0] not in page
        assert Workspace.objects.get(slug="desk").registration_digest not in page  # type: ignore[operator]  # it has one


def test_staff_who_only_look_make_no_registration_token(desk: Workspace) -> None:
    client = clerk("view_workspace")
    assert "make_registration_tokens" not in text_of(client, WORKSPACES)
    press(client, WORKSPACES, "make_registration_tokens", desk, apply="yes")
    desk.refresh_from_db()
    assert desk.registration_digest is None


# --- Export and import ----------------------------------------------------------------------------
def exported(client: Client, *chosen: Workspace) -> str:
    answer = press(client, WORKSPACES, "export", *chosen)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="workspaces.yaml"'
    return str(answer.content.decode())


def look(client: Client, text: str | bytes, **more: str) -> str:
    """Send a file, and return the page that says what it would change."""
    content = text if isinstance(text, bytes) else text.encode()
    data = {"file": SimpleUploadedFile("desks.yaml", content), **more}
    answer = client.post(reverse(IMPORT), data)
    assert answer.status_code == 200
    return answer.content.decode()


def apply(client: Client, text: str, **more: str) -> str:
    """Press the button of that page."""
    data = {"text": text, "prune": "False", "apply": "Apply", **more}
    return client.post(reverse(IMPORT), data, follow=True).content.decode()


def test_what_is_exported_can_be_imported_again(
    office: Client, desk: Workspace, operator: User
) -> None:
    WorkspaceGrant.objects.create(
        workspace=desk, group=Group.objects.create(name="crew"), role=Role.OBSERVER
    )
    configuring.patch("desk", {"vnc_password": "geheim12", "idle_seconds": 600})
    text = exported(office, desk)
    assert "geheim" not in text
    assert "operator: operator" in text
    assert "Nothing would change." in look(office, text)
    leases.acquire(desk, tab(operator), ttl=300)
    desk.delete()
    page = look(office, text)
    assert "desk: added" in page
    assert not Workspace.objects.exists()
    assert "3 change(s) made." in apply(office, text)
    desk = Workspace.objects.get()
    assert (desk.name, desk.upstream_url, desk.idle_seconds) == ("Desk 12", UPSTREAM, 600)
    assert desk.grants.count() == 2


def test_an_import_is_looked_at_before_anything_changes(
    office: Client, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    text = "workspaces:\r\n  new: {name: '<b>New</b>'}\r\n"
    page = look(office, text, prune="on")
    assert "new: added" in page
    assert "desk: removed" in page
    assert 'name="apply"' in page
    assert_held_by(desk, tab(operator), epoch=1)
    assert "desk: removed" not in look(office, text)
    apply(office, text, prune="True")
    assert Workspace.objects.get().slug == "new"
    assert "<b>New" not in text_of(office, WORKSPACES)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"workspaces:\n  desk: {port: 5}", "desks.yaml:2: workspaces.desk.port: unknown"),
        (b"workspaces:\n  x: {vnc_password_file: /etc/hostname}", "no secrets here"),
        (b"\xff\xfe", "It is not text."),
        (b"#" * ((1 << 20) + 1), "It is larger than a MiB."),
        (b"", "empty"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_its_problem(
    content: bytes, problem: str, office: Client, desk: Workspace
) -> None:
    page = look(office, content)
    assert problem in page
    assert 'name="apply"' not in page


def test_what_has_become_impossible_since_the_look_is_said(office: Client, stranger: User) -> None:
    text = "workspaces: {desk: {grants: {users: {stranger: observer}}}}"
    assert "desk: added" in look(office, text)
    stranger.delete()
    assert "there is no such user" in apply(office, text)
    assert not Workspace.objects.exists()


def test_only_superusers_import_and_export(desk: Workspace) -> None:
    client = clerk("view_workspace", "add_workspace", "change_workspace", "delete_workspace")
    page = text_of(client, WORKSPACES)
    assert reverse(IMPORT) not in page
    assert 'value="export"' not in page
    assert client.get(reverse(IMPORT)).status_code == 403
    data = {"text": "workspaces: {}", "prune": "True", "apply": "Apply"}
    assert client.post(reverse(IMPORT), data).status_code == 403
    assert Workspace.objects.exists()
    assert Client().get(reverse(IMPORT)).status_code == 302


def test_the_list_leads_to_the_import(office: Client) -> None:
    assert reverse(IMPORT) in text_of(office, WORKSPACES)
    assert 'type="file"' in office.get(reverse(IMPORT)).content.decode()
