"""``manage.py grant``: let a user, or a group, watch, control or manage a workspace."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand

from controlplane.management.commands._shared import add_grantee, find_grantee, find_workspace
from controlplane.models import Role, WorkspaceGrant


class Command(BaseCommand):
    """Gives a role; run again, it changes the role."""

    help = "Give a user, or the members of a group, a role in a workspace."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the contract."""
        parser.add_argument("slug", help="the workspace")
        add_grantee(parser)
        parser.add_argument("role", choices=Role.values, help="watch; control; end others’ control")

    def handle(self, *args: Any, **options: Any) -> None:
        """Grant, and say what is granted now."""
        workspace, grantee = find_workspace(options["slug"]), find_grantee(options)
        WorkspaceGrant.objects.update_or_create(
            workspace=workspace, **grantee, defaults={"role": options["role"]}
        )
        if options["group"]:
            self.stdout.write(f"{workspace.slug}: group {options['group']} is {options['role']}")
        else:
            self.stdout.write(f"{workspace.slug}: {options['user']} is {options['role']}")
