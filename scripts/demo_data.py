"""Puts into the database what the demo needs: tables, users, workspaces, grants.

What is there already is left as it is, except that a demo workspace follows its desktop to another
port or password. Called by run_demo.py, with the desktops as JSON on standard input:
``[{"slug", "name", "upstream", "password_file"}, …]``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.core.management import call_command
from django.db import transaction
from environs import EnvError

ROOT = Path(__file__).resolve().parent.parent
ROLES = {"operator": "operator", "observer": "observer"}
ADMIN = "admin"


def main() -> None:
    """Prepare the database that the environment names."""
    set_up_django()
    call_command("migrate", verbosity=0, interactive=False)
    with transaction.atomic():
        new_users = {name for name in (*ROLES, ADMIN) if add_user(name)}
        for desktop in json.load(sys.stdin):
            is_new = follow(desktop)
            for name in ROLES if is_new else ROLES.keys() & new_users:
                call_command("grant", desktop["slug"], name, ROLES[name])


def set_up_django() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
    from controlplane.exceptions import ConfigError  # noqa: PLC0415  (the path is known only now)

    try:
        django.setup()
    except (ConfigError, EnvError) as error:
        sys.exit(f"cannot start: {error}")


def add_user(name: str) -> bool:
    """Add the user with the password ``<name>-demo``; return False if there is one already."""
    users = apps.get_model("auth", "User").objects
    if users.filter(username=name).exists():
        return False
    create = users.create_superuser if name == ADMIN else users.create_user
    create(name, password=f"{name}-demo")
    return True


def follow(desktop: dict[str, Any]) -> bool:
    """Point the workspace to its desktop, if it does not already; return whether it is new."""
    workspace = apps.get_model("controlplane", "Workspace").objects
    known = workspace.filter(slug=desktop["slug"]).first()
    password_file = Path(desktop["password_file"])
    password = password_file.read_text(encoding="utf-8").strip()
    if known and (known.upstream_url, known.vnc_password) == (desktop["upstream"], password):
        return False
    options = {"upstream": desktop["upstream"], "password_file": password_file}
    if known is None:
        options["name"] = desktop["name"]
    call_command("add_workspace", desktop["slug"], **options)
    return known is None


if __name__ == "__main__":
    main()
