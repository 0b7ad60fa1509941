"""Time in the tests: a clock of their own; limits, ten times what is expected, by one factor."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

FACTOR = float(os.environ.get("TESTS_TIME_FACTOR", "1"))
MARGIN = 10
POLL_SECONDS = 0.01  # between two looks at first; later, a tenth of what has been waited
SLOW_POLL_SECONDS = 0.1  # at most: each look costs, and most waits end soon

T = TypeVar("T")
What = str | Callable[[], str]  # what is waited for; a function says it as it stands at the end


class Clock:
    """A clock that stands until the test moves it. In seconds; called as ``time.monotonic`` is."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def limit(expected: float) -> float:
    """Return the seconds after which something that takes ``expected`` seconds has failed."""
    return expected * MARGIN * FACTOR


def wait_until(condition: Callable[[], T], what: What, expected: float = 1) -> T:
    """Return the first true value of ``condition``; AssertionError naming ``what`` if none comes.

    For facts that can only be looked at (a file, a picture, another process); what announces
    itself is awaited instead.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > limit(expected):
            raise AssertionError(_too_late(what, expected, value))
        time.sleep(_pause(waited))
    return value


async def await_until(condition: Callable[[], T], what: What, expected: float = 1) -> T:
    """Do the same without blocking the event loop."""
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > limit(expected):
            raise AssertionError(_too_late(what, expected, value))
        await asyncio.sleep(_pause(waited))
    return value


def _pause(waited: float) -> float:
    return min(max(POLL_SECONDS, waited / 10), SLOW_POLL_SECONDS)


def _too_late(what: What, expected: float, value: object) -> str:
    words = what if isinstance(what, str) else what()
    return f"waited {limit(expected):g} s in vain: {words} (last seen: {value!r})"
