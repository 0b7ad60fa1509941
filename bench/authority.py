"""How fast control is given, renewed and taken back: by leases.py, over HTTP, and in bare SQL."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from bench import bars, processes
from bench.bars import percentile
from bench.contenders import CONTROLLED, Desktopctl, new_client_id
from bench.rounds import Round
from tests.support.stream_client import ApiClient

RENEW_EVERY_SECONDS = 120
BROWSERS = 8  # that renew at the same time; each has its share of the tabs


def authority(this: Round) -> None:
    """Cycles of acquire, renew and release; then many tabs that renew."""
    contender = this.standing[bars.UVICORN]
    assert isinstance(contender, Desktopctl)
    for name in this.turn(bars.SERVICE, bars.BARE, bars.UVICORN):
        count = this.sizes.cycles
        this.results.add(name, bars.CYCLES, count / _seconds(this, contender, name, count))
    _renew(this, contender)


def _seconds(this: Round, contender: Desktopctl, name: str, count: int) -> float:
    if name == bars.UVICORN:
        with closing(ApiClient(contender.server.url, "operator")) as person:
            _cycle(person)  # the connection is open
            began = time.monotonic()
            for _ in range(count):
                _cycle(person)
            return time.monotonic() - began
    call = {bars.SERVICE: "cycles", bars.BARE: "bare_cycles"}[name]
    return float(this.site.backstage.ask(call, count))


def _cycle(person: ApiClient) -> None:
    client_id = new_client_id()
    epoch = person.acquire(CONTROLLED, client_id)["epoch"]
    person.acquire(CONTROLLED, client_id, epoch=epoch)
    person.release(CONTROLLED, client_id, epoch=epoch)


def _renew(this: Round, contender: Desktopctl) -> None:
    """Let every tab renew once, as fast as the server takes it."""
    slugs: list[str] = this.site.backstage.ask("add_workspaces", this.sizes.tabs)
    shares = [slugs[first::BROWSERS] for first in range(BROWSERS)]
    with ThreadPoolExecutor(BROWSERS) as pool:
        browsers = [Browser(contender, share) for share in shares]
        cpu, began = processes.cpu_seconds(contender.pid), time.monotonic()
        times = [each for some in pool.map(Browser.renew_all, browsers) for each in some]
        seconds = time.monotonic() - began
        used = processes.cpu_seconds(contender.pid) - cpu
        for browser in browsers:
            browser.close()
    add, name = this.results.add, contender.name
    add(name, bars.RENEWALS, len(times) / seconds)
    add(name, bars.RENEWAL_P99, percentile(times, 0.99) * 1e3)
    add(name, bars.RENEWAL_CPU, 100 * used / RENEW_EVERY_SECONDS)


class Browser:
    """One person's browser with control of many desktops, each in a tab of its own."""

    def __init__(self, contender: Desktopctl, slugs: list[str]) -> None:
        self._person = ApiClient(contender.server.url, "operator")
        self._tabs = {slug: new_client_id() for slug in slugs}
        self._epochs = {
            slug: self._person.acquire(slug, tab, move=True)["epoch"]
            for slug, tab in self._tabs.items()
        }

    def renew_all(self) -> list[float]:
        """Renew each, one after the other; return the seconds that each took."""
        times = []
        for slug, tab in self._tabs.items():
            began = time.monotonic()
            self._person.acquire(slug, tab, epoch=self._epochs[slug])
            times.append(time.monotonic() - began)
        return times

    def close(self) -> None:
        """Close its connections."""
        self._person.close()
