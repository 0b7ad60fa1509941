"""The product's own services in a process beside the server: it mints tokens and ends leases.

Run by ``manage.py shell``, so that Django is set up. Each line on standard input names a function
below and its arguments, as JSON; each is answered with a line. What it changes is announced in this
process only, where the server's watch does not hear it: to the server, the notice is lost.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache

import psycopg
from django.contrib.auth.models import User
from django.test import Client

from controlplane import access, leases, tokens
from controlplane.models import Role, Workspace, WorkspaceGrant

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


def cycles(count: int) -> float:
    """Take, renew and give back control so many times; return how many seconds that took."""
    user, key = login()
    desk, holder = workspace("controlled"), leases.Holder(user, "bench-tab-cycle", login=key[:8])
    began = time.monotonic()
    for _ in range(count):
        epoch = leases.acquire(desk, holder, ttl=300).epoch
        leases.acquire(desk, holder, ttl=300, epoch=epoch)
        leases.release(desk, holder, epoch=epoch)
    return time.monotonic() - began


def bare_cycles(count: int) -> float:
    """Write the same rows under the same locks, and decide nothing."""
    user, desk = login()[0], workspace("controlled")
    values = {"user": user.pk, "desk": desk.pk, "slug": desk.slug, "client": "bench-tab-cycle"}
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        began = time.monotonic()
        for _ in range(count):
            for statements in (_TAKE, _RENEW, _GIVE_BACK):
                with connection.transaction():
                    for statement in statements:
                        connection.execute(statement, values)
        return time.monotonic() - began


_LOCK = "SELECT * FROM controlplane_displaycontrollease WHERE workspace_id = %(desk)s FOR UPDATE"
_UPDATE = (
    "UPDATE controlplane_displaycontrollease SET version = version + 1, {}"
    " WHERE workspace_id = %(desk)s"
)
_EVENT = (
    "INSERT INTO controlplane_controlevent (workspace_id, workspace_slug, what, who, client_id,"
    " epoch, ended_epoch, reason, note, ip, count, at)"
    " SELECT %(desk)s, %(slug)s, '{}', 'bench', %(client)s, epoch, {}, '', '', NULL, 1, now()"
    " FROM controlplane_displaycontrollease WHERE workspace_id = %(desk)s"
)
_TAKE = (
    _LOCK,
    _UPDATE.format(
        "epoch = epoch + 1, controller = 'user', holder_id = %(user)s, client_id = %(client)s,"
        " login = '', acquired_at = now(), renewed_at = now(), kept_at = now(),"
        " expires_at = now() + interval '300 s', ended_at = NULL, ended_reason = '', ended_by = '',"
        " ended_note = ''"
    ),
    _EVENT.format("acquired", "NULL"),
)
_RENEW = (
    _LOCK,
    _UPDATE.format(
        "expires_at = now() + interval '300 s', renewed_at = now(), renewals = renewals + 1"
    ),
)
_GIVE_BACK = (
    _LOCK,
    _UPDATE.format("controller = 'none', ended_at = now(), ended_reason = 'released'"),
    _EVENT.format("released", "epoch"),
)


def add_desktop(facts: tuple[str, str, str]) -> str:
    """Add a workspace (slug, upstream, password) for the operator; return the session's key."""
    user, key = login()
    slug, upstream, password = facts
    added = Workspace.objects.create(
        slug=slug, name=slug, upstream_url=upstream, vnc_password=password
    )
    WorkspaceGrant.objects.create(workspace=added, user=user, role=Role.OPERATOR)
    return key


@cache
def add_workspaces(count: int) -> list[str]:
    """Return so many workspaces for tabs to have control of; made once."""
    user, _ = login()
    slugs = [f"tab-{number:03}" for number in range(count)]
    for slug in slugs:
        added = Workspace.objects.create(slug=slug, name=slug, upstream_url="tcp://127.0.0.1:5900")
        WorkspaceGrant.objects.create(workspace=added, user=user, role=Role.OPERATOR)
    return slugs


def main() -> None:
    """Answer until standard input ends."""
    known = (mint, acquire, force_release, cycles, bare_cycles, add_workspaces, add_desktop)
    calls = {call.__name__: call for call in known}
    for line in sys.stdin:
        name, argument = json.loads(line)
        sys.stdout.write(json.dumps(calls[name](argument)) + "\n")
        sys.stdout.flush()
