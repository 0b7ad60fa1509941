"""``manage.py check_displays``: dial desktops and say what was found, step by step."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import desktops
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import UpstreamError
from controlplane.management.commands._shared import find_workspaces
from controlplane.models import Workspace


class Command(BaseCommand):
    """Prints one verified fact a line; exits non-zero if a desktop failed."""

    help = "Dial desktops and say whether they work, and if not, at which step."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the contract."""
        parser.add_argument("slug", nargs="*", help="workspaces; all enabled ones if left out")

    def handle(self, *args: Any, **options: Any) -> None:
        """Dial each in turn."""
        chosen = find_workspaces(options["slug"]) or list(Workspace.objects.filter(enabled=True))
        if not chosen:
            raise CommandError("There is no workspace yet. Run: manage.py add_workspace")
        failed = [each.slug for each in chosen if not self._check(each)]
        if failed:
            raise CommandError(f"Not working: {', '.join(failed)}", returncode=1)

    def _check(self, workspace: Workspace) -> bool:
        try:
            _check_address(workspace)
            width, height, name = asyncio.run(_dial(workspace))
        except UpstreamError as error:
            self.stdout.write(f"{workspace.slug}: failed at {error.step}: {error.detail}")
            return False
        self.stdout.write(f"{workspace.slug}: ready, {width}×{height}, “{name}”")
        return True


def _check_address(workspace: Workspace) -> None:
    if not workspace.address:
        raise UpstreamError(
            "resolve",
            f"it has no address. Run: manage.py add_workspace {workspace.slug} --upstream URL; "
            "or set DISPLAY_UPSTREAM_TEMPLATE",
        )


async def _dial(workspace: Workspace) -> tuple[int, int, str]:
    upstream, found = await desktops.dial(workspace, DatabaseThreads("check", 1))
    await upstream.close()
    return found.width, found.height, found.name
