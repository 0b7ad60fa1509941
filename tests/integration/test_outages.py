"""What fails around living streams: PostgreSQL, Redis, and a web server's clock.

Real servers, a real PostgreSQL and a real Redis that only these tests stop. How long a revocation
took is not asserted, but written into the report of ``--junit-xml``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.databases import Database, Databases
from tests.support.processes import ROOT
from tests.support.rfb import SHIFT, key, pointer
from tests.support.server import LiveServer
from tests.support.services import Postgres, Redis
from tests.support.stream_client import CLIENT_ID, ApiClient, StreamClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

FENCE_SECONDS = 3
NEVER = 3000  # of a poll: what comes sooner has come by a notice
HOUR = 3600
LEASE_SECONDS = 5  # where leases must run out
B = ord("b")

CONTROL = "/api/workspaces/desk/display/control"
BLIND, SEES = "leases cannot be read", "leases can be read again"
DEAF, HEARS = "no notices (", "notices arrive again"


@dataclass
class Site:
    """What all servers share."""

    postgres: Postgres
    database: Database
    redis: Redis
    broker: TcpProxy  # before Redis
    desk: FakeVnc
    directories: Callable[[], Path]
    servers: list[LiveServer] = field(default_factory=list)

    def server(self, **env: object) -> LiveServer:
        """Return a server on all of this, not yet started."""
        env = {"REDIS_URL": f"redis://127.0.0.1:{self.broker.port}/0", **env}
        self.servers.append(LiveServer(self.directories(), self.database.url, **env))
        return self.servers[-1]

    def cut_channel_layer(self) -> None:
        self.broker.refuse()
        self.broker.cut()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A PostgreSQL, a Redis and a desktop of our own."""

    def directory() -> Path:
        return tmp_path_factory.mktemp("outages")

    with ExitStack() as stack:
        postgres, redis = Postgres(), Redis()
        stack.callback(postgres.close)
        stack.callback(redis.close)
        postgres.launch()
        redis.start()
        broker = stack.enter_context(TcpProxy(redis.port))
        desk = stack.enter_context(FakeVnc())
        desk.answers_updates = True
        database = Databases("postgres", postgres, directory()).fresh()
        site = Site(postgres, database, redis, broker, desk, directory)
        password = directory() / "password"
        password.write_text("not asked for\n")
        LiveServer(directory(), database.url).populate({"desk": desk.url}, password)
        yield site


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[LiveServer]:
    """Polls every second, and has a short fence."""
    server = site.server(DISPLAY_FENCE_SECONDS=FENCE_SECONDS).start()
    yield server
    server.stop()


@pytest.fixture
def deaf_between_polls(site: Site) -> Iterator[LiveServer]:
    """Hardly ever polls: whatever it knows of, notices have told it.

    A fresh one for each test: the first notice after an outage of Redis may be lost.
    """
    server = site.server(DISPLAY_WATCH_SECONDS=NEVER, DISPLAY_FENCE_SECONDS=2 * NEVER).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def other(site: Site) -> Iterator[LiveServer]:
    """The server that the administrator has before them."""
    server = site.server().start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _tidy(site: Site, other: LiveServer) -> Iterator[None]:
    """Everything works, nobody has control and no stream is open, before and after each test."""
    yield
    StreamClient.close_all()
    site.broker.heal()
    for server in site.servers:
        sys.stdout.write(server.log[-10_000:])  # shown where the test has failed
    other.manage_quietly("force_release", "--all", "--note", "the test is over")
    driving = "SELECT 1 FROM controlplane_displaystream WHERE driving_epoch IS NOT NULL"
    wait_until(lambda: not site.database.rows(driving), "nobody drives", FENCE_SECONDS)


@pytest.fixture
def operator(server: LiveServer) -> Iterator[ApiClient]:
    """Somebody who may take control, at the server that polls."""
    with closing(ApiClient(server.url, "operator")) as client:
        yield client


@pytest.fixture
def admin(other: LiveServer) -> Iterator[ApiClient]:
    """Somebody who may end it, at the other server."""
    with closing(ApiClient(other.url, "admin")) as client:
        yield client


@pytest.fixture
def took(
    request: pytest.FixtureRequest, record_testsuite_property: Callable[[str, object], None]
) -> Callable[[float], None]:
    """Note how long it took from the release to the holder's last key-up."""
    name = request.node.name
    return lambda seconds: record_testsuite_property(f"{name}: seconds", round(seconds, 3))


def drive(operator: ApiClient, desk: FakeVnc) -> StreamClient:
    """Take control and hold Shift down."""
    stream = operator.open("desk")
    operator.acquire("desk")
    hold_shift(stream.in_control(), desk)
    return stream


def hold_shift(stream: StreamClient, desk: FakeVnc) -> None:
    """Press it; a page that then answers no pings for 4 s is taken to be gone, and lets go."""
    stream.send(key(True, SHIFT))
    desk.wait_for(key(True, SHIFT))


def drive_without_polls(operator: ApiClient, site: Site) -> StreamClient:
    """Do the same at a server that does not poll; to others its stream looks alive."""
    stream = drive(operator, site.desk)
    alive = "UPDATE controlplane_displaystream SET stamped_at = now() + interval '1 hour'"
    site.database.rows(f"{alive} WHERE closed_at IS NULL")
    return stream


def assert_types(stream: StreamClient, desk: FakeVnc) -> None:
    """Fail unless what is typed arrives."""
    stream.send(key(True, B), key(False, B))
    desk.wait_for(key(True, B), key(False, B))


def lines(server: LiveServer, *texts: str) -> list[int]:
    """Return how many lines of the log say each of these."""
    return [sum(text in line for line in server.log.splitlines()) for text in texts]


@contextmanager
def stopped(service: Postgres | Redis) -> Iterator[None]:
    """Stop it for the time of the block."""
    service.stop()
    try:
        yield
    finally:
        service.start()


def assert_api_is_back(client: ApiClient) -> None:
    """Wait for it; from then on no call fails, whatever was idle in the pool."""
    wait_until(lambda: client.call("GET", CONTROL).response.status_code == 200, "the API is back")


# --- PostgreSQL -----------------------------------------------------------------------------------
def test_while_postgresql_is_stopped_input_ends_at_the_fence_and_comes_back_by_itself(
    site: Site, server: LiveServer, operator: ApiClient
) -> None:
    stream, before = drive(operator, site.desk), lines(server, BLIND, SEES)
    own = site.desk.newest
    with stopped(site.postgres):
        assert_types(stream, site.desk)  # until the fence, the lease that was read stands
        assert stream.out_of_control()["reason"] == "fenced"
        site.desk.wait_for(key(False, SHIFT))
        stream.send(key(True), pointer(1))
        _assert_answers_503(operator)
    stream.in_control().send(key(True, B), key(False, B))
    expected = [key(True, B), key(False, B)]
    wait_until(lambda: own.of_type(4)[-2:] == expected, "on the same connection, input arrives")
    assert key(True) not in own.messages, "what was typed meanwhile is lost"
    assert_api_is_back(operator)
    after = lines(server, BLIND, SEES)
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1]


def _assert_answers_503(operator: ApiClient) -> None:
    acquire = operator.post(f"{CONTROL}/acquire", json={"client_id": CLIENT_ID})
    for answer in (operator.call("GET", CONTROL), operator.call("GET", "/api/workspaces"), acquire):
        answer.raise_for_status_is(503)
        assert answer.response.json()["error"]["code"] == "unavailable"
        assert int(answer.response.headers["Retry-After"]) > 0


def test_a_lease_that_ends_while_postgresql_is_away_does_not_outlive_it(
    site: Site, operator: ApiClient, server: LiveServer
) -> None:
    """Nobody can record it meanwhile: the time alone ends it, and it cannot be resumed."""
    stream = drive(operator, site.desk)
    epoch = operator.acquire("desk")["epoch"]
    site.database.rows("UPDATE controlplane_workspace SET max_hold_seconds = 60")
    site.database.rows(
        "UPDATE controlplane_displaycontrollease SET kept_at = kept_at - interval '57 s',"
        " acquired_at = acquired_at - interval '57 s',"
        " expires_at = kept_at + interval '3 s', version = version + 1"
    )
    try:
        with stopped(site.postgres):
            stream.out_of_control()
            site.desk.wait_for(key(False, SHIFT))
        assert_api_is_back(operator)
        wait_until(
            lambda: operator.call("GET", CONTROL).response.json()["controller"] == "none",
            "the longest hold is over",
        )
        body = {"client_id": CLIENT_ID, "epoch": epoch}
        refused = operator.post(f"{CONTROL}/acquire", json=body).raise_for_status_is(409)
        assert refused["error"]["code"] == "max_hold"
    finally:
        site.database.rows("UPDATE controlplane_workspace SET max_hold_seconds = NULL")


def test_when_all_its_connections_are_terminated_a_server_goes_on(
    site: Site, server: LiveServer, operator: ApiClient
) -> None:
    stream = drive(operator, site.desk)
    read = "SELECT max(stamped_at) FROM controlplane_displaystream"
    for _ in range(3):
        ended = site.database.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert ended
        [[before]] = site.database.rows(read)
        wait_until(lambda before=before: site.database.rows(read)[0][0] > before, "a poll", 2)
    assert_types(stream, site.desk)
    for _ in range(5):
        operator.acquire("desk")
    assert {text["mode"] for text in stream.texts if text["type"] == "control"} <= {"control"}


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
def test_a_server_that_is_told_to_stop_amid_a_request_ends(site: Site, kind: str) -> None:
    server = site.server().start(kind)
    with ThreadPoolExecutor() as threads, closing(ApiClient(server.url, "operator")) as client:
        stream = client.open("desk")
        with psycopg.connect(site.database.url) as lock:
            lock.execute("LOCK TABLE controlplane_displaycontrollease IN EXCLUSIVE MODE")
            call = threads.submit(
                client.call, "POST", f"{CONTROL}/acquire", json={"client_id": CLIENT_ID}
            )
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
            wait_until(lambda: site.database.rows(waiting), "the request waits for the database")
            server.ask_to_stop()
            assert stream.closed()[0] in {1012, 4503}
        server.stop()
        call.exception(limit(1))


# --- Redis ----------------------------------------------------------------------------------------
def let_notices_out(server: LiveServer, operator: ApiClient) -> None:
    """Make the server notice that another test's outage is over: it rests for a second."""

    def are_out() -> bool:
        operator.acquire("desk")
        operator.release("desk")
        failed, out = lines(server, "notices do not get out", "notices get out again")
        return failed == out

    wait_until(are_out, "notices get out", 2)


def test_while_redis_is_stopped_streams_live_and_control_can_be_ended(
    site: Site,
    server: LiveServer,
    operator: ApiClient,
    admin: ApiClient,
    took: Callable[[float], None],
) -> None:
    let_notices_out(server, operator)
    stream, texts = drive(operator, site.desk), (DEAF, HEARS, "notices do not get out")
    before = lines(server, *texts)
    with stopped(site.redis):
        wait_until(lambda: lines(server, DEAF)[0] > before[0], "it is noticed", 2)
        assert_types(stream, site.desk)
        hold_shift(stream, site.desk)
        took(seconds_to_the_end(_end_by_command, site, stream, admin))
        for _ in range(3):  # it goes on, without a word in the log
            operator.acquire("desk")
            stream.in_control()
            operator.release("desk")
            stream.out_of_control()
        meanwhile = lines(server, *texts)
    wait_until(lambda: lines(server, HEARS)[0] > before[1], "notices arrive again", 2)
    # Looked at before the end: afterwards a busy machine may be too slow for Redis now and then.
    assert [now - then for now, then in zip(meanwhile, before, strict=True)] == [1, 0, 1]


def test_after_a_restart_of_redis_notices_arrive_again(
    site: Site, deaf_between_polls: LiveServer, admin: ApiClient
) -> None:
    """The server does not poll: what it is told it has heard."""
    with closing(ApiClient(deaf_between_polls.url, "operator")) as operator:
        stream = drive_without_polls(operator, site)
        before = lines(deaf_between_polls, DEAF, HEARS)
        site.redis.restart()
        wait_until(lambda: lines(deaf_between_polls, HEARS)[0] > before[1], "it hears again", 3)
        hold_shift(stream, site.desk)
        seconds_to_the_end(_end_by_other_server, site, stream, admin)


# --- Two servers ----------------------------------------------------------------------------------
def _end_by_other_server(site: Site, admin: ApiClient) -> None:
    admin.release("desk", "admins-tab", force=True, note="lunch")


def _end_by_command(site: Site, admin: ApiClient) -> None:
    site.servers[0].manage("force_release", "desk", "--note", "lunch")


def seconds_to_the_end(
    end: Callable[[Site, ApiClient], None], site: Site, stream: StreamClient, admin: ApiClient
) -> float:
    """End control; return how long after its event the holder had been told, with all keys up."""
    with ThreadPoolExecutor(1) as beside:  # the page goes on answering pings
        ending = beside.submit(end, site, admin)
        assert stream.out_of_control()["reason"] == "forced"
        site.desk.wait_for(key(False, SHIFT))
        arrived = time.time()
        ending.result(limit(5))
    forced = "SELECT max(at) FROM controlplane_controlevent WHERE what = 'forced'"
    [[at]] = site.database.rows(forced)
    return float(arrived - at.timestamp())


WAYS = pytest.mark.parametrize("end", [_end_by_other_server, _end_by_command])


@WAYS
def test_control_that_is_ended_in_another_process_ends_by_the_notice(
    end: Callable[[Site, ApiClient], None],
    site: Site,
    deaf_between_polls: LiveServer,
    admin: ApiClient,
    took: Callable[[float], None],
) -> None:
    with closing(ApiClient(deaf_between_polls.url, "operator")) as operator:
        stream = drive_without_polls(operator, site)
        took(seconds_to_the_end(end, site, stream, admin))


@WAYS
def test_with_the_channel_layer_cut_it_ends_by_the_poll(
    end: Callable[[Site, ApiClient], None],
    site: Site,
    operator: ApiClient,
    admin: ApiClient,
    took: Callable[[float], None],
) -> None:
    stream = drive(operator, site.desk)
    site.cut_channel_layer()
    took(seconds_to_the_end(end, site, stream, admin))


# --- A clock that is wrong ------------------------------------------------------------------------
@pytest.fixture(scope="module", params=[-HOUR, HOUR], ids=["an_hour_slow", "an_hour_fast"])
def wrong(request: pytest.FixtureRequest, site: Site) -> Iterator[LiveServer]:
    """A server that does not know what time it is."""
    server = site.server(
        DISPLAY_LEASE_SECONDS=LEASE_SECONDS,
        PYTHONPATH=ROOT / "tests/support/wrong_clock",
        WRONG_CLOCK_SECONDS=request.param,
    ).start_as_typed()
    with closing(ApiClient(server.url, "operator")) as operator:
        date = parsedate_to_datetime(operator.call("GET", "/healthz").response.headers["Date"])
        assert abs(date.timestamp() - time.time() - request.param) < HOUR / 2, "it must be wrong"
    yield server
    server.stop()


def _seconds_left(told: dict[str, Any], name: str) -> float:
    at, now = (datetime.fromisoformat(told[each]) for each in (name, "server_time"))
    return (at - now).total_seconds()


def test_the_clock_of_a_web_server_changes_nothing(
    site: Site, wrong: LiveServer, other: LiveServer
) -> None:
    with ExitStack() as logins:
        here, there = (
            logins.enter_context(closing(ApiClient(each.url, "operator")))
            for each in (wrong, other)
        )
        told = here.acquire("desk")
        assert 0 < _seconds_left(told, "expires_at") <= LEASE_SECONDS
        assert 30 < _seconds_left(told, "session_expires_at") < 90
        # Minted here and spent there, and the other way round.
        StreamClient(told["session_url"].replace(wrong.url[4:], other.url[4:])).shake_hands()
        minted_there = there.session_url("desk").replace(other.url[4:], wrong.url[4:])
        stream = StreamClient(minted_there).shake_hands().in_control()
        assert_types(stream, site.desk)
        renewed = here.acquire("desk", epoch=told["epoch"])
        assert renewed["epoch"] == told["epoch"]
        assert there.acquire("desk", epoch=told["epoch"], ttl_seconds=30)["epoch"] == told["epoch"]
        here.release("desk", epoch=told["epoch"])
        assert stream.out_of_control()["reason"] == "released"


def test_with_a_wrong_clock_a_lease_runs_out_in_its_own_time_and_is_resumed(
    site: Site, wrong: LiveServer
) -> None:
    with closing(ApiClient(wrong.url, "operator")) as operator:
        stream = operator.open("desk")
        began = time.monotonic()
        epoch = operator.acquire("desk")["epoch"]
        stream.in_control().send(key(True))
        site.desk.wait_for(key(True))
        assert stream.out_of_control()["reason"] == "expired"
        # A little sooner, at most: the gate counts from before the read that opened it was sent.
        assert time.monotonic() - began > LEASE_SECONDS / 2
        site.desk.wait_for(key(False))
        # So there is a moment at which the gate is shut and the lease could still be renewed.
        wait_until(lambda: operator.control("desk")["controller"] == "none", "the lease's end")
        assert operator.acquire("desk", epoch=epoch)["epoch"] == epoch + 1
        told = stream.text("control")
        while (told["mode"], told["control"]["epoch"]) != ("control", epoch + 1):
            told = stream.text("control")
        assert_types(stream, site.desk)
