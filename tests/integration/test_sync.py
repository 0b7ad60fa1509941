"""Workspaces and grants from a file: what is done, what is said, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError

from controlplane import events, leases
from controlplane.exceptions import WorkspaceFileError
from controlplane.models import DisplayControlLease, Role, Workspace, WorkspaceGrant
from controlplane.workspaces import configuring, files
from tests.integration.people import UPSTREAM, assert_free, assert_held_by, lease_of, person, tab
from tests.integration.test_commands import fails, run

TWO = """
    workspaces:
      desk:
        name: Desk 12
        upstream_url: tcp://127.0.0.1:5999
        grants:
          users: {stranger: operator}
          groups: {crew: observer}
      second:
        upstream_url: ws://gate:6080/
        upstream_query_file: secrets/query
        vnc_password_file: secrets/password
        upstream_headers_file: secrets/headers
        enabled: false
        idle_seconds: 600
        max_hold_seconds: 3600
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the file is, with secrets beside it."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "password").write_text("geheim12\nsecond line\n")
    (secrets / "query").write_text("?token=geheim\n")
    (secrets / "headers").write_text("X-One: geheim\nX-Two: auch\n")
    return tmp_path


@pytest.fixture
def crew(db: None) -> Group:
    """A group."""
    return Group.objects.create(name="crew")


def written(directory: Path, text: str) -> Path:
    path = directory / "desks.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def sync(directory: Path, text: str, *options: str) -> list[str]:
    return run("sync_workspaces", written(directory, text), *options).splitlines()


def refused(directory: Path, text: str, *options: str) -> str:
    """Return why the file is refused, without the directory's name; nothing may have changed."""
    before = state()
    message, output = fails("sync_workspaces", written(directory, text), *options)
    assert (output, state()) == ("", before)
    return message.removeprefix(f"{directory}/")


def state() -> list[Any]:
    tables = (Workspace, WorkspaceGrant, DisplayControlLease)
    return [list(table.objects.order_by("pk").values()) for table in tables]  # type: ignore[attr-defined]  # each is a model


# --- What is done ---------------------------------------------------------------------------------
def test_a_file_adds_workspaces_secrets_and_grants_and_then_changes_nothing(
    directory: Path, stranger: User, crew: Group
) -> None:
    assert sync(directory, TWO) == [
        "desk: added",
        "desk: stranger is operator now",
        "desk: group crew is observer now",
        "second: added",
    ]
    desk, second = Workspace.objects.order_by("slug")
    assert (desk.name, desk.upstream_url, desk.enabled) == ("Desk 12", UPSTREAM, True)
    assert (second.name, second.upstream_url) == ("second", "ws://gate:6080/")
    assert (second.vnc_password, second.upstream_query) == ("geheim12", "token=geheim")
    assert second.headers == (("X-One", "geheim"), ("X-Two", "auch"))
    assert (second.enabled, second.idle_seconds, second.max_hold_seconds) == (False, 600, 3600)
    assert (lease_of(desk).epoch, lease_of(second).epoch) == (0, 0)
    before = state()
    assert sync(directory, TWO) == ["nothing changed"]
    assert state() == before


def test_what_changes_is_said_by_its_name_and_secrets_without_their_value(
    directory: Path, stranger: User, crew: Group
) -> None:
    sync(directory, TWO)
    (directory / "secrets/password").write_text("another\n")
    text = TWO.replace("enabled: false", "enabled: true").replace("Desk 12", "Renamed")
    lines = sync(directory, text)
    assert lines == ["desk: changed name", "second: changed enabled, vnc_password"]
    assert Workspace.objects.get(slug="second").vnc_password == "another"


def test_what_is_left_out_has_its_default_but_secrets_and_grants_stay(
    directory: Path, stranger: User, crew: Group
) -> None:
    sync(directory, TWO)
    text = """
        workspaces:
          desk:
          second: {upstream_url: "ws://gate:6080/"}
    """
    assert sync(directory, text) == [
        "desk: changed name, upstream_url",
        "second: changed enabled, idle_seconds, max_hold_seconds",
    ]
    assert Workspace.objects.get(slug="second").vnc_password == "geheim12"
    assert WorkspaceGrant.objects.count() == 2


def test_a_secret_is_removed_by_saying_so(directory: Path, desk: Workspace) -> None:
    configuring.patch("desk", {"vnc_password": "geheim12"})
    text = f"""
        workspaces:
          desk: {{name: Desk 12, upstream_url: "{UPSTREAM}", vnc_password_file: null}}
    """
    assert sync(directory, text) == ["desk: changed vnc_password"]
    assert Workspace.objects.get().vnc_password == ""


def test_grants_that_are_given_are_all_there_are(
    directory: Path, desk: Workspace, operator: User, observer: User, crew: Group
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    text = f"""
        workspaces:
          desk:
            name: Desk 12
            upstream_url: {UPSTREAM}
            grants:
              users: {{observer: manager}}
              groups: {{crew: observer}}
    """
    assert sync(directory, text) == [
        "desk: observer is manager now, was observer",
        "desk: operator has no role any more, was operator",
        "desk: group crew is observer now",
    ]
    assert_free(desk, reason="access_ended", epoch=1)
    text = text.replace("groups: {crew: observer}", "groups:")
    assert sync(directory, text) == ["desk: group crew has no role any more, was observer"]
    assert WorkspaceGrant.objects.get().role == Role.MANAGER


def test_workspaces_that_are_not_in_the_file_are_removed_by_pruning_only(
    directory: Path, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    text = "workspaces: {second: {}}"
    assert sync(directory, text) == ["second: added"]
    assert_held_by(desk, tab(operator), epoch=1)
    assert sync(directory, text, "--prune") == ["desk: removed"]
    assert Workspace.objects.get().slug == "second"


def test_a_dry_run_says_the_same_and_changes_nothing(
    directory: Path, desk: Workspace, stranger: User, crew: Group
) -> None:
    Workspace.objects.create(slug="third", name="Third")
    before = state()
    lines = sync(directory, TWO, "--prune", "--dry-run")
    assert state() == before
    assert lines[-1] == "dry run: 4 change(s), none made"
    assert lines[:-1] == sync(directory, TWO, "--prune")
    assert sync(directory, TWO, "--dry-run") == ["dry run: 0 change(s), none made"]


# --- What is refused, and where -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "desks.yaml:1: it is empty"),
        ("# nothing", "desks.yaml:1: it is empty"),
        ("[]", "desks.yaml:1: must be names, each with a colon"),
        ("{}", "desks.yaml:1: it must begin with “workspaces:”"),
        ("workspaces:", "desks.yaml:1: workspaces: must be names, each with a colon"),
        ("workspaces: {}\ndesks: {}", "desks.yaml:2: desks: unknown; there are workspaces"),
        ("workspaces: {", "desks.yaml:1: this is not YAML: "),
        ("workspaces:\n  a: b: c", "desks.yaml:2: this is not YAML: mapping values"),
        ("workspaces: !!python/object:os.system {}", "desks.yaml:1: this is not YAML: could not"),
        ("workspaces:\n  desk: {}\n  desk: {}", "desks.yaml:3: “desk” stands here a second time"),
        ("workspaces:\n  a: &x {}\n  b:\n    <<: *x", "desks.yaml:4: “<<” is not understood here"),
        ("workspaces:\n  ? [a]\n  : {}", "desks.yaml:2: this is not YAML: found unhashable key"),
        ("workspaces:\n  12: {}", "desks.yaml:2: workspaces.12: a name must be text"),
        ("workspaces:\n  desk: 5", "desks.yaml:2: workspaces.desk: must be names"),
        ("workspaces:\n  a b: {}", "desks.yaml:2: workspaces.a b: Enter a valid “slug”"),
        ("--- {}\n--- {}", "desks.yaml:2: this is not YAML: but found another document"),
        ('workspaces: {desk: {name: "\x01"}}', "desks.yaml:1: this is not YAML: "),
        ("[" * 5000, "desks.yaml:1: it is nested far too deeply"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_with_its_line(
    text: str, expected: str, directory: Path, db: None
) -> None:
    assert refused(directory, text).startswith(expected)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("port: 5", "port: unknown; there are accepts_clipboard, agents_see_people, enabled, "),
        ("name: 12", "name: must be text; put it in quotes"),
        ("name: ''", "name: This field cannot be blank."),
        ('name: "\\0"', "name: It holds characters that no text can have."),
        ('name: "\\ud800"', "name: It holds characters that no text can have."),
        ("upstream_url: http://a", "upstream_url: “http://a” must start with tcp://"),
        ("upstream_url: tcp://169.254.169.254", "upstream_url: 169.254.169.254 is not where"),
        ("enabled: 'yes'", "enabled: must be true or false"),
        ("agents_see_people: 1", "agents_see_people: must be true or false"),
        ("idle_seconds: true", "idle_seconds: must be a whole number of seconds, or null"),
        ("idle_seconds: 60.5", "idle_seconds: must be a whole number of seconds, or null"),
        ("idle_seconds: 59", "idle_seconds: Ensure this value is greater than or equal to 60."),
        ("max_hold_seconds: 99999999999", "max_hold_seconds: "),
        ("vnc_password: geheim", "vnc_password: a secret must not stand here; put it into a file"),
        ("vnc_password_file: 5", "vnc_password_file: must be the name of a file, or null"),
        ("vnc_password_file: none", "vnc_password_file: none: No such file or directory"),
        ("vnc_password_file: secrets", "vnc_password_file: secrets: Is a directory"),
        ("upstream_query_file: blanks", "upstream_query_file: Only printable characters"),
        ("upstream_headers_file: blanks", "upstream_headers_file: Line 1 is not “Name: value”."),
        ("grants: []", "grants: must be names, each with a colon"),
        ("grants: {people: {}}", "grants.people: unknown; there are groups, users"),
        ("grants: {users: [stranger]}", "grants.users: must be names, each with a colon"),
        ("grants: {users: {stranger: owner}}", "grants.users.stranger: must be one of observer, "),
        ("grants: {users: {stranger: [a]}}", "grants.users.stranger: must be one of observer, "),
        ("grants: {users: {nobody: observer}}", "grants.users.nobody: there is no such user; "),
        ("grants: {groups: {crews: observer}}", "grants.groups.crews: there is no such group; "),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_line_and_place(
    setting: str, expected: str, directory: Path, stranger: User
) -> None:
    (directory / "blanks").write_text("geheim mit blanks\n")
    text = f"workspaces:\n  first: {{}}\n  desk:\n    {setting}\n"
    message = refused(directory, text)
    assert message.startswith(f"desks.yaml:4: workspaces.desk.{expected}")
    assert "geheim" not in message


def test_a_file_that_is_not_there_or_no_text_is_named(directory: Path, db: None) -> None:
    assert "No such file" in fails("sync_workspaces", directory / "missing.yaml")[0]
    (directory / "binary").write_bytes(b"\xff\xfe\x00")
    assert "it is not text" in fails("sync_workspaces", directory / "binary")[0]


def test_when_others_add_the_same_at_once_nothing_is_done_and_it_says_so(
    directory: Path, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IntegrityError("duplicate")

    monkeypatch.setattr(configuring, "save", fail)
    assert "at the same time; try again" in refused(directory, "workspaces: {desk: {}}")


# --- Writing --------------------------------------------------------------------------------------
def test_a_file_that_was_written_wants_what_there_is_and_holds_no_secret(
    directory: Path, stranger: User, crew: Group
) -> None:
    sync(directory, TWO)
    Workspace.objects.create(slug="123", name="null", upstream_url="wss://a/?token=geheim")
    text = files.write(Workspace.objects.order_by("slug"))
    assert "geheim" not in text
    assert sync(directory, text, "--prune") == ["nothing changed"]
    file = files.read("export", text, None)
    assert [wanted.slug for wanted in file.wanted] == ["123", "desk", "second"]


def test_without_a_directory_no_file_is_read(directory: Path, db: None) -> None:
    text = "workspaces:\n  desk:\n    vnc_password_file: /etc/hostname\n"
    with pytest.raises(
        WorkspaceFileError, match=r"upload:3: workspaces.desk.vnc_password_file: no"
    ):
        files.read("upload", text, None)


# --- Notices --------------------------------------------------------------------------------------
@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What goes out to the processes."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(events._broker, "send", messages.append)
    return messages


def test_however_much_changes_the_same_notice_goes_out_once(
    directory: Path,
    crew: Group,
    sent: list[dict[str, Any]],
    django_capture_on_commit_callbacks: Callable[..., AbstractContextManager[Any]],
) -> None:
    for number in range(5):
        person(f"user-{number}")
    users = ", ".join(f"user-{number}: observer" for number in range(5))
    text = f"workspaces: {{desk: {{grants: {{users: {{{users}}}}}}}}}"
    with django_capture_on_commit_callbacks(execute=True):
        sync(directory, text)
    assert sent == [{"type": "access"}]
    sent.clear()
    with django_capture_on_commit_callbacks(execute=True):
        sync(directory, "workspaces: {desk: {grants: {}}}", "--dry-run")
    assert sent == []
