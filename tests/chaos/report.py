"""docs/reliability.md: what was broken, and how long it took until all was well again."""

from __future__ import annotations

import statistics
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

TEMPLATE = Path(__file__).with_name("reliability.md")


class Report:
    """Recoveries by fault, in seconds."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._recoveries: dict[str, list[float]] = defaultdict(list)

    def add(self, fault: str, seconds: float) -> None:
        """Note that all was well again after so long, and that everything held that must."""
        self._recoveries[fault].append(seconds)

    def write(self, path: Path) -> None:
        """Write the page; of a fault that was not survived in every round, it says so."""
        text = TEMPLATE.read_text().format(
            date=datetime.now(UTC).date().isoformat(),
            rounds=self._rounds,
            table="\n".join(map(self._row, self._recoveries)),
        )
        path.write_text(text)

    def _row(self, fault: str) -> str:
        seconds = self._recoveries[fault]
        name = fault.replace("_", " ").replace("postgresql", "PostgreSQL").replace("vnc", "VNC")
        held = "all" if len(seconds) == self._rounds else f"in {len(seconds)} of {self._rounds}"
        figures = f"{statistics.median(seconds):.1f} s | {max(seconds):.1f} s"
        return f"| {name[0].upper()}{name[1:]} | {held} | {figures} |"
