"""``manage.py prune_events``: remove what is told of long ago."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand

from controlplane import eventlog
from controlplane.models import ControlEvent

MAX_DAYS = 36500


class Command(BaseCommand):
    """Removes events for good; who has control does not depend on those of former days."""

    help = "Remove events that are older than so many days."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--days", type=_days, required=True, help="how many days are kept")
        parser.add_argument(
            "--dry-run", action="store_true", help="say how many, and remove nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove them, and say how many."""
        old = eventlog.older_than(options["days"])
        if options["dry_run"]:
            self.stdout.write(f"{old.count()} event(s) would be removed")
            return
        removed = old.delete()[1].get(ControlEvent._meta.label, 0)
        self.stdout.write(f"{removed} event(s) removed")


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_DAYS}")
    return int(text)
