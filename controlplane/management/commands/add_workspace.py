"""``manage.py add_workspace``: add a desktop, or change the one of that name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError

from controlplane import configuring
from controlplane.models import Workspace


class Command(BaseCommand):
    """Adds a workspace; run again, it changes what is given and keeps the rest."""

    help = "Add a workspace, or change the one with this slug."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("slug")
        parser.add_argument(
            "--upstream",
            help="tcp://…, unix:///…, ws://… or wss://…; may be left out where "
            "DISPLAY_UPSTREAM_TEMPLATE says where desktops are",
        )
        parser.add_argument("--name", help="what people see; the slug if left out")
        parser.add_argument(
            "--password-file", type=Path, help="a file with the VNC password in its first line"
        )
        parser.add_argument(
            "--query-file",
            type=Path,
            help="a file with the address's query in its first line, such as token=…: "
            "what stands in a command line can be read by others",
        )
        parser.add_argument(
            "--headers-file", type=Path, help="a file with “Name: value” lines for websockify"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Add or change, and say which."""
        workspace = Workspace.objects.filter(slug=options["slug"]).first()
        verb = "changed" if workspace else "added"
        workspace = workspace or Workspace(slug=options["slug"], name=options["slug"])
        if options["upstream"] is not None:
            workspace.point_to(options["upstream"])
        workspace.name = options["name"] or workspace.name
        _read_secrets(workspace, options)
        _validate(workspace)
        if not workspace.address:
            raise CommandError("--upstream: where is it? DISPLAY_UPSTREAM_TEMPLATE does not say.")
        workspace.save()
        self.stdout.write(f"{workspace.slug}: {verb}, {workspace.shown_upstream}")


def _read_secrets(workspace: Workspace, options: dict[str, Any]) -> None:
    if options["password_file"]:
        workspace.vnc_password = _lines("--password-file", options["password_file"])[0]
    if options["query_file"]:
        workspace.upstream_query = _lines("--query-file", options["query_file"])[0].lstrip("?")
    if options["headers_file"]:
        workspace.upstream_headers = "\n".join(_lines("--headers-file", options["headers_file"]))


def _lines(option: str, path: Path) -> list[str]:
    """Return the lines of a file whose first one is not empty."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{option} {path}: it is not text") from None
    if not lines or not lines[0]:
        raise CommandError(f"{option} {path}: its first line is empty")
    return lines


def _validate(workspace: Workspace) -> None:
    try:
        workspace.full_clean()
    except ValidationError as error:
        raise CommandError(configuring.sentence(error)) from None
