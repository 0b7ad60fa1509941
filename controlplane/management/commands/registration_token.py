"""``manage.py registration_token``: a token with which a desktop reports where it is."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand

from controlplane.management.commands._shared import find_workspace
from controlplane.workspaces import registration


class Command(BaseCommand):
    """Prints the token, alone, on standard output: this is its only showing."""

    help = "Make a token with which the workspace's desktop may report its address."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("slug", help="the workspace")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make one; the former one is void from now on."""
        workspace = find_workspace(options["slug"])
        had_one = workspace.registration_digest is not None
        self.stdout.write(registration.new_token(workspace))
        self.stderr.write(
            f"{workspace.slug}: shown once"
            + (", and the former token is void" if had_one else "")
            + f". Its desktop sends it to /api/workspaces/{workspace.slug}/register"
        )
