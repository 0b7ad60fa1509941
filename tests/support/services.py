"""A real PostgreSQL and a real Redis, each in a temporary directory and on a free port."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path

import psycopg
import redis

from tests.support.processes import Process, free_port, program, unprivileged_user
from tests.support.timing import wait_until

_POSTGRES_OPTIONS = (
    # Nothing here must survive a power cut, and several servers with pools share one cluster. But
    # what is committed survives a crash: without synchronous_commit, epochs would be given twice.
    "fsync=off",
    "full_page_writes=off",
    "max_connections=300",
    "listen_addresses=127.0.0.1",
    "shared_buffers=64MB",
)


class NotReady(RuntimeError):
    """A service ended instead of answering; the message carries what it printed."""


class Postgres:
    """A PostgreSQL 15 cluster of our own, without passwords, on 127.0.0.1.

    ``launch()`` returns at once, ``wait_until_ready()`` when it answers, ``start()`` is both.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._directory: Path | None = None
        self._process: Process | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the address of ``database``, as DATABASE_URL wants it."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def launch(self) -> None:
        """Begin to make and start the cluster in the background (~1 s)."""
        user = unprivileged_user("postgres")
        if self._directory is None:
            self._directory = _directory_for(user)
        self._process = Process(
            ["sh", "-c", self._script(self._directory)],
            log=self._directory / "log",
            user=user,
            death_signal="QUIT",  # to PostgreSQL: end at once, whoever is connected
            cwd=self._directory,
        )

    def start(self) -> Postgres:
        """Start the cluster, again after a stop: same port, same data."""
        self.launch()
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Return when queries are answered; NotReady if the server ended instead."""
        wait_until(self._answers, f"PostgreSQL answers on port {self.port}", expected=3)

    def stop(self) -> None:
        """Shut down: connections are cut with an error, the data stays for ``start()``."""
        if self._process:
            self._process.stop(signal.SIGINT, expected=2)

    def crash(self) -> None:
        """End at once without any word to clients; ``start()`` recovers."""
        if self._process:
            self._process.stop(signal.SIGQUIT, expected=2)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop and remove the data. Closing twice is harmless."""
        if self._process:
            self._process.stop(signal.SIGQUIT, expected=2)
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        if self._process and not self._process.is_running:
            raise NotReady(f"PostgreSQL does not start:\n{self._process.log()}")
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _script(self, directory: Path) -> str:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        places = [str(path) for path in binaries]
        initdb = program("initdb", "postgresql-15", *places)
        postgres = program("postgres", "postgresql-15", *places)
        data = directory / "data"
        make = [initdb, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
        make += ["--no-instructions", "--encoding=UTF8", "--locale=C"]
        serve = [postgres, "-D", data, "-k", directory, "-p", self.port]
        serve += [word for option in _POSTGRES_OPTIONS for word in ("-c", option)]
        made = shlex.quote(str(data / "PG_VERSION"))
        return f"test -e {made} || {_words(make)} || exit 1; exec {_words(serve)}"


class Redis:
    """A Redis of our own that keeps nothing on disk."""

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="desktopctl-redis-"))
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """The address, as REDIS_URL wants it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Redis:
        """Start, again after a stop: same port, all data gone."""
        argv = [program("redis-server", "redis-server"), "--bind", "127.0.0.1"]
        argv += ["--port", str(self.port), "--save", "", "--appendonly", "no"]
        argv += ["--dir", str(self._directory)]
        self._process = Process(argv, log=self._directory / "log")
        wait_until(self._answers, f"Redis answers on port {self.port}", expected=1)
        return self

    def stop(self) -> None:
        """End Redis: connections are cut, nothing is kept."""
        if self._process:
            self._process.stop()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let Redis hang: connections stay, nothing is answered until ``resume()``."""
        if self._process:
            self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        if self._process:
            self._process.send(signal.SIGCONT)

    def close(self) -> None:
        """Stop and clean up. Closing twice is harmless."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        if self._process and not self._process.is_running:
            raise NotReady(f"Redis does not start:\n{self._process.log()}")
        try:
            with redis.Redis(port=self.port, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


def _directory_for(user: str) -> Path:
    """Return a new directory that belongs to ``user`` when we are root."""
    directory = Path(tempfile.mkdtemp(prefix="desktopctl-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(directory, user)
    return directory


def _words(words: list[object]) -> str:
    return shlex.join(str(word) for word in words)
