"""The services under the tests' control do what tests rely on."""

from __future__ import annotations

from contextlib import closing

import psycopg

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
