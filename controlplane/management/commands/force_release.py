"""``manage.py force_release``: end control, whoever has it, and say why."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane import leases, leasestate, leaseviews, presenters
from controlplane.leases import Closing
from controlplane.management.commands._shared import ADMINISTRATOR, find_user, find_workspaces
from controlplane.models import MAX_NOTE_LENGTH, DisplayControlLease, Workspace
from controlplane.presenters import Json


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
        results = [_end(workspace, epoch, options) for workspace, epoch in _chosen(options)]
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


def _chosen(options: dict[str, Any]) -> list[tuple[Workspace, int | None]]:
    """Return the workspaces, and of a user's, in which epoch they are that user's."""
    if options["slug"]:
        return [(workspace, None) for workspace in find_workspaces(options["slug"])]
    if options["all"] and options["close"]:
        return [(workspace, None) for workspace in Workspace.objects.order_by("slug")]
    held = leasestate.held().order_by("workspace__slug")
    if options["user"]:
        own = held.filter(holder=find_user(options["user"]))
        return [(lease.workspace, lease.epoch) for lease in own]
    return [(lease.workspace, None) for lease in held]


def _end(workspace: Workspace, epoch: int | None, options: dict[str, Any]) -> Json:
    view = leaseviews.read_one(workspace.pk)
    if view is None:
        raise CommandError(f"{workspace.slug} has been removed meanwhile.")
    if options["dry_run"]:
        done = Closing(options["close"], view.lease if view.is_held else None)
    elif options["close"]:
        done = leases.close(workspace, by=ADMINISTRATOR, note=options["note"], epoch=epoch)
    else:
        ended = leases.force_release(workspace, by=ADMINISTRATOR, note=options["note"], epoch=epoch)
        done = Closing(is_closed=False, ended=ended)
    return {
        "workspace": workspace.slug,
        "released": done.ended is not None,
        "closed": done.is_closed,
        "controlled_by": presenters.holder_name(done.ended) if done.ended else None,
        "epoch": (done.ended or view.lease).epoch,
        "held_seconds": _held_seconds(done.ended, view.now) if done.ended else None,
        "dry_run": options["dry_run"],
    }


def _held_seconds(lease: DisplayControlLease, now: datetime) -> float:
    assert lease.acquired_at is not None  # it is, or was, held
    return round(((lease.ended_at or now) - lease.acquired_at).total_seconds(), 1)


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
