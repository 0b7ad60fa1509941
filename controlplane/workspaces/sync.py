"""Carrying out a file with workspaces: all of it or nothing, with a line for each change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from controlplane import events
from controlplane.models import SECRET_FIELDS, DisplayControlLease, Workspace, WorkspaceGrant
from controlplane.workspaces import configuring
from controlplane.workspaces.files import Wanted, WorkspaceFile


def carry_out(file: WorkspaceFile, *, prune: bool = False, dry_run: bool = False) -> list[str]:
    """Make workspaces and grants what the file says, in one transaction; return what has changed.

    ``prune`` removes the workspaces that are not in the file. ``dry_run`` does all of it, and then
    undoes it. Raises WorkspaceFileError, and changes nothing, where something cannot be.
    """
    try:
        with events.announcing_once(), transaction.atomic():
            changes = list(_carry_out(file, prune))
            transaction.set_rollback(dry_run)
    except IntegrityError:
        raise file.problem(
            (), "others have changed workspaces or accounts at the same time; try again"
        ) from None
    return changes


def _carry_out(file: WorkspaceFile, prune: bool) -> Iterator[str]:
    # All at once and in one order, as everybody locks who needs several.
    list(DisplayControlLease.objects.select_for_update().order_by("pk"))
    known = {workspace.slug: workspace for workspace in Workspace.objects.all()}
    grants = _Grants(file)
    for wanted in file.wanted:
        is_new = wanted.slug not in known
        workspace, changed = _set_up(file, known.get(wanted.slug), wanted)
        if is_new:
            yield f"{wanted.slug}: added"
        elif changed:
            yield f"{wanted.slug}: changed {', '.join(changed)}"
        yield from grants.follow(workspace, wanted)
    if prune:
        for slug in sorted(known.keys() - {wanted.slug for wanted in file.wanted}):
            configuring.remove(slug)
            yield f"{slug}: removed"


def _set_up(
    file: WorkspaceFile, workspace: Workspace | None, wanted: Wanted
) -> tuple[Workspace, list[str]]:
    try:
        return configuring.save(workspace or Workspace(slug=wanted.slug), wanted.values)
    except ValidationError as error:
        name, texts = next(iter(error.message_dict.items()))
        raise file.problem(_place(wanted.slug, name), " ".join(texts)) from None


def _place(slug: str, name: str) -> tuple[str, ...]:
    """Return where in the file the setting ``name`` is said."""
    if name == "slug":
        return ("workspaces", slug)
    return ("workspaces", slug, f"{name}_file" if name in SECRET_FIELDS else name)


class _Grants:
    """The grants there are, and the accounts that the file names; each read once for all."""

    def __init__(self, file: WorkspaceFile) -> None:
        self._file = file
        users = {name for wanted in file.wanted for name in wanted.users or ()}
        groups = {name for wanted in file.wanted for name in wanted.groups or ()}
        self._accounts: dict[str, dict[str, Any]] = {
            "user": {each.username: each for each in User.objects.filter(username__in=users)},
            "group": {each.name: each for each in Group.objects.filter(name__in=groups)},
        }
        self._given: dict[tuple[int, str], dict[str, WorkspaceGrant]] = {}
        for grant in WorkspaceGrant.objects.select_related("user", "group", "workspace"):
            kind, name = (
                ("user", grant.user.username) if grant.user else ("group", str(grant.group))
            )
            self._given.setdefault((grant.workspace_id, kind), {})[name] = grant

    def follow(self, workspace: Workspace, wanted: Wanted) -> Iterator[str]:
        """Give, change and take roles until they are as wanted."""
        for kind, roles in (("user", wanted.users), ("group", wanted.groups)):
            if roles is not None:
                yield from self._follow(workspace, kind, roles)

    def _follow(self, workspace: Workspace, kind: str, roles: Mapping[str, str]) -> Iterator[str]:
        given = self._given.get((workspace.pk, kind), {})
        for name, role in roles.items():
            who = f"{workspace.slug}: {_who(kind, name)}"
            if name not in given:
                account = {kind: self._account(workspace.slug, kind, name)}
                WorkspaceGrant.objects.create(workspace=workspace, role=role, **account)
                yield f"{who} is {role} now"
            elif given[name].role != role:
                former, given[name].role = given[name].role, role
                given[name].save()
                yield f"{who} is {role} now, was {former}"
        for name in sorted(given.keys() - roles.keys()):
            former = given[name].role
            given[name].delete()
            yield f"{workspace.slug}: {_who(kind, name)} has no role any more, was {former}"

    def _account(self, slug: str, kind: str, name: str) -> User | Group:
        account: User | Group | None = self._accounts[kind].get(name)
        if account is None:
            place = ("workspaces", slug, "grants", f"{kind}s", name)
            raise self._file.problem(place, f"there is no such {kind}; add it in the admin first")
        return account


def _who(kind: str, name: str) -> str:
    return f"group {name}" if kind == "group" else name
