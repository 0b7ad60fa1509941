"""The pytest plugin of this repository: an environment for Django, and a PostgreSQL to go with it.

Loaded by ``-p tests.support.plugin`` (pyproject.toml), for it must act before pytest-django reads
the settings. PostgreSQL is launched in the background and first waited for by the fixture
``postgres``, so a run that needs no database hardly pays for it. With pytest-xdist the controller
launches it, the workers inherit the environment, and pytest-django gives each its own database.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest

from tests.support import environment
from tests.support.processes import MissingProgram
from tests.support.services import Postgres

PORT_VARIABLE = "TESTS_POSTGRES_PORT"
DIRECTORY_VARIABLE = "TESTS_SQLITE_DIRECTORY"

_RANK = {"unit": 0, "integration": 1, "e2e": 2}

# The files that take longest, the longest first. Begun last, one of them would keep a single worker
# busy when all others have nothing left to do.
_LONGEST = (
    *("stream", "outages", "observability", "event_streams", "openapi", "lease_machine", "flow"),
    *("client", "many_nodes", "soak", "token_streams", "two_servers", "real_screenshots"),
    *("long_polls", "real_desktops"),
)

_started: dict[str, Postgres | Path] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--database``."""
    parser.getgroup("desktopctl").addoption(
        "--database",
        choices=("postgres", "sqlite"),
        default="postgres",
        help="what the tests and their servers keep their data in (default: postgres)",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Set the environment before pytest-django (called after every wrapper) loads the settings."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        options = early_config.known_args_namespace
        environment.prepare()
        _prepare_database(options.database, launch=not _runs_nothing(options))
        signal.signal(signal.SIGTERM, _interrupt)
    return (yield)


def pytest_unconfigure() -> None:
    """Stop what this process has launched."""
    _stop_all()


def _stop_all() -> None:
    while _started:
        _, thing = _started.popitem()
        if isinstance(thing, Postgres):
            thing.close()
        else:
            shutil.rmtree(thing, ignore_errors=True)


# For a run that is interrupted before pytest is configured: then nothing is unconfigured.
atexit.register(_stop_all)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run unit, then integration, then browser tests; of each, what takes longest comes first.

    So the browser, and the event loop that Playwright keeps, is started once and comes last.
    Otherwise the shuffled order stands.
    """
    folder = config.rootpath / "tests"
    items.sort(key=lambda item: _rank(item.path, folder))


def _rank(path: Path, folder: Path) -> tuple[int, int]:
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else ("",)
    name = path.stem.removeprefix("test_")
    turn = _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)
    return _RANK.get(parts[0], 0), turn


def _prepare_database(kind: str, *, launch: bool) -> None:
    server = Postgres()
    os.environ[PORT_VARIABLE] = str(server.port)
    directory = Path(tempfile.mkdtemp(prefix="desktopctl-sqlite-"))
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    _started["directory"] = directory
    os.environ["DATABASE_URL"] = (
        server.url("desktopctl") if kind == "postgres" else f"sqlite:///{directory / 'default.db'}"
    )
    if not launch:
        return
    try:
        server.launch()
    except MissingProgram as error:
        raise pytest.UsageError(str(error)) from None
    _started["postgres"] = server


def _runs_nothing(options: object) -> bool:
    return any(getattr(options, name, False) for name in ("help", "version", "collectonly"))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End like Ctrl+C: fixtures are torn down, services stopped."""
    raise KeyboardInterrupt
