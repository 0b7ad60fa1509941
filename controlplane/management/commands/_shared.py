"""What several commands share: finding workspaces, users and groups, and who it is that acts."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management import CommandError

from controlplane.models import Workspace

ADMINISTRATOR = "the administrator"
"""How people see whoever has a shell on the server."""


def find_workspace(slug: str) -> Workspace:
    """Return the workspace, or end the command with a sentence that lists those there are."""
    return find_workspaces([slug])[0]


def find_workspaces(slugs: Iterable[str]) -> list[Workspace]:
    """Return the workspaces in the order asked for."""
    found = {workspace.slug: workspace for workspace in Workspace.objects.filter(slug__in=slugs)}
    missing = [slug for slug in slugs if slug not in found]
    if missing:
        known = ", ".join(Workspace.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f"No such workspace: {', '.join(missing)}. There are: {known}.")
    return [found[slug] for slug in slugs]


def find_user(username: str) -> User:
    """Return the user, or end the command saying how to make one."""
    user = User.objects.filter(username=username).first()
    if user is None:
        raise CommandError(
            f"No such user: {username}. Add users in the admin, or run: manage.py createsuperuser"
        )
    return user


def find_group(name: str) -> Group:
    """Return the group, or end the command with a sentence that lists those there are."""
    group = Group.objects.filter(name=name).first()
    if group is None:
        known = ", ".join(Group.objects.values_list("name", flat=True)) or "none yet"
        raise CommandError(f"No such group: {name}. There are: {known}. Add groups in the admin.")
    return group


def add_grantee(parser: argparse.ArgumentParser) -> None:
    """Let a command take a user's name, or ``--group`` instead of it."""
    parser.add_argument("user", nargs="?", help="who; left out with --group")
    parser.add_argument("--group", help="the members of this group, instead of one user")


def find_grantee(options: dict[str, Any]) -> dict[str, Any]:
    """Return ``{"user": …}`` or ``{"group": …}``: the columns of the grant that is meant."""
    if (options["user"] is None) == (options["group"] is None):
        raise CommandError("Name a user, or a group with --group: one of the two.")
    if options["group"] is not None:
        return {"group": find_group(options["group"])}
    return {"user": find_user(options["user"])}
