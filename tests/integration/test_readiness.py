"""What /healthz and /readyz answer, in this process: words, one look for many, any host name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from controlplane import events, readiness
from controlplane.readiness import Finding
from tests.support.timing import wait_until

ALL_WELL = {"database": "ok", "migrations": "ok", "channel_layer": "ok"}
ABROAD = "10.9.8.7:8000"

# The look has a thread of its own, which sees what has been committed only.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _never_looked() -> Iterator[None]:
    readiness.current.cache_clear()
    yield
    readiness.current.cache_clear()


def asked(client: Client | None = None, **headers: str) -> tuple[int, dict[str, str]]:
    """Return the status and the findings that /readyz answers."""
    answer = (client or Client()).get("/readyz", headers=headers)
    return answer.status_code, json.loads(answer.content)["checks"]


def failing(error: Exception) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_all_being_well_it_is_ready() -> None:
    answer = Client().get("/readyz")
    assert (answer.status_code, json.loads(answer.content)) == (
        200,
        {"status": "ok", "checks": ALL_WELL},
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Retry-After" not in answer.headers


def test_pending_migrations_are_counted_and_the_command_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_: [("a", False)] * 2)
    answer = Client().get("/readyz")
    told = json.loads(answer.content)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    words = "2 migration(s) are pending. Run: manage.py migrate"
    assert told == {"status": "unavailable", "checks": {**ALL_WELL, "migrations": words}}


def test_an_error_goes_to_the_log_and_not_to_who_asks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = ProgrammingError("permission denied for db.internal")
    monkeypatch.setattr(readiness, "MigrationExecutor", failing(error))
    assert asked() == (503, {**ALL_WELL, "migrations": "cannot be read. Look at the server's log."})
    assert "permission denied for db.internal" in caplog.text


def test_a_broker_that_fails_is_found_by_sending_through_the_real_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events.channel_layer(), "group_send", failing(ConnectionError("10.1.2.3")))
    status, checks = asked()
    assert (status, checks["database"]) == (503, "ok")
    assert checks["channel_layer"].startswith("does not answer. Look at REDIS_URL")


def test_without_a_database_the_migrations_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "django.db.backends.base.base.BaseDatabaseWrapper.cursor",
        failing(OperationalError("10.1.2.3 refused")),
    )
    status, checks = asked()
    assert (status, checks["migrations"]) == (503, "not known while the database does not answer")
    assert "10.1.2.3" not in str(checks)


def test_only_changes_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "controlplane.readiness")
    monkeypatch.setattr(readiness, "KEEP_SECONDS", 0)
    with monkeypatch.context() as broken:
        broken.setattr(readiness, "pending_migrations", lambda: 1)
        assert [asked()[0] for _ in range(3)] == [503] * 3
    assert [asked()[0] for _ in range(2)] == [200] * 2
    ours = [each.getMessage() for each in caplog.records if each.name == readiness.__name__]
    assert ours == [f"migrations: {readiness.ask_to_migrate(1)}", "migrations: ok"]


def test_a_flood_of_questions_is_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    async def look() -> dict[str, Finding]:
        looks.append(1)
        return {"database": Finding()}

    monkeypatch.setattr(readiness, "look", look)
    monkeypatch.setattr(readiness, "KEEP_SECONDS", 3600)  # however slow this machine is just now
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: asked(), range(40)))
    assert answers == [(200, {"database": "ok"})] * 40
    assert looks == [1]
    monkeypatch.setattr(readiness, "KEEP_SECONDS", 0.01)
    wait_until(lambda: asked() and len(looks) > 1, "it looks again")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_probe_that_calls_by_address_is_answered(path: str) -> None:
    assert Client().get(path, headers={"host": ABROAD}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/readyz/", "/api/workspaces"])
def test_everything_else_still_wants_a_name_that_is_ours(path: str) -> None:
    assert Client().get(path, headers={"host": ABROAD}).status_code == 400


def test_probes_only_read() -> None:
    assert Client().head("/readyz").status_code == 200
    assert Client().post("/readyz").status_code == 405
