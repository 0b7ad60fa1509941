"""A backup of the database and the SECRET_KEY are all that a new machine needs (docs/deploy.md)."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.databases import Database, Databases
from tests.support.processes import program
from tests.support.server import LiveServer
from tests.support.stream_client import CLIENT_ID, ApiClient
from tests.support.timing import limit

PASSWORD = "s3cret"
READ_PASSWORD = "print('password:', Workspace.objects.get().vnc_password)"


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """What has been started, and is stopped at the end."""
    with ExitStack() as stack:
        yield stack


def run(name: str, *argv: str) -> None:
    places = map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    subprocess.run([program(name, "postgresql-15", *places), *argv], check=True, timeout=limit(3))


def back_up(database: Database, file: Path) -> None:
    """As docs/deploy.md says, while servers run."""
    if database.kind == "postgres":
        run("pg_dump", "--format=custom", f"--file={file}", database.url)
        return
    with closing(sqlite3.connect(database.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("VACUUM INTO ?", [str(file)])


def restore(file: Path, databases: Databases, kind: str) -> Database:
    """Return a new database with what is in the backup."""
    if kind == "sqlite":
        return Database("sqlite", f"sqlite:///{file}")
    database = databases.fresh("postgres")
    facts = conninfo_to_dict(database.url)
    server = [f"--host={facts['host']}", f"--port={facts['port']}", f"--username={facts['user']}"]
    run("dropdb", *server, str(facts["dbname"]))
    run("createdb", *server, str(facts["dbname"]))
    run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={database.url}", str(file))
    return database


def test_a_restored_backup_goes_on_where_it_was_made_and_no_later_epoch_counts(
    tmp_path: Path, databases: Databases, running: ExitStack
) -> None:
    database = databases.fresh()
    (tmp_path / "password").write_text(PASSWORD)
    server = LiveServer(tmp_path, database.url)
    server.populate({"desk": "tcp://127.0.0.1:9"}, tmp_path / "password")
    server.start()
    running.callback(server.stop)
    with closing(ApiClient(server.url, "operator")) as person:
        backed_up = person.acquire("desk")["epoch"]
        back_up(database, tmp_path / "backup")
        person.release("desk")
        later = person.acquire("desk")["epoch"]
    server.stop()

    restored = restore(tmp_path / "backup", databases, database.kind)
    (tmp_path / "new").mkdir()
    twin = LiveServer(tmp_path / "new", restored.url).start()
    running.callback(twin.stop)
    with closing(ApiClient(twin.url, "operator")) as person:
        assert person.control("desk")["epoch"] == backed_up
        person.post(
            "/api/workspaces/desk/display/control/acquire",
            json={"client_id": CLIENT_ID, "epoch": later},
        ).raise_for_status_is(409)
        assert person.acquire("desk", epoch=backed_up)["epoch"] == backed_up
    assert f"password: {PASSWORD}\n" in twin.manage("shell", "-c", READ_PASSWORD)
    twin.manage("add_workspace", "new", "--upstream", "tcp://127.0.0.1:9")  # numbers go on


def test_the_key_is_changed_without_signing_anybody_out_or_losing_a_password(
    tmp_path: Path, databases: Databases, running: ExitStack
) -> None:
    database = databases.fresh()
    (tmp_path / "password").write_text(PASSWORD)
    former, newer = "former-" * 8, "newer-" * 9

    def server(name: str, **keys: str) -> LiveServer:
        (tmp_path / name).mkdir()
        return LiveServer(tmp_path / name, database.url, **keys)

    first = server("first", SECRET_KEY=former)
    first.populate({"desk": "tcp://127.0.0.1:9"}, tmp_path / "password")
    first.start()
    running.callback(first.stop)
    both = server("both", SECRET_KEY=newer, SECRET_KEY_FALLBACKS=former)
    with closing(ApiClient(first.url, "operator")) as person:
        epoch = person.acquire("desk")["epoch"]
        first.stop()
        both.port = first.port  # its pages find it again
        both.start()
        running.callback(both.stop)
        assert person.acquire("desk", epoch=epoch)["epoch"] == epoch
    assert "1 secret(s) encrypted anew" in both.manage("reencrypt")
    assert f"password: {PASSWORD}\n" in server("after", SECRET_KEY=newer).manage(
        "shell", "-c", READ_PASSWORD
    )
