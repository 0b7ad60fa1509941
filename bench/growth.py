"""Whether what a process has grows while it works: figures over time, and how they are judged.

The first third of the time is not judged: what is made once is made in it. Of the other two, the
medians are compared, so that a single sample decides nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Something a process has. It is flat within ``share`` (of 1), or within ``more`` of it."""

    title: str
    unit: str = ""
    share: float = 0
    more: float = 0

    def allows(self, before: float, after: float) -> bool:
        """Whether growing from ``before`` to ``after`` still counts as flat."""
        return after <= before * (1 + self.share) + self.more

    @property
    def allowance(self) -> str:
        """How much it may grow, in words."""
        return f"{self.share:.0%}" if self.share else f"{self.more:g}"

    def show(self, value: float) -> str:
        """Return a value as people read it, with its unit."""
        return f"{value:,.1f} {self.unit}" if self.unit else f"{value:,.0f}"


# Memory that has been given back may come back in other pages; a thread or a connection to the
# database may be made whenever two things happen at once for the first time. None of them adds up.
PSS = Figure("memory, PSS", "MiB", share=0.03)
RSS = Figure("memory, RSS", "MiB", share=0.03)
DESCRIPTORS = Figure("open descriptors", more=2)
THREADS = Figure("threads", more=2)
ROWS = Figure("rows of open streams")
FIGURES = (PSS, RSS, DESCRIPTORS, THREADS, ROWS)

Sample = dict[Figure, float]


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the second and of the last third; ValueError for less than three."""
    third = len(values) // 3
    if not third:
        raise ValueError(f"{len(values)} samples have no thirds")
    return statistics.median(values[third:-third]), statistics.median(values[-third:])


def is_flat(figure: Figure, values: Sequence[float]) -> bool:
    """Whether the last third is as the second one was."""
    return figure.allows(*thirds(values))


def milestones(values: Sequence[float]) -> list[float]:
    """Return what it was at the start, after a third, after two thirds and at the end."""
    last = len(values) - 1
    return [values[round(last * part / 3)] for part in range(4)]
