"""Fixtures of the browser tests. They speak to servers only by HTTP and commands, never by the ORM:

Playwright's loop runs in the main thread, where Django would refuse to touch the database.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.rig import CHROMIUM_OPTIONS, Person
from tests.support.databases import Database, Databases, alone
from tests.support.desktop import LiveDesktop
from tests.support.order import among
from tests.support.plugin import DIRECTORY_VARIABLE
from tests.support.processes import program
from tests.support.server import LiveServer
from tests.support.tcp_proxy import TcpProxy

HERE = Path(__file__).parent
SLUGS = {"tcp": "desk-1", "websockify": "desk-2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that mostly wait among the others."""
    places = [place for place, item in enumerate(items) if item.path.parent == HERE]
    ours = [items[place] for place in places]
    waiting = [item for item in ours if item.get_closest_marker("waits")]
    busy = [item for item in ours if item not in waiting]
    for place, item in zip(places, among(waiting, busy), strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, the system's own, without the windows around its pages: they cost a second each."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program("chromium-headless-shell", "chromium-headless-shell"),
            args=CHROMIUM_OPTIONS,
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def static_root() -> Path:
    """Static files as in production: collected once for all workers, with hashed names."""
    of_the_run = Path(os.environ[DIRECTORY_VARIABLE])
    collected = of_the_run / "collected"
    with alone(of_the_run):
        if not collected.exists():
            half = of_the_run / "half_collected"
            server = LiveServer(of_the_run, "sqlite:///unused", STATIC_ROOT=half)
            server.manage("collectstatic", "--noinput", "--verbosity", "0")
            half.rename(collected)
    return collected


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """The test's directory by a short name, for it is typed on desktops key by key."""
    name = Path(tempfile.gettempdir()) / secrets.token_hex(3)
    name.symlink_to(tmp_path)
    yield name
    name.unlink()


StartServer = Callable[..., LiveServer]


@pytest.fixture(scope="session")
def populated(
    tmp_path_factory: pytest.TempPathFactory, desktop: LiveDesktop, databases: Databases
) -> Database:
    """A database with users and workspaces, of which each server gets a copy."""
    database = databases.fresh()
    upstreams = {
        SLUGS["tcp"]: f"tcp://127.0.0.1:{desktop.vnc_port}",
        SLUGS["websockify"]: f"ws://127.0.0.1:{desktop.websockify_port}/",
    }
    server = LiveServer(tmp_path_factory.mktemp("populating"), database.url)
    server.populate(upstreams, desktop.password_file)
    return database


@pytest.fixture
def start_server(
    tmp_path: Path, static_root: Path, databases: Databases, populated: Database
) -> Iterator[StartServer]:
    """Return a function that starts a server with users, workspaces and the given environment."""
    started: list[LiveServer] = []

    def start(kind: str = "uvicorn", **env: object) -> LiveServer:
        url = databases.copy(populated).url
        server = LiveServer(tmp_path, url, STATIC_ROOT=static_root, **env)
        started.append(server)
        return server.start(kind)

    yield start
    for server in started:
        server.stop()


BehindProxy = Callable[[LiveServer], TcpProxy]


@pytest.fixture
def behind_proxy() -> Iterator[Callable[[LiveServer], TcpProxy]]:
    """Return a function that puts a link under the test's control before a server."""
    proxies: list[TcpProxy] = []

    def put(server: LiveServer) -> TcpProxy:
        proxies.append(TcpProxy(server.port).start())
        return proxies[-1]

    yield put
    for proxy in proxies:
        proxy.stop()


MakePerson = Callable[..., Person]


@pytest.fixture
def person(browser: Browser, tmp_path: Path) -> Iterator[MakePerson]:
    """Return a function that gives somebody a browser; at the end nothing may have complained.

    A test that provokes complaints on purpose removes them from ``complaints`` after a look.
    """
    people: list[Person] = []

    shared = browser

    def make(
        name: str,
        server: LiveServer,
        port: int | None = None,
        browser: Browser | None = None,
        **options: object,
    ) -> Person:
        base = f"http://localhost:{port or server.port}"
        people.append(Person(browser or shared, name, base, **options))
        return people[-1]

    yield make
    complaints = {each.name: each.complaints for each in people if each.complaints}
    for each in people:
        for number, page in enumerate(each.context.pages):
            page.screenshot(path=tmp_path / f"{each.name}-{number}.png")
        each.context.close()
    assert not complaints, f"{complaints}; screenshots: {tmp_path}"
