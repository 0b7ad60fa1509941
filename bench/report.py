"""docs/benchmarks.md and its chart: written by the program, whole, after every full run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bench import bars, chart
from bench.bars import (
    AGENT_MEASURES,
    BARS,
    BROWSER_CONTENDERS,
    BROWSER_MEASURES,
    CONTENDERS,
    LEASE_CONTENDERS,
    LEASE_MEASURES,
    MEASURES,
    PICTURE_CONTENDERS,
    PICTURE_MEASURES,
    SCALING_CONTENDERS,
    SCALING_MEASURES,
    Bar,
    Measure,
    Results,
    Spread,
)
from bench.rounds import Sizes

CHARTED = (
    *(bars.THROUGHPUT, bars.TRIP_P50, bars.CPU, bars.MEMORY, bars.DIALS),
    *(bars.OPEN, bars.OPEN_FIRST, bars.KEY),
)
CHARTED_CONTENDERS = (*CONTENDERS, bars.STOCK)
IMAGE = "images/benchmarks.svg"

_TEMPLATE = Path(__file__).with_name("page.md")


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as the report needs it."""

    results: Results
    sizes: Sizes
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    date: date


def write(run: Run, directory: Path) -> Path:
    """Write page and chart below ``directory``; return the page's path."""
    page, image = directory / "benchmarks.md", directory / IMAGE
    image.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(run), encoding="utf-8")
    image.write_text(chart.draw(run.results, CHARTED, CHARTED_CONTENDERS), encoding="utf-8")
    return page


def render(run: Run) -> str:
    """Return the page."""
    sizes = run.sizes
    return _TEMPLATE.read_text(encoding="utf-8").format(
        date=run.date.isoformat(),
        cores=run.machine["cores"],
        rounds=sizes.rounds,
        transfer=f"{sizes.transfer_mib:,}",
        trips=sizes.trips,
        sessions=sizes.sessions,
        at_once=sizes.dialled_at_once,
        busy=sizes.busy_sessions,
        busy_seconds=sizes.busy_seconds,
        per_second=sizes.busy_per_second,
        scaling=_figures(run.results, SCALING_MEASURES, SCALING_CONTENDERS),
        scaling_steps=", ".join(map(str, sizes.scaling_streams)),
        scaling_seconds=sizes.scaling_seconds,
        added=bars.ADDED_MS,
        bars=table(["bar", "of", "median", "interval", ""], bar_rows(run.results)),
        figures=_figures(run.results, MEASURES, CONTENDERS),
        leases=_figures(run.results, LEASE_MEASURES, LEASE_CONTENDERS),
        cycles=sizes.cycles,
        tabs=sizes.tabs,
        agents=_figures(run.results, AGENT_MEASURES, (bars.UVICORN,)),
        waiting=sizes.waiting,
        browser=_figures(run.results, BROWSER_MEASURES, BROWSER_CONTENDERS),
        screenshots=_figures(run.results, PICTURE_MEASURES, PICTURE_CONTENDERS),
        pictures=sizes.pictures,
        visits=sizes.visits,
        keys=sizes.keys,
        drops=sizes.drops,
        surroundings=table(["", ""], {**run.machine, **run.versions}.items()),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bar_rows(results: Results) -> Iterator[list[str]]:
    """Yield a row for each bar."""
    for bar in BARS:
        median, interval = judged(bar, results)
        yield [bar.title, bar.contender, median, interval, f"**{bar.judge(results)}**"]


def judged(bar: Bar, results: Results) -> tuple[str, str]:
    """Return the median and the interval that a bar is judged by."""
    values = bar.values(results)
    if not values:
        return "–", "–"
    spread = Spread.of(values)
    show = _ratio if bar.other else bar.measure.show
    return show(spread.median), f"{show(spread.low)} – {show(spread.high)}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _figures(results: Results, measures: Sequence[Measure], contenders: Sequence[str]) -> str:
    """Return a table with a row for each measure, and a cell for each contender."""
    return table(["", "unit", *contenders], figure_rows(results, measures, contenders))


def figure_rows(
    results: Results, measures: Sequence[Measure], contenders: Sequence[str]
) -> Iterator[list[str]]:
    """Yield the rows of such a table."""
    for measure in measures:
        cells = [figure(measure, results.spread(measure, name)) for name in contenders]
        yield [measure.title, measure.unit, *cells]


def figure(measure: Measure, spread: Spread | None) -> str:
    """Return one cell."""
    if spread is None:
        return "–"
    median, low, high = (measure.show(each) for each in (spread.median, spread.low, spread.high))
    return f"{median} ({low} – {high})"
