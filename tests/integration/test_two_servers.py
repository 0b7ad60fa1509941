"""Two server processes on one database: whose input reaches the desktop, whatever is cut or killed.

Each server reaches PostgreSQL and Redis over links of its own, which the tests cut.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.databases import Database, Databases
from tests.support.desktop import LiveDesktop
from tests.support.rfb import SHIFT, key, pointer
from tests.support.server import LiveServer
from tests.support.services import Redis
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

FENCE_SECONDS = 3
A, B = ord("a"), ord("b")
SECOND_TAB = "second-tab-0001"


@dataclass
class Node:
    """One server, and its links to what all share."""

    server: LiveServer
    database: TcpProxy
    broker: TcpProxy
    is_cut_off: bool = False

    def cut_off(self) -> None:
        """Let nothing from outside reach it, silently: neither reads nor notices."""
        self.is_cut_off = True
        self.database.blackhole()
        self.broker.blackhole()

    def heal(self) -> None:
        """End that; what was swallowed is lost, so the old connections end."""
        for link in (self.database, self.broker) if self.is_cut_off else ():
            link.cut()
            link.heal()
        self.is_cut_off = False


@dataclass
class Cluster:
    """Two nodes in front of the same desktops."""

    first: Node
    second: Node
    database: Database
    desk: FakeVnc


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeVnc]:
    """A desktop that records what it is told, in the order in which it comes."""
    with FakeVnc() as desk:
        desk.answers_updates = True
        yield desk


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    redis: Redis,
    fake: FakeVnc,
    desktop: LiveDesktop,
) -> Iterator[Cluster]:
    """Two servers with a short fence."""
    database = databases.fresh("postgres")
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(_node(tmp_path_factory.mktemp(name), database, redis))
            for name in ("first", "second")
        ]
        upstreams = {"desk": fake.url, "real": f"tcp://127.0.0.1:{desktop.vnc_port}"}
        nodes[0].server.populate(upstreams, desktop.password_file)
        for node in nodes:
            node.server.start()
        yield Cluster(*nodes, database, fake)


@contextmanager
def _node(directory: Path, database: Database, redis: Redis) -> Iterator[Node]:
    head, _, tail = database.url.partition("@")
    address, _, name = tail.partition("/")
    with TcpProxy(int(address.partition(":")[2])) as to_database, TcpProxy(redis.port) as to_broker:
        server = LiveServer(
            directory,
            f"{head}@127.0.0.1:{to_database.port}/{name}",
            REDIS_URL=f"redis://127.0.0.1:{to_broker.port}/0",
            DISPLAY_FENCE_SECONDS=FENCE_SECONDS,
        )
        yield Node(server, to_database, to_broker)
        server.stop()


@pytest.fixture(autouse=True)
def _tidy(cluster: Cluster) -> Iterator[None]:
    """Nobody has control, and no stream is open, when the next test begins."""
    yield
    StreamClient.close_all()
    for node in (cluster.first, cluster.second):
        node.heal()
    cluster.second.server.manage_quietly("force_release", "--all", "--note", "the test is over")
    driving = "SELECT 1 FROM controlplane_displaystream WHERE driving_epoch IS NOT NULL"
    wait_until(lambda: not cluster.database.rows(driving), "nobody drives", FENCE_SECONDS)
    cluster.desk.order.clear()


@pytest.fixture
def operator(cluster: Cluster) -> Iterator[ApiClient]:
    """Has the first server before them."""
    with closing(ApiClient(cluster.first.server.url, "operator")) as client:
        yield client


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[ApiClient]:
    """Has the second server before them."""
    with closing(ApiClient(cluster.second.server.url, "admin")) as client:
        yield client


class Typist:
    """Types one letter over and over, whether or not anybody listens."""

    def __init__(self, stream: StreamClient, letter: int) -> None:
        self._stream, self._letter = stream, letter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._type, daemon=True)

    def _type(self) -> None:
        with suppress(ConnectionClosed):
            while not self._stop.wait(0.005):
                self._stream.send(key(True, self._letter), key(False, self._letter))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(limit(1))


def drive(person: ApiClient, slug: str = "desk", **options: Any) -> StreamClient:
    """Open a stream and take control on it."""
    stream = person.open(slug, **options)
    person.acquire(slug, **options)
    return stream


def presses(desk: FakeVnc, letter: int) -> list[int]:
    """Return where in the order of all input this letter was pressed."""
    pressed = key(True, letter)
    return [place for place, (_, message) in enumerate(desk.input_order) if message == pressed]


def assert_apart(desk: FakeVnc) -> None:
    """Fail unless all of who typed A, key-ups included, came before all of who typed B."""
    order = desk.input_order
    connection_of_first = order[presses(desk, A)[0]][0]
    last_of_first = max(n for n, (number, _) in enumerate(order) if number == connection_of_first)
    assert last_of_first < presses(desk, B)[0]
    before = [message for _, message in order[: presses(desk, B)[0]]]
    assert key(False, SHIFT) in before, "its Shift was let go of"


def evict(admin: ApiClient, stream: StreamClient, desk: FakeVnc) -> list[str | None]:
    """Force-release through the second server, take control on its stream, and type at once.

    Returns the reasons that the new holder was given until its input passed.
    """
    admin.release("desk", SECOND_TAB, force=True, note="mine now")
    admin.acquire("desk", SECOND_TAB)
    reasons = []
    with Typist(stream, B):
        told = stream.text("control")
        while told["mode"] != "control":
            reasons.append(told["reason"])
            told = stream.text("control")
        wait_until(lambda: len(presses(desk, B)) > 50, "the new holder's input arrives")
    return reasons


def wait_for_a_stamp(cluster: Cluster) -> None:
    """Wait until a poll has told anew that whoever drives is alive."""
    read = "SELECT stamped_at FROM controlplane_displaystream WHERE driving_epoch IS NOT NULL"
    before = cluster.database.rows(read)
    wait_until(lambda: cluster.database.rows(read) != before, "a poll", 2)


# --- The barrier ----------------------------------------------------------------------------------
def test_input_of_two_holders_on_two_servers_never_interleaves(
    cluster: Cluster, operator: ApiClient, admin: ApiClient
) -> None:
    stream, next_one = drive(operator).in_control(), admin.open("desk", client_id=SECOND_TAB)
    stream.send(key(True, SHIFT), pointer(1, 5, 6))
    with Typist(stream, A):
        wait_until(lambda: presses(cluster.desk, A), "the first holder types")
        evict(admin, next_one, cluster.desk)
    assert_apart(cluster.desk)
    order = [message for _, message in cluster.desk.input_order]
    assert order.index(pointer(0, 5, 6)) < presses(cluster.desk, B)[0]


def test_a_holder_whose_server_is_cut_off_is_waited_for_until_its_gate_has_shut(
    cluster: Cluster, operator: ApiClient, admin: ApiClient
) -> None:
    stream, next_one = drive(operator).in_control(), admin.open("desk", client_id=SECOND_TAB)
    stream.send(key(True, SHIFT))
    with Typist(stream, A):
        wait_until(lambda: presses(cluster.desk, A), "the first holder types")
        wait_for_a_stamp(cluster)  # from now on it is waited for as long as the fence
        cluster.first.cut_off()
        reasons = evict(admin, next_one, cluster.desk)
    assert_apart(cluster.desk)
    assert "waiting" in reasons, "the page was told that the one before is waited for"


# --- A server dies --------------------------------------------------------------------------------
def test_keys_that_a_killed_server_held_down_are_released_by_another(
    cluster: Cluster, operator: ApiClient, desktop: LiveDesktop
) -> None:
    stream = drive(operator, "real").in_control()
    stream.send(key(True, SHIFT), pointer(1, 300, 200))
    wait_until(lambda: desktop.held()["keys"] and desktop.held()["buttons"], "Shift is down")
    stamped = "SELECT 1 FROM controlplane_displaystream WHERE pointer_buttons = 1"
    wait_until(lambda: cluster.database.rows(stamped), "a poll has told of the button")
    cluster.first.server.kill()
    try:
        wait_until(
            lambda: not (desktop.held()["keys"] or desktop.held()["buttons"]),
            "another server lets go of them",
            FENCE_SECONDS + 2,
        )
        assert "left driving" in cluster.second.server.log
    finally:
        cluster.first.server.start()


def test_a_page_that_comes_back_on_another_server_drives_on_soon(
    cluster: Cluster, operator: ApiClient, desktop: LiveDesktop
) -> None:
    epoch = operator.acquire("real")["epoch"]
    stream = operator.open("real").in_control()
    stream.send(key(True, SHIFT))
    wait_until(lambda: desktop.held()["keys"], "Shift is down")
    cluster.first.server.kill()
    try:
        with closing(ApiClient(cluster.second.server.url, "operator")) as same:
            assert same.acquire("real", epoch=epoch)["epoch"] == epoch
            back = same.open("real").in_control()
            back.send(key(True, A))
            # Modifiers are released last: a sweep that is not over yet would take A with it.
            wait_until(lambda: "a" in desktop.held()["keys"], "the new stream drives")
            assert desktop.held()["keys"] == ["a"], cluster.second.server.log[-3000:]
    finally:
        cluster.first.server.start()
