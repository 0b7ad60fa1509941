"""``manage.py revoke_token``: end an API token, and with it all that its program controls."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import apitokens
from controlplane.management.commands._shared import ADMINISTRATOR
from controlplane.models import ApiToken


class Command(BaseCommand):
    """Ends a token for good; streams that are open end within seconds."""

    help = "Revoke an API token."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the argument of the contract."""
        parser.add_argument("name", help="the token’s")

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke, and say so."""
        token = ApiToken.objects.filter(name=options["name"]).first()
        if token is None:
            known = ", ".join(ApiToken.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"No such API token: {options['name']}. There are: {known}.")
        if token.revoked_at:
            raise CommandError(f"{token.name} was revoked already, at {token.revoked_at:%F %T} UTC")
        apitokens.revoke(token, by=ADMINISTRATOR)
        self.stdout.write(f"{token.name}: revoked")
