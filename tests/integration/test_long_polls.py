"""Waiting for a change of control on a real server: told at once, by time too, and cheaply."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.databases import Databases
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient
from tests.support.timing import limit, wait_until
from tests.support.trust import trusted

CONTROL = "/api/workspaces/desk/display/control"
LEASE_SECONDS = 3
WAITERS = 100


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(
    kind: str,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    password_file: Path,
) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("server")
    server = LiveServer(directory, databases.fresh().url, DISPLAY_LEASE_SECONDS=LEASE_SECONDS)
    server.populate({"desk": "tcp://127.0.0.1:9"}, password_file)
    yield server.start(kind)
    server.stop()


@pytest.fixture
def operator(server: LiveServer) -> Iterator[ApiClient]:
    with closing(ApiClient(server.url, "operator")) as client:
        yield client
        client.release("desk")


@pytest.fixture(scope="module")
def robot(server: LiveServer) -> str:
    """The token of a program that may control all workspaces."""
    return add_token(server, "robot")


@pytest.fixture
def agent(server: LiveServer, robot: str) -> Iterator[httpx.Client]:
    """That program."""
    with calling(server, robot) as client:
        yield client


def add_token(server: LiveServer, name: str) -> str:
    return server.manage("add_token", name, "--scope", "control", "--all-workspaces").strip()


def calling(server: LiveServer, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    limits = httpx.Limits(max_connections=2 * WAITERS)
    return httpx.Client(
        base_url=server.url, headers=headers, timeout=limit(6), limits=limits, verify=trusted()
    )


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """Threads in which calls wait."""
    with ThreadPoolExecutor(WAITERS) as threads:
        yield threads


def poll(agent: httpx.Client, **query: Any) -> Any:
    """Return Control when it has changed from what ``query`` says, or after ``wait`` seconds."""
    answer = agent.get(CONTROL, params={"wait": 30, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def known(agent: httpx.Client) -> dict[str, int]:
    now = agent.get(CONTROL).json()
    return {"epoch": now["epoch"], "version": now["version"]}


def threads_of(server: LiveServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def is_waiting(future: Future[Any]) -> bool:
    with suppress(TimeoutError):
        future.result(timeout=0.5)
        return False
    return True


def test_a_call_waits_for_the_change_and_is_told_of_it(
    agent: httpx.Client, operator: ApiClient, aside: ThreadPoolExecutor
) -> None:
    waiting = aside.submit(poll, agent, **known(agent))
    assert is_waiting(waiting)
    operator.acquire("desk", ttl_seconds=60)
    assert waiting.result(timeout=limit(1))["controlled_by"] == "operator"


def test_what_is_news_already_is_answered_at_once(agent: httpx.Client, operator: ApiClient) -> None:
    before = known(agent)
    operator.acquire("desk", ttl_seconds=60)
    assert poll(agent, **before)["controller"] == "user"
    assert poll(agent, epoch=before["epoch"])["controller"] == "user"


def test_without_a_change_the_answer_comes_when_the_time_is_over(agent: httpx.Client) -> None:
    before, started = known(agent), time.monotonic()
    assert poll(agent, wait=1, **before)["version"] == before["version"]
    assert time.monotonic() - started >= 1


def test_that_time_alone_ends_control_is_told_as_well(
    agent: httpx.Client, operator: ApiClient
) -> None:
    operator.acquire("desk")
    now = poll(agent, **known(agent))
    assert (now["controller"], now["last_end"]["reason"]) == ("none", "expired")


def test_an_access_that_ends_meanwhile_is_answered_as_such(
    operator: ApiClient, server: LiveServer, aside: ThreadPoolExecutor
) -> None:
    with calling(server, add_token(server, "short-lived")) as agent:
        query = {"wait": 30, **known(agent)}
        waiting = aside.submit(agent.get, CONTROL, params=query)
        assert is_waiting(waiting)
        server.manage("revoke_token", "short-lived")
        operator.acquire("desk")
        assert waiting.result(timeout=limit(1)).status_code == 401


@pytest.mark.parametrize("query", [{"wait": 61}, {"wait": -1}, {"wait": "x"}, {"epoch": "x"}])
def test_bad_input_is_named(query: dict[str, Any], agent: httpx.Client) -> None:
    answer = agent.get(CONTROL, params=query)
    assert answer.status_code == 400
    assert next(iter(query)) in answer.json()["error"]["message"]


def test_a_stranger_does_not_wait(server: LiveServer) -> None:
    answer = httpx.get(f"{server.url}{CONTROL}", params={"wait": 30}, timeout=limit(1))
    assert answer.status_code == 401


def test_who_waits_costs_no_thread_and_a_hundred_are_told_at_once(
    agent: httpx.Client, operator: ApiClient, server: LiveServer, aside: ThreadPoolExecutor
) -> None:
    before = known(agent)
    threads = threads_of(server)
    waiting = [aside.submit(poll, agent, **before) for _ in range(WAITERS)]
    assert is_waiting(waiting[-1])
    wait_until(lambda: threads_of(server) <= threads + 10, "the threads are given back", 2)
    operator.acquire("desk", ttl_seconds=60)  # longer than it takes a busy machine to tell all
    told = [each.result(timeout=limit(3)) for each in waiting]
    assert {each["controlled_by"] for each in told} == {"operator"}


def test_a_server_that_ends_keeps_nobody_waiting(
    agent: httpx.Client, server: LiveServer, aside: ThreadPoolExecutor, kind: str
) -> None:
    waiting = aside.submit(poll, agent, **known(agent))
    assert is_waiting(waiting)
    server.stop()
    server.start(kind)
    if kind == "uvicorn":
        assert waiting.result(timeout=limit(1))["controller"] == "none"
    else:  # Daphne cuts its connections
        with pytest.raises(httpx.RemoteProtocolError):
            waiting.result(timeout=limit(1))
