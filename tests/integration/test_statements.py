"""SQL that is made once says what the ORM says, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.db.utils import DataError

from controlplane import access, apitokens, leases, leaseviews
from controlplane.models import (
    ControlEvent,
    DisplayControlLease,
    Role,
    Scope,
    Workspace,
    WorkspaceGrant,
)
from controlplane.statements import Insert, Select, Update, made_once
from tests.integration.people import lease_of, now, person, tab

BY_KEY = Select(lambda pk: DisplayControlLease.objects.annotate(db_now=Now()).filter(pk=pk))


def test_a_row_is_read_as_the_orm_reads_it(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    expected = lease_of(desk)
    found = BY_KEY.get(expected.pk)
    for field in DisplayControlLease._meta.concrete_fields:
        assert getattr(found, field.attname) == getattr(expected, field.attname)
    assert abs(found.db_now - now()) < timedelta(seconds=10)
    assert found._state.db == "default"
    assert not found._state.adding


def test_each_call_has_keys_of_its_own(desk: Workspace) -> None:
    other = Workspace.objects.create(slug="other", upstream_url="tcp://127.0.0.1:5998")
    for workspace in (desk, other, desk):
        pk = lease_of(workspace).pk
        assert [row.workspace_id for row in BY_KEY.all(pk)] == [workspace.pk]


def test_what_is_not_there_is_none_or_does_not_exist(db: None) -> None:
    assert BY_KEY.first(4711) is None
    with pytest.raises(DisplayControlLease.DoesNotExist):
        BY_KEY.get(4711)


def test_a_row_is_written_only_in_the_version_that_was_read(
    desk: Workspace, operator: User
) -> None:
    write, lease, at = Update(DisplayControlLease), lease_of(desk), now()
    values = {"version": 1, "renewed_at": at, "holder_id": operator.pk, "ended_by": "“50 %s”"}
    assert write(lease.pk, 7, values) == 0
    assert write(lease.pk, lease.version, values) == 1
    found = lease_of(desk)
    assert {name: getattr(found, name) for name in values} == values


def test_a_row_is_added_with_the_databases_defaults(desk: Workspace) -> None:
    at = now()
    values: dict[str, object] = dict.fromkeys(
        ("workspace_slug", "who", "client_id", "reason", "note"), ""
    )
    values |= {"what": "kept", "epoch": 3, "ip": "192.0.2.7", "at": at}
    Insert(ControlEvent)(values)
    event = ControlEvent.objects.get()
    assert {name: getattr(event, name) for name in values} == values
    assert event.count == 1


def test_what_the_database_refuses_is_djangos_error(desk: Workspace) -> None:
    lease = lease_of(desk)
    with pytest.raises((IntegrityError, DataError)), transaction.atomic():
        Update(DisplayControlLease)(lease.pk, lease.version, {"controller": "nobody"})
    assert lease_of(desk).controller == "none"


@pytest.mark.django_db(transaction=True)
def test_it_belongs_to_djangos_transaction(desk: Workspace) -> None:
    lease = lease_of(desk)
    with transaction.atomic():
        Update(DisplayControlLease)(lease.pk, lease.version, {"epoch": 9})
        transaction.set_rollback(True)
    assert lease_of(desk).epoch == 0


@pytest.mark.usefixtures("desk")
def test_postgresql_keeps_it_prepared(operator: User) -> None:
    select = Select(lambda pk: User.objects.filter(pk=pk))
    for _ in range(10):
        assert select.get(operator.pk) == operator
    if connection.vendor != "postgresql":
        return  # SQLite's library keeps what it has parsed by itself
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", ["%auth_user%"]
        )
        [count] = cursor.fetchone()
    assert count > 0


def _everybody(desk: Workspace) -> list[User]:
    """Add people of every kind: by role, by group, disabled, superusers, and tokens."""
    people = [person(f"role-{role}", role=role) for role in Role]
    people += [person("nobody"), person("root", is_superuser=True)]
    people += [person("disabled", role=Role.MANAGER, is_active=False)]
    people += [person("disabled-root", is_superuser=True, is_active=False)]
    group = Group.objects.create(name="a group")
    WorkspaceGrant.objects.create(workspace=desk, group=group, role=Role.MANAGER)
    people += [person("member"), person("member-and-observer", role=Role.OBSERVER)]
    group.user_set.add(*people[-2:])
    for scope in Scope.values:
        for name, workspaces in (("all", None), ("this", [desk]), ("none", [])):
            token, _ = apitokens.create(f"{scope} {name}", [scope], workspaces=workspaces)
            people.append(token.account)
    revoked, _ = apitokens.create("revoked", [Scope.CONTROL], workspaces=None)
    apitokens.revoke(revoked)
    return [*people, revoked.account]


def test_a_decision_knows_the_same_permissions_as_everybody_else(desk: Workspace) -> None:
    Workspace.objects.create(slug="other", upstream_url="tcp://127.0.0.1:5998")
    for user in _everybody(desk):
        for workspace in Workspace.objects.all():
            expected = access.permissions(user, workspace)
            assert access.permissions_now(user.pk, workspace.pk) == expected, user.username
    assert access.permissions_now(4711, desk.pk) == access.NONE


def test_a_query_set_is_made_once_in_each_thread_and_no_result_is_kept(desk: Workspace) -> None:
    made = []

    @made_once
    def desks() -> QuerySet[Workspace]:
        made.append(Workspace.objects.annotate(db_now=Now()))
        return made[-1]

    assert [row.pk for row in desks()] == [desk.pk]
    other = Workspace.objects.create(slug="other", upstream_url="tcp://127.0.0.1:5998")
    assert {row.pk for row in desks()} == {desk.pk, other.pk}
    assert [row.pk for row in desks().filter(pk=other.pk)] == [other.pk]
    assert len(made) == 1
    with ThreadPoolExecutor(1) as aside:
        assert aside.submit(lambda: str(desks().query)).result() == str(desks().query)
    assert len(made) == 2


def test_what_is_made_once_says_the_same_each_time(desk: Workspace) -> None:
    first, *later = (str(leaseviews.lease_rows().filter(pk=1).query) for _ in range(5))
    assert set(later) == {first}
