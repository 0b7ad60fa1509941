"""Who is measured, and what stands around them: database, workspaces, fake VNC server."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from bench import bars
from bench.client import Dial, Link, WebsocketLink
from bench.processes import Helper
from tests.support import environment
from tests.support.databases import Database, Databases
from tests.support.processes import Process, free_port, program
from tests.support.server import LiveServer
from tests.support.services import Postgres
from tests.support.timing import wait_until

DESKS = [f"desk-{number:03}" for number in range(100)]
CONTROLLED, HOSTILE = "controlled", "hostile"
RELAY_BUFFER = 256 * 1024
_ENVIRONMENT = {
    "DISPLAY_TOKEN_SECONDS": "600",
    "DISPLAY_LEASE_SECONDS": "3600",
    "DISPLAY_MAX_STREAMS_PER_USER": "10000",
    "DISPLAY_MAX_STREAMS_PER_WORKSPACE": "10000",
    "API_RATE_PER_ADDRESS": "1000000/minute",
    "API_RATE_PER_TOKEN": "1000000/minute",
}
BACKSTAGE = "from bench.backstage import main; main()"

Seat = tuple[str, str]  # a workspace's slug and a client_id
_clients = itertools.count()


class Contender(ABC):
    """A running bridge to the fake VNC server. ``pid`` heads its processes (0: it has none)."""

    name: str
    pid: int

    @abstractmethod
    def dials(self, count: int, *, in_control: bool = False) -> Sequence[Dial]:
        """Prepare ``count`` connections, each to be opened once."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    def dial(self, buffer_bytes: int) -> Link:
        """Open one connection and complete the RFB handshake."""
        return self.dials(1)[0](buffer_bytes).shake_hands()


class Site:
    """PostgreSQL, the fake VNC server, users and 100 workspaces; all of it on this machine."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        with ExitStack() as opening:  # ends what has begun where a later step fails
            opening.callback(self._stack.close)
            self._open()
            opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        environment.prepare()
        postgres = Postgres()
        self._stack.callback(postgres.close)
        postgres.launch()
        self.vnc = Helper("-m", "bench.vnc_server")
        self._stack.callback(self.vnc.stop)
        self.vnc_port, _ = self.vnc.hear()
        # A second one: the flood of the first would delay its own answers to others.
        self.hostile = Helper("-m", "bench.vnc_server")
        self._stack.callback(self.hostile.stop)
        _, flood_port = self.hostile.hear()
        self.database: Database = Databases("postgres", postgres, self._directory).fresh()
        self._populate(flood_port)
        # As in production: hashed names, compressed.
        self.server().manage("collectstatic", "--noinput", "--verbosity", "0")
        settings = {**os.environ, **_ENVIRONMENT, "DATABASE_URL": self.database.url}
        self.backstage = Helper("manage.py", "shell", "-v", "0", "-c", BACKSTAGE, env=settings)
        self._stack.callback(self.backstage.stop)

    def _populate(self, flood_port: int) -> None:
        password = self._directory / "password"
        password.write_text("not asked for\n")
        upstreams = dict.fromkeys([*DESKS, CONTROLLED], f"tcp://127.0.0.1:{self.vnc_port}")
        upstreams[HOSTILE] = f"tcp://127.0.0.1:{flood_port}"
        self.server().populate(upstreams, password)

    def server(self) -> LiveServer:
        """Return a server of the product on the site's database, not yet started."""
        settings = {**_ENVIRONMENT, "STATIC_ROOT": self._directory / "static"}
        return LiveServer(self.new_directory(), self.database.url, **settings)

    def new_directory(self) -> Path:
        """Return a directory of one's own."""
        directory = self._directory / str(next(self._numbers))
        directory.mkdir()
        return directory

    @contextmanager
    def running(self, name: str) -> Iterator[Contender]:
        """Start the contender of this name; stop it at the end of the block."""
        contender = _KINDS[name](self)
        try:
            yield contender
        finally:
            contender.stop()


class Desktopctl(Contender):
    """``manage.py serve`` with its default settings, but for limits and times to live."""

    def __init__(self, site: Site, server: str) -> None:
        self._site = site
        self.name = {"uvicorn": bars.UVICORN, "daphne": bars.DAPHNE}[server]
        self.server = site.server().start_as_typed(server)
        self.pid = self.server.pid

    def dials(self, count: int, *, in_control: bool = False) -> Sequence[Dial]:
        """Mint tokens, evenly over the workspaces; each connection is a tab of its own."""
        desks = itertools.islice(itertools.cycle(DESKS), count)
        seats = [(slug, new_client_id()) for slug in desks]
        if in_control:
            self._site.backstage.ask("acquire", seats)
        return self.dials_to(seats)

    def dials_to(self, seats: Sequence[Seat]) -> Sequence[Dial]:
        """Mint tokens for these seats."""
        tokens = self._site.backstage.ask("mint", seats)
        return [
            partial(self._open, slug, token) for (slug, _), token in zip(seats, tokens, strict=True)
        ]

    def _open(self, slug: str, token: str, buffer_bytes: int) -> WebsocketLink:
        path = f"/api/workspaces/{slug}/display/session/websockify"
        link = WebsocketLink.to(self.server.port, buffer_bytes)
        return link.upgrade(path, "desktopctl.v1", f"desktopctl.token.{token}")

    def stop(self) -> None:
        self.server.stop()


class _Program(Contender):
    """A relay that is a program of its own, from ``self.port`` to the fake VNC server."""

    link: type[Link]

    def __init__(self, site: Site) -> None:
        self.port = free_port()
        argv = self._argv(site.vnc_port)
        self._process = Process(argv, log=site.new_directory() / "log")
        self.pid = self._process.pid
        wait_until(self._answers, f"{self.name} answers")

    def _argv(self, vnc_port: int) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        assert self._process.is_running, self._process.log()
        try:
            self._open(1024).shake_hands().close()
        except OSError:
            return False
        return True

    def dials(self, count: int, *, in_control: bool = False) -> Sequence[Dial]:
        return [self._open] * count

    def _open(self, buffer_bytes: int) -> Link:
        return Link.to(self.port, buffer_bytes)

    def stop(self) -> None:
        self._process.stop()


class Websockify(_Program):
    """websockify with its default settings: a process a connection."""

    name = bars.WEBSOCKIFY

    def _argv(self, vnc_port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "websockify"),
            *(f"127.0.0.1:{self.port}", f"127.0.0.1:{vnc_port}"),
        ]

    def _open(self, buffer_bytes: int) -> Link:
        return WebsocketLink.to(self.port, buffer_bytes).upgrade("/", "binary")


class Socat(_Program):
    """A relay in C that knows nothing of websockets or VNC."""

    name = bars.SOCAT

    def _argv(self, vnc_port: int) -> list[str]:
        return [
            *(program("socat", "socat"), "-b", str(RELAY_BUFFER)),
            f"TCP-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=512",
            f"TCP:127.0.0.1:{vnc_port},nodelay",
        ]


class Direct(Contender):
    """No bridge at all: what client and fake VNC server take by themselves."""

    name = bars.DIRECT

    def __init__(self, site: Site) -> None:
        self._port = site.vnc_port
        self.pid = 0

    def dials(self, count: int, *, in_control: bool = False) -> Sequence[Dial]:
        return [partial(Link.to, self._port)] * count

    def stop(self) -> None:
        """Nothing has been started."""


def new_client_id() -> str:
    """Return the client_id of a new tab."""
    return f"bench-tab-{next(_clients):06}"


_KINDS: dict[str, Callable[[Site], Contender]] = {
    bars.UVICORN: partial(Desktopctl, server="uvicorn"),
    bars.DAPHNE: partial(Desktopctl, server="daphne"),
    bars.WEBSOCKIFY: Websockify,
    bars.SOCAT: Socat,
    bars.DIRECT: Direct,
}
