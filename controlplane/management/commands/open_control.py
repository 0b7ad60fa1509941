"""``manage.py open_control``: let control be had again where it was closed."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import leases
from controlplane.management.commands._shared import ADMINISTRATOR, find_workspaces
from controlplane.models import Workspace


class Command(BaseCommand):
    """Opens the named workspaces, or all that are closed; exit code 1 if none was."""

    help = "Open workspaces to control again that force_release --close has closed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("slug", nargs="*", help="workspaces")
        parser.add_argument("--all", action="store_true", help="all that are closed")

    def handle(self, *args: Any, **options: Any) -> None:
        """Open each, and say whether it was closed."""
        if bool(options["slug"]) == options["all"]:
            raise CommandError("Name workspaces, or give --all: one of the two.")
        opened = [self._open(workspace) for workspace in _chosen(options)]
        if not any(opened):
            raise CommandError("None of these was closed.", returncode=1)

    def _open(self, workspace: Workspace) -> bool:
        was_closed = leases.open_again(workspace, by=ADMINISTRATOR)
        self.stdout.write(f"{workspace.slug}: {'open again' if was_closed else 'was not closed'}")
        return was_closed


def _chosen(options: dict[str, Any]) -> list[Workspace]:
    if options["slug"]:
        return find_workspaces(options["slug"])
    return list(Workspace.objects.filter(lease__closed_at__isnull=False).order_by("slug"))
