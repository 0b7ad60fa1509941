"""Long polls and their reader: whatever a read fails with, who waits is told by a later one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.db import OperationalError

from controlplane import events, notices, waiting
from controlplane.waiting import Mark, Waiting
from tests.support.timing import await_until, limit

BEFORE, AFTER = Mark(1, False, False), Mark(2, True, False)
DESK = 7


class FakeDatabase:
    """Tells one mark of all workspaces; it can fail, and counts how often it did."""

    def __init__(self) -> None:
        self.mark = BEFORE
        self.failure: Exception | None = None
        self.reads = self.failures = 0

    def read_marks(self, workspace_ids: list[int]) -> dict[int, Mark]:
        if self.failure:
            self.failures += 1
            raise self.failure
        self.reads += 1
        return dict.fromkeys(workspace_ids, self.mark)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    fake = FakeDatabase()
    monkeypatch.setattr(waiting, "read_marks", fake.read_marks)
    return fake


@pytest.fixture
async def the_waiting(
    database: FakeDatabase, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> AsyncIterator[Waiting]:
    """A reader that looks often, with a channel layer of its own; it is stopped at the end."""
    own, listening = InMemoryChannelLayer(), notices.Notices()
    monkeypatch.setattr(events, "channel_layer", lambda: own)
    monkeypatch.setattr(notices, "current", lambda: listening)
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=0.02)
    the_waiting = Waiting()
    yield the_waiting
    the_waiting.end_all()
    await await_until(lambda: not the_waiting._poll.is_running, "nobody waits")


def wait(the_waiting: Waiting) -> asyncio.Task[None]:
    return asyncio.create_task(the_waiting.until_changed(DESK, BEFORE, limit(60)))


async def told(*calls: asyncio.Task[None]) -> None:
    async with asyncio.timeout(limit(1)):
        await asyncio.gather(*calls)


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "controlplane.waiting"]


async def test_who_waits_is_told_of_a_change(the_waiting: Waiting, database: FakeDatabase) -> None:
    call = wait(the_waiting)
    await await_until(lambda: database.reads > 2, "reads that find nothing new")
    assert not call.done()
    database.mark = AFTER
    await told(call)


@pytest.mark.parametrize("error", [OperationalError("gone"), ZeroDivisionError("a bug")])
async def test_whatever_a_read_fails_with_who_waits_is_told_by_a_later_one(
    error: Exception,
    the_waiting: Waiting,
    database: FakeDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = wait(the_waiting)
    database.failure = error
    await await_until(lambda: database.failures > 2, "reads fail again and again")
    database.failure, database.mark = None, AFTER
    await told(call)
    assert texts(caplog) == [
        f"nobody who waits for control is answered: {error}",
        "who waits for control is answered again",
    ]


async def test_a_reader_that_was_ended_from_outside_begins_anew_with_the_next_who_waits(
    the_waiting: Waiting, database: FakeDatabase
) -> None:
    first = wait(the_waiting)
    await await_until(lambda: database.reads, "a read")
    task = the_waiting._poll._task
    assert task is not None
    task.cancel()
    await asyncio.wait([task])
    database.mark = AFTER
    await told(first, wait(the_waiting))
