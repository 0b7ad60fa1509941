"""How fast control reaches the bytes: “Take control” to the first key, its end to the last byte."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from bench import bars, rfb
from bench.bars import percentile
from bench.client import SMALL_BUFFER, WebsocketLink
from bench.contenders import CONTROLLED, Desktopctl, Site, new_client_id
from bench.rounds import Round
from tests.support.stream_client import ApiClient

PUMP_SECONDS = 0.001  # between two pointer events
SHORT_SECONDS, WATCH_SECONDS = 0.1, 1.0
AFTERWARDS_SECONDS = 0.1  # how long to look for input that still comes after the end
KEY = 0x61


def control(this: Round) -> None:
    """Take and end control again and again, with the notice and without."""
    contender = this.standing[bars.UVICORN]
    assert isinstance(contender, Desktopctl)
    with ExitStack() as opened:
        desk = Desk(this.site, contender, opened)
        takes, revokes = desk.times(this.sizes.takes, desk.force_release, spread=SHORT_SECONDS)
        unheard = desk.force_release_unheard
        # Spread over all moments between two passes of the watch.
        more_takes, lost = desk.times(this.sizes.lost_notices, unheard, spread=WATCH_SECONDS)
    add = this.results.add
    add(contender.name, bars.TAKE, percentile(takes + more_takes, 0.95) * 1e3)
    add(contender.name, bars.REVOKE, percentile(revokes, 0.95) * 1e3)
    add(contender.name, bars.REVOKE_LOST, percentile(lost, 0.95) * 1e3)


class Desk:
    """One desktop, watched by an operator who takes control, and an admin who ends it."""

    def __init__(self, site: Site, contender: Desktopctl, opened: ExitStack) -> None:
        self._site = site
        self._client_id = new_client_id()
        self._operator, self._admin = (
            opened.enter_context(closing(ApiClient(contender.server.url, name)))
            for name in ("operator", "admin")
        )
        link = contender.dials_to([(CONTROLLED, self._client_id)])[0](SMALL_BUFFER)
        assert isinstance(link, WebsocketLink)
        self._link = opened.enter_context(closing(link)).shake_hands()

    def force_release(self) -> float:
        """End control through the server; return when that began."""
        began = time.monotonic()
        self._admin.release(CONTROLLED, new_client_id(), force=True, note="measuring")
        return began

    def force_release_unheard(self) -> float:
        """End control in another process, whose notice does not reach the server."""
        return float(self._site.backstage.ask("force_release", CONTROLLED))

    def times(
        self, count: int, end: Callable[[], float], *, spread: float
    ) -> tuple[list[float], list[float]]:
        """Return the seconds that each take, and each end, took to reach the desktop.

        Ends come up to ``spread`` seconds after their takes, evenly.
        """
        takes, ends = [], []
        for number in range(count):
            takes.append(self._take())
            ends.append(self._end(end, after=spread * number / count))
        return takes, ends

    def _take(self) -> float:
        self._site.vnc.ask()
        began = time.monotonic()
        self._operator.acquire(CONTROLLED, self._client_id)
        self._link.wait_for_mode("control")
        self._link.send(rfb.key(True, KEY))
        arrived = self._first_arrival()
        self._link.send(rfb.key(False, KEY))
        return arrived - began

    def _first_arrival(self) -> float:
        while True:
            for _, at, _ in self._site.vnc.ask()["arrivals"]:
                return float(at)

    def _end(self, end: Callable[[], float], after: float) -> float:
        with pointer_moving(self._link):
            time.sleep(after)
            began = end()
            self._link.wait_for_mode("observe")
            time.sleep(AFTERWARDS_SECONDS)
        newest: float = max(at for _, at, _ in self._site.vnc.ask()["arrivals"])
        return newest - began


@contextmanager
def pointer_moving(link: WebsocketLink) -> Iterator[None]:
    """Send pointer events all the time, from a thread."""
    over = threading.Event()

    def move() -> None:
        while not over.wait(PUMP_SECONDS):
            link.send(rfb.pointer(0))

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
