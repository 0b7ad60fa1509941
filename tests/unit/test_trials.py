"""Trying a password where many dial at once: one first, the others by what comes of that."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.exceptions import CredentialsRefused, RefusedLately
from controlplane.trials import Trials
from tests.support.timing import Clock, await_until, limit

REST = 60.0


class Desktop:
    """Judges passwords when the test says so; ``trying`` are those that wait for it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.trials = Trials(REST, self.clock)
        self.trying: list[asyncio.Future[None]] = []

    def knock(self, count: int = 1, credentials: str = "a") -> list[asyncio.Task[None]]:
        """Let so many try these at once."""
        return [asyncio.create_task(self._try(credentials)) for _ in range(count)]

    async def _try(self, credentials: str) -> None:
        async with self.trials.trial(credentials):
            verdict: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.trying.append(verdict)
            await verdict

    async def asked(self, count: int) -> None:
        """Wait until so many try, and everybody else has had a turn."""
        await await_until(lambda: len(self.trying) >= count, f"{count} try it")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(self.trying) == count


@pytest.fixture
async def desktop() -> Desktop:
    return Desktop()


async def outcomes(tasks: list[asyncio.Task[None]]) -> list[type | None]:
    async with asyncio.timeout(limit(1)):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    return [None if each is None else type(each) for each in found]


def refusal() -> CredentialsRefused:
    return CredentialsRefused("authentication", "authentication failed")


async def test_one_tries_first_and_where_it_is_accepted_all_go_on_together(
    desktop: Desktop,
) -> None:
    tasks = desktop.knock(20)
    await desktop.asked(1)
    desktop.trying[0].set_result(None)
    await desktop.asked(20)
    for verdict in desktop.trying[1:]:
        verdict.set_result(None)
    assert await outcomes(tasks) == [None] * 20
    assert desktop.trials._first == {}


async def test_what_is_refused_is_not_tried_again_until_it_has_rested(desktop: Desktop) -> None:
    tasks = desktop.knock(20)
    await desktop.asked(1)
    desktop.trying[0].set_exception(refusal())
    assert await outcomes(tasks) == [CredentialsRefused, *[RefusedLately] * 19]
    desktop.clock.now += REST - 1
    assert await outcomes(desktop.knock()) == [RefusedLately]
    desktop.clock.now += 1
    again = desktop.knock()
    await desktop.asked(2)
    desktop.trying[1].set_result(None)
    assert await outcomes(again) == [None]


async def test_other_credentials_are_tried_beside(desktop: Desktop) -> None:
    tasks = desktop.knock(1, "a") + desktop.knock(1, "b")
    await desktop.asked(2)
    desktop.trying[0].set_exception(refusal())
    desktop.trying[1].set_result(None)
    assert await outcomes(tasks) == [CredentialsRefused, None]
    desktop.clock.now += REST
    later = desktop.knock(1, "c")
    await desktop.asked(3)
    desktop.trying[2].set_exception(refusal())
    assert await outcomes(later) == [CredentialsRefused]
    assert set(desktop.trials._refused) == {"c"}, "of what has rested, nothing is kept"


@pytest.mark.parametrize("how", ["its time is over", "the connection breaks"])
async def test_where_the_first_gets_no_answer_the_next_one_tries(
    how: str, desktop: Desktop
) -> None:
    first, *others = desktop.knock(3)
    await desktop.asked(1)
    if how == "its time is over":
        first.cancel()
    else:
        desktop.trying[0].set_exception(OSError("reset"))
    await desktop.asked(2)
    desktop.trying[1].set_result(None)
    await desktop.asked(3)
    desktop.trying[2].set_result(None)
    assert await outcomes(others) == [None, None]


async def test_who_gives_up_waiting_takes_nothing_from_the_others(desktop: Desktop) -> None:
    first, leaving, staying = desktop.knock(3)
    await desktop.asked(1)
    leaving.cancel()
    await asyncio.wait([leaving])
    desktop.trying[0].set_result(None)
    await desktop.asked(2)
    desktop.trying[1].set_result(None)
    assert await outcomes([first, staying]) == [None, None]
