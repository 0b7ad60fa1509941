"""The event stream of a real server: on uvicorn and Daphne, on two processes, through outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support.databases import Database, Databases
from tests.support.event_stream import Event, EventStream
from tests.support.server import LiveServer
from tests.support.services import Redis
from tests.support.stream_client import CLIENT_ID, ApiClient, StreamClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

MAX_STREAMS = 8
REVOKED_SECONDS = 5  # after which nothing of a login may be open: a promise, and not a speed


@pytest.fixture(autouse=True)
def _close_streams() -> Iterator[None]:
    yield
    EventStream.close_all()
    StreamClient.close_all()


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    password_file: Path,
) -> Iterator[LiveServer]:
    """A server with two workspaces, without desktops."""
    server = LiveServer(
        tmp_path_factory.mktemp("server"),
        databases.fresh().url,
        DISPLAY_MAX_STREAMS_PER_USER=MAX_STREAMS,
    )
    server.populate({"desk": "tcp://127.0.0.1:9", "desk-2": "tcp://127.0.0.1:9"}, password_file)
    yield server.start(request.param)
    server.stop()


@pytest.fixture
def operator(server: LiveServer) -> Iterator[ApiClient]:
    """Somebody who may take control, in a login of their own."""
    with closing(ApiClient(server.url, "operator")) as client:
        yield client
        client.release("desk")


@pytest.fixture
def observer(server: LiveServer) -> Iterator[ApiClient]:
    """Somebody who may only watch, in a login of their own."""
    with closing(ApiClient(server.url, "observer")) as client:
        yield client


def greeted(stream: EventStream) -> list[Event]:
    """Read the greeting: its last message says where to resume."""
    return stream.until(lambda event: event.id is not None)


def threads_of(server: LiveServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def test_a_stream_greets_and_then_tells_what_happens(
    operator: ApiClient, observer: ApiClient
) -> None:
    stream = observer.events()
    headers = stream.response.headers
    assert headers["Content-Type"] == "text/event-stream"
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store", "no")
    hello = greeted(stream)[0]
    assert (hello.name, hello.data["workspaces"]) == ("hello", ["desk", "desk-2"])
    assert 500 < stream.retry_ms < 10_000
    operator.acquire("desk")
    told = stream.control_of("desk", "acquired")
    assert told["control"]["controlled_by"] == "operator"
    assert told["control"]["yours"] is False
    operator.release("desk")
    assert stream.control_of("desk", "released")["control"]["controller"] == "none"


def test_the_tab_that_asks_is_told_which_control_is_its_own(operator: ApiClient) -> None:
    own, other = operator.events(client_id=CLIENT_ID), operator.events(client_id="")
    greeted(own)
    greeted(other)
    operator.acquire("desk", CLIENT_ID)
    assert own.control_of("desk", "acquired")["control"]["this_client"] is True
    assert other.control_of("desk", "acquired")["control"]["this_client"] is False


@pytest.mark.parametrize("way", ["header", "query"])
def test_who_comes_back_is_told_what_was_missed(
    way: str, operator: ApiClient, observer: ApiClient
) -> None:
    operator.acquire("desk")
    operator.release("desk")
    stream = observer.events()
    greeted(stream)
    stream.close()
    operator.acquire("desk")
    operator.release("desk")
    if way == "header":
        again = observer.events(last_event_id=stream.last_id)
    else:
        again = EventStream(observer._http, f"/api/events?last_event_id={stream.last_id}")
    hello = again.next()
    assert hello is not None
    assert hello.data["resumed"] is True
    told = [again.next(), again.next()]
    assert [each and each.data["happened"]["what"] for each in told] == ["acquired", "released"]
    assert int(again.last_id) == int(stream.last_id) + 2


@pytest.mark.parametrize(
    ("query", "field"), [("client_id=a", "client_id"), ("last_event_id=newest", "last_event_id")]
)
def test_what_cannot_be_understood_is_named(query: str, field: str, observer: ApiClient) -> None:
    answer = observer._http.get(f"/api/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{field}: ")


def test_a_stranger_is_told_so_at_once(server: LiveServer) -> None:
    answer = httpx.get(f"{server.url}/api/events", timeout=limit(1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


def test_one_stream_too_many_is_refused_until_another_has_gone(observer: ApiClient) -> None:
    streams = [observer.events() for _ in range(MAX_STREAMS)]
    for stream in streams:
        greeted(stream)
    refused = observer._http.get("/api/events")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
    assert int(refused.headers["Retry-After"]) > 0
    streams[0].close()
    wait_until(lambda: observer.events().response.status_code == 200, "its end is noticed")


def test_open_streams_hold_neither_threads_nor_connections(
    server: LiveServer, operator: ApiClient, observer: ApiClient
) -> None:
    greeted(operator.events())
    before = threads_of(server)
    for client in (operator, observer):
        for _ in range(MAX_STREAMS - 1):
            greeted(client.events())
    wait_until(lambda: threads_of(server) <= before, "their requests' threads have ended")
    assert operator.slugs() == ["desk", "desk-2"], "the pool of 16 connections is not used up"


def test_logging_out_ends_the_stream(server: LiveServer) -> None:
    with closing(ApiClient.by_form(server.url, "observer")) as observer:
        stream = observer.events()
        greeted(stream)
        started = time.monotonic()
        observer.log_out()
        assert stream.ended()
        assert time.monotonic() - started < REVOKED_SECONDS
        assert observer._http.get("/api/events").status_code == 401


def test_who_loses_a_grant_is_told_that_the_workspace_is_gone(
    server: LiveServer, observer: ApiClient
) -> None:
    stream = observer.events()
    greeted(stream)
    server.manage("revoke", "desk-2", "observer")
    try:
        gone = stream.until(lambda event: event.name == "gone")[-1]
        assert gone.data == {"workspace": "desk-2"}
    finally:
        server.manage("grant", "desk-2", "observer", "observer")
    news = stream.until(lambda event: event.name == "control")[-1]
    assert news.data["workspace"] == "desk-2"


# --- Shutdown -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "options"),
    [("uvicorn", []), ("uvicorn", ["--workers", "2"]), ("daphne", [])],
    ids=["uvicorn", "workers", "daphne"],
)
def test_event_streams_end_first_when_the_server_stops(
    kind: str, options: list[str], tmp_path: Path, databases: Databases, password_file: Path
) -> None:
    desk = FakeVnc().start()
    kind_of_database = "postgres" if options else None
    server = LiveServer(tmp_path, databases.fresh(kind_of_database).url)
    server.populate({"desk": desk.url}, password_file)
    server.start_as_typed(kind, *options)
    with closing(ApiClient(server.url, "operator")) as operator:
        display = operator.open("desk")
        streams = [operator.events() for _ in range(5)]
        for stream in streams:
            greeted(stream)
        server.stop()
        assert all(stream.ended() for stream in streams)
    assert display.closed()[0] in {1012, 4503}, "a code after which pages come back at once"
    assert "timeout graceful shutdown exceeded" not in server.log
    # Daphne cancels Django's handler, whose listener's RequestAborted nobody looks at then; and the
    # file for the request's body is closed by the collector, which Python warns of where it does.
    aborted = server.log.count("django.core.exceptions.RequestAborted")
    aborted += server.log.count("ResourceWarning: Unclosed file <tempfile.SpooledTemporaryFile")
    assert server.log.count("Traceback") == (aborted if kind == "daphne" else 0)
    desk.stop()


# --- Several processes, and outages ---------------------------------------------------------------
@pytest.fixture
def database(databases: Databases) -> Database:
    """One that several processes can share."""
    return databases.fresh("postgres")


@pytest.fixture
def broker() -> Iterator[Redis]:
    """A Redis that a test may stop."""
    broker = Redis().start()
    yield broker
    broker.close()


def start_two(
    stack: ExitStack, tmp_path: Path, url: str, password_file: Path, **env: object
) -> list[LiveServer]:
    """Start two processes of the same service."""
    servers = []
    for number in (1, 2):
        directory = tmp_path / str(number)
        directory.mkdir()
        server = LiveServer(directory, url, **env)
        if number == 1:
            server.populate(
                {"desk": "tcp://127.0.0.1:9", "desk-2": "tcp://127.0.0.1:9"}, password_file
            )
        servers.append(server)
    for server in servers:
        server.start()
        stack.callback(server.stop)
    return servers


def lines_about(server: LiveServer, text: str) -> int:
    return sum(text in line for line in server.log.splitlines())


POLL_SECONDS = 4  # so rarely that a busy machine, too, has told by a notice long before
DEAF, HEARS = "no notices (", "notices arrive again"


def test_notices_cross_processes_and_without_redis_the_poll_tells(
    tmp_path: Path, database: Database, broker: Redis, password_file: Path
) -> None:
    with ExitStack() as stack:
        first, second = start_two(
            stack,
            tmp_path,
            database.url,
            password_file,
            REDIS_URL=broker.url,
            DISPLAY_WATCH_SECONDS=POLL_SECONDS,
        )
        operator = stack.enter_context(closing(ApiClient(first.url, "operator")))
        observer = stack.enter_context(closing(ApiClient(second.url, "observer")))
        stream = observer.events()
        greeted(stream)
        wait_until(lambda: _is_told_by_notice(operator, stream), "a notice crosses", POLL_SECONDS)

        deaf, hears = (lines_about(second, text) for text in (DEAF, HEARS))
        broker.stop()
        wait_until(lambda: lines_about(second, DEAF) > deaf, "it is logged", expected=2)
        operator.acquire("desk")
        stream.control_of("desk", "acquired")
        operator.release("desk")
        stream.control_of("desk", "released")
        assert [lines_about(second, text) for text in (DEAF, HEARS)] == [deaf + 1, hears]

        broker.start()
        wait_until(lambda: lines_about(second, HEARS) > hears, "it is logged", expected=3)
        wait_until(
            lambda: _is_told_by_notice(operator, stream), "a notice crosses again", POLL_SECONDS
        )
    assert "Traceback" not in second.log


def _is_told_by_notice(operator: ApiClient, stream: EventStream) -> bool:
    """Whether a change is told sooner than a poll would tell it most of the time."""
    started = time.monotonic()
    operator.acquire("desk")
    stream.control_of("desk", "acquired")
    passed = time.monotonic() - started
    operator.release("desk")
    stream.control_of("desk", "released")
    return passed < POLL_SECONDS / 4


def test_while_the_database_is_away_streams_stay_and_then_go_on(
    tmp_path: Path, database: Database, password_file: Path
) -> None:
    host, _, rest = database.url.partition("127.0.0.1:")
    port, _, name = rest.partition("/")
    link = TcpProxy(int(port)).start()
    server = LiveServer(tmp_path, f"{host}127.0.0.1:{link.port}/{name}")
    server.populate({"desk": "tcp://127.0.0.1:9"}, password_file)
    server.start()
    with closing(ApiClient(server.url, "operator")) as operator:
        stream = operator.events()
        greeted(stream)
        link.refuse()
        link.cut()
        wait_until(lambda: lines_about(server, "event streams stand still"), "noticed", expected=3)
        assert operator._http.get("/api/events").status_code == 503
        link.heal()
        wait_until(lambda: lines_about(server, "event streams go on"), "recovered", expected=3)
        operator.acquire("desk")
        stream.control_of("desk", "acquired")
    assert lines_about(server, "event streams stand still") == 1
    server.stop()
    link.stop()


def test_whoever_resumes_again_and_again_under_concurrent_writers_misses_nothing(
    tmp_path: Path, database: Database, password_file: Path
) -> None:
    """Two processes, four writers, and a listener that changes its process all the time."""
    rounds = 25
    with ExitStack() as stack:
        servers = start_two(
            stack, tmp_path, database.url, password_file, DISPLAY_WATCH_SECONDS=0.05
        )
        observers = [
            stack.enter_context(closing(ApiClient(server.url, "observer"))) for server in servers
        ]
        take_and_release(servers[0].url, "desk", 1)  # before the first event nobody can resume
        first = observers[0].events()
        greeted(first)
        first.close()
        before = newest_event(database)
        writers = [
            threading.Thread(target=take_and_release, args=(server.url, slug, rounds))
            for server in servers
            for slug in ("desk", "desk-2")
        ]
        for writer in writers:
            writer.start()
        told, last_id, turn = [], first.last_id, 0
        while any(writer.is_alive() for writer in writers):
            turn += 1
            stream = observers[turn % 2].events(last_event_id=last_id)
            told += [stream.next() for _ in range(4)]
            stream.close()
            last_id = stream.last_id
        stream = observers[0].events(last_event_id=last_id)
        told += stream.until(lambda event: event.id == str(newest_event(database)))
    expected = database.rows(
        "SELECT what, at FROM controlplane_controlevent WHERE what <> 'refused' AND id > %s",
        [before],
    )
    happened = [each.data["happened"] for each in told if each and each.name == "control"]
    assert turn > 3
    assert len(expected) > rounds
    assert {(each["what"], each["at"][:-1]) for each in happened if each} >= {
        (what, at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]) for what, at in expected
    }


SLOW_WRITE = b"""
    INSERT INTO controlplane_controlevent
        (workspace_id, workspace_slug, what, who, client_id, epoch, reason, note, at)
    SELECT id, slug, 'kept', 'Slow Writer', '', 0, '', '', now()
    FROM controlplane_workspace WHERE slug = 'desk-2'
"""


def test_an_event_whose_transaction_commits_late_is_not_skipped(
    tmp_path: Path, database: Database, password_file: Path
) -> None:
    with ExitStack() as stack:
        servers = start_two(stack, tmp_path, database.url, password_file)
        observers = [
            stack.enter_context(closing(ApiClient(server.url, "observer"))) for server in servers
        ]
        take_and_release(servers[0].url, "desk", 1)
        staying, leaving = observers[0].events(), observers[1].events()
        greeted(staying)
        greeted(leaving)
        with psycopg.connect(database.url) as slow:
            slow.execute(SLOW_WRITE)  # it has its id, and nobody can see it yet
            take_and_release(servers[0].url, "desk", 1)
            staying.control_of("desk", "released")
            leaving.control_of("desk", "released")
            leaving.close()
            slow.commit()
        assert staying.control_of("desk-2", "kept")["happened"]["who"] == "Slow Writer"
        again = observers[0].events(last_event_id=leaving.last_id)  # at the other process
        assert again.control_of("desk-2", "kept")["happened"]["who"] == "Slow Writer"
        again.until(lambda event: event.id == str(newest_event(database)))


def newest_event(database: Database) -> int:
    ((newest,),) = database.rows("SELECT coalesce(max(id), 0) FROM controlplane_controlevent")
    return int(newest)


def take_and_release(url: str, slug: str, rounds: int) -> None:
    """Contend for control with whoever else does."""
    with closing(ApiClient(url, "operator")) as client:
        for number in range(rounds):
            client_id = f"writer-{threading.get_ident()}-{number}"
            body = {"client_id": client_id, "move": True}
            path = f"/api/workspaces/{slug}/display/control"
            client.post(f"{path}/acquire", json=body)
            client.post(f"{path}/release", json={"client_id": client_id})
