"""The Python client (clients/python) against a real server, over a link that breaks on command."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from desktopctl_client import (
    Client,
    Control,
    ControlLost,
    Desktop,
    Refused,
    Unavailable,
    WaitedInVain,
)

from tests.support.databases import Databases
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until

LEASE_SECONDS = 3  # the shortest: what is waited for here is renewals and ends
AT_ONCE = limit(0.1)  # "within a second"
PROCESS = "the-agent-process"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, password_file: Path
) -> Iterator[LiveServer]:
    """A server with short leases, and a workspace without a desktop."""
    directory = tmp_path_factory.mktemp("server")
    server = LiveServer(
        directory,
        databases.fresh().url,
        DISPLAY_LEASE_SECONDS=LEASE_SECONDS,
        DISPLAY_RENEW_SECONDS=1,
    )
    server.populate({"desk": "tcp://127.0.0.1:9"}, password_file)
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def token(server: LiveServer) -> str:
    return add_token(server, "Robot")


def add_token(server: LiveServer, name: str) -> str:
    arguments = ("--scope", "observe", "control", "--all-workspaces")
    return server.manage("add_token", name, *arguments).strip()


@pytest.fixture
def link(server: LiveServer) -> Iterator[TcpProxy]:
    """What is between the agent and the server."""
    with TcpProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def desktop(link: TcpProxy, token: str) -> Iterator[Desktop]:
    """The desktop as the agent sees it."""
    with client_of(link.port, token) as client:
        yield client.desktop("desk")


def client_of(port: int, token: str) -> Client:
    return Client(f"http://127.0.0.1:{port}", token, client_id=PROCESS)


@pytest.fixture
def person(server: LiveServer) -> Iterator[ApiClient]:
    """Somebody who may take over. At the end nobody has control, and nobody is waited for."""
    with closing(ApiClient(server.url, "operator")) as client:
        yield client
    with closing(ApiClient(server.url, "admin")) as admin:
        admin.release("desk", force=True, note="the test is over")
        skip = {"client_id": "the-admins-tab", "outcome": "skipped"}
        admin.post("/api/workspaces/desk/display/control/release", json=skip)  # if an agent waits


@contextmanager
def meanwhile(*steps: Callable[[], object]) -> Iterator[list[float]]:
    """Do it in another thread; yields a list that gets the time of the last step."""
    done: list[float] = []

    def work() -> None:
        for step in steps:
            step()
        done.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    yield done
    thread.join()
    assert done, "the other thread has failed"


def lose(control: Control) -> ControlLost:
    """Wait until control is lost."""
    with pytest.raises(ControlLost) as lost:
        control.sleep(limit(1))
    assert not control.is_held
    with pytest.raises(ControlLost):
        control.check()
    return lost.value


def after(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


# --- Having control -------------------------------------------------------------------------------
def test_control_outlasts_its_lease_and_is_released_at_the_end(
    desktop: Desktop, person: ApiClient
) -> None:
    with desktop.control() as control:
        before = control.epoch
        control.sleep(LEASE_SECONDS + 1)
        seen = person.control("desk")
        assert (seen["controller"], seen["controlled_by"]) == ("agent", "Robot")
        assert control.is_held
        assert control.epoch == before == seen["epoch"]
    assert person.control("desk")["last_end"]["reason"] == "released"
    with pytest.raises(ControlLost, match="released"):
        control.check()


def test_an_exception_of_the_block_releases_and_goes_on(
    desktop: Desktop, person: ApiClient
) -> None:
    with pytest.raises(ZeroDivisionError), desktop.control():
        _ = 1 / 0
    assert person.control("desk")["controller"] == "none"


def test_a_block_that_is_left_wakes_its_threads(desktop: Desktop, person: ApiClient) -> None:
    with desktop.control():
        pass
    names = {thread.name for thread in threading.enumerate()}
    assert "desktopctl desk" not in names


def test_one_client_has_one_block_at_a_time(desktop: Desktop, person: ApiClient) -> None:
    with desktop.control() as control:
        with pytest.raises(RuntimeError, match="in use"), desktop.control():
            pass
        control.check()
    with desktop.control() as again:
        assert again.epoch == control.epoch + 1


# --- Losing it ------------------------------------------------------------------------------------
def test_a_person_who_takes_over_is_known_within_a_second_and_keeps_control(
    desktop: Desktop, person: ApiClient
) -> None:
    with desktop.control() as control:
        with meanwhile(after(1), lambda: person.acquire("desk")) as taken:
            lost = lose(control)
        assert time.monotonic() - taken[0] < AT_ONCE
        assert (lost.reason, lost.by) == ("preempted", "operator")
    seen = person.control("desk")
    assert (seen["controller"], seen["epoch"]) == ("user", control.epoch + 1)


def test_who_ends_an_agents_control_by_force_is_named_with_the_note(
    desktop: Desktop, server: LiveServer, person: ApiClient
) -> None:
    with desktop.control() as control, closing(ApiClient(server.url, "admin")) as admin:
        admin.release("desk", force=True, note="enough")
        lost = lose(control)
    assert (lost.reason, lost.by, lost.note) == ("forced", "admin", "enough")
    assert "admin" in str(lost)


def test_a_revoked_token_ends_control(
    server: LiveServer, link: TcpProxy, person: ApiClient
) -> None:
    with client_of(link.port, add_token(server, "Short")) as client:
        with client.desktop("desk").control() as control:
            server.manage("revoke_token", "Short")
            assert lose(control).reason == "access_ended"
        with pytest.raises(Refused) as refused:
            client.desktop("desk").state()
    assert refused.value.status == 401


def unplug(link: TcpProxy) -> None:
    link.refuse()
    link.cut()


# --- The network ----------------------------------------------------------------------------------
def test_connections_that_are_cut_cost_nothing(
    desktop: Desktop, link: TcpProxy, person: ApiClient
) -> None:
    with desktop.control() as control:
        for _ in range(4):
            control.sleep(1)
            link.cut()
        with meanwhile(lambda: person.acquire("desk")) as taken:
            lost = lose(control)
        assert lost.reason == "preempted"
        assert time.monotonic() - taken[0] < AT_ONCE


def test_without_word_from_the_server_control_ends_before_the_lease_does(
    desktop: Desktop, link: TcpProxy, person: ApiClient
) -> None:
    with desktop.control() as control:
        unplug(link)
        assert lose(control).reason == "expired"
    seen = person.control("desk")
    assert seen["controller"] in {"agent", "none"}
    assert seen["epoch"] == control.epoch


def test_an_outage_that_is_shorter_than_the_lease_is_survived(
    desktop: Desktop, link: TcpProxy, person: ApiClient
) -> None:
    with desktop.control(ttl=10) as control:
        unplug(link)
        control.sleep(LEASE_SECONDS)
        link.heal()
        control.sleep(8)
        control.check()
        assert person.control("desk")["epoch"] == control.epoch


def test_a_renewal_that_is_answered_after_the_end_is_released(
    desktop: Desktop, link: TcpProxy, person: ApiClient
) -> None:
    with desktop.control() as control:
        link.stall("down")
        assert lose(control).reason == "expired"
        link.heal()
    ends = wait_until(lambda: person.control("desk")["last_end"], "control has ended")
    assert ends["reason"] in {"released", "expired"}
    assert person.control("desk")["controller"] == "none"


def test_a_release_that_fails_is_said(desktop: Desktop, link: TcpProxy, person: ApiClient) -> None:
    with pytest.raises(Unavailable, match="release"), desktop.control():
        unplug(link)


def test_a_release_that_fails_after_an_exception_is_a_note_of_it(
    desktop: Desktop, link: TcpProxy, person: ApiClient
) -> None:
    def fail() -> None:
        unplug(link)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failure, desktop.control():
        fail()
    assert "not released" in failure.value.__notes__[0]


# --- Waiting for people ---------------------------------------------------------------------------
def test_what_a_person_hands_back_reaches_the_agent_that_waits(
    desktop: Desktop, person: ApiClient
) -> None:
    with desktop.control() as control:
        person.acquire("desk", ttl_seconds=60)
        lose(control)
    with pytest.raises(Refused) as refused, desktop.control():
        pass
    assert refused.value.code == "human_in_control"
    assert refused.value.state
    assert refused.value.state.controlled_by == "operator"
    hand_back = [after(1), lambda: person.release("desk", outcome="done", note="solved")]
    with meanwhile(*hand_back) as done:
        handed_back = desktop.wait_until_free(limit(1)).handed_back
    assert time.monotonic() - done[0] < AT_ONCE
    assert handed_back
    told = (handed_back.epoch, handed_back.outcome, handed_back.by, handed_back.note)
    assert told == (control.epoch + 1, "done", "operator", "solved")
    with desktop.control() as again:
        assert again.epoch == control.epoch + 2


def test_a_parked_desktop_is_waited_for_until_somebody_says_go_on(
    desktop: Desktop, person: ApiClient
) -> None:
    with desktop.control() as control:
        person.acquire("desk", ttl_seconds=LEASE_SECONDS)
        lose(control)
    with pytest.raises(WaitedInVain) as vain:
        desktop.wait_until_free(LEASE_SECONDS + 2)
    assert vain.value.state
    assert vain.value.state.parked
    with pytest.raises(Refused, match="parked"), desktop.control():
        pass
    with meanwhile(after(0.5), lambda: person.release("desk", outcome="skipped")):
        assert desktop.wait_until_free(limit(1)).parked is None


def test_waiting_survives_an_outage(desktop: Desktop, link: TcpProxy, person: ApiClient) -> None:
    person.acquire("desk", ttl_seconds=60)
    link.refuse()
    with meanwhile(after(1), lambda: person.release("desk"), link.heal):
        assert desktop.wait_until_free(limit(1)).controller == "none"


def test_who_waits_in_vain_for_a_server_is_told_why(desktop: Desktop, link: TcpProxy) -> None:
    link.refuse()
    with pytest.raises(WaitedInVain) as vain:
        desktop.wait_until_free(0.5)
    assert isinstance(vain.value.__cause__, Unavailable)


def test_a_person_answers_without_taking_control(desktop: Desktop, person: ApiClient) -> None:
    desktop.request_human("captcha")
    with pytest.raises(WaitedInVain):
        desktop.wait_until_answered(0.2)
    answer = {"outcome": "could_not", "note": "no account there"}
    with meanwhile(after(0.5), lambda: person.release("desk", **answer)):
        handed_back = desktop.wait_until_answered(limit(1))
    assert handed_back
    assert (handed_back.outcome, handed_back.note) == ("could_not", "no account there")


def test_a_person_who_takes_over_to_help_ends_the_wait(desktop: Desktop, person: ApiClient) -> None:
    with desktop.control() as control:
        control.request_human("captcha")
        with (
            meanwhile(after(0.5), lambda: person.acquire("desk")),
            pytest.raises(ControlLost, match="preempted"),
        ):
            control.sleep(limit(1))


def test_a_request_is_withdrawn(desktop: Desktop, person: ApiClient) -> None:
    asked = desktop.request_human("captcha").help
    assert asked
    assert (asked.by, asked.reason) == ("Robot", "captcha")
    assert desktop.withdraw().help is None


# --- What a server may answer ---------------------------------------------------------------------
class FakeApi(ThreadingHTTPServer):
    """Answers every call with ``answer``, and counts them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
        self.paths: list[str] = []

    def say(self, status: int, body: object, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = (status, named, data)


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        status, headers, data = self.server.answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[FakeApi]:
    with FakeApi() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def faked(fake: FakeApi) -> Iterator[Desktop]:
    with client_of(fake.server_port, "dct_secret") as client:
        yield client.desktop("desk")


def error(code: str, message: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


def test_a_screenshot_comes_with_its_epoch_and_size(faked: Desktop, fake: FakeApi) -> None:
    size = {"X_Desktop_Width": "800", "X_Desktop_Height": "600"}
    fake.say(200, b"picture", Content_Type="image/jpeg", X_Control_Epoch="7", **size)
    picture = faked.screenshot("jpeg", width=400)
    assert (picture.data, picture.media_type) == (b"picture", "image/jpeg")
    assert (picture.epoch, picture.width, picture.height) == (7, 800, 600)
    assert fake.paths == ["/api/workspaces/desk/desktop/screenshot?format=jpeg&width=400"]


def test_a_screenshot_that_is_refused_says_why(faked: Desktop, fake: FakeApi) -> None:
    fake.say(409, error("hidden", "Olive hides this desktop from watchers."))
    with pytest.raises(Refused, match="Olive hides") as refused:
        faked.screenshot()
    assert (refused.value.code, refused.value.status) == ("hidden", 409)


def test_a_server_that_is_away_for_a_while_says_for_how_long(faked: Desktop, fake: FakeApi) -> None:
    fake.say(503, error("unavailable", "The database does not answer."), Retry_After="2")
    with pytest.raises(Unavailable, match="database does not answer") as away:
        faked.state()
    assert away.value.retry_after == 2


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_what_is_not_the_api_is_named(status: int, faked: Desktop, fake: FakeApi) -> None:
    fake.say(status, b"<html>Welcome</html>")
    with pytest.raises((Refused, Unavailable), match=r"not .*as the API does|not what the API"):
        faked.state()


def test_a_server_that_does_not_wait_is_asked_once_a_second(faked: Desktop, fake: FakeApi) -> None:
    state = dict.fromkeys(("controlled_by", "expires_at", "parked", "help"))
    numbers = {"epoch": 1, "version": 1, "server_time": "2026-01-01T00:00:00Z"}
    fake.say(200, {"controller": "user", "this_client": False, **state, **numbers})
    with pytest.raises(WaitedInVain):
        faked.wait_until_free(2.5)
    assert len(fake.paths) <= 4


def test_the_token_is_never_told(
    faked: Desktop, fake: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = Client("http://127.0.0.1:9", "dct_secret")
    told = [repr(client), repr(client.desktop("desk"))]
    with pytest.raises(Unavailable) as away:
        client.desktop("desk").state()
    fake.say(401, error("unauthenticated", "You are not signed in."))
    with pytest.raises(Refused) as refused:
        faked.state()
    told += [repr(away.value), str(away.value), repr(refused.value), caplog.text]
    assert "dct_secret" not in "\n".join(told)
    client.close()


@pytest.mark.parametrize(
    ("base_url", "token", "problem"),
    [
        ("http://localhost", "dct_secret\nX: y", "token"),
        ("http://localhost", "", "token"),
        ("http://olive:dct_secret@localhost", "good", "base_url"),
        ("localhost:8000", "good", "base_url"),
    ],
)
def test_what_cannot_work_is_refused_without_repeating_it(
    base_url: str, token: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=f"^{problem}: must be") as refused:
        Client(base_url, token)
    assert "dct_secret" not in str(refused.value)


def test_a_tokens_file_may_end_with_a_new_line(tmp_path: Path) -> None:
    Client("http://localhost", "dct_secret\n").close()


def test_a_slug_is_no_path(faked: Desktop) -> None:
    with Client("http://localhost", "good") as client, pytest.raises(ValueError, match="slug"):
        client.desktop("../admin")
