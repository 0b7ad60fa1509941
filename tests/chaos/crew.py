"""All who work at the same time, in a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.chaos.people import Manager, Person, Rival, Watcher
from tests.support.loop_thread import LoopThread
from tests.support.timing import wait_until
from tests.support.vnc_server import FakeVnc

WATCHERS = 4


class Crew(LoopThread):
    """Two who want control, one who takes it from them, and some who watch."""

    def __init__(self, ports: Sequence[int], desk: FakeVnc) -> None:
        super().__init__()
        self._people: list[Person] = [
            Rival("operator", ports, desk),
            Rival("admin", ports, desk),
            Manager("admin", ports, desk),
            *(Watcher("observer", ports, desk) for _ in range(WATCHERS)),
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def _open(self) -> None:
        self._tasks = [asyncio.create_task(person.work()) for person in self._people]

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wait_for_typing_at(self, port: int) -> None:
        """Return in the middle of somebody's typing at the server of this port."""
        wait_until(
            lambda: any(each.is_typing and each.port == port for each in self._people),
            "somebody types there",
            expected=3,
        )

    def all_succeed_after(self, moment: float) -> float:
        """Wait until each has succeeded after ``moment``; return how long it took the slowest."""
        wait_until(
            lambda: all(self._firsts(moment)) or self._has_broken(),
            lambda: f"all succeed again, but for {self._failures()}",
            expected=6,
        )
        assert not self._has_broken(), [task.exception() for task in self._tasks if task.done()]
        return max(self._firsts(moment)) - moment

    def _firsts(self, moment: float) -> list[float]:
        """For each, when they succeeded first after ``moment``; 0 for who has not."""
        return [next((at for at in each.successes if at > moment), 0) for each in self._people]

    def _failures(self) -> dict[str, list[str]]:
        """What has kept each of them from it, lately."""
        return {
            f"{type(each).__name__} {number}": each.failures[-3:]
            for number, each in enumerate(self._people)
        }

    def _has_broken(self) -> bool:
        return any(task.done() for task in self._tasks)
