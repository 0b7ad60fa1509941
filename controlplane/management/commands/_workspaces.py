"""What several commands share: finding workspaces and users by name."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.core.management import CommandError

from controlplane.models import Workspace


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
