"""Two nodes behind nginx or Caddy, set up as in deploy/: any request and any stream on any node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.databases import Databases
from tests.support.event_stream import EventStream
from tests.support.pages import Page, open_pages, stop_under
from tests.support.reverse_proxies import Caddy, Nginx, ReverseProxy
from tests.support.rfb import key
from tests.support.server import LiveServer
from tests.support.services import Redis
from tests.support.stream_client import CLIENT_ID, ApiClient, StreamClient
from tests.support.timing import limit, wait_until
from tests.support.trust import trusted
from tests.support.vnc_server import FakeVnc

CONTROL = "/api/workspaces/desk/display/control"
ELSEWHERE = "127.0.0.2"  # an address of this machine that is nobody's proxy
MADE_UP = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "http",
}
PAGES = 50


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeVnc]:
    """A desktop that records what it is told."""
    with FakeVnc() as desk:
        desk.answers_updates = True
        yield desk


@pytest.fixture(scope="module", params=[Nginx, Caddy], ids=["nginx", "caddy"])
def cluster(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    redis: Redis,
    fake: FakeVnc,
) -> Iterator[Cluster]:
    """Two nodes that let many pages in."""
    with clusters.running(
        tmp_path_factory.mktemp("cluster"),
        databases.fresh("postgres"),
        redis,
        request.param,
        {"desk": fake.url},
        start=LiveServer.start,
        DISPLAY_MAX_STREAMS_PER_USER=2 * PAGES,
        DISPLAY_MAX_STREAMS_PER_WORKSPACE=2 * PAGES,
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    StreamClient.close_all()
    EventStream.close_all()


@pytest.fixture
def operator(cluster: Cluster) -> Iterator[ApiClient]:
    """May take control."""
    with closing(ApiClient(cluster.proxy.url, "operator")) as client:
        yield client
        client.release("desk")


@pytest.fixture
def observer(cluster: Cluster) -> Iterator[ApiClient]:
    """May only watch."""
    with closing(ApiClient(cluster.proxy.url, "observer")) as client:
        yield client


@pytest.fixture(scope="module")
def program(cluster: Cluster) -> dict[str, str]:
    """The headers with which a program calls."""
    node = cluster.nodes[0]
    token = node.manage("add_token", "program", "--scope", "control", "--all-workspaces")
    return {"Authorization": f"Bearer {token.strip()}"}


# --- The configuration ----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Nginx, Caddy])
def test_the_configuration_is_one_without_a_warning(
    kind: type[ReverseProxy], tmp_path: Path
) -> None:
    assert not _complaints(kind(tmp_path, [8000, 8001]).check())


def _complaints(said: str) -> list[str]:
    """Return the lines of nginx, or of Caddy's JSON, that are more than information."""
    words = ('"level":"warn"', '"level":"error"', "[warn]", "[error]", "[emerg]")
    return [line for line in said.splitlines() if any(word in line for word in words)]


# --- Traffic --------------------------------------------------------------------------------------
def test_pages_and_their_files_come_through(cluster: Cluster, operator: ApiClient) -> None:
    page = operator.call("GET", "/workspaces/desk/").response
    assert page.status_code == 200
    assert "max-age" in page.headers["Strict-Transport-Security"]
    for file in ("controlplane/main.js", "novnc/core/rfb.js"):
        assert operator.call("GET", f"/static/{file}").response.status_code == 200


def test_without_tls_there_is_nothing_but_the_way_to_tls(cluster: Cluster) -> None:
    answer = httpx.get(f"http://127.0.0.1:{cluster.proxy.plain_port}/workspaces/desk/")
    assert answer.status_code in {301, 308}
    assert answer.headers["Location"].startswith("https://127.0.0.1")
    assert urlsplit(answer.headers["Location"]).path == "/workspaces/desk/"


def test_streams_go_to_every_node_and_back(
    cluster: Cluster, operator: ApiClient, fake: FakeVnc
) -> None:
    driving = operator.open("desk", origin=cluster.proxy.url)
    operator.acquire("desk")
    driving.in_control().send(key(True), key(False))
    fake.wait_for(key(True), key(False))
    servers: set[str] = set()
    tabs = count()

    def every_node_has_one() -> bool:
        """Open one more: a proxy may leave out for a moment a node that is slow to answer."""
        stream = StreamClient(operator.session_url("desk", f"watching-{next(tabs)}"))
        servers.add(stream.text("hello")["server"])
        return len(servers) == len(cluster.nodes)

    wait_until(every_node_has_one, "each node has a stream")


def test_a_foreign_page_is_refused_through_the_proxy_too(operator: ApiClient) -> None:
    stream = StreamClient(operator.session_url("desk"), origin="https://evil.example")
    assert stream.closed()[0] == 4403


def test_events_are_passed_on_as_they_happen(operator: ApiClient, observer: ApiClient) -> None:
    stream = observer.events()
    stream.until(lambda event: event.id is not None)
    operator.acquire("desk")
    assert stream.control_of("desk", "acquired")["control"]["controlled_by"] == "operator"


def test_a_call_that_waits_is_answered_when_something_changes(
    cluster: Cluster, operator: ApiClient, program: dict[str, str]
) -> None:
    with (
        httpx.Client(base_url=cluster.proxy.url, headers=program, timeout=limit(6)) as agent,
        ThreadPoolExecutor(1) as aside,
    ):
        now = agent.get(CONTROL).json()
        query = {"wait": 60, "epoch": now["epoch"], "version": now["version"]}
        waiting = aside.submit(agent.get, CONTROL, params=query)
        operator.acquire("desk")
        assert waiting.result(timeout=limit(3)).json()["controlled_by"] == "operator"


def test_a_token_is_good_once_on_whichever_node(cluster: Cluster, program: dict[str, str]) -> None:
    for minting, dialled in (cluster.nodes, reversed(cluster.nodes)):
        answer = httpx.post(
            f"http://127.0.0.1:{minting.port}/api/workspaces/desk/display/session",
            json={"client_id": CLIENT_ID},
            headers=program,
        )
        token = answer.json()["session_url"].partition("#")[2]
        path = "/api/workspaces/desk/display/session/websockify"
        StreamClient(f"ws://127.0.0.1:{dialled.port}{path}#{token}").shake_hands()
        again = StreamClient(f"ws://127.0.0.1:{minting.port}{path}#{token}")
        assert again.closed()[0] == 4401


def test_no_log_of_the_proxy_holds_a_token(cluster: Cluster, operator: ApiClient) -> None:
    addresses = [operator.session_url("desk", f"logged-tab-{n}") for n in range(2)]
    for url, in_query in zip(addresses, (True, False), strict=True):
        with closing(StreamClient(url, token_in_query=in_query)) as stream:
            stream.shake_hands()
    logged = wait_until(
        lambda: cluster.proxy.logs() if cluster.proxy.logs().count("websockify") >= 2 else "",
        "both streams are in the log",
    )
    assert "token" not in logged
    for url in addresses:
        assert url.partition("#token=")[2] not in logged


# --- Who is believed ------------------------------------------------------------------------------
def client_at(address: str, base_url: str, headers: dict[str, str]) -> httpx.Client:
    """Return a client that calls from this address."""
    transport = httpx.HTTPTransport(local_address=address, verify=trusted(), retries=0)
    return httpx.Client(base_url=base_url, headers=headers, transport=transport, timeout=limit(1))


def take_and_release(client: httpx.Client) -> str:
    """Take control for a moment; return the address of the session."""
    body = {"client_id": CLIENT_ID}
    answer = client.post(f"{CONTROL}/acquire", json=body)
    assert answer.status_code == 200, answer.text
    client.post(f"{CONTROL}/release", json=body)
    return str(answer.json()["session_url"])


def last_ip(cluster: Cluster) -> str:
    [[ip]] = cluster.database.rows(
        "SELECT host(ip) FROM controlplane_controlevent ORDER BY id DESC LIMIT 1"
    )
    return str(ip)


def test_what_a_client_says_of_itself_is_replaced(
    cluster: Cluster, program: dict[str, str]
) -> None:
    with client_at(ELSEWHERE, cluster.proxy.url, program | MADE_UP) as client:
        url = take_and_release(client)
    assert url.startswith(f"wss://127.0.0.1:{cluster.proxy.port}/")
    assert last_ip(cluster) == ELSEWHERE


def test_who_is_no_trusted_proxy_is_not_believed(cluster: Cluster, program: dict[str, str]) -> None:
    node = f"http://127.0.0.1:{cluster.nodes[0].port}"
    https = MADE_UP | {"X-Forwarded-Proto": "https"}
    with client_at(ELSEWHERE, node, program | https) as client:
        url = take_and_release(client)
    assert url.startswith(f"ws://127.0.0.1:{cluster.nodes[0].port}/")
    assert last_ip(cluster) == ELSEWHERE


def test_the_proxy_names_requests_and_nobody_else_does(cluster: Cluster) -> None:
    with client_at(ELSEWHERE, cluster.proxy.url, {"X-Request-ID": "made-up"}) as client:
        names = {client.get("/healthz").headers["X-Request-ID"] for _ in range(2)}
    assert len(names) == 2
    assert "made-up" not in names
    assert {len(name) for name in names} <= {32, 36}  # nginx' and Caddy's; ours have 16


# --- Rolling restart ------------------------------------------------------------------------------
@pytest.fixture
def pages(operator: ApiClient, observer: ApiClient) -> Iterator[list[Page]]:
    """Many who watch, and one who drives; all of them live."""
    with open_pages(operator, observer, "desk", PAGES) as pages:
        yield pages


def test_a_rolling_restart_ends_no_page_and_takes_control_from_nobody(
    cluster: Cluster, pages: list[Page], fake: FakeVnc
) -> None:
    holder = pages[0]
    for node in cluster.nodes:
        lost = stop_under(pages, node)
        assert lost, "some were on this node"
        assert {page.endings[-1] for page in lost} == {1012}
        node.start()
    assert all(len(page.endings) <= 2 for page in pages), "a page lost no more than its nodes"
    assert set(holder.epochs) == {holder.epochs[0]}, "control was never anybody else's"
    assert holder.endings, "the holder's node was among them"
    wait_until(lambda: len(cluster.open_streams()) == PAGES, "no row of a stream is left over")
    wait_until(
        lambda: sum(not each.ended for each in fake.connections) == PAGES,
        "nor is a connection to the desktop",
    )


# --- Idle -----------------------------------------------------------------------------------------
@pytest.fixture
def hasty(tmp_path: Path, databases: Databases, redis: Redis, fake: FakeVnc) -> Iterator[Cluster]:
    """One node behind an nginx that waits for 5 s, with signs of life every two."""
    with clusters.running(
        tmp_path,
        databases.fresh("postgres"),
        redis,
        Nginx,
        {"desk": fake.url},
        nodes=1,
        start=LiveServer.start,
        changes={"proxy_read_timeout 120s;": "proxy_read_timeout 5s;"},
        DISPLAY_PING_SECONDS=2,
    ) as cluster:
        yield cluster


def test_an_idle_display_outlasts_the_patience_of_the_proxy(hasty: Cluster) -> None:
    with closing(ApiClient(hasty.proxy.url, "operator")) as operator:
        # A stock client gets websocket pings alone, every 20 s.
        stock = operator.open("desk", "stock-client", subprotocols=("binary",))
        idle = operator.open("desk")
        for _ in range(9):
            assert idle.text("ping")
        with pytest.raises(ConnectionClosed):
            stock.read(1)
        idle.send(json.dumps({"type": "ping", "id": "still there"}))
        assert idle.text("pong")["id"] == "still there"
