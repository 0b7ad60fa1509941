"""Whether the browser of a stream still lives: our own page is asked for signs of it.

A link that is gone says nothing for a quarter of an hour. Until the stream ends, whatever the
browser held down would stay down: that is let go of much sooner.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from controlplane.bridge import Bridge
from controlplane.exceptions import ProtocolError, TooSlow

HELD_PING_SECONDS = 2.0  # while a key or button is down: how often to ask for a sign of life
HELD_SILENCE_SECONDS = 4.0  # ... and how long to wait for it before letting go
DEAD_AFTER_PINGS = 2.5
MAX_PINGS = 64  # from a browser, in the two seconds between looks at its ends


class SignsOfLife:
    """Those of one browser. Any byte counts, and any text. Times are monotonic seconds."""

    __slots__ = ("_asked", "_clock", "_heard", "_pings")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard = self._asked = clock()
        self._pings = 0  # of the browser, since it was last looked after

    def heard(self) -> None:
        """Something has come."""
        self._heard = self._clock()

    def pinged(self) -> None:
        """It asks for a sign of ours. ProtocolError where that comes too often."""
        self._pings += 1
        if self._pings > MAX_PINGS:
            raise ProtocolError("pings come too often")

    def forget_pings(self) -> None:
        """Count them from now on anew."""
        self._pings = 0

    def look_after(self, bridge: Bridge, ping_seconds: float) -> None:
        """To be called every other second: ask, and judge how long there was no answer.

        Raises TooSlow where the browser counts as dead.
        """
        now = self._clock()
        silence = now - self._heard
        if silence > HELD_SILENCE_SECONDS and bridge.holds_input:
            bridge.let_go()
        if silence > ping_seconds * DEAD_AFTER_PINGS:
            raise TooSlow(f"no sign of life from the browser for {silence:.0f} s")
        if now - self._asked >= (HELD_PING_SECONDS if bridge.holds_input else ping_seconds) - 0.1:
            self._asked = now
            bridge.ask_browser()
