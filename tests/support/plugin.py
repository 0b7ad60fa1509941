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
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType

import pytest

from controlplane import memory
from tests.support import environment
from tests.support.order import among
from tests.support.processes import MissingProgram
from tests.support.services import Postgres

PORT_VARIABLE = "TESTS_POSTGRES_PORT"
DIRECTORY_VARIABLE = "TESTS_SQLITE_DIRECTORY"

_RANK = {"unit": 0, "e2e": 2}  # all others are in between

# The files that wait most of their time: for a time-out, a proxy's patience, a desktop. Here and
# below, what takes longest comes first: begun last, it would keep a single worker busy when all
# others have nothing left to do.
_WAITING = (
    *("chaos", "flow", "outages", "observability", "stream", "event_streams", "client"),
    *("real_desktops", "real_screenshots", "soak", "many_nodes", "token_streams", "readyz"),
    *("newcomer", "long_polls", "moving", "provider_signin", "proxy_signin", "two_servers"),
    *("backups", "full_disk", "webhook_outages"),
)
_WORKING = (
    *("openapi", "secrets", "commands", "webhooks", "lease_storm", "lease_machine", "migrations"),
    *("screenshots", "container"),
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
    memory.collect_less_often()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        options = early_config.known_args_namespace
        environment.prepare()
        _prepare(options.database, launch=not _runs_nothing(options))
        signal.signal(signal.SIGTERM, _interrupt)
    return (yield)


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end: looking through them for garbage is in vain."""
    memory.spare_what_stays()


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
    """Run unit, then integration, then browser tests; those that wait among those that work.

    So the browser, and the event loop that Playwright keeps, is started once and comes last, and
    the processor has work while some wait. Otherwise the shuffled order stands.
    """
    folder = config.rootpath / "tests"
    files = _mixed(list(dict.fromkeys(item.path for item in items)))
    turns = {path: turn for turn, path in enumerate(files)}
    items.sort(key=lambda item: (_rank(item.path, folder), turns[item.path]))


def _mixed(paths: list[Path]) -> list[Path]:
    """Put the files that wait among those that work."""
    waiting = [path for path in paths if _name(path) in _WAITING]
    working = [path for path in paths if path not in waiting]
    waiting.sort(key=lambda path: _turn(path, _WAITING))
    working.sort(key=lambda path: _turn(path, _WORKING))
    return list(among(waiting, working))


def _turn(path: Path, order: Sequence[str]) -> int:
    return order.index(_name(path)) if _name(path) in order else len(order)


def _name(path: Path) -> str:
    return path.stem.removeprefix("test_")


def _rank(path: Path, folder: Path) -> int:
    part = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else ""
    return _RANK.get(part, 1)


def _prepare(kind: str, *, launch: bool) -> None:
    server = Postgres()
    os.environ[PORT_VARIABLE] = str(server.port)
    directory = Path(tempfile.mkdtemp(prefix="desktopctl-sqlite-"))
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    _started["directory"] = directory
    # What has been collected in this tree is looked through by each of Django's test clients anew.
    os.environ["STATIC_ROOT"] = str(directory / "nothing_collected")
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
