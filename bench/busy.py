"""Many busy sessions at once: each fetches updates of 16 KiB and moves its pointer as often."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

from bench import bars, rfb
from bench.bars import Results, percentile
from bench.client import Dial, Link
from bench.contenders import Contender, Site
from bench.rounds import Round, Sizes

WARM_UP_SECONDS = 0.5
BUFFER = 64 * 1024
GRACE_SECONDS = 5.0  # for updates that are still under way at the end
_STAMP = 1 << 32  # a pointer event carries the microseconds, modulo this


def busy(this: Round) -> None:
    """Measure each bridge, then say what it adds to no bridge at all."""
    for name in this.turn(*bars.CONTENDERS):
        _measure(this, this.standing[name])
    for name in bars.CONTENDERS:
        if name != bars.DIRECT:
            _add_difference(this.results, name, bars.UPDATE_P99, bars.UPDATE_ADDED)
            _add_difference(this.results, name, bars.POINTER_P99, bars.POINTER_ADDED)


def _add_difference(
    results: Results, name: str, measure: bars.Measure, difference: bars.Measure
) -> None:
    mine, bare = (results.values(measure, who)[-1] for who in (name, bars.DIRECT))
    results.add(name, difference, mine - bare)


def _measure(this: Round, contender: Contender) -> None:
    dials = contender.dials(this.sizes.busy_sessions, in_control=True)
    times = p99(this.site, dials, this.sizes)
    this.results.add(contender.name, bars.UPDATE_P99, times.update)
    this.results.add(contender.name, bars.POINTER_P99, times.pointer)


class Times(NamedTuple):
    """The p99 of an update and of a pointer event, in milliseconds."""

    update: float
    pointer: float


def p99(site: Site, dials: Sequence[Dial], sizes: Sizes) -> Times:
    """Open these sessions, let all of them work, and close them."""
    with ExitStack() as opened:
        with ThreadPoolExecutor(sizes.dialled_at_once) as pool:
            sessions = list(pool.map(_opened, dials))
        for session in sessions:
            opened.callback(session.link.close)
        site.vnc.ask()
        began = _drive(sessions, sizes)
    since = began + WARM_UP_SECONDS
    updates = [took for each in sessions for due, took in each.updates if due >= since]
    pointers = [took for at, took in _pointer_delays(site.vnc.ask()) if at >= since]
    return Times(percentile(updates, 0.99) * 1e3, percentile(pointers, 0.99) * 1e3)


def _opened(dial: Dial) -> Session:
    return Session(dial(BUFFER).shake_hands())


class Session:
    """One session. Like noVNC it has one request under way; what is due meanwhile comes next.

    An update's time counts from when its request was due, so waiting for a turn is not hidden.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.updates: list[tuple[float, float]] = []  # when it was due, how long it took
        self._due: deque[float] = deque()
        self._wanted = link.received

    def ask(self, due: float) -> None:
        """An update is due."""
        self._due.append(due)
        if len(self._due) == 1:
            self._send()

    def move(self, due: float) -> None:
        """A pointer event is due."""
        self.link.send(rfb.pointer(_microseconds(time.monotonic())))

    def receive(self) -> None:
        """Take what has come."""
        self.link.receive()
        if not self._due or self.link.received < self._wanted:
            return
        due = self._due.popleft()
        self.updates.append((due, time.monotonic() - due))
        if self._due:
            self._send()

    @property
    def is_waiting(self) -> bool:
        """Whether an update is under way."""
        return bool(self._due)

    def _send(self) -> None:
        self._wanted += rfb.KIB_16.wire_bytes
        self.link.send(rfb.KIB_16.request)


def _drive(sessions: Sequence[Session], sizes: Sizes) -> float:
    """Let all of them work; return when that began (monotonic seconds)."""
    by_number = {session.link.fileno(): session for session in sessions}
    with select.epoll() as poll:
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        began = time.monotonic()
        for due, act in timetable(sessions, began, sizes):
            while (left := due - time.monotonic()) > 0:
                _receive(poll, by_number, left)
            act(due)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(session.is_waiting for session in sessions) and time.monotonic() < deadline:
            _receive(poll, by_number, 0.001)
    return began


def _receive(poll: select.epoll, by_number: dict[int, Session], seconds: float) -> None:
    for number, _ in poll.poll(seconds):
        by_number[number].receive()


def timetable(
    sessions: Sequence[Session], began: float, sizes: Sizes
) -> Iterator[tuple[float, Callable[[float], None]]]:
    """Yield what is due and when, in order: every session's turns are evenly spread."""
    acts = [act for session in sessions for act in (session.ask, session.move)]
    # An update and a pointer event of the same session are half a turn apart.
    acts = acts[0::2] + acts[1::2]
    turns = round((WARM_UP_SECONDS + sizes.busy_seconds) * sizes.busy_per_second)
    step = 1 / sizes.busy_per_second / len(acts)
    for turn in range(turns * len(acts)):
        yield began + turn * step, acts[turn % len(acts)]


def _pointer_delays(report: dict[str, list[tuple[int, float, int]]]) -> list[tuple[float, float]]:
    """Return when each pointer event arrived and how long it was on its way."""
    return [
        (at, ((_microseconds(at) - sent) % _STAMP) / 1e6)
        for kind, at, sent in report["arrivals"]
        if kind == rfb.POINTER
    ]


def _microseconds(at: float) -> int:
    return int(at * 1e6) % _STAMP
