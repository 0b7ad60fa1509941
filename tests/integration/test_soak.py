"""``make soak`` in small: the script works, and it notices what it is there to notice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import uvloop

from bench.growth import DESCRIPTORS, ROWS
from bench.soak import Site, soak
from bench.soaked import Outcome, Plan, render
from tests.support.databases import Databases
from tests.support.services import Redis

SECONDS = 12


def soaked(plan: Plan, tmp_path: Path, databases: Databases, redis: Redis) -> Outcome:
    with Site.standing(plan, tmp_path, databases.fresh("postgres"), redis) as site:
        return uvloop.run(soak(site, plan))


def plan(ping_seconds: float) -> Plan:
    """Few displays, behind an nginx that waits for 5 s."""
    return Plan(
        minutes=SECONDS / 60,
        idle=4,
        active=2,
        per_second=5,
        patience_seconds=5,
        ping_seconds=ping_seconds,
        sample_seconds=1,
    )


def test_displays_outlast_nginx_and_leave_nothing_behind(
    tmp_path: Path, databases: Databases, redis: Redis
) -> None:
    seen = soaked(plan(ping_seconds=2), tmp_path, databases, redis)
    assert seen.endings == Counter()
    assert seen.hung == 0
    assert seen.moves == seen.arrived > 2
    assert seen.updates > 2
    assert [len(series) for series in seen.samples] == [SECONDS + 1] * 2
    for before, series, after in zip(seen.before, seen.samples, seen.after, strict=True):
        assert min(each[ROWS] for each in series) > 0, "both nodes had displays"
        assert min(each[DESCRIPTORS] for each in series) > before[DESCRIPTORS]
        assert DESCRIPTORS.allows(before[DESCRIPTORS], after[DESCRIPTORS])
        assert after[ROWS] == 0
    assert "0 of 6 did" in render(seen)


def test_idle_displays_that_end_are_noticed(
    tmp_path: Path, databases: Databases, redis: Redis
) -> None:
    seen = soaked(plan(ping_seconds=60), tmp_path, databases, redis)
    assert sum(seen.endings.values()) >= seen.plan.idle, "nginx has given up on the idle ones"
    assert any("displays ended" in miss for miss in seen.misses())
