"""/readyz of a real server, as its database, its broker and its schema come and go."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controlplane.readiness import CHECK_SECONDS
from tests.support.databases import Database, Databases
from tests.support.server import LiveServer
from tests.support.services import Postgres, Redis
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import FACTOR, wait_until

PASSWORD = "geheim-4711"
IN_TIME = (CHECK_SECONDS + 1) * FACTOR
ALL_WELL = {"database": "ok", "migrations": "ok", "channel_layer": "ok"}


@pytest.fixture(scope="module")
def broker() -> Iterator[Redis]:
    """A Redis that only these tests stop."""
    broker = Redis().start()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def database(databases: Databases) -> Database:
    """Where the server's data are; the server comes by way of ``link``."""
    return databases.fresh("postgres")


@pytest.fixture(scope="module")
def link(postgres: Postgres) -> Iterator[TcpProxy]:
    """The way to PostgreSQL, which other tests need alive."""
    link = TcpProxy(postgres.port)
    link.start()
    yield link
    link.stop()


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    database: Database,
    link: TcpProxy,
    broker: Redis,
) -> Iterator[LiveServer]:
    """A server that is ready."""
    name = database.url.rpartition("/")[2]
    server = LiveServer(
        tmp_path_factory.mktemp("server"),
        f"postgres://postgres:{PASSWORD}@127.0.0.1:{link.port}/{name}",
        REDIS_URL=broker.url,
    )
    yield server.start(request.param)
    server.stop()


def ask(server: LiveServer) -> tuple[int, Any, Any]:
    """Return status, findings and headers; whatever hangs, the answer comes in time."""
    try:
        answer = urllib.request.urlopen(f"{server.url}/readyz", timeout=IN_TIME)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, json.load(answer)["checks"], answer.headers


def assert_ready(server: LiveServer) -> None:
    wait_until(lambda: ask(server)[:2] == (200, ALL_WELL), "the server is ready", expected=2)


def findings_once(server: LiveServer, check: str) -> dict[str, str]:
    """Return the findings as soon as ``check`` fails: those of before are kept for a second."""
    wait_until(lambda: ask(server)[1][check] != "ok", f"{check} fails", expected=2)
    status, checks, headers = ask(server)
    assert (status, headers["Retry-After"]) == (503, "2")
    return checks


@contextmanager
def ready_again(server: LiveServer) -> Iterator[None]:
    """Ready before and after the block, with no process started anew."""
    assert_ready(server)
    yield
    assert_ready(server)
    assert "Traceback" not in server.log
    assert PASSWORD not in server.log


def test_a_stopped_database_is_named(server: LiveServer, link: TcpProxy) -> None:
    with ready_again(server):
        link.refuse()
        link.cut()
        checks = findings_once(server, "database")
        link.heal()
    assert checks["database"].startswith("does not answer")
    assert checks["migrations"] == "not known while the database does not answer"
    assert checks["channel_layer"] == "ok"


def test_a_stopped_broker_is_named(server: LiveServer, broker: Redis) -> None:
    with ready_again(server):
        broker.stop()
        checks = findings_once(server, "channel_layer")
        broker.start()
    assert checks["channel_layer"].startswith("does not answer")
    assert (checks["database"], checks["migrations"]) == ("ok", "ok")


def test_when_database_and_broker_hang_the_answer_comes_in_time(
    server: LiveServer, link: TcpProxy, broker: Redis
) -> None:
    with ready_again(server):
        link.blackhole()
        broker.pause()
        checks = findings_once(server, "database")
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=1) as answer:
            assert answer.status == 200
        link.cut()
        link.heal()
        broker.resume()
    assert checks["database"] == "does not answer within 2 seconds. Look at the database."
    assert checks["channel_layer"] == "does not answer within 2 seconds. Look at Redis."


def test_a_pending_migration_is_named_with_its_command(
    server: LiveServer, database: Database
) -> None:
    newest = "(SELECT max(id) FROM django_migrations WHERE app = 'controlplane')"
    with ready_again(server):
        [row] = database.rows(
            f"DELETE FROM django_migrations WHERE id = {newest} RETURNING app, name"
        )
        checks = findings_once(server, "migrations")
        database.rows(
            "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, now())", row
        )
    assert checks == {
        **ALL_WELL,
        "migrations": "1 migration(s) are pending. Run: manage.py migrate",
    }
