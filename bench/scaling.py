"""How many busy streams one process carries, and two, without making them wait."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from bench import bars
from bench.busy import Times, p99
from bench.client import Dial
from bench.contenders import DESKS, Contender, Desktopctl, new_client_id
from bench.rounds import Round

TRIES = 2  # at each step: something else may have had the machine in the first
PROCESSES = {bars.ONE_PROCESS: 1, bars.TWO_PROCESSES: 2}


def scaling(this: Round) -> None:
    """Step the number of streams up, with one fresh process and with two."""
    with ExitStack() as running:
        names = [bars.UVICORN] * max(PROCESSES.values())
        fresh = [running.enter_context(this.site.running(name)) for name in names]
        steps = Steps(this, fresh)
        for name in this.turn(*PROCESSES):
            count = PROCESSES[name]
            carried = steps.carried(count)
            this.results.add(name, bars.CARRIED, carried)
            this.results.add(name, bars.CARRIED_EACH, carried / count)


class Steps:
    """The steps of a round. What a number of streams takes without a bridge is measured once."""

    def __init__(self, this: Round, fresh: Sequence[Contender]) -> None:
        self._this = this
        self._fresh = fresh
        self._sizes = replace(this.sizes, busy_seconds=this.sizes.scaling_seconds)
        self._bare: dict[int, Times] = {}
        self._bridged(this.sizes.scaling_streams[0], len(fresh))  # what is made once is there

    def carried(self, processes: int) -> int:
        """Return the most streams that so many processes carry together; 0 if not even the least.

        It stops at the first number that is too much.
        """
        carried = 0
        for count in self._sizes.scaling_streams:
            tries = (self._added(count, processes) for _ in range(TRIES))
            if not any(added <= bars.ADDED_MS for added in tries):
                break
            carried = count
        return carried

    def _added(self, count: int, processes: int) -> float:
        """Return the milliseconds that a bridge adds, to updates or to pointer events."""
        bridged, bare = self._bridged(count, processes), self._without(count)
        return max(bridged.update - bare.update, bridged.pointer - bare.pointer)

    def _bridged(self, count: int, processes: int) -> Times:
        return p99(self._this.site, self._dials(count, processes), self._sizes)

    def _without(self, count: int) -> Times:
        if count not in self._bare:
            dials = self._this.standing[bars.DIRECT].dials(count)
            self._bare[count] = p99(self._this.site, dials, self._sizes)
        return self._bare[count]

    def _dials(self, count: int, processes: int) -> Sequence[Dial]:
        """Deal streams out to the processes in turn, all in control of a desk of their own."""
        seats = [(slug, new_client_id()) for slug in DESKS[:count]]
        self._this.site.backstage.ask("acquire", seats)
        dials: dict[int, Dial] = {}
        for first, contender in enumerate(self._fresh[:processes]):
            assert isinstance(contender, Desktopctl)
            turns = range(first, count, processes)
            dials |= zip(turns, contender.dials_to(seats[first::processes]), strict=True)
        return [dials[turn] for turn in range(count)]
