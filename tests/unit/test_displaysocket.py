"""What a page is told comes in its order, and a page that does not read it is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from controlplane.displaysocket import MAX_TEXTS, Teller
from controlplane.exceptions import TooSlow


class Page:
    """Takes one text after the other, once it reads at all."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.told: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.teller = Teller(self._take, self._start)

    async def _take(self, text: dict[str, Any]) -> None:
        await self.reads.wait()
        self.told.append(text["number"])

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work()))
        return self.tasks[-1]

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.teller.say({"number": number})

    async def all_told(self) -> None:
        self.reads.set()
        await asyncio.gather(*self.tasks)


@pytest.fixture
async def page() -> Page:
    return Page()


async def test_a_page_is_told_everything_in_its_order(page: Page) -> None:
    page.say(1, 2)
    await asyncio.sleep(0)  # the first is on its way
    page.say(3)
    await page.all_told()
    page.say(4)
    await page.all_told()
    assert page.told == [1, 2, 3, 4]
    assert len(page.tasks) == 2, "there is a task only while there is something to tell"


async def test_a_page_that_does_not_read_what_it_is_told_is_too_slow(page: Page) -> None:
    page.say(*range(MAX_TEXTS))
    with pytest.raises(TooSlow, match="does not read"):
        page.say(MAX_TEXTS)
    await page.all_told()
    assert page.told == list(range(MAX_TEXTS))
