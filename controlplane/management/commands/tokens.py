"""``manage.py tokens``: which API tokens there are, and what they may do where."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management import BaseCommand

from controlplane import apitokens, links, presenters
from controlplane.presenters import Json


class Command(BaseCommand):
    """Lists the tokens, those that are good for nothing any more included; never their text."""

    help = "List the API tokens."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the option of the contract."""
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print a line, or an object, for each."""
        found = [describe(token) for token in apitokens.rows()]
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
            return
        for token in found:
            self.stdout.write(_line(token))
        if not found:
            self.stdout.write("There are no API tokens.")


def describe(token: Any) -> Json:
    """Return what is told about one token; ``workspaces`` is null for all of them."""
    return {
        "name": token.name,
        "kind": token.get_kind_display(),
        "state": links.state(token) if token.is_link else apitokens.state(token),
        "scopes": token.scopes.split(),
        "workspaces": apitokens.reach(token),
        "expires_at": presenters.iso(token.expires_at),
        "last_used_at": presenters.iso(token.last_used_at),
        "created_at": presenters.iso(token.created_at),
        "created_by": token.created_by,
        "revoked_at": presenters.iso(token.revoked_at),
    }


def _line(token: Json) -> str:
    slugs = token["workspaces"]
    where = "all workspaces" if slugs is None else ", ".join(slugs) or "no workspace"
    until = f"until {token['expires_at']}" if token["expires_at"] else "without an end"
    used = f"last used {token['last_used_at']}" if token["last_used_at"] else "never used"
    what = f"{token['state']}, {' '.join(token['scopes'])}"
    return f"{token['name']}: {what}, {where}, {until}, {used}"
