"""Slow, silent and hostile ends: what they cost, and that others do not notice them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.databases import Databases
from tests.support.desktop import LiveDesktop
from tests.support.rfb import BELL, RAW_ONLY, REQUEST, pointer, request, update
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

KINDS = {"uvicorn": 8 << 20, "daphne": 32 << 20}
MIB = 1 << 20
OTHER_TAB = "another-tab-01"


@dataclass
class Place:
    """One server with the default limits, a fake desktop behind it, and somebody logged in."""

    server: LiveServer
    desk: FakeVnc
    operator: ApiClient
    may_keep: int
    """Of what a browser sends, in bytes. Daphne reads on until it hears that the stream is over."""

    def driving(self) -> StreamClient:
        stream = self.operator.open("desk")
        self.operator.acquire("desk")
        return stream.in_control()


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, desktop: LiveDesktop
) -> Iterator[dict[str, Place]]:
    made: dict[str, Place] = {}
    for kind, may_keep in KINDS.items():
        desk = FakeVnc().start()
        server = LiveServer(tmp_path_factory.mktemp(kind), databases.fresh().url)
        upstreams = {"desk": desk.url, "real": f"tcp://127.0.0.1:{desktop.vnc_port}"}
        server.populate(upstreams, desktop.password_file)
        server.start(kind)
        made[kind] = Place(server, desk, ApiClient(server.url, "operator"), may_keep)
    yield made
    for place in made.values():
        place.operator.close()
        place.server.stop()
        place.desk.stop()


@pytest.fixture
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Iterator[Place]:
    place = places[request.param]
    place.desk.answers_updates = True  # or it counts as hung where memory takes long to settle
    yield place
    place.desk.answers_updates = False
    StreamClient.close_all()
    place.server.manage_quietly("force_release", "--all", "--note", "the test is over")


on_both_servers = pytest.mark.parametrize("place", KINDS, indirect=True)


class Peak:
    """The most that something was while the block ran."""

    def __init__(self, measure: Callable[[], int]) -> None:
        self._measure = measure
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.value = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.value = max(self.value, self._measure())


def settled(measure: Callable[[], int]) -> int:
    """Return what is measured once it has stayed the same for a second: a server warms up."""
    base, since = measure(), time.monotonic()

    def is_steady() -> bool:
        nonlocal base, since
        if abs(measure() - base) >= MIB // 32:
            base, since = measure(), time.monotonic()
        return time.monotonic() - since >= 1

    wait_until(is_steady, "the server's memory has settled", expected=3)
    return base


@on_both_servers
def test_a_browser_that_stops_reading_costs_a_bounded_amount_and_nobody_else_notices(
    place: Place,
) -> None:
    other = place.operator.open("real", OTHER_TAB)
    place.operator.open("desk")  # and reads no more; test_stream.py has one that reads its end
    before = settled(lambda: place.server.memory)
    with Peak(lambda: place.server.memory) as memory:
        place.desk.flood(1024 * MIB)
        other.send(RAW_ONLY, request(8, 8))
        assert other.read(16)[0] == 0, "the other stream has its picture"
        wait_until(lambda: "4413" in place.server.log, "the stalled stream is ended")
    assert memory.value - before <= 96 * MIB


@on_both_servers
def test_a_desktop_that_stops_reading_costs_a_bounded_amount_and_ends_with_4504(
    place: Place,
) -> None:
    """What one stream keeps is measured to the byte in unit/test_bridge.py; here it is a server."""
    stream = place.driving()
    moves = b"".join(pointer(0, x % 60, 5) for x in range(2000))
    done = threading.Event()

    def flood() -> None:
        with suppress(ConnectionClosed):
            while not done.is_set():
                stream.send(moves)

    stream.send(moves)  # what the first ones cost, whoever reads, is not what is measured
    wait_until(lambda: len(place.desk.newest.of_type(5)) == 2000, "the desktop has read them")
    before = settled(lambda: place.server.memory)
    place.desk.stop_reading()
    sender = threading.Thread(target=flood)

    def is_ended() -> bool:
        place.desk.send(BELL)  # it lives: it would be another end if it fell silent as well
        return "closed: 4504" in place.server.log

    with Peak(lambda: place.server.memory) as memory:
        sender.start()
        wait_until(is_ended, "the stream is ended", expected=3)
    done.set()
    place.desk.read_on()
    sender.join(limit(3))
    assert "stream: the desktop does not read input" in place.server.log
    assert memory.value - before <= place.may_keep


def test_a_slow_link_receives_a_large_update_on_one_stream(places: dict[str, Place]) -> None:
    """1 Mbit/s and 8 MiB: more than a minute. On both servers at the same time."""
    with ThreadPoolExecutor() as threads:
        list(threads.map(_receive_slowly, places.values()))
    StreamClient.close_all()


def _receive_slowly(place: Place) -> None:
    with TcpProxy(place.server.port, buffer_bytes=32 * 1024) as proxy:
        url = place.operator.session_url("desk").replace(
            f":{place.server.port}/", f":{proxy.port}/"
        )
        stream = StreamClient(url, origin=place.server.url).shake_hands()
        proxy.slow(125_000)
        picture = update(2048, 1024)
        stream.send(REQUEST)
        place.desk.send(picture)
        assert stream.read(len(picture)) == picture
        stream.send('{"type": "ping", "id": "still here"}')
        assert stream.text("pong")["id"] == "still here"
        proxy.heal()
