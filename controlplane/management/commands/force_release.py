"""``manage.py force_release``: end control, whoever has it, and say why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import leases, presenters
from controlplane.management.commands._workspaces import find_user, find_workspaces
from controlplane.models import MAX_NOTE_LENGTH, Workspace
from controlplane.presenters import Json

BY = "the administrator"


class Command(BaseCommand):
    """Ends the leases of the named workspaces, of a user, or all; exit code 1 if none was held."""

    help = "End control of workspaces; the holder reads the note."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("slug", nargs="*")
        parser.add_argument("--user", help="all that this user controls")
        parser.add_argument("--all", action="store_true", help="all that anybody controls")
        parser.add_argument("--note", required=True, help="why; the holder will read it")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """End each lease, and print what became of it."""
        if sum([bool(options["slug"]), bool(options["user"]), options["all"]]) != 1:
            raise CommandError("Name workspaces, or give --user U, or --all: one of the three.")
        if not options["note"].strip():
            raise CommandError("--note: say why; the holder will read it")
        if len(options["note"]) > MAX_NOTE_LENGTH:
            raise CommandError(f"--note: at most {MAX_NOTE_LENGTH} characters")
        results = [_end(workspace, options["note"]) for workspace in _chosen(options)]
        if options["json"]:
            self.stdout.write(json.dumps(results, indent=2))
        else:
            for result in results:
                self.stdout.write(_line(result))
        if not any(result["released"] for result in results):
            raise CommandError("Nobody had control of any of these.", returncode=1)


def _chosen(options: dict[str, Any]) -> list[Workspace]:
    if options["slug"]:
        return find_workspaces(options["slug"])
    held = leases.held()
    if options["user"]:
        held = held.filter(holder=find_user(options["user"]))
    return [lease.workspace for lease in held.order_by("workspace__slug")]


def _end(workspace: Workspace, note: str) -> Json:
    view = presenters.read([workspace.pk])[workspace.pk]
    released = leases.force_release(workspace, by=BY, note=note)
    held_since = view.lease.acquired_at if released else None
    return {
        "workspace": workspace.slug,
        "released": released,
        "controlled_by": presenters.holder_name(view.lease) if released else None,
        "epoch": view.lease.epoch,
        "held_seconds": round((view.now - held_since).total_seconds(), 1) if held_since else None,
    }


def _line(result: Json) -> str:
    if not result["released"]:
        return f"{result['workspace']}: nobody had control"
    return (
        f"{result['workspace']}: released, {result['controlled_by']} had it "
        f"for {result['held_seconds']:g} s (epoch {result['epoch']})"
    )
