"""What the desktop has sent and the browser has not: it is bounded, whatever the browser does.

A server with write backpressure makes us wait while the browser does not read, so what waits here
is what it lags behind. A server without (Daphne) takes everything at once and queues it out of our
sight: there the browser is asked for a sign after every ``ACK_BYTES``, by a ping with an id that
cannot be guessed, and no more than twice that is handed over before the sign has come.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable

from controlplane.exceptions import TooSlow

ACK_BYTES = 512 * 1024
PIECE_COST = 64  # bytes that a piece occupies besides its own: it may be a single byte long

_NOTHING: deque[bytes] = deque()  # shared by all who have none waiting: an empty one has 760 bytes


class Backlog:
    """Bytes for the browser, in order. All sizes are bytes.

    ``high`` is where its update requests are to be withheld; beyond ``cap``, ``TooSlow`` is raised.
    """

    def __init__(
        self, *, high: int, cap: int, is_windowed: bool, ask: Callable[[str], None]
    ) -> None:
        """``ask`` sends the browser a ping with this id, which it answers if ``is_windowed``."""
        self._high = high
        # Withheld requests wait for a pong: one must be on its way whenever they are withheld.
        self._ask_every = min(ACK_BYTES, high // 2)
        self._window = 2 * self._ask_every
        self._cap = cap
        self._ask = ask
        self._waiting = _NOTHING
        self._waiting_bytes = 0
        self._sent = 0  # since the stream began
        self._acknowledged = 0  # of that, what the browser has shown to have read
        self._asked_at = 0  # what had been sent when it was asked last
        self._asked: dict[str, int] = {}  # the pings without an answer, and what was sent before
        self._is_windowed = is_windowed

    @property
    def size(self) -> int:
        """What the browser lags behind, as far as we can see."""
        return self._waiting_bytes + (self._unacknowledged if self._is_windowed else 0)

    @property
    def sent_bytes(self) -> int:
        """What has been sent since the stream began, texts included."""
        return self._sent

    @property
    def is_empty(self) -> bool:
        """Whether everything has been sent."""
        return not self._waiting

    @property
    def is_high(self) -> bool:
        """Whether to stop asking the desktop for more."""
        return self.size > self._high

    @property
    def has_drained(self) -> bool:
        """Whether to start again."""
        return self.size * 2 <= self._high

    def append(self, data: bytes) -> None:
        """Put what the desktop has sent in line; TooSlow, from then on, where that is too much."""
        if self._waiting is _NOTHING:
            self._waiting = deque()
        self._waiting.append(data)
        self._waiting_bytes += len(data) + PIECE_COST
        self._check_cap()

    def add_text(self, size: int) -> None:
        """Count a text that was sent beside the picture; TooSlow as in ``append``."""
        self._sent += size
        self._check_cap()

    def _check_cap(self) -> None:
        behind = self._waiting_bytes + self._unacknowledged
        if behind <= self._cap:
            return
        self._waiting = _NOTHING  # it cannot be caught up with: the stream ends
        raise TooSlow(f"the browser is {behind >> 20} MiB behind")

    def take(self) -> bytes:
        """Return the next piece, counted as sent; nothing while the browser must first read."""
        if not self._waiting or (self._is_windowed and self._unacknowledged >= self._window):
            return b""
        data = self._waiting.popleft()
        if not self._waiting:
            self._waiting = _NOTHING
        self._waiting_bytes -= len(data) + PIECE_COST
        self._sent += len(data)
        return data

    def sent(self) -> None:
        """The piece that was taken is under way: ask for a sign if one is due."""
        if self._is_windowed and self._sent - self._asked_at >= self._ask_every:
            self.ask()

    def ask(self) -> None:
        """Ask the browser for a sign of life, which also tells how far it has read."""
        ping = secrets.token_hex(8)
        self._asked_at = self._asked[ping] = self._sent
        self._ask(ping)

    def answered(self, ping: object) -> None:
        """A pong has come: what was sent before its ping has been read. Unknown ids say nothing."""
        if not isinstance(ping, str) or (read := self._asked.pop(ping, None)) is None:
            return
        self._asked = {each: at for each, at in self._asked.items() if at > read}
        self._acknowledged = max(self._acknowledged, read)

    def requested(self) -> None:
        """The browser asks for an update: it has read the last one, unless it only pretends to.

        Where pings tell the truth, nothing is concluded from that.
        """
        if not self._is_windowed:
            self._acknowledged = self._sent

    @property
    def _unacknowledged(self) -> int:
        return self._sent - self._acknowledged
