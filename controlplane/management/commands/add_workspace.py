"""``manage.py add_workspace``: add a desktop, or change the one of that name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError
from django.db import transaction

from controlplane.models import Workspace
from controlplane.workspaces import configuring


class Command(BaseCommand):
    """Adds a workspace; run again, it changes what is given and keeps the rest."""

    help = "Add a workspace, or change the one with this slug."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("slug", help="its id: in its address, and in all commands")
        parser.add_argument(
            "--upstream",
            help="tcp://…, unix:///…, ws://… or wss://…; may be left out where "
            "DISPLAY_UPSTREAM_TEMPLATE says where desktops are",
        )
        parser.add_argument("--name", help="what people see; the slug if left out")
        parser.add_argument(
            "--password-file",
            type=Path,
            help="a file with the VNC password in its first line; - reads standard input, "
            "as from a file that only root may read",
        )
        parser.add_argument(
            "--query-file",
            type=Path,
            help="a file with the address's query in its first line, such as token=…: "
            "what stands in a command line can be read by others; or -",
        )
        parser.add_argument(
            "--headers-file", type=Path, help="a file with “Name: value” lines for websockify; or -"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Add or change, and say which."""
        with transaction.atomic():
            workspace, is_new = _put(options)
            if not workspace.address:
                raise CommandError(
                    "--upstream: where is it? DISPLAY_UPSTREAM_TEMPLATE does not say."
                )
        verb = "added" if is_new else "changed"
        self.stdout.write(f"{workspace.slug}: {verb}, {workspace.shown_upstream}")


_FILES = (
    ("vnc_password", "password_file"),
    ("upstream_query", "query_file"),
    ("upstream_headers", "headers_file"),
)


def _put(options: dict[str, Any]) -> tuple[Workspace, bool]:
    """Add it, or change what the options name; return it, and whether it is new."""
    given = {"upstream_url": options["upstream"], "name": options["name"] or None}
    values = {name: value for name, value in given.items() if value is not None}
    values |= {name: _secret(name, file, options[file]) for name, file in _FILES if options[file]}
    try:
        return configuring.put(options["slug"], values, may_add=True)
    except ValidationError as error:
        raise CommandError(configuring.sentence(error)) from None


def _secret(name: str, file: str, path: Path) -> str:
    try:
        return configuring.read_secret(name, path)
    except ValueError as error:
        raise CommandError(f"--{file.replace('_', '-')} {path}: {error}") from None
