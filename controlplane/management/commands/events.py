"""``manage.py events``: what happened to control, as JSON lines."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import eventlog
from controlplane.models import ControlEvent, Workspace


class Command(BaseCommand):
    """Prints one JSON object a line, oldest first; those of removed workspaces as well."""

    help = "Print what happened to control, one JSON object a line."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--workspace", help="only of the workspace with this slug")
        parser.add_argument(
            "--since",
            type=_start,
            default=0,
            help="after the event with this id, or from this time on: 2026-01-31T12:00Z",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print them."""
        events = eventlog.since(options["since"])
        if options["workspace"]:
            _check_known(options["workspace"])
            events = events.filter(workspace_slug=options["workspace"])
        for line in eventlog.lines(events):
            self.stdout.write(line)


def _check_known(slug: str) -> None:
    is_known = Workspace.objects.filter(slug=slug).exists()
    if not is_known and not ControlEvent.objects.filter(workspace_slug=slug).exists():
        raise CommandError(f"There is, and was, no workspace {slug}.")


def _start(text: str) -> int | datetime:
    """Return the id, or the time (in UTC unless it says otherwise)."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "neither the id of an event nor a time like 2026-01-31T12:00Z"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
