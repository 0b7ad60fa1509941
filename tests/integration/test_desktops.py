"""Dialling desktops: what many do at once, and what is remembered of a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from controlplane import desktops
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import CredentialsRefused
from controlplane.models import Workspace
from controlplane.workspaces import configuring
from tests.support.timing import limit
from tests.support.vnc_server import FakeVnc

pytestmark = pytest.mark.django_db(transaction=True)  # what is found is noted in other threads

WATCHERS = 20
REFUSED = "authentication: authentication failed"
LATELY = f"{REFUSED} less than a minute ago"


@pytest.fixture
def locked() -> Iterator[FakeVnc]:
    """A desktop that refuses every password."""
    with FakeVnc("wrong_password") as vnc:
        yield vnc


@pytest.fixture
def admitted(desk: Workspace, locked: FakeVnc) -> list[Workspace]:
    """The desk with a password that was right until now, as read for each who comes back."""
    configuring.patch("desk", {"upstream_url": locked.url, "vnc_password": "geheim12"})
    return [Workspace.objects.get(pk=desk.pk) for _ in range(WATCHERS)]


def refusals(workspaces: list[Workspace]) -> list[str]:
    """Dial all at once; return what each was refused with."""
    errors = asyncio.run(dial_all(workspaces))
    assert all(isinstance(error, CredentialsRefused) for error in errors)
    return sorted(map(str, errors))


async def dial_all(workspaces: list[Workspace]) -> list[object]:
    threads = DatabaseThreads("test", 4)
    async with asyncio.timeout(limit(2)):
        calls = [desktops.dial(each, threads) for each in workspaces]
        return list(await asyncio.gather(*calls, return_exceptions=True))


def test_of_all_who_come_back_after_a_change_of_password_one_tries_the_old_one(
    admitted: list[Workspace], locked: FakeVnc
) -> None:
    *together, late = admitted
    assert refusals(together) == [REFUSED, *[LATELY] * (WATCHERS - 2)]
    noted = Workspace.objects.get().refused_at
    assert refusals([late]) == [LATELY], "though it was read before the refusal was noted"
    assert locked.attempts == 1
    assert Workspace.objects.get().refused_at == noted, "its rest is not prolonged"
