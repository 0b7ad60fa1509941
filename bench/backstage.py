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
from typing import Any
from unittest import mock

import psycopg
from django.contrib.auth.models import User
from django.test import Client

from controlplane import access, leases, statements, tokens
from controlplane.models import Role, Workspace, WorkspaceGrant

NAME = "operator"
WARM_UP = 10  # cycles before those that count: by then, all statements are prepared
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
    for _ in range(WARM_UP):
        _cycle()
    began = time.monotonic()
    for _ in range(count):
        _cycle()
    return time.monotonic() - began


def _cycle() -> None:
    user, key = login()
    desk, holder = workspace("controlled"), leases.Holder(user, "bench-tab-cycle", login=key[:8])
    epoch = leases.acquire(desk, holder, ttl=300).epoch
    leases.acquire(desk, holder, ttl=300, epoch=epoch)
    leases.release(desk, holder, epoch=epoch)


def bare_cycles(count: int) -> float:
    """Execute the statements of such a cycle, in the same transactions, and decide nothing."""
    transactions = statements_of_a_cycle()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        for _ in range(WARM_UP):
            _execute(connection, transactions)
        began = time.monotonic()
        for _ in range(count):
            _execute(connection, transactions)
        return time.monotonic() - began


Statement = tuple[str, list[Any]]


def _execute(connection: psycopg.Connection[Any], transactions: list[list[Statement]]) -> None:
    for each in transactions:
        with connection.transaction():
            for text, parameters in each:
                cursor = connection.execute(text.encode(), parameters)
                if cursor.description:
                    cursor.fetchall()


@cache
def statements_of_a_cycle() -> list[list[Statement]]:
    """Return what one cycle executes, by transaction: each begins with the lock of the lease."""
    transactions: list[list[Statement]] = []
    run = statements.run

    def run_and_note(here: Any, text: str, parameters: list[Any]) -> Any:
        if "FOR UPDATE" in text:
            transactions.append([])
        transactions[-1].append((_writing_again(text), parameters))
        return run(here, text, parameters)

    with mock.patch.object(statements, "run", run_and_note):
        _cycle()
    return transactions


def _writing_again(text: str) -> str:
    """Let an update find its row although the version is not the one that was read."""
    head, condition, tail = text.rpartition('"version" = %s')
    return f'{head}"version" >= %s{tail}' if text.startswith("UPDATE") and condition else text


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
    known = (mint, acquire, force_release, cycles, bare_cycles, add_workspaces)
    calls = {call.__name__: call for call in known}
    for line in sys.stdin:
        name, argument = json.loads(line)
        sys.stdout.write(json.dumps(calls[name](argument)) + "\n")
        sys.stdout.flush()
