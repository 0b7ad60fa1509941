"""``manage.py force_release``: end control, whoever has it, and say why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import leases, leasestate, presenters
from controlplane.management.commands._workspaces import find_user, find_workspaces
from controlplane.models import MAX_NOTE_LENGTH, Workspace
from controlplane.presenters import Json

BY = "the administrator"


class Command(BaseCommand):
    """Ends the leases of the named workspaces, of a user, or all; exit code 1 if none was held.

    With ``--close`` nobody can have control afterwards, until ``open_control``; that concerns
    workspaces that nobody holds as well, and counts as something done.
    """

    help = "End control of workspaces; the holder reads the note."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("slug", nargs="*", help="workspaces")
        parser.add_argument("--user", help="all that this user controls")
        parser.add_argument(
            "--all", action="store_true", help="all that anybody controls; with --close, all"
        )
        parser.add_argument("--note", required=True, help="why; the holder will read it")
        parser.add_argument(
            "--close", action="store_true", help="let nobody have control until open_control"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, and do nothing"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """End each lease, and print what became of it."""
        _check(options)
        results = [_end(workspace, options) for workspace in _chosen(options)]
        if options["json"]:
            self.stdout.write(json.dumps(results, indent=2))
        else:
            for result in results:
                self.stdout.write(_line(result))
        if not any(result["released"] or result["closed"] for result in results):
            raise CommandError("Nobody had control of any of these.", returncode=1)


def _check(options: dict[str, Any]) -> None:
    if sum([bool(options["slug"]), bool(options["user"]), options["all"]]) != 1:
        raise CommandError("Name workspaces, or give --user U, or --all: one of the three.")
    if not options["note"].strip():
        raise CommandError("--note: say why; the holder will read it")
    if len(options["note"]) > MAX_NOTE_LENGTH:
        raise CommandError(f"--note: at most {MAX_NOTE_LENGTH} characters")


def _chosen(options: dict[str, Any]) -> list[Workspace]:
    if options["slug"]:
        return find_workspaces(options["slug"])
    if options["all"] and options["close"]:
        return list(Workspace.objects.order_by("slug"))
    held = leasestate.held()
    if options["user"]:
        held = held.filter(holder=find_user(options["user"]))
    return [lease.workspace for lease in held.order_by("workspace__slug")]


def _end(workspace: Workspace, options: dict[str, Any]) -> Json:
    view = presenters.read([workspace.pk]).get(workspace.pk)
    if view is None:
        raise CommandError(f"{workspace.slug} has been removed meanwhile.")
    if options["dry_run"]:
        released = view.is_held
    else:
        end = leases.close if options["close"] else leases.force_release
        released = end(workspace, by=BY, note=options["note"])
    held_since = view.lease.acquired_at if released else None
    return {
        "workspace": workspace.slug,
        "released": released,
        "closed": options["close"],
        "controlled_by": presenters.holder_name(view.lease) if released else None,
        "epoch": view.lease.epoch,
        "held_seconds": round((view.now - held_since).total_seconds(), 1) if held_since else None,
        "dry_run": options["dry_run"],
    }


def _line(result: Json) -> str:
    is_dry = result["dry_run"]
    done = ["closed"] if result["closed"] else ["released"] if result["released"] else []
    if is_dry:
        done = [f"would be {each}" for each in done]
    return f"{result['workspace']}: {', '.join([*done, _holding(result)])}"


def _holding(result: Json) -> str:
    if not result["released"]:
        return "nobody has control" if result["dry_run"] else "nobody had control"
    had = "has had" if result["dry_run"] else "had"
    return (
        f"{result['controlled_by']} {had} it "
        f"for {result['held_seconds']:g} s (epoch {result['epoch']})"
    )
