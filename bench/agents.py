"""How soon an agent that waits is told, and what hundreds cost who only wait."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import httpx

from bench import bars, processes
from bench.bars import percentile
from bench.client import SECONDS, connect
from bench.contenders import CONTROLLED, Desktopctl, new_client_id
from bench.rounds import Round
from tests.support.stream_client import ApiClient

CONTROL = f"/api/workspaces/{CONTROLLED}/display/control"
WAIT_SECONDS = 60
SETTLE_SECONDS, SETTLED_AT_MOST = 1.0, 20.0
BUSY_SHARE = 0.25  # of a core: calls are still arriving
WATCH_SECONDS = 5.0
UNDER_WAY_SECONDS = 0.05  # until a call that waits has arrived


def agents(this: Round) -> None:
    """Time what is told, then weigh those who wait; in a fresh process."""
    with this.site.running(bars.UVICORN) as contender:
        assert isinstance(contender, Desktopctl)
        name = f"waiting agent {this.number}"
        token = contender.server.manage("add_token", name, "--scope", "observe", "--all-workspaces")
        told = _told(contender, token.strip(), this.sizes.takes)
        this.results.add(contender.name, bars.TOLD, percentile(told, 0.95) * 1e3)
        _weigh(this, contender, token.strip())


def _told(contender: Desktopctl, token: str, count: int) -> list[float]:
    """Return the seconds from each “Take control” to the answer of the agent that waits for it."""
    headers = {"Authorization": f"Bearer {token}"}
    times = []
    with ExitStack() as opened:
        person = opened.enter_context(closing(ApiClient(contender.server.url, "operator")))
        agent = opened.enter_context(
            httpx.Client(base_url=contender.server.url, headers=headers, timeout=SECONDS)
        )
        aside = opened.enter_context(ThreadPoolExecutor(1))
        for _ in range(count):
            now = agent.get(CONTROL).json()
            query = {"wait": 10, "epoch": now["epoch"], "version": now["version"]}
            waiting = aside.submit(_answered, agent, query)
            time.sleep(UNDER_WAY_SECONDS)
            client_id, began = new_client_id(), time.monotonic()
            person.acquire(CONTROLLED, client_id)
            times.append(waiting.result() - began)
            person.release(CONTROLLED, client_id)
    return times


def _answered(agent: httpx.Client, query: dict[str, int]) -> float:
    """Return when the answer was there, which must tell of a person."""
    answer = agent.get(CONTROL, params=query).json()
    at = time.monotonic()
    if answer["controller"] != "user":
        raise RuntimeError("a waiting agent was told of nobody's control")
    return at


def _weigh(this: Round, contender: Desktopctl, token: str) -> None:
    """Memory and processor time of a process in which agents wait, and nothing happens."""
    count = this.sizes.waiting
    with _waiting(contender, token, count // 10):
        _settle(contender.pid)  # what is made once is there
    before = processes.pss_kib(contender.pid)
    with _waiting(contender, token, count):
        _settle(contender.pid)
        weight = processes.pss_kib(contender.pid) - before
        cpu = processes.cpu_seconds(contender.pid)
        time.sleep(WATCH_SECONDS)
        used = processes.cpu_seconds(contender.pid) - cpu
    this.results.add(contender.name, bars.WAITING_MEMORY, weight / count)
    this.results.add(contender.name, bars.WAITING_CPU, 100 * used / WATCH_SECONDS)


def _settle(pid: int) -> None:
    """Return when all calls have arrived: each takes the server ten milliseconds."""
    deadline = time.monotonic() + SETTLED_AT_MOST
    share = 1.0
    while share > BUSY_SHARE and time.monotonic() < deadline:
        before = processes.cpu_seconds(pid)
        time.sleep(SETTLE_SECONDS)
        share = (processes.cpu_seconds(pid) - before) / SETTLE_SECONDS


@contextmanager
def _waiting(contender: Desktopctl, token: str, count: int) -> Iterator[None]:
    """Let so many calls wait, each on a connection of its own."""
    request = (
        f"GET {CONTROL}?wait={WAIT_SECONDS} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for _ in range(count):
            sockets.append(opened.enter_context(closing(connect(contender.server.port))))
            sockets[-1].sendall(request)
        yield
        for each in sockets:
            each.setblocking(False)
            try:
                answer = each.recv(64)
            except BlockingIOError:
                continue
            raise RuntimeError(f"an agent that should wait was answered: {answer!r}")
