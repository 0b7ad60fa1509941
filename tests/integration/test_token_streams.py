"""A program with an API token on a real server: its streams, and how they end with the token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import Databases
from tests.support.rfb import key
from tests.support.server import LiveServer
from tests.support.stream_client import CLIENT_ID, Answer, ApiClient, StreamClient
from tests.support.timing import limit
from tests.support.trust import trusted
from tests.support.vnc_server import FakeVnc

PROCESS = "agent-process-1"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def desk() -> Iterator[FakeVnc]:
    """The desktop of the workspaces ``desk`` and ``other``."""
    desk = FakeVnc()
    desk.start()
    yield desk
    desk.stop()


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    desk: FakeVnc,
    password_file: Path,
) -> Iterator[LiveServer]:
    """A server in front of the desktop."""
    server = LiveServer(tmp_path_factory.mktemp("server"), databases.fresh().url)
    server.populate({"desk": desk.url, "other": desk.url}, password_file)
    yield server.start(request.param)
    server.stop()


@pytest.fixture(scope="module")
def admin(server: LiveServer) -> Iterator[ApiClient]:
    """Somebody who may look at everything."""
    with closing(ApiClient(server.url, "admin")) as admin:
        yield admin


@pytest.fixture(autouse=True)
def _clean_up(admin: ApiClient) -> Iterator[None]:
    yield
    StreamClient.close_all()
    for slug in ("desk", "other"):
        admin.release(slug, force=True, note="the test is over")
        admin.post(
            f"/api/workspaces/{slug}/display/control/free", json={"client_id": CLIENT_ID}
        ).raise_for_status_is(200)


@dataclass(frozen=True)
class Program:
    """A program with a token of its own."""

    base: str
    name: str
    text: str

    def post(self, path: str, **body: Any) -> Answer:
        """Send what a program sends: no cookie, no CSRF token."""
        headers = {"Authorization": f"Bearer {self.text}"}
        url = f"{self.base}/api/workspaces/desk/display/{path}"
        json = {"client_id": PROCESS, **body}
        return Answer(
            httpx.post(url, headers=headers, json=json, timeout=limit(1), verify=trusted())
        )

    def open(self) -> StreamClient:
        """Open a stream."""
        answer = self.post("session").raise_for_status_is(200)
        return StreamClient(answer["session_url"]).shake_hands()

    def drive(self) -> StreamClient:
        """Open a stream and take control on it."""
        stream = self.open()
        self.post("control/acquire").raise_for_status_is(200)
        return stream.in_control()


@pytest.fixture(scope="module")
def programs(server: LiveServer) -> Iterator[Program]:
    """Return one after the other, made by the dozen: each command takes as long as a test."""
    return _programs(server)


def _programs(server: LiveServer) -> Iterator[Program]:
    while True:
        names = [f"Builder {next(_numbers)}" for _ in range(12)]
        made = run(
            server,
            "from controlplane import apitokens\n"
            "from controlplane.models import Workspace\n"
            "desk = Workspace.objects.get(slug='desk')\n"
            f"for name in {names}:\n"
            "    print(apitokens.create(name, ['control'], workspaces=[desk])[1])",
        )
        texts = made.split()[-len(names) :]
        yield from (Program(server.url, *each) for each in zip(names, texts, strict=True))


@pytest.fixture
def program(programs: Iterator[Program]) -> Program:
    """One that may control ``desk`` alone, with a token that no other test ends."""
    return next(programs)


def control_of(admin: ApiClient) -> dict[str, Any]:
    """What people are told of the desk."""
    return admin._get("/api/workspaces/desk/display/control")


def by_command(server: LiveServer, admin: ApiClient, name: str) -> None:
    server.manage("revoke_token", name)


def in_the_admin(server: LiveServer, admin: ApiClient, name: str) -> None:
    pk = run(server, f"print(ApiToken.objects.get(name={name!r}).pk)").split()[-1]
    data = {"action": "revoke", "_selected_action": pk}
    admin.post("/admin/controlplane/apitoken/", data=data).raise_for_status_is(302)


def by_disabling_the_account(server: LiveServer, admin: ApiClient, name: str) -> None:
    run(
        server,
        f"account = ApiToken.objects.get(name={name!r}).account\n"
        "account.is_active = False\n"
        "account.save()",
    )


def by_taking_the_workspace(server: LiveServer, admin: ApiClient, name: str) -> None:
    run(
        server,
        "from controlplane.models import Workspace\n"
        f"token = ApiToken.objects.get(name={name!r})\n"
        "token.workspaces.set(Workspace.objects.filter(slug='other'))",
    )


def by_time(server: LiveServer, admin: ApiClient, name: str) -> None:
    run(
        server,
        "from django.db.models.functions import Now\n"
        f"ApiToken.objects.filter(name={name!r}).update(expires_at=Now())",
    )


def run(server: LiveServer, code: str) -> str:
    return server.manage("shell", "-c", f"from controlplane.models import ApiToken\n{code}")


ENDS = [by_command, in_the_admin, by_disabling_the_account, by_taking_the_workspace]


# --- Opening --------------------------------------------------------------------------------------
def test_a_program_drives_a_desktop(program: Program, admin: ApiClient, desk: FakeVnc) -> None:
    stream = program.drive()
    stream.send(key(True), key(False))
    desk.wait_for(key(True), key(False))
    told = control_of(admin)
    assert (told["controller"], told["controlled_by"]) == ("agent", program.name)
    assert told["holder_connected"]


def test_an_address_that_a_token_was_given_works_once(program: Program) -> None:
    url = program.post("session").raise_for_status_is(200)["session_url"]
    assert program.text not in url
    StreamClient(url).shake_hands()
    assert StreamClient(url).closed()[0] == 4401


# --- The end of the token -------------------------------------------------------------------------
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_open_streams_end_with_their_token(
    end: Callable[[LiveServer, ApiClient, str], None],
    server: LiveServer,
    program: Program,
    admin: ApiClient,
    desk: FakeVnc,
) -> None:
    url = program.post("session", client_id="another-process").raise_for_status_is(200)
    stream = program.drive()
    stream.send(key(True))
    desk.wait_for(key(True))
    end(server, admin, program.name)
    told = control_of(admin)
    assert (told["controller"], told["last_end"]["reason"]) == ("none", "access_ended")
    desk.wait_for(key(False))
    assert stream.closed()[0] == 4403
    assert StreamClient(url["session_url"]).closed()[0] == 4403
    assert program.post("control/acquire").response.status_code in {401, 404}


def test_open_streams_end_when_their_tokens_time_is_over(
    server: LiveServer, program: Program, admin: ApiClient
) -> None:
    stream = program.drive()
    by_time(server, admin, program.name)
    assert stream.closed()[0] == 4403
    assert control_of(admin)["last_end"]["reason"] == "access_ended"


def test_the_streams_of_another_token_live_on(
    server: LiveServer, program: Program, admin: ApiClient, desk: FakeVnc
) -> None:
    name = f"Other {next(_numbers)}"
    text = server.manage("add_token", name, "--scope", "control", "--all-workspaces").strip()
    other = Program(server.url, name, text)
    ended, stream = program.open(), other.drive()
    server.manage("revoke_token", program.name)
    assert ended.closed()[0] == 4403
    stream.send(key(True), key(False))
    desk.wait_for(key(True), key(False))


# --- Beside people --------------------------------------------------------------------------------
def test_a_person_is_shown_the_tokens_name_and_takes_over(
    program: Program, admin: ApiClient, desk: FakeVnc
) -> None:
    agents = program.drive()
    agents.send(key(True))
    desk.wait_for(key(True))
    own = admin.open("desk")
    assert own.text("hello")["control"]["controlled_by"] == program.name
    admin.acquire("desk")
    own.in_control()
    told = agents.text("control")
    while told["mode"] == "control":
        told = agents.text("control")
    assert (told["reason"], told["control"]["controller"]) == ("preempted", "user")
    answer = program.post("control/acquire").raise_for_status_is(409)
    assert answer["error"]["code"] == "human_in_control"


# --- Never told -----------------------------------------------------------------------------------
def test_nothing_that_the_server_prints_holds_a_token(
    server: LiveServer, program: Program, admin: ApiClient
) -> None:
    program.drive()
    program.post("control/acquire", client_id="!").raise_for_status_is(400)
    program.post("nothing").raise_for_status_is(404)
    server.manage("revoke_token", program.name)
    program.post("control/acquire").raise_for_status_is(401)
    assert program.text not in server.log
    assert "dctl_" not in server.log
