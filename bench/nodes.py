"""Two nodes behind a reverse proxy, for what is measured beside ``make bench``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support import environment
from tests.support.databases import Database, Databases
from tests.support.services import Postgres, Redis

MANY_STREAMS: dict[str, Any] = {
    "DISPLAY_MAX_STREAMS_PER_USER": 10_000,
    "DISPLAY_MAX_STREAMS_PER_WORKSPACE": 10_000,
    "API_RATE_PER_ADDRESS": "1000000/minute",
}
"""Settings with which one person at one address may open as many displays as are measured."""


@contextmanager
def services() -> Iterator[tuple[Path, Database, Redis]]:
    """Run PostgreSQL and Redis; yield a directory, an empty database and the broker."""
    environment.prepare()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = Postgres()
        stack.callback(postgres.close)
        postgres.launch()
        redis = Redis()
        stack.callback(redis.close)
        yield directory, Databases("postgres", postgres, directory).fresh(), redis.start()
