"""One round: what every part of it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.bars import Results
from bench.contenders import Contender, Site


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured in each round."""

    rounds: int = 7
    transfer_mib: int = 1024
    trips: int = 2000
    sessions: int = 400
    dialled_at_once: int = 16
    busy_sessions: int = 100
    busy_seconds: int = 3
    busy_per_second: int = 30  # updates, and pointer events, of each
    scaling_streams: tuple[int, ...] = (10, 25, 50, 75, 100)
    scaling_seconds: int = 2  # a step
    takes: int = 20
    lost_notices: int = 5
    cycles: int = 100  # acquire, renew, release
    tabs: int = 200
    waiting: int = 500  # agents
    pictures: int = 8
    visits: int = 8  # to a page, and as many first ones
    keys: int = 60
    drops: int = 20


QUICK = Sizes(
    rounds=2,
    transfer_mib=128,
    trips=300,
    sessions=60,
    busy_sessions=40,
    busy_seconds=2,
    scaling_streams=(4, 8),
    scaling_seconds=1,
    takes=5,
    lost_notices=2,
    cycles=20,
    tabs=40,
    waiting=50,
    pictures=2,
    visits=2,
    keys=10,
    drops=5,
)


@dataclass(frozen=True, slots=True)
class Round:
    """A round of all measurements; ``standing`` are the contenders that run all the time."""

    number: int
    site: Site
    sizes: Sizes
    results: Results
    standing: Mapping[str, Contender]

    def turn(self, *names: str) -> tuple[str, ...]:
        """Return the names in this round's order: each goes first in one of them."""
        first = self.number % len(names)
        return names[first:] + names[:first]
