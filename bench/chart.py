"""The chart: one panel of bars for each figure, as an SVG that is readable on light and on dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from bench.bars import DIRECT, Measure, Results

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 760, 180, 90
ROW, GAP, PAD = 22, 34, 16
_OURS, _OTHERS, _TEXT = "#2f81f7", "#8b949e", "#737b85"  # each stands out from white and black


def draw(results: Results, measures: Sequence[Measure], contenders: Sequence[str]) -> str:
    """Return the SVG with the medians of these figures."""
    y = PAD
    body: list[str] = []
    for measure in measures:
        rows = [(name, results.spread(measure, name)) for name in contenders if name != DIRECT]
        medians = {name: spread.median for name, spread in rows if spread}
        if medians:
            body += _panel(measure, medians, y)
            y += GAP + ROW * len(medians)
    title = "<title>Medians of all rounds</title>"
    style = f'font-family="system-ui, sans-serif" font-size="13" fill="{_TEXT}"'
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} {style}>'
    return "\n".join([head, title, *body, "</svg>", ""])


def _panel(measure: Measure, medians: dict[str, float], top: int) -> Iterator[str]:
    heading = escape(f"{measure.title}, {measure.unit}")
    yield f'<text x="{PAD}" y="{top + 12}" font-weight="bold">{heading}</text>'
    longest = max(medians.values()) or 1
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH - PAD
    for number, (name, value) in enumerate(medians.items()):
        y = top + ROW * (number + 1)
        length = max(1, round(value / longest * room))
        colour = _OURS if name.startswith("desktopctl") else _OTHERS
        yield f'<text x="{LABEL_WIDTH - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{length}" height="16" rx="2" fill="{colour}"/>'
        )
        yield f'<text x="{LABEL_WIDTH + length + 6}" y="{y + 12}">{measure.show(value)}</text>'
