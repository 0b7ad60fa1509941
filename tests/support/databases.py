"""Fresh, migrated databases for servers: copies of one that is migrated once per run."""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql

from tests.support.processes import ROOT
from tests.support.services import Postgres

Kind = Literal["postgres", "sqlite"]

_TEMPLATE = "template_desktopctl"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """A migrated database for one server."""

    kind: Kind
    url: str

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; placeholders are ``%s`` for both kinds."""
        if self.kind == "postgres":
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(query.encode(), parameters)
                return cursor.fetchall() if cursor.description else []
        file = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10)
        try:
            with file:
                return file.execute(query.replace("%s", "?"), parameters).fetchall()
        finally:
            file.close()


class Databases:
    """Makes databases in ``postgres`` or in ``directory``; ``kind`` is what is made by default."""

    def __init__(self, kind: Kind, postgres: Postgres, directory: Path) -> None:
        self.kind = kind
        self._postgres = postgres
        self._directory = directory

    def fresh(self, kind: Kind | None = None) -> Database:
        """Return a new database with all migrations applied and nothing in it."""
        return self._on_postgres() if (kind or self.kind) == "postgres" else self._on_sqlite()

    def copy(self, database: Database) -> Database:
        """Return a new database with what is in ``database``, to which nobody is connected."""
        path = database.url.removeprefix("sqlite:///")
        if database.kind == "sqlite":
            return self._copy_on_sqlite(Path(path))
        with psycopg.connect(self._postgres.url(), autocommit=True) as connection:
            return self._copy_on_postgres(connection, path.rpartition("/")[2])

    def _on_postgres(self) -> Database:
        self._postgres.wait_until_ready()
        with (
            alone(self._directory),
            psycopg.connect(self._postgres.url(), autocommit=True) as connection,
        ):
            if not _exists(connection, _TEMPLATE):
                connection.execute("DROP DATABASE IF EXISTS half_migrated")
                connection.execute("CREATE DATABASE half_migrated")
                _migrate(self._postgres.url("half_migrated"))
                connection.execute(f"ALTER DATABASE half_migrated RENAME TO {_TEMPLATE}")
            return self._copy_on_postgres(connection, _TEMPLATE)

    def _copy_on_postgres(self, connection: psycopg.Connection[Any], template: str) -> Database:
        name = f"server_{secrets.token_hex(6)}"
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return Database("postgres", self._postgres.url(name))

    def _on_sqlite(self) -> Database:
        template = self._directory / "template.db"
        with alone(self._directory):
            if not template.exists():
                half = self._directory / "half_migrated.db"
                half.unlink(missing_ok=True)
                _migrate(f"sqlite:///{half}")
                half.rename(template)
        return self._copy_on_sqlite(template)

    def _copy_on_sqlite(self, template: Path) -> Database:
        copy = self._directory / f"server_{os.getpid()}_{next(_numbers)}.db"
        shutil.copyfile(template, copy)
        return Database("sqlite", f"sqlite:///{copy}")


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One process of the run at a time: what all of them use, and is kept here, is made once."""
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _exists(connection: psycopg.Connection[Any], name: str) -> bool:
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    return connection.execute(query, [name]).fetchone() is not None


def _migrate(url: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        check=True,
    )
