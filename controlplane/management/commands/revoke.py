"""``manage.py revoke``: take a user's or a group's role away, and with it their control."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import access
from controlplane.management.commands._shared import add_grantee, find_grantee, find_workspace
from controlplane.models import WorkspaceGrant


class Command(BaseCommand):
    """Takes a role away; streams that are open end within seconds."""

    help = "Take the role of a user, or of a group, in a workspace away."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the contract."""
        parser.add_argument("slug", help="the workspace")
        add_grantee(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke; say so where a user's access remains by other means."""
        workspace, grantee = find_workspace(options["slug"]), find_grantee(options)
        name = f"group {options['group']}" if options["group"] else options["user"]
        deleted, _ = WorkspaceGrant.objects.filter(workspace=workspace, **grantee).delete()
        if not deleted:
            raise CommandError(f"{name} has no role of their own in {workspace.slug}")
        self.stdout.write(f"{workspace.slug}: {name} has no role any more")
        if "user" in grantee and access.permissions(grantee["user"], workspace).observe:
            self.stdout.write("… but still has access through a group or as superuser")
