"""What a soak is to be, what it has seen, and the page that tells it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.contenders import Seat
from bench.growth import (
    DESCRIPTORS,
    FIGURES,
    PSS,
    ROWS,
    THREADS,
    Sample,
    is_flat,
    milestones,
    thirds,
)
from bench.report import table
from bench.surroundings import machine
from tests.support.processes import ROOT

RENEW_SECONDS = 120  # as pages do
_PAGE = Path(__file__).with_name("soak.md")


@dataclass(frozen=True, slots=True)
class Plan:
    """How many displays, for how long; ``patience_seconds`` is nginx's idle time-out."""

    minutes: float = 15
    idle: int = 500
    active: int = 50
    per_second: float = 3  # updates, and pointer events, of each active one
    patience_seconds: int = 10
    ping_seconds: float = 4
    sample_seconds: float = 5

    @property
    def displays(self) -> int:
        """All of them."""
        return self.idle + self.active

    @property
    def desks(self) -> list[str]:
        """The workspaces: one for each display in control. The idle ones watch them."""
        return [f"soak-{number:03}" for number in range(self.active)]

    def seats(self) -> list[Seat]:
        """Return all displays, those in control first."""
        desks = itertools.islice(itertools.cycle(self.desks), self.displays)
        return [(slug, f"soak-tab-{number:04}") for number, slug in enumerate(desks)]


@dataclass(slots=True)
class Outcome:
    """What was seen. ``before`` and ``after`` there was no display; a sample for each node."""

    plan: Plan
    before: list[Sample]
    samples: list[list[Sample]] = field(default_factory=list)  # node by node, in time
    after: list[Sample] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)  # of displays that should be open
    updates: int = 0
    moves: int = 0
    hung: int = 0  # displays whose last update does not come
    arrived: int = 0  # pointer events, at the desktop

    def misses(self) -> list[str]:
        """Return all that is not as it should be, in words."""
        found = [f"{count} displays ended: {how}" for how, count in self.endings.items()]
        if self.hung:
            found.append(f"{self.hung} displays wait in vain for an update")
        if self.arrived != self.moves:
            found.append(f"{self.moves} pointer events were sent, {self.arrived} arrived")
        for number, series in enumerate(self.samples):
            found += self._misses_of(number, series)
        open_rows = {sum(each[ROWS] for each in moment) for moment in self._moments()}
        if open_rows != {self.plan.displays}:
            found.append(f"{self.plan.displays} displays had {sorted(open_rows)} rows")
        return found

    def _moments(self) -> Iterator[tuple[Sample, ...]]:
        return zip(*self.samples, strict=True)

    def _misses_of(self, number: int, series: list[Sample]) -> Iterator[str]:
        for figure in FIGURES:
            values = [sample[figure] for sample in series]
            if not is_flat(figure, values):
                second, last = (figure.show(value) for value in thirds(values))
                yield f"node {number + 1}: {figure.title} grew from {second} to {last}"
        for figure in (DESCRIPTORS, ROWS):
            before, after = self.before[number][figure], self.after[number][figure]
            if not figure.allows(before, after):
                yield f"node {number + 1}: {figure.title}: {before:g} before, {after:g} afterwards"

    def rows(self) -> Iterator[list[str]]:
        """Yield a line for each figure of each node."""
        for number, series in enumerate(self.samples):
            for figure in FIGURES:
                values = [sample[figure] for sample in series]
                shown = [self.before[number][figure], *milestones(values)]
                shown.append(self.after[number][figure])
                verdict = "flat" if is_flat(figure, values) else "**grows**"
                cells = [figure.show(value) for value in shown]
                yield [f"node {number + 1}: {figure.title}", *cells, figure.allowance, verdict]


def render(outcome: Outcome) -> str:
    """Return the page."""
    plan, surroundings = outcome.plan, machine()
    head = ["", "no display", "start", "after a third", "two thirds", "end", "all closed"]
    misses = outcome.misses()
    return _PAGE.read_text(encoding="utf-8").format(
        date=datetime.now(UTC).date().isoformat(),
        minutes=f"{plan.minutes:g}",
        idle=plan.idle,
        active=plan.active,
        displays=plan.displays,
        per_second=f"{plan.per_second:g}",
        patience=plan.patience_seconds,
        times=f"{plan.minutes * 60 / plan.patience_seconds:.0f}",
        ping=f"{plan.ping_seconds:g}",
        every=f"{plan.sample_seconds:g}",
        renew=RENEW_SECONDS,
        ended=sum(outcome.endings.values()),
        updates=f"{outcome.updates:,}",
        moves=f"{outcome.moves:,}",
        arrived=f"{outcome.arrived:,}",
        memory=PSS.allowance,
        descriptors=DESCRIPTORS.allowance,
        threads=THREADS.allowance,
        verdict="\n".join(f"- **missed**: {miss}" for miss in misses) or "All of it held.",
        figures=table([*head, "may grow by", ""], outcome.rows()),
        surroundings=table(["", ""], surroundings.items()),
    )


def page_of(plan: Plan) -> Path:
    """Return where the page goes: what is less than a full run is not for docs/."""
    full = Plan()
    is_full = plan.minutes >= full.minutes and plan.idle >= full.idle
    return ROOT / ("docs" if is_full and plan.active >= full.active else "var/bench") / "soak.md"
