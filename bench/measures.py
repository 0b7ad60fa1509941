"""What is measured with bytes alone: relaying, many sessions, a browser that stalls."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from bench import bars, processes, rfb
from bench.bars import percentile
from bench.client import LARGE_BUFFER, SMALL_BUFFER, Closed, Dial, Link
from bench.contenders import HOSTILE, Contender, Desktopctl, new_client_id
from bench.rounds import Round

WARM_UP = 20  # streams, updates or trips before those that count
SETTLE_SECONDS = 1.5  # a pass of the watch, at least
STALL_SECONDS = 20.0  # when to give up waiting for the stalled stream's end


# --- One connection -------------------------------------------------------------------------------
def relay(this: Round) -> None:
    """Throughput, CPU time and round trips of each bridge, one after the other."""
    for name in this.turn(*bars.CONTENDERS):
        contender = this.standing[name]
        with closing(contender.dial(LARGE_BUFFER)) as link:
            _transfer(this, contender, link)
        with closing(contender.dial(SMALL_BUFFER)) as link:
            _time_trips(this, contender, link)


def _transfer(this: Round, contender: Contender, link: Link) -> None:
    mib = this.sizes.transfer_mib
    _fetch_many(link, WARM_UP)
    cpu, began = processes.cpu_seconds(contender.pid), time.monotonic()
    _fetch_many(link, mib // 4)
    seconds = time.monotonic() - began
    this.results.add(contender.name, bars.THROUGHPUT, mib / seconds)
    if contender.pid:
        used = processes.cpu_seconds(contender.pid) - cpu
        this.results.add(contender.name, bars.CPU, used / mib * 1024)


def _fetch_many(link: Link, count: int) -> None:
    """Fetch updates of 4 MiB, one after the other: of two requests a server may make one."""
    for _ in range(count):
        link.fetch(rfb.MIB_4)


def _time_trips(this: Round, contender: Contender, link: Link) -> None:
    """Take the times where the kernel chooses the cores, and where it is told."""
    add, count = this.results.add, this.sizes.trips
    trips(link, WARM_UP)
    times = trips(link, count)
    add(contender.name, bars.TRIP_P50, percentile(times, 0.5) * 1e6)
    add(contender.name, bars.TRIP_P99, percentile(times, 0.99) * 1e6)
    if contender.pid:
        with processes.apart(contender.pid, [os.getpid(), this.site.vnc.pid]):
            times = trips(link, count)
        add(contender.name, bars.TRIP_APART, percentile(times, 0.5) * 1e6)


def trips(link: Link, count: int) -> list[float]:
    """Return the seconds that each of ``count`` updates of 1 KiB took."""
    times = []
    for _ in range(count):
        began = time.monotonic()
        link.fetch(rfb.KIB_1)
        times.append(time.monotonic() - began)
    return times


# --- Many idle sessions ---------------------------------------------------------------------------
def sessions(this: Round) -> None:
    """How fast streams are dialled, and what they weigh; in a fresh process every time."""
    for name in this.turn(bars.UVICORN, bars.DAPHNE, bars.WEBSOCKIFY):
        with this.site.running(name) as contender, ExitStack() as opened:
            _dial_and_weigh(this, contender, opened)


def _dial_and_weigh(this: Round, contender: Contender, opened: ExitStack) -> None:
    count = this.sizes.sessions
    dials = contender.dials(WARM_UP + count)
    _look_once(_dial_all(this, dials[:WARM_UP], opened))
    before = processes.pss_kib(contender.pid)
    began = time.monotonic()
    links = _dial_all(this, dials[WARM_UP:], opened)
    this.results.add(contender.name, bars.DIALS, count / (time.monotonic() - began))
    _look_once(links)
    weight = processes.pss_kib(contender.pid) - before
    this.results.add(contender.name, bars.MEMORY, weight / count)


def _dial_all(this: Round, dials: Sequence[Dial], opened: ExitStack) -> list[Link]:
    with ThreadPoolExecutor(this.sizes.dialled_at_once) as pool:
        links = list(pool.map(lambda dial: dial(SMALL_BUFFER).shake_hands(), dials))
    for link in links:
        opened.callback(link.close)
    return links


def _look_once(links: Sequence[Link]) -> None:
    """Let each see its desktop, then be idle."""
    for link in links:
        link.fetch(rfb.KIB_16)
    time.sleep(SETTLE_SECONDS)


# --- A browser that stalls ------------------------------------------------------------------------
def stall(this: Round) -> None:
    """A browser reads nothing while its desktop sends 1 GiB; in a fresh process every time."""
    for name in this.turn(bars.UVICORN, bars.DAPHNE):
        with this.site.running(name) as contender:
            assert isinstance(contender, Desktopctl)
            _stall(this, contender)


def _stall(this: Round, contender: Desktopctl) -> None:
    with closing(contender.dial(SMALL_BUFFER)) as other:
        trips(other, WARM_UP)
        calm = trips(other, this.sizes.trips)
        dial = contender.dials_to([(HOSTILE, new_client_id())])[0]
        with closing(dial(SMALL_BUFFER).shake_hands()) as stalled:
            before = processes.rss_kib(contender.pid)
            processes.reset_peak(contender.pid)
            stalled.send(rfb.KIB_1.request)
            troubled = _trips_while_flooded(this, other)
            growth = processes.peak_kib(contender.pid) - before
            code = _close_code(stalled)
    add, name = this.results.add, contender.name
    add(name, bars.STALL_MEMORY, growth / 1024)
    add(name, bars.STALL_ENDED, 100 * (code == 4413))
    add(name, bars.CALM_P99, percentile(calm, 0.99) * 1e3)
    add(name, bars.STALL_P99, percentile(troubled, 0.99) * 1e3)


def _trips_while_flooded(this: Round, link: Link) -> list[float]:
    """Make round trips until the flood has been cut off."""
    times = trips(link, 1)
    deadline = time.monotonic() + STALL_SECONDS
    while this.site.hostile.ask()["floods"] and time.monotonic() < deadline:
        times += trips(link, 10)
    return times


def _close_code(link: Link) -> int:
    """Read at last, to the end; return what the server closed with."""
    try:
        while True:
            link.receive()
    except Closed as end:
        return end.code
    except OSError:
        return Closed().code
