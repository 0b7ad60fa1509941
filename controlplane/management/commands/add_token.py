"""``manage.py add_token``: make an API token for a program, and print it this once."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from controlplane import apitokens
from controlplane.management.commands._shared import ADMINISTRATOR, find_workspaces
from controlplane.models import ApiToken, Scope

MAX_DAYS = 3650


class Command(BaseCommand):
    """Makes a token. Standard output has the token and nothing else; the rest goes beside it."""

    help = "Make an API token; it is printed once and never again."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("name", help="what people see when it has control")
        parser.add_argument(
            "--scope", nargs="+", required=True, choices=Scope.values, help="what it may do"
        )
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--workspace", nargs="+", metavar="SLUG", help="where it may do so")
        where.add_argument(
            "--all-workspaces", action="store_true", help="also those that will be added later"
        )
        parser.add_argument("--days", type=int, help="how long it is good; for ever if left out")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it, and print it."""
        name = _checked(options["name"])
        workspaces = find_workspaces(options["workspace"]) if options["workspace"] else None
        token, text = apitokens.create(
            name,
            options["scope"],
            workspaces=workspaces,
            expires_at=_end(options["days"]),
            created_by=ADMINISTRATOR,
        )
        self.stdout.write(text)
        self.stderr.write(
            f"{token.name}: added ({token.scopes}). It is not shown again.", style_func=str
        )


def _checked(given: str) -> str:
    try:
        name: str = ApiToken._meta.get_field("name").clean(given.strip(), None)
    except ValidationError as error:
        raise CommandError(f"name: {' '.join(error.messages)}") from None
    if ApiToken.objects.filter(name=name).exists():
        raise CommandError(
            f"There is an API token {name} already, or there was: choose another name."
        )
    return name


def _end(days: int | None) -> Combinable | None:
    if days is None:
        return None
    if not 1 <= days <= MAX_DAYS:
        raise CommandError(f"--days: from 1 to {MAX_DAYS}")
    return Now() + timedelta(days=days)  # by the database's clock
