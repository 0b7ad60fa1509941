"""Admitting in batches: each who waits gets an answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError

from controlplane import streamrows
from controlplane.admissions import BATCH, Admissions
from controlplane.exceptions import TokenRefused
from controlplane.tokens import Admission, Ticket


class FakeThreads:
    """Stands in for the database: slow until told, and it remembers what was asked of it."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.batches: list[list[str]] = []
        self.closed: list[int] = []
        self.fails: Callable[[list[str]], Exception | None] = lambda tokens: None
        self.close_fails = False

    async def run(self, call: Callable[..., Any], *args: Any) -> Any:
        if call is streamrows.close:
            self.closed.append(args[0])
            if self.close_fails:
                raise OperationalError("gone")
            return None
        tickets: list[Ticket] = args[0]
        tokens = [ticket.token for ticket in tickets]
        self.batches.append(tokens)
        await self.flows.wait()
        if error := self.fails(tokens):
            raise error
        return [_outcome(token) for token in tokens]


def _outcome(token: str) -> Any:
    if token == "bad":
        return TokenRefused("bad")
    row: Any = SimpleNamespace(pk=int(token))
    nothing: Any = None
    return Admission(row, nothing, nothing, nothing, nothing, nothing, 0.0)


@pytest.fixture
async def threads() -> FakeThreads:
    return FakeThreads()


def admit(door: Admissions, *tokens: str) -> list[asyncio.Task[Admission]]:
    return [asyncio.create_task(door.admit(token, "desk")) for token in tokens]


async def outcomes_of(tasks: list[asyncio.Task[Admission]]) -> list[Any]:
    async with asyncio.timeout(10):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    return [each.stream.pk if isinstance(each, Admission) else type(each) for each in found]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_while_a_batch_is_under_way_is_in_the_next(threads: FakeThreads) -> None:
    door = Admissions(threads)  # type: ignore[arg-type]  # a stand-in
    threads.flows.clear()
    first = admit(door, "1")
    await settle()
    others = admit(door, *map(str, range(2, 2 + BATCH + 1)))
    await settle()
    threads.flows.set()
    assert await outcomes_of(first + others) == list(range(1, 2 + BATCH + 1))
    assert [len(batch) for batch in threads.batches] == [1, BATCH, 1]


async def test_a_refusal_concerns_nobody_else(threads: FakeThreads) -> None:
    door = Admissions(threads)  # type: ignore[arg-type]  # a stand-in
    assert await outcomes_of(admit(door, "1", "bad", "3")) == [1, TokenRefused, 3]


async def test_where_the_database_is_away_everybody_hears_it_and_the_next_are_served(
    threads: FakeThreads,
) -> None:
    door = Admissions(threads)  # type: ignore[arg-type]  # a stand-in
    threads.fails = lambda tokens: OperationalError("gone")
    assert await outcomes_of(admit(door, "1", "2")) == [OperationalError] * 2
    threads.fails = lambda tokens: None
    assert await outcomes_of(admit(door, "3")) == [3]


async def test_of_a_batch_that_breaks_on_one_the_others_are_served(threads: FakeThreads) -> None:
    door = Admissions(threads)  # type: ignore[arg-type]  # a stand-in
    threads.fails = lambda tokens: IntegrityError("deleted") if "2" in tokens else None
    assert await outcomes_of(admit(door, "1", "2", "3")) == [1, IntegrityError, 3]


@pytest.mark.parametrize("close_fails", [False, True])
async def test_the_row_of_who_has_left_is_closed_and_nobody_waits_for_that(
    close_fails: bool, threads: FakeThreads
) -> None:
    door = Admissions(threads)  # type: ignore[arg-type]  # a stand-in
    threads.close_fails = close_fails
    threads.flows.clear()
    leaving, staying = admit(door, "1", "2")
    await settle()
    leaving.cancel()
    await settle()
    threads.flows.set()
    assert await outcomes_of([staying]) == [2]
    assert await outcomes_of(admit(door, "3")) == [3]
    assert threads.closed == [1]
