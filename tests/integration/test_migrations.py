"""Upgrades: old and new code on one database, from the first schema on, and the way back.

An upgrade migrates first, while servers of the version before still run. Their part is played here
by the models as they were at each migration: they write and read as that version's code did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from controlplane.models import DisplayControlLease, Workspace

APP = "controlplane"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASSWORD = "s3cret-of-the-desk"

Migrate = Callable[[str], None]


VERSIONS = sorted(
    name for app, name in MigrationLoader(None).disk_migrations if app == APP
)  # the first one first
NEWEST = VERSIONS[-1]


@pytest.fixture
def migrate(transactional_db: None) -> Iterator[Migrate]:
    """Return a function that brings the schema to one of the migrations; the newest comes back."""

    def to(name: str) -> None:
        MigrationExecutor(connection).migrate([(APP, name)])

    yield to
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


def models_of(name: str) -> Apps:
    """Return the models as they were at a migration."""
    return MigrationExecutor(connection).loader.project_state((APP, name)).apps


def live(models: Apps, slug: str) -> None:
    """Do what every version has done: somebody watches a desktop, takes control and loses it."""
    get = models.get_model
    user, _ = get("auth", "User").objects.get_or_create(username="operator")
    desk = get(APP, "Workspace").objects.create(
        slug=slug, name=slug, upstream_url="tcp://127.0.0.1:5900", vnc_password=PASSWORD
    )
    get(APP, "WorkspaceGrant").objects.create(workspace=desk, user=user, role="operator")
    lease = get(APP, "DisplayControlLease").objects.create(workspace=desk)
    held = {
        "epoch": 1,
        "version": 1,
        "controller": "user",
        "holder": user,
        "client_id": "tab-12345",
        "acquired_at": NOW,
        "renewed_at": NOW,
        "expires_at": NOW + timedelta(seconds=300),
    }
    save(lease, **held)
    stream = get(APP, "DisplayStream").objects.create(
        workspace=desk, user=user, client_id="tab-12345", token_id=f"t-{slug}", process="p"
    )
    save(stream, mode="control", last_input_at=NOW)
    get(APP, "ControlEvent").objects.create(
        workspace=desk, workspace_slug=slug, what="acquired", epoch=1, at=NOW
    )
    save(lease, controller="none", ended_at=NOW, ended_reason="released", version=2)


def save(row: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=list(values))


def assert_is_there(models: Apps, slug: str) -> None:
    """What ``live`` has left behind is whole, as these models read it."""
    get = models.get_model
    desk = get(APP, "Workspace").objects.get(slug=slug)
    assert desk.vnc_password == PASSWORD
    lease = get(APP, "DisplayControlLease").objects.get(workspace=desk)
    assert (lease.epoch, lease.version, lease.ended_reason) == (1, 2, "released")
    for name in ("WorkspaceGrant", "DisplayStream"):
        assert get(APP, name).objects.get(workspace=desk).user.username == "operator"
    assert get(APP, "ControlEvent").objects.get(workspace_slug=slug).what == "acquired"


@pytest.mark.parametrize("version", VERSIONS)
def test_code_of_every_version_works_on_the_newest_schema(version: str, migrate: Migrate) -> None:
    old, new = models_of(version), models_of(NEWEST)
    live(old, "beside")
    assert_is_there(new, "beside")
    live(new, "newer")
    assert_is_there(old, "newer")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_every_version_has_written_is_kept_by_the_upgrade(
    version: str, migrate: Migrate
) -> None:
    migrate(version)
    live(models_of(version), "kept")
    migrate(NEWEST)
    assert_is_there(models_of(NEWEST), "kept")
    desk = Workspace.objects.get(slug="kept")
    assert desk.vnc_password == PASSWORD
    assert DisplayControlLease.objects.get(workspace=desk).ended_reason == "released"


def test_the_way_back_keeps_what_the_first_version_knows(migrate: Migrate) -> None:
    live(models_of(NEWEST), "back")
    for version in reversed(VERSIONS[:-1]):
        migrate(version)
        assert_is_there(models_of(version), "back")
