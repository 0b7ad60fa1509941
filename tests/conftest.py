"""Fixtures for all tests: the services of this run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.databases import Databases
from tests.support.desktop import LiveDesktop
from tests.support.plugin import DIRECTORY_VARIABLE, PORT_VARIABLE
from tests.support.services import Postgres, Redis

# How fast an example is says nothing here: no test asserts on speed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgres() -> Postgres:
    """The PostgreSQL of this run, which the plugin has launched."""
    server = Postgres(int(os.environ[PORT_VARIABLE]))
    server.wait_until_ready()
    return server


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Databases:
    """Makes migrated databases for servers, of the kind that ``--database`` names."""
    kind = request.config.getoption("--database")
    port = int(os.environ[PORT_VARIABLE])
    return Databases(kind, Postgres(port), Path(os.environ[DIRECTORY_VARIABLE]))


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis of our own."""
    server = Redis().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDesktop]:
    """One real desktop for all: each test types into files of its own."""
    desktop = LiveDesktop(tmp_path_factory.mktemp("desktop"), "Desk").wait()
    yield desktop
    desktop.stop()
