"""The management commands of the contract (design §9): what they do, print and refuse."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.migrations.executor import MigrationExecutor

from controlplane import leases, readiness
from controlplane.exceptions import CredentialsRefused, UpstreamError, UpstreamTimeout
from controlplane.management.commands import check_displays, serve
from controlplane.management.commands._websocket import WebSocket
from controlplane.models import Role, Workspace, WorkspaceGrant
from tests.integration.people import (
    UPSTREAM,
    assert_free,
    tab,
)


def run(*args: Any, **options: Any) -> str:
    """Return what a command prints."""
    output = StringIO()
    call_command(*(str(arg) for arg in args), stdout=output, **options)
    return output.getvalue()


def fails(*args: Any) -> tuple[str, str]:
    """Return the sentence with which a command ends, and what it had printed before."""
    output = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(*(str(arg) for arg in args), stdout=output)
    return str(caught.value), output.getvalue()


# --- add_workspace --------------------------------------------------------------------------------
def test_a_workspace_is_added(db: None, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim12\nsecond line\n")
    output = run(
        *("add_workspace", "desk", "--upstream", UPSTREAM),
        *("--name", "Desk 12", "--password-file", file),
    )
    workspace = Workspace.objects.get()
    assert (workspace.slug, workspace.name, workspace.upstream_url) == ("desk", "Desk 12", UPSTREAM)
    assert workspace.vnc_password == "geheim12"
    assert output == f"desk: added, {UPSTREAM}\n"
    assert "geheim12" not in output


def test_a_password_comes_from_standard_input_where_only_root_may_read_its_file(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("geheim12\nsecond line\n"))
    run("add_workspace", "desk", "--upstream", UPSTREAM, "--password-file", "-")
    assert Workspace.objects.get().vnc_password == "geheim12"


def test_an_empty_standard_input_is_no_password(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())
    message, _ = fails("add_workspace", "desk", "--upstream", UPSTREAM, "--password-file", "-")
    assert message == "--password-file -: its first line is empty"
    assert not Workspace.objects.exists()


def test_a_workspace_without_a_name_is_called_by_its_slug(db: None) -> None:
    run("add_workspace", "desk", "--upstream", UPSTREAM)
    assert (Workspace.objects.get().name, Workspace.objects.get().vnc_password) == ("desk", "")


def test_adding_again_changes_what_is_given_and_keeps_the_rest(desk: Workspace) -> None:
    Workspace.objects.update(enabled=False)
    desk.refresh_from_db()
    desk.vnc_password = "kept"
    desk.save()
    assert run("add_workspace", "desk", "--upstream", "ws://a:1/") == "desk: changed, ws://a:1/\n"
    desk.refresh_from_db()
    assert (desk.name, desk.upstream_url, desk.enabled) == ("Desk 12", "ws://a:1/", False)
    assert desk.vnc_password == "kept"


def test_secrets_of_the_address_come_from_files_and_are_not_printed(
    db: None, tmp_path: Path
) -> None:
    query, headers = tmp_path / "query", tmp_path / "headers"
    query.write_text("?token=geheim\n")
    headers.write_text("X-One: geheim\nX-Two: auch\n")
    secrets = ("--query-file", query, "--headers-file", headers)
    output = run("add_workspace", "desk", "--upstream", "ws://a:1/", *secrets)
    assert output == "desk: added, ws://a:1/?•••• with headers\n"
    workspace = Workspace.objects.get()
    assert workspace.upstream_query == "token=geheim"
    assert workspace.headers == (("X-One", "geheim"), ("X-Two", "auch"))
    assert "with headers" in run("add_workspace", "desk", "--upstream", "ws://a:1/")
    assert run("add_workspace", "desk", "--upstream", "ws://b:1/") == "desk: changed, ws://b:1/\n"


def test_a_query_in_the_address_is_taken_for_a_secret(db: None) -> None:
    output = run("add_workspace", "desk", "--upstream", "ws://a:1/?token=geheim")
    assert output == "desk: added, ws://a:1/?••••\n"
    workspace = Workspace.objects.get()
    assert (workspace.upstream_url, workspace.upstream_query) == ("ws://a:1/", "token=geheim")


@pytest.mark.parametrize(
    ("slug", "upstream", "expected"),
    [
        ("not a slug", UPSTREAM, "slug: "),
        ("x" * 65, UPSTREAM, "slug: "),
        ("desk", "http://a", "upstream_url: "),
        ("desk", "tcp://a:x", "upstream_url: "),
        ("desk", "tcp://169.254.169.254", "upstream_url: "),
        ("desk", "tcp://a:1/" + "x" * 500, "upstream_url: "),
    ],
)
def test_a_workspace_that_cannot_be_is_not_added(
    slug: str, upstream: str, expected: str, db: None
) -> None:
    assert fails("add_workspace", slug, "--upstream", upstream)[0].startswith(expected)
    assert not Workspace.objects.exists()


def test_without_an_address_the_template_is_needed(db: None, settings: Any) -> None:
    assert "DISPLAY_UPSTREAM_TEMPLATE" in fails("add_workspace", "desk")[0]
    assert not Workspace.objects.exists()
    settings.DISPLAY = replace(settings.DISPLAY, upstream_template="tcp://{slug}.desktops:5900")
    output = run("add_workspace", "desk")
    assert output == "desk: added, tcp://desk.desktops:5900 (by the template)\n"
    assert Workspace.objects.get().upstream_url == ""


def test_a_change_without_an_address_keeps_it(desk: Workspace) -> None:
    assert run("add_workspace", "desk", "--name", "New") == f"desk: changed, {UPSTREAM}\n"
    assert Workspace.objects.get().name == "New"


def test_a_password_file_that_cannot_be_read_is_named(db: None, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    message, _ = fails("add_workspace", "d", "--upstream", UPSTREAM, "--password-file", missing)
    assert str(missing) in message
    assert "No such file" in message
    empty = tmp_path / "empty"
    empty.write_text("\nsecret in the second line\n")
    message, _ = fails("add_workspace", "d", "--upstream", UPSTREAM, "--password-file", empty)
    assert "first line is empty" in message
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    message, _ = fails("add_workspace", "d", "--upstream", UPSTREAM, "--password-file", binary)
    assert str(binary) in message
    assert not Workspace.objects.exists()


# --- grant and revoke -----------------------------------------------------------------------------
def test_a_grant_is_given_and_changed(desk: Workspace, stranger: User) -> None:
    assert run("grant", "desk", "stranger", "observer") == "desk: stranger is observer\n"
    assert run("grant", "desk", "stranger", "manager") == "desk: stranger is manager\n"
    assert WorkspaceGrant.objects.get().role == Role.MANAGER


def test_revoking_takes_the_role_and_the_control(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    assert run("revoke", "desk", "operator") == "desk: operator has no role any more\n"
    assert not WorkspaceGrant.objects.exists()
    assert_free(desk, reason="access_ended", epoch=1)


def test_revoking_says_when_access_remains(desk: Workspace, operator: User) -> None:
    crew = Group.objects.create(name="crew")
    WorkspaceGrant.objects.create(workspace=desk, group=crew, role=Role.OBSERVER)
    operator.groups.add(crew)
    assert "still has access through a group" in run("revoke", "desk", "operator")


def test_revoking_what_was_never_granted_is_an_error(desk: Workspace, stranger: User) -> None:
    assert fails("revoke", "desk", "stranger")[0] == "stranger has no role of their own in desk"


@pytest.mark.parametrize("command", [("grant", "x", "y", "observer"), ("revoke", "x", "y")])
def test_unknown_names_are_answered_with_the_known_ones(
    command: tuple[str, ...], desk: Workspace
) -> None:
    assert fails(*command)[0] == "No such workspace: x. There are: desk."
    message, _ = fails(command[0], "desk", *command[2:])
    assert "No such user: y" in message
    assert "createsuperuser" in message


def test_a_grant_to_a_group_is_given_changed_and_revoked(desk: Workspace, stranger: User) -> None:
    crew = Group.objects.create(name="crew")
    stranger.groups.add(crew)
    assert run("grant", "desk", "--group", "crew", "operator") == "desk: group crew is operator\n"
    assert run("grant", "--group", "crew", "desk", "manager") == "desk: group crew is manager\n"
    grant = WorkspaceGrant.objects.get()
    assert (grant.group, grant.user, grant.role) == (crew, None, Role.MANAGER)
    leases.acquire(desk, tab(stranger), ttl=300)
    assert run("revoke", "desk", "--group", "crew") == "desk: group crew has no role any more\n"
    assert_free(desk, reason="access_ended", epoch=1)
    assert "no role of their own" in fails("revoke", "desk", "--group", "crew")[0]


@pytest.mark.parametrize(
    "command",
    [
        ("grant", "desk", "observer"),
        ("grant", "--group", "crew", "desk", "stranger", "observer"),
        ("revoke", "desk"),
        ("revoke", "desk", "stranger", "--group", "crew"),
    ],
)
def test_a_role_is_that_of_a_user_or_of_a_group(
    command: tuple[str, ...], desk: Workspace, stranger: User
) -> None:
    Group.objects.create(name="crew")
    assert "one of the two" in fails(*command)[0]
    assert not WorkspaceGrant.objects.exists()


def test_an_unknown_group_is_answered_with_the_known_ones(desk: Workspace) -> None:
    Group.objects.create(name="crew")
    message, _ = fails("grant", "desk", "--group", "crews", "observer")
    assert message == "No such group: crews. There are: crew. Add groups in the admin."


def test_an_unknown_role_is_refused(desk: Workspace, stranger: User) -> None:
    assert "owner" in fails("grant", "desk", "stranger", "owner")[0]
    assert not WorkspaceGrant.objects.exists()


# --- check_displays -------------------------------------------------------------------------------
@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What dialling each workspace finds; its size and name, or an error."""
    results: dict[str, Any] = {}

    async def dial(workspace: Workspace) -> tuple[int, int, str]:
        result = results.get(workspace.slug, (1280, 800, "Xvfb"))
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]  # what the test has put there

    monkeypatch.setattr(check_displays, "_dial", dial)
    return results


def test_a_display_that_works_is_said_to(desk: Workspace, found: dict[str, Any]) -> None:
    assert run("check_displays") == "desk: ready, 1280×800, “Xvfb”\n"
    assert run("check_displays", "desk") == "desk: ready, 1280×800, “Xvfb”\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UpstreamError("resolve", "no such host"), "desk: failed at resolve: no such host"),
        (UpstreamError("connect", "refused"), "desk: failed at connect: refused"),
        (UpstreamTimeout("banner", "no answer"), "desk: failed at banner: no answer"),
        (
            CredentialsRefused("authentication", "authentication failed"),
            "desk: failed at authentication: authentication failed",
        ),
    ],
)
def test_a_display_that_fails_is_said_to_and_at_which_step(
    error: UpstreamError, line: str, desk: Workspace, found: dict[str, Any]
) -> None:
    Workspace.objects.create(slug="fine", name="Fine", upstream_url=UPSTREAM)
    found["desk"] = error
    message, output = fails("check_displays")
    assert output.splitlines() == [line, "fine: ready, 1280×800, “Xvfb”"]
    assert message == "Not working: desk"
    assert run("check_displays", "fine") == "fine: ready, 1280×800, “Xvfb”\n"


def test_disabled_displays_are_checked_only_when_they_are_named(
    desk: Workspace, found: dict[str, Any]
) -> None:
    Workspace.objects.create(slug="off", name="Off", upstream_url=UPSTREAM, enabled=False)
    assert run("check_displays") == "desk: ready, 1280×800, “Xvfb”\n"
    assert run("check_displays", "off") == "off: ready, 1280×800, “Xvfb”\n"


def test_without_a_workspace_there_is_nothing_to_check(db: None) -> None:
    assert "add_workspace" in fails("check_displays")[0]
    assert fails("check_displays", "x")[0] == "No such workspace: x. There are: none yet."


@pytest.mark.django_db(transaction=True)
def test_a_real_check_of_an_address_where_nobody_listens_is_remembered(desk: Workspace) -> None:
    Workspace.objects.update(upstream_url="tcp://127.0.0.1:1")
    _, output = fails("check_displays", "desk")
    assert output.startswith("desk: failed at connect: ")
    desk.refresh_from_db()
    assert (desk.display_status, desk.display_checked_at is None) == ("unreachable", False)


@pytest.mark.django_db(transaction=True)
def test_a_workspace_without_an_address_fails_at_its_first_step(desk: Workspace) -> None:
    Workspace.objects.update(upstream_url="")
    message = fails("check_displays", "desk")[1]
    assert message.startswith("desk: failed at resolve: it has no address. Run: manage.py")


@pytest.mark.django_db(transaction=True)
def test_the_template_says_where_to_look_for_a_display(desk: Workspace, settings: Any) -> None:
    settings.DISPLAY = replace(settings.DISPLAY, upstream_template="unix:///nowhere/{slug}.sock")
    Workspace.objects.update(upstream_url="")
    message = fails("check_displays", "desk")[1]
    assert message.startswith("desk: failed at connect: ")
    assert "/nowhere/desk.sock" in message


# --- serve ----------------------------------------------------------------------------------------
def refusal_of(server: str = "uvicorn", workers: int = 1) -> str:
    with pytest.raises(CommandError) as caught:
        serve.check_ready(server, workers)
    return str(caught.value)


@pytest.mark.django_db(transaction=True)  # it closes its connection before it starts anything
def test_all_being_well_the_server_may_start(capsys: pytest.CaptureFixture[str]) -> None:
    serve.check_ready("uvicorn", 1)
    serve.check_ready("daphne", 1)
    assert "Error" not in capsys.readouterr().out


def test_without_a_secret_key_it_refuses_and_shows_how_to_make_one(db: None, settings: Any) -> None:
    settings.SECRET_KEY = ""
    assert "SECRET_KEY is not set" in refusal_of()
    assert "token_urlsafe" in refusal_of()


def test_without_novnc_it_refuses_and_names_the_command(
    db: None, settings: Any, tmp_path: Path
) -> None:
    settings.NOVNC_DIR = tmp_path
    assert "controlplane.E001" in refusal_of()
    assert "npm ci" in refusal_of()


def test_with_several_workers_it_needs_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve._starting, "check_migrations", lambda: None)
    monkeypatch.setattr(serve, "connection", SimpleNamespace(vendor="sqlite"))
    assert "DATABASE_URL=postgres" in refusal_of(workers=2)
    assert "--server uvicorn" in refusal_of("daphne", workers=2)
    monkeypatch.setattr(serve, "connection", SimpleNamespace(vendor="postgresql"))
    serve.check_ready("uvicorn", 2)


@pytest.mark.django_db(transaction=True)
def test_with_pending_migrations_it_refuses_and_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_: [("a", False)] * 3)
    assert refusal_of() == "3 migration(s) are pending. Run: manage.py migrate"


@pytest.mark.django_db(transaction=True)
def test_when_the_database_is_away_it_says_which_setting_to_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(readiness, "MigrationExecutor", fail)
    assert "check DATABASE_URL: connection refused" in refusal_of()


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        ([], "uvicorn"),
        (["--server", "daphne"], "daphne"),
        (["--server", "uvicorn", "--host", "0.0.0.0", "--port", "1234"], "uvicorn"),
    ],
)
def test_the_server_that_is_asked_for_is_started(
    options: list[str], starts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(serve, "check_ready", lambda *_: None)
    monkeypatch.setattr(serve, "listen", lambda *place: place)
    monkeypatch.setattr(serve, "_run_uvicorn", lambda *args: started.append(("uvicorn", *args)))
    monkeypatch.setattr(serve, "_run_daphne", lambda *args: started.append(("daphne", *args)))
    run("serve", *options)
    place = ("0.0.0.0", 1234) if "--port" in options else ("127.0.0.1", 8000)
    assert started == [(starts, place, *([1] if starts == "uvicorn" else []))]


def test_uvicorn_runs_as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, Any] = {}

    class Server:
        def __init__(self, config: Any) -> None:
            used.update(vars(config))

        def run(self, sockets: list[socket.socket]) -> None:
            used["sockets"] = sockets

    monkeypatch.setattr(serve._uvicorn, "Server", Server)
    with serve.listen("127.0.0.1", 0) as listener:
        serve._run_uvicorn(listener, 1)
    assert used["sockets"] == [listener]
    assert (used["ws"], used["ws_per_message_deflate"]) == (WebSocket, False)
    assert (used["proxy_headers"], used["log_config"], used["lifespan"]) == (False, None, "off")
    assert used["ws_ping_interval"] == 20


def test_what_a_slow_link_leaves_unsent_is_bounded_on_every_connection() -> None:
    with (
        serve.listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        unsent = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert unsent == 512 * 1024


def test_a_port_that_is_in_use_is_named() -> None:
    with serve.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CommandError, match=f"127.0.0.1 port {port}: Address already in use"):
            serve.listen("127.0.0.1", port)


def test_a_dial_of_the_command_closes_what_it_opened(
    desk: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Connected:
        async def close(self) -> None:
            closed.append(True)

    class Init:
        width, height, name = 800, 600, "here"

    async def dial(*_: object) -> tuple[Connected, type[Init]]:
        return Connected(), Init

    monkeypatch.setattr(check_displays.desktops, "dial", dial)
    assert asyncio.run(check_displays._dial(desk)) == (800, 600, "here")
    assert closed == [True]
