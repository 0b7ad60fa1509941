"""``make soak``: many displays for a long time, behind an nginx that is quick to give up.

Two nodes on PostgreSQL and Redis. Most displays are idle; the others are in control, move their
pointers and fetch updates. Whatever grows meanwhile, or ends, is told: docs/soak.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Self

import uvloop

from bench import nodes, processes
from bench.__main__ import raise_file_limit, say
from bench.contenders import BACKSTAGE
from bench.displays import Display
from bench.growth import DESCRIPTORS, PSS, ROWS, RSS, THREADS, Sample
from bench.processes import Helper
from bench.soaked import RENEW_SECONDS, Outcome, Plan, page_of, render
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.databases import Database
from tests.support.processes import ROOT
from tests.support.reverse_proxies import Nginx
from tests.support.services import Redis
from tests.support.timing import limit

DIALLED_AT_ONCE = 25
LAST_UPDATE_SECONDS = 1  # as expected
LET_GO_SECONDS = 2  # that a node takes to be rid of all displays, as expected
SAME_FOR_SECONDS = 0.5
LOOKS_A_LINE = 12
_ROWS = (
    "SELECT split_part(process, ':', 2), count(*) FROM controlplane_displaystream"
    " WHERE closed_at IS NULL GROUP BY 1"
)


class Site:
    """What stands around the displays: nodes behind nginx, desktops, and who mints tokens."""

    def __init__(self, cluster: Cluster, vnc: Helper, backstage: Helper) -> None:
        self.url = cluster.proxy.url
        self.tls = ssl.create_default_context(cafile=str(cluster.proxy.certificate))
        self.backstage = backstage
        self._cluster, self._vnc = cluster, vnc

    @classmethod
    @contextmanager
    def standing(
        cls, plan: Plan, directory: Path, database: Database, redis: Redis
    ) -> Iterator[Self]:
        """Start everything; stop it at the end of the block."""
        with _helper("-m", "bench.vnc_server") as vnc:
            port, _ = vnc.hear()
            with clusters.running(
                directory / "cluster",
                database,
                redis,
                Nginx,
                dict.fromkeys(plan.desks, f"tcp://127.0.0.1:{port}"),
                changes={
                    f"proxy_{what}_timeout 120s;": f"proxy_{what}_timeout {plan.patience_seconds}s;"
                    for what in ("read", "send")
                },
                **nodes.MANY_STREAMS,
                DISPLAY_PING_SECONDS=plan.ping_seconds,
            ) as cluster:
                env = {**os.environ, "DATABASE_URL": database.url, "REDIS_URL": redis.url}
                shell = ("manage.py", "shell", "-v", "0", "-c", BACKSTAGE)
                with _helper(*shell, env=env) as backstage:
                    yield cls(cluster, vnc, backstage)

    def look(self) -> list[Sample]:
        """Return what each node has now."""
        rows = dict(self._cluster.database.rows(_ROWS))
        return [
            {
                PSS: processes.pss_kib(node.pid) / 1024,
                RSS: processes.rss_kib(node.pid) / 1024,
                DESCRIPTORS: processes.descriptors(node.pid),
                THREADS: processes.threads(node.pid),
                ROWS: rows.get(str(node.pid), 0),
            }
            for node in self._cluster.nodes
        ]

    def arrived(self) -> int:
        """Return how much input the desktops have had since they were asked before."""
        return len(self._vnc.ask()["arrivals"])


@contextmanager
def _helper(*argv: str, env: dict[str, str] | None = None) -> Iterator[Helper]:
    helper = Helper(*argv, env=env)
    try:
        yield helper
    finally:
        helper.stop()


async def soak(site: Site, plan: Plan) -> Outcome:
    """Keep all displays open for the whole time; return what was seen."""
    say(f"{plan.displays} displays once, so that what is made once is there")
    async with _open(site, plan):
        pass
    outcome = Outcome(plan, await _settled(site))
    say(f"{plan.displays} displays for {plan.minutes:g} minutes")
    async with _open(site, plan) as displays:
        await _keep(site, plan, displays, outcome)
        outcome.endings.update(str(each.ending).strip() for each in displays if each.ending)
    outcome.after = await _settled(site)
    return outcome


@asynccontextmanager
async def _open(site: Site, plan: Plan) -> AsyncIterator[list[Display]]:
    """Open all displays, some at a time; close those that are left."""
    displays: list[Display] = []
    seats = plan.seats()
    site.backstage.ask("acquire", seats[: plan.active])
    try:
        for start in range(0, len(seats), DIALLED_AT_ONCE):
            some = seats[start : start + DIALLED_AT_ONCE]
            tokens = await asyncio.to_thread(site.backstage.ask, "mint", some)
            dials = [
                Display.open(site.url, site.tls, slug, token)
                for (slug, _), token in zip(some, tokens, strict=True)
            ]
            displays += await asyncio.gather(*dials)
        async with asyncio.timeout(limit(2)):
            await asyncio.gather(*(each.in_control() for each in displays[: plan.active]))
        yield displays
    finally:
        await asyncio.gather(*(each.close() for each in displays))


async def _keep(site: Site, plan: Plan, displays: Sequence[Display], outcome: Outcome) -> None:
    """Let the active ones work, and look at the nodes, until the time is over."""
    over, active = asyncio.Event(), displays[: plan.active]
    site.arrived()
    working = [asyncio.create_task(each.work(plan.per_second, over)) for each in active]
    renewing = asyncio.create_task(_renew(site, plan))
    moments = []
    async for _ in _ticks(plan):
        moments.append(await asyncio.to_thread(site.look))
        outcome.arrived += await asyncio.to_thread(site.arrived)
        _tell(displays, moments)
    outcome.samples = [list(series) for series in zip(*moments, strict=True)]
    over.set()
    renewing.cancel()
    with suppress(asyncio.CancelledError):  # but not what it may have failed with
        await renewing
    _, hung = await asyncio.wait(working, timeout=limit(LAST_UPDATE_SECONDS))
    for task in hung:
        task.cancel()
    outcome.hung = len(hung)
    outcome.arrived += site.arrived()
    outcome.moves = sum(each.moves for each in active)
    outcome.updates = sum(each.updates for each in active)


async def _ticks(plan: Plan) -> AsyncIterator[None]:
    """Come back every so many seconds, first and last at the very ends."""
    count = max(3, round(plan.minutes * 60 / plan.sample_seconds))
    began = time.monotonic()
    for number in range(count + 1):
        due = began + number * plan.minutes * 60 / count
        await asyncio.sleep(max(0, due - time.monotonic()))
        yield


async def _renew(site: Site, plan: Plan) -> None:
    """Renew all control, again and again."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        await asyncio.to_thread(site.backstage.ask, "acquire", plan.seats()[: plan.active])


def _tell(displays: Sequence[Display], moments: Sequence[Sequence[Sample]]) -> None:
    if len(moments) % LOOKS_A_LINE != 1:
        return
    are_open = sum(each.is_open for each in displays)
    memory = ", ".join(PSS.show(sample[PSS]) for sample in moments[-1])
    say(f"{are_open} displays are open; nodes have {memory}")


async def _settled(site: Site) -> list[Sample]:
    """Return what nodes have without displays: once no row is open and descriptors stay the same.

    A node notices an end at once, but writes it down, and closes its connections, a little later.
    """
    deadline = time.monotonic() + limit(LET_GO_SECONDS)
    held: list[float] = []
    while True:
        now, before = await asyncio.to_thread(site.look), held
        held = [sample[DESCRIPTORS] for sample in now]
        is_calm = held == before and not any(sample[ROWS] for sample in now)
        if is_calm or time.monotonic() > deadline:
            return now
        await asyncio.sleep(SAME_FOR_SECONDS)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    full = Plan()
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=full.minutes)
    parser.add_argument("--idle", type=int, default=full.idle)
    parser.add_argument("--active", type=int, default=full.active)
    return parser.parse_args(arguments)


def main() -> int:
    """Soak, write the page, print what was missed; 1 where something was."""
    options = parse()
    plan = Plan(options.minutes, options.idle, options.active)
    raise_file_limit()
    with nodes.services() as services, Site.standing(plan, *services) as site:
        outcome = uvloop.run(soak(site, plan))
    page = page_of(plan)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(outcome), encoding="utf-8")
    say(f"written: {page.relative_to(ROOT)}")
    misses = outcome.misses()
    print("\n".join(misses) or "nothing ended, nothing grew")
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
