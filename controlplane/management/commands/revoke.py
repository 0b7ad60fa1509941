"""``manage.py revoke``: take a user's role in a workspace away, and with it their control."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import access
from controlplane.management.commands._workspaces import find_user, find_workspace
from controlplane.models import WorkspaceGrant


class Command(BaseCommand):
    """Takes a role away; streams that are open end within seconds."""

    help = "Take a user's role in a workspace away."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the contract."""
        parser.add_argument("slug")
        parser.add_argument("user")

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke; say so where access remains by other means."""
        workspace, user = find_workspace(options["slug"]), find_user(options["user"])
        deleted, _ = WorkspaceGrant.objects.filter(workspace=workspace, user=user).delete()
        if not deleted:
            raise CommandError(f"{user.username} has no role of their own in {workspace.slug}")
        self.stdout.write(f"{workspace.slug}: {user.username} has no role any more")
        if access.permissions(user, workspace).observe:
            self.stdout.write("… but still has access through a group or as superuser")
