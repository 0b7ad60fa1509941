"""What was measured, summed up, and the bars that it is held against.

Rounds on a shared machine vary. So a bar is judged by all of its rounds: it is met where their
median meets it, and missed only where not even the best of them does.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

UVICORN, DAPHNE = "desktopctl, uvicorn", "desktopctl, Daphne"
WEBSOCKIFY, SOCAT, DIRECT = "websockify", "socat (plain C relay)", "no bridge"
CONTENDERS = (UVICORN, DAPHNE, WEBSOCKIFY, SOCAT, DIRECT)
SERVICE, BARE = "leases.py", "bare psycopg"
STOCK = "noVNC on websockify"
VNCDOTOOL = "vncdotool"
ONE_PROCESS, TWO_PROCESSES = "1 process", "2 processes"
LEASE_CONTENDERS = (UVICORN, SERVICE, BARE)
BROWSER_CONTENDERS = (UVICORN, STOCK)
PICTURE_CONTENDERS = (UVICORN, VNCDOTOOL)


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of figure: its name, its unit, how many decimals make sense."""

    title: str
    unit: str
    decimals: int = 0

    def show(self, value: float) -> str:
        """Return the figure as people read it, without its unit."""
        return f"{value:,.{self.decimals}f}"


THROUGHPUT = Measure("throughput", "MiB/s")
CPU = Measure("CPU time", "s per GiB", 2)
TRIP_P50 = Measure("round trip of 1 KiB, p50", "µs")
TRIP_P99 = Measure("round trip of 1 KiB, p99", "µs")
TRIP_APART = Measure("round trip of 1 KiB, the bridge on a core of its own, p50", "µs")
MEMORY = Measure("memory of an idle session", "KiB PSS", 1)
DIALS = Measure("streams dialled", "per second")
UPDATE_P99 = Measure("busy sessions: update of 16 KiB, p99", "ms", 1)
UPDATE_ADDED = Measure("busy sessions: update, p99 added", "ms", 1)
POINTER_P99 = Measure("busy sessions: pointer event, p99", "ms", 1)
POINTER_ADDED = Measure("busy sessions: pointer event, p99 added", "ms", 1)
ADDED_MS = 20  # at the p99: as much may a bridge add to what it carries
CARRIED = Measure(f"busy streams, p99 added ≤ {ADDED_MS} ms", "in all")
CARRIED_EACH = Measure(f"busy streams, p99 added ≤ {ADDED_MS} ms", "a process")
SCALING_CONTENDERS = (ONE_PROCESS, TWO_PROCESSES)
SCALING_MEASURES = (CARRIED, CARRIED_EACH)
STALL_MEMORY = Measure("stalled browser, 1 GiB sent: memory grows", "MiB", 1)
STALL_ENDED = Measure("stalled browser: streams that end with 4413", "%")
CALM_P99 = Measure("another stream's round trip, p99, before the stall", "ms", 1)
STALL_P99 = Measure("another stream's round trip, p99, during the stall", "ms", 1)
TAKE = Measure("take control → first key, p95", "ms", 1)
REVOKE = Measure("force-release → last input byte, p95, with the notice", "ms", 1)
REVOKE_LOST = Measure("force-release → last input byte, p95, the notice lost", "ms")
CYCLES = Measure("acquire + renew + release", "per second", 1)
RENEWALS = Measure("many tabs renew at once", "per second", 1)
RENEWAL_P99 = Measure("many tabs renew at once: a renewal, p99", "ms", 1)
RENEWAL_CPU = Measure("as many tabs, each renewing every 120 s: CPU of a core", "%", 2)
LEASE_MEASURES = (CYCLES, RENEWALS, RENEWAL_P99, RENEWAL_CPU)
TOLD = Measure("“Take control” → a waiting agent is told, p95", "ms", 1)
WAITING_MEMORY = Measure("memory of an agent that waits", "KiB PSS", 1)
WAITING_CPU = Measure("all those who wait: CPU of a core", "%", 1)
AGENT_MEASURES = (TOLD, WAITING_MEMORY, WAITING_CPU)
PICTURE = Measure("screenshot, p50", "ms")
PICTURE_MEASURES = (PICTURE,)
OPEN = Measure("page open → first frame, p50", "ms")
OPEN_FIRST = Measure("page open → first frame, nothing cached, p50", "ms")
KEY = Measure("key → pixel, p50", "ms", 1)
KEY_P95 = Measure("key → pixel, p95", "ms", 1)
BACK = Measure("drop → live again, p50", "ms")
BACK_P95 = Measure("drop → live again, p95", "ms")
BROWSER_MEASURES = (OPEN, OPEN_FIRST, KEY, KEY_P95, BACK, BACK_P95)
MEASURES = (
    *(THROUGHPUT, CPU, TRIP_P50, TRIP_P99, TRIP_APART, MEMORY, DIALS),
    *(UPDATE_P99, UPDATE_ADDED, POINTER_P99, POINTER_ADDED),
    *(STALL_MEMORY, STALL_ENDED, CALM_P99, STALL_P99),
    *(TAKE, REVOKE, REVOKE_LOST),
)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below or at which ``share`` (0 to 1) of ``values`` lie: one of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """The rounds of one figure: their median, and the interval that they span."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up at least one round."""
        return cls(statistics.median(values), min(values), max(values))


class Results:
    """All figures, a value a round, in the order of the rounds."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[Measure, str], list[float]] = defaultdict(list)

    def add(self, contender: str, measure: Measure, value: float) -> None:
        """Keep what a round has measured."""
        self._values[measure, contender].append(value)

    def values(self, measure: Measure, contender: str) -> list[float]:
        """Return the rounds; none where it was not measured."""
        return list(self._values.get((measure, contender), ()))

    def spread(self, measure: Measure, contender: str) -> Spread | None:
        """Return their median and interval."""
        values = self.values(measure, contender)
        return Spread.of(values) if values else None

    def ratios(self, measure: Measure, contender: str, other: str) -> list[float]:
        """Return ``contender`` ÷ ``other``, round by round."""
        pairs = zip(self.values(measure, contender), self.values(measure, other), strict=True)
        return [mine / others for mine, others in pairs]


class Verdict(StrEnum):
    """How a bar stands; only the last one fails the run."""

    MET = "met"
    IN_DOUBT = "in doubt"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    """``contender``'s figure, or its ratio to that of ``other``, held against ``limit``."""

    measure: Measure
    contender: str
    limit: float
    at_least: bool = False
    other: str = ""

    @property
    def title(self) -> str:
        """What it asks for, in words."""
        sign = "≥" if self.at_least else "≤"
        asked = f"{self.limit:g} × {self.other}" if self.other else f"{self.limit:g}"
        unit = "" if self.other or not self.measure.unit else f" {self.measure.unit}"
        return f"{self.measure.title} {sign} {asked}{unit}"

    def values(self, results: Results) -> list[float]:
        """Return what is judged, a value a round."""
        if self.other:
            return results.ratios(self.measure, self.contender, self.other)
        return results.values(self.measure, self.contender)

    def judge(self, results: Results) -> Verdict:
        """Return how it stands."""
        values = self.values(results)
        if not values:
            return Verdict.NOT_MEASURED
        if self._is_met_by(statistics.median(values)):
            return Verdict.MET
        best = max(values) if self.at_least else min(values)
        return Verdict.IN_DOUBT if self._is_met_by(best) else Verdict.MISSED

    def _is_met_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _stall_bars(contender: str) -> tuple[Bar, ...]:
    return (
        Bar(STALL_MEMORY, contender, 96),
        Bar(STALL_ENDED, contender, 100, at_least=True),
    )


BARS = (
    Bar(THROUGHPUT, UVICORN, 1.2, at_least=True, other=WEBSOCKIFY),
    Bar(THROUGHPUT, UVICORN, 0.65, at_least=True, other=SOCAT),
    Bar(TRIP_P50, UVICORN, 1.1, other=WEBSOCKIFY),
    Bar(CPU, UVICORN, 1.1, other=WEBSOCKIFY),
    Bar(MEMORY, UVICORN, 40),
    Bar(MEMORY, UVICORN, 0.02, other=WEBSOCKIFY),
    Bar(DIALS, UVICORN, 1, at_least=True, other=WEBSOCKIFY),
    *_stall_bars(UVICORN),
    *_stall_bars(DAPHNE),
    Bar(TAKE, UVICORN, 100),
    Bar(REVOKE, UVICORN, 100),
    Bar(REVOKE_LOST, UVICORN, 1500),
    Bar(CYCLES, SERVICE, 0.5, at_least=True, other=BARE),
    Bar(OPEN, UVICORN, 1.2, other=STOCK),
    Bar(OPEN_FIRST, UVICORN, 1.2, other=STOCK),
    Bar(KEY, UVICORN, 1.05, other=STOCK),
    Bar(BACK, UVICORN, 1000),
    Bar(BACK_P95, UVICORN, 3000),
)
