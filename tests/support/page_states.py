"""The table of docs/page.md: every state of the page, what it says in it, and its picture."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.processes import ROOT

PAGE = ROOT / "docs/page.md"
PICTURES = ROOT / "docs/images/states"

_ROW = re.compile(
    r"^\| (?!state \|)(?P<state>[^|]+) \| (?P<status>[^|]+) \| (?P<buttons>[^|]*) \|", re.MULTILINE
)
# What differs from one time to the next: notes, times of day, durations, numbers of tries.
_VARYING = (
    (re.compile(r": “[^”]*”\."), "."),
    (re.compile(r"\b\d\d:\d\d\b"), "14:05"),
    (re.compile(r"\b\d+ (s|min)\b"), "3 min"),
    (re.compile(r"attempt \d+ of"), "attempt 1 of"),
)


def states() -> dict[str, str]:
    """Return the status line of each state, in the order of the table."""
    return {row["state"]: row["status"] for row in _ROW.finditer(PAGE.read_text())}


def buttons() -> dict[str, set[str]]:
    """Return the names of the buttons that can be pressed in each state."""
    return {
        row["state"]: set(re.findall(r"\w+", row["buttons"]))
        for row in _ROW.finditer(PAGE.read_text())
    }


def picture_of(state: str) -> Path:
    """Return where the picture of a state is kept."""
    return PICTURES / f"{re.sub('[^a-z0-9]+', '-', state.lower()).strip('-')}.webp"


def is_said(status: str | None, expected: str) -> bool:
    """Whether a status line says what is expected, but for what differs each time."""
    return _plain(status or "") == _plain(expected)


def _plain(status: str) -> str:
    for pattern, substitute in _VARYING:
        status = pattern.sub(substitute, status)
    return status
