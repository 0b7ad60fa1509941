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

import django
from django.core.management import call_command

ROOT = Path(__file__).resolve().parent.parent
USERS = {"operator": "operator", "observer": "observer", "admin": None}  # and their roles


def main() -> None:
    """Prepare the database that the environment names."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
    django.setup()
    call_command("migrate", verbosity=0, interactive=False)
    new_users = [name for name in USERS if add_user(name)]
    for desktop in json.load(sys.stdin):
        follow(desktop)
        for name in new_users_or_all(desktop["slug"], new_users):
            call_command("grant", desktop["slug"], name, USERS[name])


def add_user(name: str) -> bool:
    """Add the user with the password ``<name>-demo``; return False if there is one already."""
    from django.contrib.auth.models import User

    if User.objects.filter(username=name).exists():
        return False
    password = f"{name}-demo"
    if USERS[name] is None:
        User.objects.create_superuser(name, password=password)
    else:
        User.objects.create_user(name, password=password)
    return True


