"""The product's own services in a process beside the server: it mints tokens and ends leases.

Run by ``manage.py shell``, so that Django is set up. Each line on standard input names a function
below and its arguments, as JSON; each is answered with a line. What it changes is announced in this
process only, where the server's watch does not hear it: to the server, the notice is lost.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache

from django.contrib.auth.models import User
from django.test import Client

from controlplane import access, leases, tokens
from controlplane.models import Workspace

NAME = "operator"
Seat = tuple[str, str]  # a workspace's slug and a client_id


@cache
def login() -> tuple[User, str]:
    """Return the operator and the key of a session."""
    user, client = User.objects.get(username=NAME), Client()
    client.force_login(user)
    return user, str(client.session.session_key)


@cache
def workspace(slug: str) -> Workspace:
    """Return the workspace; none of them changes during a run."""
    return Workspace.objects.get(slug=slug)


def mint(seats: list[Seat]) -> list[str]:
    """Return a token for each seat."""
    user, key = login()
    return [tokens.mint(workspace(slug), user, client, key).token for slug, client in seats]


def acquire(seats: list[Seat]) -> None:
    """Take control for each seat, from another tab where need be."""
    user, key = login()
    for slug, client in seats:
        holder = leases.Holder(user, client, login=access.login_id(key))
        leases.acquire(workspace(slug), holder, ttl=3600, move=True)


def force_release(slug: str) -> float:
    """End whoever's control; return when that began (monotonic seconds)."""
    began = time.monotonic()
    leases.force_release(workspace(slug), by="bench", note="measuring")
    return began


def main() -> None:
    """Answer until standard input ends."""
    calls = {"mint": mint, "acquire": acquire, "force_release": force_release}
    for line in sys.stdin:
        name, argument = json.loads(line)
        sys.stdout.write(json.dumps(calls[name](argument)) + "\n")  # type: ignore[operator]  # each has one
        sys.stdout.flush()
