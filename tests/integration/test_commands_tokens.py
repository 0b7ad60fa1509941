"""The commands for API tokens: what they do, print and refuse."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from controlplane import apitokens
from controlplane.models import ApiToken, Workspace
from tests.integration.people import UPSTREAM, assert_free, now
from tests.integration.programs import Program, token


def run(*args: Any) -> tuple[str, str]:
    """Return what a command prints, and what it says beside that."""
    output, beside = StringIO(), StringIO()
    call_command(*(str(arg) for arg in args), stdout=output, stderr=beside)
    return output.getvalue(), beside.getvalue()


def fails(*args: Any) -> str:
    """Return the sentence with which a command ends; it must have printed nothing."""
    output = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(*(str(arg) for arg in args), stdout=output)
    assert output.getvalue() == ""
    return str(caught.value)


# --- add_token ------------------------------------------------------------------------------------
def test_the_token_alone_is_printed_and_works(desk: Workspace) -> None:
    output, beside = run("add_token", "Builder", "--scope", "control", "--workspace", "desk")
    text = output.removesuffix("\n")
    assert text.startswith("dctl_")
    assert "\n" not in text
    assert beside == "Builder: added (control). It is not shown again.\n"
    assert Program(text).acquire().status_code == 200
    row = ApiToken.objects.get()
    assert (row.all_workspaces, row.expires_at) == (False, None)
    assert row.created_by == "the administrator"


def test_several_scopes_for_all_workspaces_for_some_days(desk: Workspace) -> None:
    scopes = ("--scope", "manage", "observe")
    run("add_token", "Builder", *scopes, "--all-workspaces", "--days", "30")
    row = ApiToken.objects.get()
    assert (row.scopes, row.all_workspaces) == ("observe manage", True)
    assert row.expires_at is not None
    assert timedelta(days=29) < row.expires_at - now() <= timedelta(days=30)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--scope", "control"], "--workspace"),
        (["--workspace", "desk"], "--scope"),
        (["--scope", "owner", "--workspace", "desk"], "owner"),
        (["--scope", "control", "--workspace", "nowhere"], "There are: desk."),
        (["--scope", "control", "--workspace", "desk", "--all-workspaces"], "not allowed with"),
        (["--scope", "control", "--workspace", "desk", "--days", "0"], "--days: from 1 to"),
        (["--scope", "control", "--workspace", "desk", "--days", "99999"], "--days: from 1 to"),
    ],
)
def test_a_token_that_cannot_be_is_not_made(more: list[str], problem: str, desk: Workspace) -> None:
    assert problem in fails("add_token", "Builder", *more)
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize(
    ("name", "problem"), [("", "blank"), ("  ", "blank"), ("x" * 101, "at most 100")]
)
def test_a_name_must_be_one(name: str, problem: str, desk: Workspace) -> None:
    message = fails("add_token", name, "--scope", "control", "--all-workspaces")
    assert message.startswith("name: ")
    assert problem in message


def test_a_name_is_given_once_also_after_its_token_was_revoked(desk: Workspace) -> None:
    row, _ = token("control")
    apitokens.revoke(row)
    message = fails("add_token", " Builder", "--scope", "control", "--all-workspaces")
    assert message == "There is an API token Builder already, or there was: choose another name."


# --- revoke_token ---------------------------------------------------------------------------------
def test_revoking_ends_the_token_and_its_control(desk: Workspace) -> None:
    _, text = token("control")
    assert Program(text).acquire().status_code == 200
    assert run("revoke_token", "Builder")[0] == "Builder: revoked\n"
    assert Program(text).acquire().status_code == 401
    assert_free(desk, reason="access_ended", epoch=1)
    assert "was revoked already" in fails("revoke_token", "Builder")


def test_a_name_that_is_none_is_answered_with_the_known_ones(desk: Workspace) -> None:
    assert fails("revoke_token", "x") == "No such API token: x. There are: none yet."
    token("control")
    assert fails("revoke_token", "x") == "No such API token: x. There are: Builder."


# --- tokens ---------------------------------------------------------------------------------------
def test_tokens_are_listed_in_words_and_as_json(desk: Workspace) -> None:
    Workspace.objects.create(slug="another", name="Another", upstream_url=UPSTREAM)
    row, text = token("control", name="Old", workspaces=Workspace.objects.all())
    Program(text).acquire()
    apitokens.revoke(row)
    token("observe", name="Young", expires_at=now() + timedelta(days=1))
    token("observe", name="Zero", workspaces=[])
    old, young, zero = run("tokens")[0].splitlines()
    assert old.startswith("Old: revoked, control, another, desk, without an end, last used 20")
    assert young.startswith("Young: good, observe, all workspaces, until 20")
    assert young.endswith(", never used")
    assert zero == "Zero: good, observe, no workspace, without an end, never used"
    printed = run("tokens", "--json")[0]
    first, second, _ = json.loads(printed)
    assert (first["name"], first["state"], first["scopes"]) == ("Old", "revoked", ["control"])
    assert (first["workspaces"], second["workspaces"]) == (["another", "desk"], None)
    assert (first["revoked_at"][-1], second["last_used_at"]) == ("Z", None)
    assert text not in printed
    assert row.digest not in printed


def test_no_tokens_are_said_in_words_and_as_an_empty_list(db: None) -> None:
    assert run("tokens")[0] == "There are no API tokens.\n"
    assert json.loads(run("tokens", "--json")[0]) == []
