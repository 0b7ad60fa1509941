"""Whatever breaks: one holder at a time, nothing left behind, and all goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.chaos.conftest import ROUNDS
from tests.chaos.faults import FAULTS
from tests.chaos.report import Report
from tests.chaos.world import World, descriptors

pytestmark = pytest.mark.timeout(120 + 60 * ROUNDS)


@pytest.fixture(scope="module", autouse=True)
def _calm(world: World) -> None:
    """How many descriptors servers have that have worked, and rest."""
    with world.crew() as crew:
        crew.all_succeed_after(time.monotonic())
    world.calm_descriptors = max(map(descriptors, world.servers))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_all_goes_on_by_itself_and_nothing_is_left_behind_after(
    fault: Callable[[World], float], world: World, report: Report
) -> None:
    for _ in range(ROUNDS):
        with world.crew() as crew:
            crew.all_succeed_after(time.monotonic())
            crew.wait_for_typing_at(world.fronts[0].port)  # the server that faults are about
            recovery = crew.all_succeed_after(fault(world))
        world.check()
        report.add(fault.__name__, recovery)
