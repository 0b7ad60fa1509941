"""``manage.py add_workspace``: add a desktop, or change the one of that name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError

from controlplane import configuring
from controlplane.models import SECRET_FIELDS, Workspace


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


_KINDS = ("password", "query", "headers")  # in the order of SECRET_FIELDS


def _read_secrets(workspace: Workspace, options: dict[str, Any]) -> None:
    for name, kind in zip(SECRET_FIELDS, _KINDS, strict=True):
        path = options[f"{kind}_file"]
        if path:
            setattr(workspace, name, _secret(name, f"--{kind}-file", path))
    workspace.upstream_query = workspace.upstream_query.lstrip("?")


def _secret(name: str, option: str, path: Path) -> str:
    try:
        return configuring.read_secret(name, path)
    except ValueError as error:
        raise CommandError(f"{option} {path}: {error}") from None


def _validate(workspace: Workspace) -> None:
    try:
        workspace.full_clean()
    except ValidationError as error:
        raise CommandError(configuring.sentence(error)) from None
