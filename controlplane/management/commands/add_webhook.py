"""``manage.py add_webhook``: tell another server what happens to control."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError

from controlplane.management.commands._shared import ADMINISTRATOR, find_workspace
from controlplane.webhooks import adding
from controlplane.workspaces import configuring


class Command(BaseCommand):
    """Adds a webhook. Standard output has its secret and nothing else; the rest goes beside it."""

    help = "Add a webhook; its secret is printed once and never again."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("name", help="what the log and the admin call it")
        parser.add_argument("url", help="https://… or http://…; it gets a POST for each event")
        parser.add_argument("--workspace", metavar="SLUG", help="only of this one; all if left out")

    def handle(self, *args: Any, **options: Any) -> None:
        """Add it, and print its secret."""
        slug = options["workspace"]
        workspace = find_workspace(slug) if slug else None
        name, url = options["name"].strip(), options["url"]
        try:
            webhook, secret = adding.create(
                name, url, workspace=workspace, created_by=ADMINISTRATOR
            )
        except ValidationError as error:
            raise CommandError(configuring.sentence(error)) from None
        self.stdout.write(secret)
        where = slug or "all workspaces"
        self.stderr.write(
            f"{webhook.name}: added ({where}). Its secret is not shown again.", style_func=str
        )
