"""``manage.py sync_workspaces``: make workspaces and grants what a file says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError

from controlplane.exceptions import WorkspaceFileError
from controlplane.workspaces import files, sync
from controlplane.workspaces.files import WorkspaceFile


class Command(BaseCommand):
    """Carries out all of the file or nothing, and prints a line for each change."""

    help = "Add, change and remove workspaces and grants until they are as a YAML file says."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("file", type=Path, help="docs/workspaces.md tells what is in it")
        parser.add_argument(
            "--prune", action="store_true", help="remove the workspaces that are not in the file"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would change, and change nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Carry it out, and say what has changed."""
        try:
            changes = sync.carry_out(
                _read(options["file"]), prune=options["prune"], dry_run=options["dry_run"]
            )
        except WorkspaceFileError as error:
            raise CommandError(str(error)) from None
        for change in changes:
            self.stdout.write(change)
        if options["dry_run"]:
            self.stdout.write(f"dry run: {len(changes)} change(s), none made")
        elif not changes:
            self.stdout.write("nothing changed")


def _read(path: Path) -> WorkspaceFile:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path}: it is not text") from None
    return files.read(str(path), text, path.parent)
