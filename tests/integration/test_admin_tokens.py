"""The admin's page of API tokens: made, shown once, revoked, and nothing else."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from controlplane import apitokens, links
from controlplane.models import ApiToken, ControlEvent, Role, Workspace
from tests.integration.people import assert_free, now, person
from tests.integration.programs import Program, token

TOKENS = "controlplane_apitoken"
TEXT = re.compile(r"dctl_[A-Za-z0-9_-]{43}")


@pytest.fixture
def office(admin: User) -> Client:
    """The admin's browser."""
    client = Client()
    client.force_login(admin)
    return client


def page_of(client: Client, page: str = "changelist", *args: Any, model: str = TOKENS) -> str:
    answer = client.get(reverse(f"admin:{model}_{page}", args=args))
    assert answer.status_code == 200
    return answer.content.decode()


def add(client: Client, **fields: Any) -> Any:
    """Send the form of a token for all workspaces; None leaves a field out."""
    values = {"name": "Builder", "scopes": ["observe", "control"], "all_workspaces": "on"}
    values |= {"expires_at_0": "", "expires_at_1": ""}
    sent = {name: value for name, value in (values | fields).items() if value is not None}
    return client.post(reverse(f"admin:{TOKENS}_add"), sent)


def act(client: Client, *chosen: ApiToken) -> str:
    data = {"action": "revoke", "_selected_action": [str(each.pk) for each in chosen]}
    answer = client.post(reverse(f"admin:{TOKENS}_changelist"), data, follow=True)
    return str(answer.content.decode())


# --- Making ---------------------------------------------------------------------------------------
def test_a_new_token_is_shown_in_the_answer_and_works(office: Client, desk: Workspace) -> None:
    answer = add(office)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    (text,) = set(TEXT.findall(answer.content.decode()))
    assert Program(text).acquire().status_code == 200
    row = ApiToken.objects.get()
    assert (row.scopes, row.all_workspaces, row.expires_at) == ("observe control", True, None)
    assert (row.created_by, row.account.first_name) == ("Ada Admin", "Builder")


def test_a_token_is_shown_once_and_kept_nowhere(office: Client, desk: Workspace) -> None:
    answer = add(office)
    (text,) = set(TEXT.findall(answer.content.decode()))
    row = ApiToken.objects.get()
    pages = [page_of(office), page_of(office, "change", row.pk), page_of(office, "history", row.pk)]
    again = add(office)
    assert "already exists" in again.content.decode()
    assert not [page for page in [*pages, again.content.decode()] if TEXT.search(page)]
    assert not [cookie for cookie in office.cookies.values() if text in cookie.value]
    assert text not in str([session.get_decoded() for session in Session.objects.all()])
    assert text not in str(list(LogEntry.objects.values()))


def test_a_token_for_some_workspaces_with_an_end(office: Client, desk: Workspace) -> None:
    end = now() + timedelta(days=7)
    answer = add(
        office,
        all_workspaces=None,
        workspaces=[str(desk.pk)],
        expires_at_0=f"{end:%Y-%m-%d}",
        expires_at_1=f"{end:%H:%M:%S}",
    )
    assert TEXT.search(answer.content.decode())
    row = ApiToken.objects.get()
    assert (row.all_workspaces, list(row.workspaces.all())) == (False, [desk])
    assert row.expires_at == end.replace(microsecond=0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "required"),
        ({"name": "x" * 101}, "at most 100"),
        ({"scopes": None}, "required"),
        ({"scopes": ["everything"]}, "not one of the available choices"),
        ({"all_workspaces": None}, "one of the two"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "lies in the past"),
        ({"expires_at_0": "soon", "expires_at_1": "00:00"}, "valid date"),
    ],
)
def test_a_form_that_is_wrong_says_so_and_makes_nothing(
    fields: dict[str, Any], problem: str, office: Client, desk: Workspace
) -> None:
    page = add(office, **fields).content.decode()
    assert problem in page
    assert not TEXT.search(page)
    assert not ApiToken.objects.exists()
    assert User.objects.count() == 1


def test_all_workspaces_and_a_choice_of_them_contradict(office: Client, desk: Workspace) -> None:
    assert b"one of the two" in add(office, workspaces=[str(desk.pk)]).content
    assert not ApiToken.objects.exists()


# --- Looking --------------------------------------------------------------------------------------
def test_the_list_tells_what_each_may_do_where_until_when_and_whether_it_is_good(
    office: Client, desk: Workspace
) -> None:
    rows = {
        name: token("observe", name=name, workspaces=[desk])[0]
        for name in ("Aging", "Banned", "Canned", "Dear")
    }
    ApiToken.objects.filter(name="Aging").update(expires_at=Now())
    apitokens.revoke(rows["Banned"])
    User.objects.filter(api_token__name="Canned").update(is_active=False)
    token("control", "manage", name="Everywhere")
    token("observe", name="Forlorn", workspaces=[])
    page = page_of(office)
    cells = [
        tuple(re.findall(rf'class="field-{field}[^>]*>([^<]*)<', page))
        for field in ("scopes", "reach", "state")
    ]
    assert list(zip(*cells, strict=True)) == [
        ("observe", "desk", "expired"),
        ("observe", "desk", "revoked"),
        ("observe", "desk", "disabled"),
        ("observe", "desk", "good"),
        ("control manage", "all", "good"),
        ("observe", "none", "good"),
    ]


def test_a_token_that_has_been_made_is_not_changed_or_deleted(
    office: Client, desk: Workspace
) -> None:
    row, _ = token("observe")
    before = ApiToken.objects.values().get()
    page = page_of(office, "change", row.pk)
    assert "_save" not in page
    assert row.digest not in page
    url = reverse(f"admin:{TOKENS}_change", args=[row.pk])
    assert office.post(url, {"name": "Builder", "scopes": ["manage"]}).status_code == 403
    assert office.get(reverse(f"admin:{TOKENS}_delete", args=[row.pk])).status_code == 403
    assert "delete_selected" not in page_of(office)
    assert ApiToken.objects.values().get() == before


# --- Revoking -------------------------------------------------------------------------------------
def test_revoking_ends_the_token_and_its_control(office: Client, desk: Workspace) -> None:
    row, text = token("control")
    _, other_text = token("control", name="Other")
    assert Program(text).acquire().status_code == 200
    assert "1 revoked; 0 were already." in act(office, row)
    assert_free(desk, reason="access_ended", epoch=1)
    assert Program(text).acquire().status_code == 401
    assert "0 revoked; 1 were already." in act(office, row)
    assert Program(other_text).acquire().status_code == 200


def test_staff_who_may_only_look_revoke_and_make_nothing(desk: Workspace) -> None:
    clerk = person("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_apitoken"))
    client = Client()
    client.force_login(clerk)
    row, _ = token("control")
    assert 'value="revoke"' not in page_of(client)
    act(client, row)
    row.refresh_from_db()
    assert row.revoked_at is None
    assert add(client, name="Mine").status_code == 403


# --- Accounts -------------------------------------------------------------------------------------
def test_the_account_of_a_token_is_not_among_the_users(
    office: Client, desk: Workspace, operator: User
) -> None:
    account = token("control")[0].account
    page = page_of(office, model="auth_user")
    assert operator.username in page
    assert account.username not in page
    for name in ("auth_user_change", "auth_user_delete", "auth_user_history"):
        assert office.get(reverse(f"admin:{name}", args=[account.pk])).status_code in {302, 404}
    chosen = {"app_label": "controlplane", "model_name": "workspacegrant", "field_name": "user"}
    found = office.get(reverse("admin:autocomplete"), chosen).json()["results"]
    assert {each["text"] for each in found} == {"admin", "operator"}


def test_no_password_is_set_for_the_account_of_a_token(office: Client, desk: Workspace) -> None:
    account = token("control")[0].account
    url = reverse("admin:auth_user_password_change", args=[account.pk])
    passwords = {"password1": "a-good-password-1", "password2": "a-good-password-1"}
    assert office.post(url, passwords | {"usable_password": "true"}).status_code == 404
    account.refresh_from_db()
    assert not account.has_usable_password()


def test_leases_and_events_show_the_tokens_name(office: Client, desk: Workspace) -> None:
    _, text = token("control")
    assert Program(text).acquire().status_code == 200
    for model in ("controlplane_displaycontrollease", "controlplane_controlevent"):
        assert "Builder" in page_of(office, model=model)


def test_control_links_are_listed_beside_tokens_and_revoked_there(
    office: Client, admin: User, desk: Workspace
) -> None:
    made = links.make(desk, "Gesine Guest", Role.OPERATOR, 600, by="Mary Manager")
    for told in (made.link.name, "control link", "observe control", "unopened"):
        assert told in page_of(office)
    opened = links.exchange(made.ticket, "a-tab-of-hers")
    page = page_of(office, "change", made.link.pk)
    assert re.search(r"\bopened\b", page)
    assert made.link.digest not in page
    assert opened.bearer not in page
    assert "1 revoked" in act(office, made.link)
    assert apitokens.find(opened.bearer) is None
    event = ControlEvent.objects.get(what="link_revoked")
    assert (event.who, event.note) == ("Ada Admin", made.link.name)
