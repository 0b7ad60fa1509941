"""What the database itself refuses, and the lease row that comes with each workspace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from controlplane.models import (
    ControlEvent,
    DisplayControlLease,
    DisplayStream,
    Role,
    Workspace,
    WorkspaceGrant,
    validate_upstream_url,
)
from tests.integration.people import UPSTREAM, lease_of, now, open_stream


@contextmanager
def refused(constraint: str) -> Iterator[None]:
    """Fail unless the block breaks this constraint, and the database says so."""
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        yield
    # SQLite names the columns of a unique constraint, not the constraint.
    assert constraint in str(caught.value) or "UNIQUE" in str(caught.value)


# --- Workspaces and their lease rows --------------------------------------------------------------
def test_a_workspace_is_made_with_its_lease(db: None) -> None:
    workspace = Workspace.objects.create(slug="new", name="New")
    assert lease_of(workspace).epoch == 0
    workspace.save()
    assert DisplayControlLease.objects.count() == 1


def test_a_workspace_without_its_lease_is_not_made(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise IntegrityError("no")

    monkeypatch.setattr(DisplayControlLease.objects, "create", fail)
    with pytest.raises(IntegrityError):
        Workspace.objects.create(slug="new", name="New")
    assert not Workspace.objects.exists()


def test_a_workspace_has_one_lease(desk: Workspace) -> None:
    with refused("workspace_id"):
        DisplayControlLease.objects.create(workspace=desk)


def test_a_slug_is_unique(desk: Workspace) -> None:
    with refused("slug"):
        Workspace.objects.create(slug="desk", name="Another")


def test_creation_is_noted_by_the_databases_clock(desk: Workspace) -> None:
    desk.refresh_from_db()
    assert 0 <= (now() - desk.created_at).total_seconds() < 30


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, True), ({"enabled": False}, False), ({"upstream_url": ""}, False)],
)
def test_a_display_is_configured_when_it_is_enabled_and_has_an_address(
    values: dict[str, Any], expected: bool
) -> None:
    workspace = Workspace(**{"slug": "x", "name": "X", "upstream_url": UPSTREAM} | values)
    assert workspace.is_configured is expected


def test_without_an_address_of_its_own_a_workspace_is_where_the_template_says(
    settings: Any,
) -> None:
    own, bare = Workspace(slug="own", upstream_url=UPSTREAM), Workspace(slug="bare")
    assert (bare.address, bare.shown_upstream, bare.is_configured) == ("", "", False)
    settings.DISPLAY = replace(settings.DISPLAY, upstream_template="tcp://{slug}.desktops:5900")
    assert (own.address, own.shown_upstream) == (UPSTREAM, UPSTREAM)
    assert (bare.address, bare.is_configured) == ("tcp://bare.desktops:5900", True)
    assert bare.shown_upstream == "tcp://bare.desktops:5900 (by the template)"


@pytest.mark.parametrize(
    "url", ["tcp://desk.example:5900", "tcp://[::1]:5900", "ws://a:6080/", "wss://a/path?token=b"]
)
def test_an_address_that_can_be_dialled_is_accepted(url: str) -> None:
    validate_upstream_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1",
        "desk:5900",
        "tcp://",
        "tcp://a:0",
        "tcp://a:x",
        "tcp://a:65536",
        "tcp://me@a:1",
        "tcp://a:1/path",
    ],
)
def test_an_address_that_cannot_be_dialled_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        validate_upstream_url(url)


# --- Leases ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("lease_controller_is_known", {"controller": "robot"}),
        ("lease_held_is_complete", {"controller": "user"}),
        ("lease_held_is_complete", {"controller": "agent", "client_id": "somebody"}),
        (
            "lease_held_is_complete",
            {"controller": "user", "client_id": "", "acquired_at": Now(), "expires_at": Now()},
        ),
        (
            "lease_held_is_complete",
            {"controller": "user", "client_id": "somebody", "acquired_at": Now()},
        ),
        (
            "lease_ended_has_no_controller",
            {
                "controller": "user",
                "client_id": "somebody",
                "acquired_at": Now(),
                "expires_at": Now(),
                "ended_at": Now(),
            },
        ),
    ],
)
def test_the_database_refuses_an_impossible_lease(
    constraint: str, values: dict[str, Any], desk: Workspace
) -> None:
    with refused(constraint):
        DisplayControlLease.objects.update(**values)


@pytest.mark.parametrize("column", ["epoch", "version", "renewals"])
def test_the_counters_of_a_lease_are_never_negative(column: str, desk: Workspace) -> None:
    with refused(column):
        DisplayControlLease.objects.update(**{column: -1})


def test_a_lease_goes_with_its_workspace_only(desk: Workspace, operator: User) -> None:
    DisplayControlLease.objects.update(
        holder=operator, controller="user", client_id="c", acquired_at=Now(), expires_at=Now()
    )
    operator.delete()
    assert lease_of(desk).holder is None
    desk.delete()
    assert not DisplayControlLease.objects.exists()


# --- Grants ---------------------------------------------------------------------------------------
def test_a_grant_is_to_a_user_or_to_a_group(desk: Workspace, stranger: User) -> None:
    group = Group.objects.create(name="crew")
    with refused("grant_to_a_user_or_a_group"):
        WorkspaceGrant.objects.create(workspace=desk, role=Role.OBSERVER)
    with refused("grant_to_a_user_or_a_group"):
        WorkspaceGrant.objects.create(
            workspace=desk, user=stranger, group=group, role=Role.OBSERVER
        )
    with pytest.raises(ValidationError, match="either a user or a group"):
        WorkspaceGrant(workspace=desk, role=Role.OBSERVER).full_clean()


def test_there_is_one_grant_for_a_user_or_group(desk: Workspace, operator: User) -> None:
    group = Group.objects.create(name="crew")
    WorkspaceGrant.objects.create(workspace=desk, group=group, role=Role.OBSERVER)
    with refused("one_grant_per_user"):
        WorkspaceGrant.objects.create(workspace=desk, user=operator, role=Role.OBSERVER)
    with refused("one_grant_per_group"):
        WorkspaceGrant.objects.create(workspace=desk, group=group, role=Role.MANAGER)
    with pytest.raises(ValidationError, match="already"):
        WorkspaceGrant(workspace=desk, user=operator, role=Role.OBSERVER).full_clean()


def test_the_role_of_a_grant_is_known(desk: Workspace, stranger: User) -> None:
    with refused("grant_role_is_known"):
        WorkspaceGrant.objects.create(workspace=desk, user=stranger, role="owner")


# --- Streams and events ---------------------------------------------------------------------------
def test_a_token_is_spent_once(desk: Workspace, operator: User) -> None:
    spent = open_stream(desk, operator).token_id
    with refused("token_id"):
        DisplayStream.objects.create(
            workspace=desk, user=operator, client_id="c", token_id=spent, process="p"
        )


def test_the_mode_of_a_stream_is_known(desk: Workspace, operator: User) -> None:
    open_stream(desk, operator)
    with refused("stream_mode_is_known"):
        DisplayStream.objects.update(mode="all")


def test_rows_say_what_they_are(desk: Workspace, operator: User) -> None:
    stream = open_stream(desk, operator)
    event = ControlEvent(workspace_slug="desk", what="forced", epoch=3)
    assert [str(each) for each in (desk, lease_of(desk), stream, event)] == [
        "Desk 12",
        "Desk 12, epoch 0",
        f"stream {stream.pk} of Desk 12",
        "forced (desk, epoch 3)",
    ]
    assert str(WorkspaceGrant.objects.get(user=operator)) == "operator: operator of Desk 12"


def test_the_migrations_make_the_tables_of_these_models(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
