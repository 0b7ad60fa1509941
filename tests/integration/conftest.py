"""Fixtures of the integration tests: the people, and a database that threads can share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from controlplane import ratelimits, screenshots
from tests.integration.people import (  # noqa: F401  (fixtures)
    admin,
    colleague,
    desk,
    manager,
    observer,
    operator,
    stranger,
)
from tests.integration.writers import violations, watched
from tests.support.desktop import LiveDesktop
from tests.support.plugin import DIRECTORY_VARIABLE
from tests.support.xvnc import Xvnc


@pytest.fixture(scope="session", autouse=True)
def _statements_are_watched() -> Iterator[None]:
    with watched():
        yield


@pytest.fixture(autouse=True)
def _each_row_has_one_writer() -> Iterator[None]:
    """Whatever is tested in this process."""
    yield
    assert violations() == []


@pytest.fixture(autouse=True)
def _no_calls_counted() -> None:
    """All tests call from one address; each begins as if nobody had called before."""
    ratelimits.forget()
    screenshots.forget()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """Wait for PostgreSQL; keep SQLite in a file, for in memory nobody waits for a lock."""
    if connection.vendor == "postgresql":
        request.getfixturevalue("postgres")
        return
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    file = Path(os.environ[DIRECTORY_VARIABLE]) / f"tests-{worker}.db"
    connection.settings_dict["TEST"]["NAME"] = str(file)


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A password that desktops which are none, or fakes, do not ask for."""
    file = tmp_path_factory.mktemp("secret") / "password"
    file.write_text("secret")
    return file


@pytest.fixture(scope="module")
def own_desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDesktop]:
    """A desktop to be hung or painted all over, which no other module looks at."""
    desktop = LiveDesktop(tmp_path_factory.mktemp("own-desktop"), "Own").wait()
    yield desktop
    desktop.stop()


@pytest.fixture(scope="module")
def xvnc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xvnc]:
    """TigerVNC's own display."""
    xvnc = Xvnc(tmp_path_factory.mktemp("xvnc"))
    yield xvnc.wait()
    xvnc.stop()
