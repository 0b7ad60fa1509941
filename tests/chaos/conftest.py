"""Two servers, a PostgreSQL, a Redis and a desktop, all of which break; and the table of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.report import Report
from tests.chaos.world import World
from tests.support.databases import Databases
from tests.support.processes import ROOT
from tests.support.server import LiveServer
from tests.support.services import Postgres, Redis
from tests.support.tcp_proxy import TcpProxy
from tests.support.vnc_server import FakeVnc

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
FENCE_SECONDS = 3
HOUR_WRONG = {"PYTHONPATH": ROOT / "tests/support/wrong_clock", "WRONG_CLOCK_SECONDS": 3600}


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """What was seen; `make chaos` writes it to docs/reliability.md."""
    report = Report(ROUNDS)
    yield report
    if "CHAOS_REPORT" in os.environ:
        report.write(ROOT / os.environ["CHAOS_REPORT"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        postgres, redis = Postgres(), Redis()
        for service in (postgres, redis):
            stack.callback(service.close)
            service.start()
        desk = stack.enter_context(FakeVnc())
        desk.answers_updates = True
        desk_link = stack.enter_context(TcpProxy(desk.port))
        directory = tmp_path_factory.mktemp("chaos")
        database = Databases("postgres", postgres, directory).fresh()
        servers = [
            _server(directory / "right", database.url, redis),
            _server(directory / "wrong", database.url, redis, **HOUR_WRONG),
        ]
        fronts = [stack.enter_context(TcpProxy(server.port)) for server in servers]
        (directory / "password").write_text("not asked for\n")
        upstreams = {"desk": f"tcp://127.0.0.1:{desk_link.port}"}
        servers[0].populate(upstreams, directory / "password")
        world = World(postgres, redis, database, servers, fronts, desk, desk_link)
        for server in servers:
            stack.callback(server.stop)
            server.start_as_typed()
        yield world


def _server(directory: Path, url: str, redis: Redis, **env: object) -> LiveServer:
    directory.mkdir()
    return LiveServer(
        directory,
        url,
        REDIS_URL=f"redis://127.0.0.1:{redis.port}/0",
        DISPLAY_FENCE_SECONDS=FENCE_SECONDS,
        DISPLAY_CONNECT_SECONDS=3,
        # A rival who just goes keeps control for so long; all others wait.
        DISPLAY_LEASE_SECONDS=3,
        **env,
    )
