"""``manage.py grant``: let a user watch, control or manage a workspace."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand

from controlplane.management.commands._workspaces import find_user, find_workspace
from controlplane.models import Role, WorkspaceGrant


class Command(BaseCommand):
    """Gives a role; run again, it changes the role."""

    help = "Give a user a role in a workspace."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the contract."""
        parser.add_argument("slug")
        parser.add_argument("user")
        parser.add_argument("role", choices=Role.values)

    def handle(self, *args: Any, **options: Any) -> None:
        """Grant, and say what is granted now."""
        workspace, user = find_workspace(options["slug"]), find_user(options["user"])
        WorkspaceGrant.objects.update_or_create(
            workspace=workspace, user=user, defaults={"role": options["role"]}
        )
        self.stdout.write(f"{workspace.slug}: {user.username} is {options['role']}")
