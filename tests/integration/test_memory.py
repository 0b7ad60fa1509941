"""What is loaded stays: no server goes through it for garbage while streams are open."""

from __future__ import annotations

import subprocess
import sys

from tests.support.processes import ROOT
from tests.support.timing import limit

_LOADED = """
import desktopctl.asgi, gc
print(gc.get_freeze_count(), len(gc.get_objects()), gc.get_threshold()[0])
"""


def test_the_garbage_collector_spares_all_that_the_application_has_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit(5),
        check=True,
    )
    spared, looked_at, young = map(int, done.stdout.split())
    assert spared > 100 * looked_at
    assert young == 10_000
