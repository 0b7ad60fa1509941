"""The services under the tests' control do what tests rely on."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from tests.support.processes import free_port
from tests.support.services import Postgres


def test_what_postgresql_has_committed_outlives_its_crash() -> None:
    with closing(Postgres().start()) as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
            for number in range(20):
                connection.execute("INSERT INTO kept VALUES (%s)", [number])
            postgres.crash()
        postgres.start()
        with psycopg.connect(postgres.url()) as connection:
            [(kept,)] = connection.execute("SELECT count(*) FROM kept").fetchall()
    assert kept == 20


def test_no_two_workers_are_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    for worker in ("", "gw0", "gw1", "gw4"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        given += [free_port() for _ in range(500)]
    assert len(set(given)) == len(given)
