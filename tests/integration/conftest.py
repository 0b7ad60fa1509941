"""Fixtures of the integration tests: the people, and a database that threads can share."""

from __future__ import annotations

import os
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
from tests.support.plugin import DIRECTORY_VARIABLE


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
