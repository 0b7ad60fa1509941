"""``manage.py remove_second_factor``: for those who lost phone and recovery codes."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane.management.commands._shared import find_user
from controlplane.signin import secondfactor


class Command(BaseCommand):
    """Their password lets them in then; where a second factor is required, they enrol anew."""

    help = "Remove somebody’s second factor and recovery codes: they have lost them."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the argument."""
        parser.add_argument("user", help="the name of the user")

    def handle(self, *args: Any, **options: Any) -> None:
        """Remove, and say so."""
        user = find_user(options["user"])
        if not secondfactor.remove(user):
            raise CommandError(f"{user.get_username()} has no second factor")
        self.stdout.write(f"{user.get_username()}: second factor removed")
