"""Metrics and logs of real servers: two workers on PostgreSQL and Redis, and Daphne."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import Database, Databases
from tests.support.event_stream import EventStream
from tests.support.rfb import REQUEST, key, pointer, request
from tests.support.scrape import Scrape, ask
from tests.support.server import LiveServer
from tests.support.services import Redis
from tests.support.stream_client import CLIENT_ID, ApiClient, StreamClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

TOKEN = "scrape-0123456789-abcdefghij"
PASSWORD = "hush-hush"
BACKLOG = 100_000
PROXYS_ID = "of-the-proxy-0815"
CONTROL = "/api/workspaces/desk/display/control"


@dataclass
class Node:
    """A server under test, and what is around it."""

    server: LiveServer
    database: Database
    link: TcpProxy  # to its database
    desk: FakeVnc
    operator: ApiClient
    observer: ApiClient

    def scrape(self) -> Scrape:
        """Ask whoever answers."""
        answer = ask(self.server.url, TOKEN)
        assert answer.status_code == 200, answer.text
        return Scrape.of(answer.text)

    def until(self, name: str, expected: float, **labels: str) -> None:
        """Wait until the metric has this value: streams are added up every two seconds."""
        wait_until(
            lambda: self.scrape().value(name, **labels) == expected,
            f"{name} {labels} becomes {expected}",
            expected=4,
        )

    @contextmanager
    def control(self) -> Iterator[None]:
        """The operator has control."""
        self.operator.acquire("desk")
        yield
        self.operator.release("desk")

    # --- its log ---
    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines of its log so far; a line that is not JSON is an error."""
        return [json.loads(line) for line in self.server.log.splitlines()]

    def lines_about(self, **ids: object) -> list[dict[str, Any]]:
        """The lines with these ids."""
        return [line for line in self.lines if ids.items() <= line.items()]

    # --- its workers ---
    @property
    def workers(self) -> list[int]:
        """The processes that serve, oldest first."""
        started = re.findall(r"Started server process \[(\d+)\]", self.server.log)
        return [int(pid) for pid in started if Path(f"/proc/{pid}").exists()]

    @contextmanager
    def paused(self, pid: int) -> Iterator[None]:
        """Leave the other worker to answer; for less than 5 s, or this one is taken for hung."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def open_on(self, worker: int, other: int, client_id: str) -> StreamClient:
        """Open a stream to this worker."""
        url = self.observer.session_url("desk", client_id)
        with self.paused(other):
            stream = StreamClient(url).shake_hands()
            assert str(stream.text("hello")["server"]).endswith(f":{worker}")
        return stream


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, redis: Redis
) -> Iterator[Node]:
    """Two workers."""
    directory = tmp_path_factory.mktemp("workers")
    with _node(directory, databases, redis, "uvicorn", "--workers", "2") as node:
        wait_until(lambda: len(node.workers) == 2, "both workers have started", expected=5)
        yield node


@pytest.fixture(scope="module")
def daphne(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, redis: Redis
) -> Iterator[Node]:
    """Daphne's one process."""
    with _node(tmp_path_factory.mktemp("daphne"), databases, redis, "daphne") as node:
        yield node


@pytest.fixture(params=["node", "daphne"])
def either(request: pytest.FixtureRequest) -> Node:
    """Each of the two."""
    found: Node = request.getfixturevalue(request.param)
    return found


@contextmanager
def _node(directory: Path, databases: Databases, redis: Redis, *serve: str) -> Iterator[Node]:
    """A server that logs JSON, behind a proxy on this machine, and tells its metrics."""
    (directory / "token").write_text(f"{TOKEN}\n")
    (directory / "password").write_text(PASSWORD)
    database = databases.fresh("postgres")
    head, _, tail = database.url.partition("@")
    address, _, name = tail.partition("/")
    with FakeVnc() as desk, TcpProxy(int(address.partition(":")[2])) as link, ExitStack() as people:
        desk.answers_updates = True
        server = LiveServer(
            directory,
            f"{head}@127.0.0.1:{link.port}/{name}",
            REDIS_URL=redis.url,
            METRICS_TOKEN_FILE=directory / "token",
            LOG_FORMAT="json",
            TRUSTED_PROXIES="127.0.0.1",
            TRUST_REQUEST_ID="on",
            DISPLAY_BACKLOG_BYTES=BACKLOG,
        )
        upstreams = {"desk": desk.url, "nobody": "tcp://127.0.0.1:9"}
        server.populate(upstreams, directory / "password")
        server.start_as_typed(*serve)
        operator, observer = (
            people.enter_context(closing(ApiClient(server.url, name)))
            for name in ("operator", "observer")
        )
        yield Node(server, database, link, desk, operator, observer)
        server.stop()


@pytest.fixture(autouse=True)
def _close_streams() -> Iterator[None]:
    yield
    StreamClient.close_all()
    EventStream.close_all()


# --- Who is told ----------------------------------------------------------------------------------
@pytest.mark.parametrize("token", ["", "scrape-0123456789-abcdefghik", "é" * 20])
def test_without_the_token_nothing_is_told(node: Node, token: str) -> None:
    answer = httpx.get(
        f"{node.server.url}/metrics",
        headers={"Authorization": f"Bearer {token}".encode()} if token else {},
    )
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "desktopctl_" not in answer.text


def test_a_session_is_no_token(node: Node) -> None:
    assert node.operator.call("GET", "/metrics").response.status_code == 401


def test_prometheus_calls_by_address_and_gets_its_text(node: Node) -> None:
    answer = ask(f"http://127.0.0.1:{node.server.port}", TOKEN, Host="10.1.2.3:8000")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Set-Cookie" not in answer.headers


# --- What is counted ------------------------------------------------------------------------------
def test_streams_are_told_by_what_they_may_do(either: Node) -> None:
    stream = either.operator.open("desk")
    either.observer.open("desk", "an-observers-tab")
    with either.control():
        stream.in_control()
        either.until("streams", 1, mode="control")
        either.until("streams", 1, mode="observe")
    stream.out_of_control()
    either.until("streams", 2, mode="observe")
    either.until("streams", 0, mode="control")


def test_refused_input_is_counted_and_reaches_no_desktop(either: Node) -> None:
    before = either.scrape()
    stream = either.observer.open("desk")
    typed = [key(True), key(False), pointer(1)]
    stream.send(*typed, b"".join(typed), REQUEST)
    stream.read(4)  # the desktop's answer: all that came before the request has been judged
    either.until("refused_input_total", before.value("refused_input_total") + 6)
    assert either.desk.newest.of_type(4, 5, 6) == []


def test_bytes_are_counted_by_direction(node: Node) -> None:
    before = node.scrape()
    url = node.observer.session_url("desk")
    stream = StreamClient(url, subprotocols=("binary",), token_in_query=True).shake_hands()
    stream.send(REQUEST)
    stream.read(4)
    for direction, size in (("from_browser", len(REQUEST)), ("to_browser", 4)):
        moved = before.value("stream_bytes_total", direction=direction) + size
        node.until("stream_bytes_total", moved, direction=direction)


def test_a_browser_that_does_not_read_has_a_backlog_and_its_requests_are_withheld(
    node: Node,
) -> None:
    before = node.scrape()
    stream = node.observer.open("desk")
    node.desk.flood(32 << 20)
    wait_until(lambda: node.scrape().value("backlog_bytes") > BACKLOG, "bytes wait", expected=4)
    for _ in range(3):
        stream.send(request(4, 4))
    withheld = before.value("withheld_update_requests_total") + 3
    node.until("withheld_update_requests_total", withheld)
    stream.vanish()
    node.until("backlog_bytes", 0)


def test_handshakes_are_timed_on_both_sides(node: Node) -> None:
    before = node.scrape()
    node.observer.open("desk").text("hello")
    for peer in ("desktop", "browser"):
        name = "handshake_seconds_count"
        node.until(name, before.value(name, peer=peer) + 1, peer=peer)


def test_a_tab_that_comes_back_is_a_reconnect_and_a_new_one_is_not(node: Node) -> None:
    before = node.scrape().value("reconnects_total")
    tab = f"tab-{time.monotonic_ns()}"
    node.observer.open("desk", tab).close()
    node.observer.open("desk", tab)
    node.until("reconnects_total", before + 1)


def test_a_desktop_that_cannot_be_reached_is_counted_by_step(node: Node) -> None:
    before = node.scrape()
    stream = StreamClient(node.operator.session_url("nobody"))
    assert stream.closed()[0] == 4502
    failures = before.value("upstream_failures_total", step="connect") + 1
    node.until("upstream_failures_total", failures, step="connect")
    node.until("stream_ends_total", before.value("stream_ends_total", code="4502") + 1, code="4502")


def test_a_desktop_that_is_lost_is_counted_once(node: Node) -> None:
    before = node.scrape().value("upstream_failures_total", step="stream")
    stream = node.operator.open("desk")
    node.desk.hang_up()
    assert stream.closed()[0] == 4502
    node.until("upstream_failures_total", before + 1, step="stream")


def test_a_stream_that_is_refused_is_counted_by_its_code(node: Node) -> None:
    before = node.scrape().value("stream_ends_total", code="4401")
    url = node.operator.session_url("desk").replace("#token=", "#token=x")
    assert StreamClient(url).closed()[0] == 4401
    node.until("stream_ends_total", before + 1, code="4401")


def test_what_happens_to_control_is_counted_with_its_reason(node: Node) -> None:
    acquired = {"what": "acquired", "reason": ""}
    refused = {"what": "refused", "reason": "held_elsewhere"}
    before = node.scrape()
    with node.control():
        body = {"client_id": "another-tab-1"}
        for _ in range(2):  # of refusals, the database has one row a minute
            node.operator.post(f"{CONTROL}/acquire", json=body).raise_for_status_is(409)
        after = node.scrape()
    for labels, count in ((acquired, 1), (refused, 2)):
        counted = before.value("control_events_total", **labels)
        assert after.value("control_events_total", **labels) == counted + count
    assert (after.value("database_up"), after.value("leases_held", controller="user")) == (1, 1)


def test_who_listens_to_events_is_told(node: Node) -> None:
    listening = [node.observer.events() for _ in range(2)]
    for stream in listening:
        stream.until(lambda event: event.id is not None)
    node.until("event_streams", 2)
    EventStream.close_all()
    node.until("event_streams", 0)


def test_who_waits_for_control_is_told(node: Node) -> None:
    url = f"{node.server.url}{CONTROL}?wait=60"
    cookies = {"sessionid": "session-of-observer"}
    with ThreadPoolExecutor(1) as aside:
        waits = aside.submit(httpx.get, url, cookies=cookies, timeout=limit(6))
        node.until("long_polls", 1)
        with node.control():
            assert waits.result().status_code == 200
    node.until("long_polls", 0)


# --- Several workers ------------------------------------------------------------------------------
@pytest.fixture
def workers(node: Node) -> tuple[int, int]:
    """Its two workers."""
    older, newer = node.workers
    return older, newer


def test_either_worker_tells_of_all_streams_and_once_of_what_the_database_knows(
    node: Node, workers: tuple[int, int]
) -> None:
    for number, (worker, other) in enumerate([workers, workers[::-1], workers]):
        node.open_on(worker, other, f"tab-of-worker-{number}")
    node.until("streams", 3, mode="observe")
    for worker, other in (workers, workers[::-1]):
        name = f"asked-worker-{worker}"
        with node.control(), node.paused(other):
            answer = ask(node.server.url, TOKEN, **{"X-Request-ID": name})
        told = Scrape.of(answer.text)
        assert {line["process"] for line in node.lines_about(request_id=name)} == {worker}
        assert told.value("streams", mode="observe") == 3
        assert told.value("leases_held", controller="user") == 1
        assert told.value("watch_lag_seconds") < limit(2)


def test_a_killed_workers_streams_vanish_and_what_it_has_counted_stays(
    node: Node, workers: tuple[int, int]
) -> None:
    lives, dies = workers
    before = node.scrape().value("refused_input_total")
    node.open_on(lives, dies, "lives-on-0001")
    stream = node.open_on(dies, lives, "dies-off-0001")
    stream.send(key(True), key(False))
    node.until("streams", 2, mode="observe")
    node.until("refused_input_total", before + 2)
    os.kill(dies, signal.SIGKILL)
    node.until("streams", 1, mode="observe")
    another = wait_until(lambda: set(node.workers) - set(workers), "it is replaced", expected=5)
    node.open_on(*another, lives, "came-anew-0001").send(key(True))
    node.until("streams", 2, mode="observe")
    node.until("refused_input_total", before + 3)


def test_workers_that_are_replaced_in_order_leave_no_stream_behind(
    node: Node, workers: tuple[int, int]
) -> None:
    streams = [
        node.open_on(*workers, "replaced-0001"),
        node.open_on(*workers[::-1], "replaced-0002"),
    ]
    node.until("streams", 2, mode="observe")
    os.kill(node.server.pid, signal.SIGHUP)
    assert {stream.closed()[0] for stream in streams} <= {1012, 4503}
    node.until("streams", 0, mode="observe")
    wait_until(
        lambda: len(node.workers) == 2 and not {*node.workers} & {*workers},
        "both are others",
        expected=10,
    )


def test_the_directory_of_the_workers_is_gone_with_the_server(node: Node, tmp_path: Path) -> None:
    twin = node.server.twin(tmp_path / "twin").start_as_typed("uvicorn", "--workers", "2")
    assert ask(twin.url, TOKEN).status_code == 200
    worker = re.findall(r"Started server process \[(\d+)\]", twin.log)[0]
    variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    [variable] = [each for each in variables if each.startswith(b"PROMETHEUS_MULTIPROC_DIR=")]
    directory = Path(variable.decode().partition("=")[2])
    assert list(directory.glob("*.db"))
    assert directory.stat().st_mode & 0o077 == 0  # nobody else's
    twin.stop()
    assert not directory.exists()


# --- While the database is away -------------------------------------------------------------------
def test_while_the_database_is_away_it_says_so_and_how_long_leases_have_not_been_read(
    node: Node,
) -> None:
    node.observer.open("desk").text("hello")
    node.until("streams", 1, mode="observe")
    node.link.blackhole()
    try:
        wait_until(
            lambda: node.scrape().value("watch_lag_seconds") > 4, "the watch lags", expected=10
        )
        told = node.scrape()
        assert told.value("database_up") == 0
        assert not told.has("leases_held")
        assert told.value("streams", mode="observe") == 1
    finally:
        node.link.cut()
        node.link.heal()
    wait_until(lambda: node.scrape().value("database_up") == 1, "it is back", expected=5)
    wait_until(lambda: node.scrape().value("watch_lag_seconds") < 4, "all is well", expected=5)


# --- Logs -----------------------------------------------------------------------------------------
def test_an_answer_and_its_lines_carry_the_proxys_id(either: Node) -> None:
    answer = httpx.get(f"{either.server.url}/nothing", headers={"X-Request-ID": PROXYS_ID})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (404, PROXYS_ID)
    assert any("Not Found" in each["message"] for each in either.lines_about(request_id=PROXYS_ID))


def test_a_line_about_a_call_names_its_workspace_and_its_caller(node: Node) -> None:
    row = node.database.rows("SELECT id FROM auth_user WHERE username = 'operator'")[0]
    request_id = node.operator.call("GET", CONTROL).response.headers["X-Request-ID"]
    [line] = node.lines_about(request_id=request_id)
    assert (line["logger"], line["workspace"], line["user_id"]) == ("uvicorn.access", "desk", *row)


@pytest.mark.parametrize("unfit", ["", "a b", "x" * 65, "é"])
def test_without_an_id_that_is_fit_one_is_made(either: Node, unfit: str) -> None:
    headers = {"X-Request-ID": unfit.encode()}
    answer = httpx.get(f"{either.server.url}/healthz", headers=headers)
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])


def test_the_lines_of_a_stream_carry_its_ids(either: Node) -> None:
    stream = either.operator.open("desk")
    number = stream.text("hello")["stream"]
    stream.close()
    wait_until(lambda: len(either.lines_about(stream_id=number)) >= 2, "both ends are told")
    lines = either.lines_about(stream_id=number)
    assert {line["workspace"] for line in lines} == {"desk"}
    assert {len(line["request_id"]) for line in lines} == {16}
    assert all(line["user_id"] for line in lines)


def test_what_serves_all_carries_nobodys_ids(node: Node) -> None:
    before = len(node.lines)
    node.observer.open("desk").text("hello")

    def said() -> list[dict[str, Any]]:
        return [line for line in node.lines[before:] if line["logger"] == "controlplane.watch"]

    node.link.refuse()
    node.link.cut()  # so the watch, which that stream has started, has something to say
    wait_until(said, "the watch has noticed", expected=5)
    node.link.heal()
    wait_until(lambda: len(said()) > 1, "it sees again", expected=5)
    assert [line for line in said() if "request_id" in line] == []


def test_a_line_says_when_how_grave_and_from_whom(either: Node) -> None:
    for line in either.lines:
        assert {"time", "level", "logger", "process", "message"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


def test_an_error_of_ours_is_logged_once_and_its_answer_says_where_to_look(either: Node) -> None:
    here, away = "controlplane_controlrequest", "mislaid"
    either.database.rows(f"ALTER TABLE {here} RENAME TO {away}")
    try:
        answer = either.operator.call("GET", CONTROL).response
    finally:
        either.database.rows(f"ALTER TABLE {away} RENAME TO {here}")
    request_id = answer.headers["X-Request-ID"]
    assert answer.status_code == 500
    assert answer.json()["error"]["request_id"] == request_id
    [line] = [each for each in either.lines_about(request_id=request_id) if "exception" in each]
    assert (line["level"], line["workspace"]) == ("ERROR", "desk")
    assert "Traceback" in line["exception"]


def test_no_secret_is_in_the_log_or_among_the_metrics(either: Node) -> None:
    url = either.operator.session_url("desk")
    session_token, code = url.partition("#token=")[2], "a-code-of-a-sign-in"
    StreamClient(url, subprotocols=(), token_in_query=True).shake_hands()
    with closing(httpx.Client(base_url=either.server.url)) as client:
        client.get(f"/accounts/login/?code={code}&next=/")
        client.get(f"{CONTROL}?client_id={CLIENT_ID}&wait=0")
        csrf_token = client.cookies["csrftoken"]
    told = either.server.log + ask(either.server.url, TOKEN).text
    secrets = [session_token, TOKEN, code, PASSWORD, CLIENT_ID, csrf_token]
    secrets += ["operator-pass", either.operator.session_key]
    assert [secret for secret in secrets if secret in told] == []
