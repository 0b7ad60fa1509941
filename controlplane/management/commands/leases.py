"""``manage.py leases``: who has control of what."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management import BaseCommand

from controlplane import leaseviews, presenters
from controlplane.leaseviews import LeaseView
from controlplane.models import Workspace
from controlplane.presenters import Json


class Command(BaseCommand):
    """Lists the leases that are held or closed; with ``--all``, every workspace's."""

    help = "List who has control, and what is closed to it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("--all", action="store_true", help="also those that are free")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print a line, or an object, for each."""
        workspaces = {workspace.pk: workspace for workspace in Workspace.objects.all()}
        rows = [
            describe(workspaces[pk], view)
            for pk, view in leaseviews.read(workspaces).items()
            if options["all"] or view.is_held or view.lease.closed_at
        ]
        rows.sort(key=lambda row: row["workspace"])
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
            return
        for row in rows:
            self.stdout.write(_line(row))
        if not rows:
            self.stdout.write("Nobody has control of anything.")


def describe(workspace: Workspace, view: LeaseView) -> Json:
    """Return what is told about one lease."""
    lease = view.lease
    return {
        "workspace": workspace.slug,
        "controller": str(lease.controller) if view.is_held else "none",
        "controlled_by": presenters.holder_name(lease) if view.is_held else None,
        "epoch": lease.epoch,
        "acquired_at": presenters.iso(lease.acquired_at),
        "expires_at": presenters.iso(lease.expires_at),
        "remaining_seconds": round(view.remaining, 1),
        "holder_connected": view.is_holder_connected if view.is_held else None,
        "state": presenters.state(view),
        "hidden_at": presenters.iso(lease.hidden_at),
        "closed_at": presenters.iso(lease.closed_at),
        "closed_by": lease.closed_by or None,
        "closed_note": lease.closed_note or None,
    }


def _line(row: Json) -> str:
    if row["state"] == "closed":
        return (
            f"{row['workspace']}: closed by {row['closed_by']} (“{row['closed_note']}”), "
            f"epoch {row['epoch']}"
        )
    if row["state"] != "held":
        return f"{row['workspace']}: {row['state']}, epoch {row['epoch']}"
    presence = "connected" if row["holder_connected"] else "not connected"
    return (
        f"{row['workspace']}: held by {row['controlled_by']} ({row['controller']}, {presence}), "
        f"{row['remaining_seconds']:g} s left, epoch {row['epoch']}"
    )
