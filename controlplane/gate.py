"""The gate of one stream: whether its browser's input may pass, decided anew for every message.

Two local, monotonic deadlines keep it honest without any message from outside: the end of the
lease, and the fence (how long the newest successful read of the lease may be trusted). A notice
can only shut a gate. Only a read that started after the last shut can open one, so a slow read
that saw the old state never undoes a revocation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf


class Gate:
    """Shut until a read says that the lease is this stream's. Times are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lease_end = -inf
        self._fence = -inf
        self._last_shut = -inf
        self.accepts_clipboard = False  # whether an open gate lets texts pass as well as keys

    @property
    def is_open(self) -> bool:
        """Whether input may pass at this very moment."""
        return self._clock() < self.deadline

    @property
    def deadline(self) -> float:
        """When the gate shuts by itself unless a newer read extends it."""
        return min(self._lease_end, self._fence)

    @property
    def is_fenced(self) -> bool:
        """Whether the lease would still stand, had we not lost sight of it."""
        return self._fence <= self._clock() < self._lease_end

    def allow(self, *, read_started: float, remaining: float, fence: float) -> bool:
        """Open or extend: a read begun at ``read_started`` saw the lease held for ``remaining``.

        The remaining time counts from before the read was sent, so it is never too long.
        Returns False, and changes nothing, where the gate was shut after that read began.
        """
        if read_started <= self._last_shut:
            return False
        self._lease_end = read_started + remaining
        self._fence = read_started + fence
        return True

    def shut(self) -> None:
        """Shut now; reads that are under way cannot open it again."""
        self._last_shut = self._clock()
        self._lease_end = self._fence = -inf
