"""The path of docs/deploy.md, from its first line to the last, on a machine made for it.

Nothing is downloaded here: what `make install` would install is lent by our own tree. `make
newcomer` (NEWCOMER=from-nothing) starts without, and goes on to the first upgrade.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.newcomer import clean, machine, path
from tests.newcomer.browser import STEPS
from tests.support.timing import limit

FROM_NOTHING = os.environ.get("NEWCOMER") == "from-nothing"
EXPECTED_SECONDS = 90 if FROM_NOTHING else 45
pytestmark = pytest.mark.timeout(limit(EXPECTED_SECONDS) + 60)
CHANGED = (
    "/etc/passwd",
    "/etc/hosts",
    "/etc/systemd/system",
    "/etc/nginx/conf.d",
    "/usr/local/sbin",
)
CHANGED += ("/etc/desktopctl", "/etc/postgresql", "/home", "/opt", "/srv", "/var/log/units")


def marks() -> dict[str, int | None]:
    """Return when each place that the path changes was changed on this machine."""
    places = [Path(place) for place in CHANGED]
    return {str(each): each.stat().st_mtime_ns if each.exists() else None for each in places}


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Walk the path; return all that was to be seen on the way."""
    if (reason := machine.why_not()) and not FROM_NOTHING:
        pytest.skip(f"the path needs a machine of its own, and this one gives none: {reason}")
    before = marks()
    log = tmp_path_factory.mktemp("newcomer") / "log"
    argv = [sys.executable, "-m", "tests.newcomer.walk", *(["--from-nothing"] * FROM_NOTHING)]
    with machine.running(argv, log, online=FROM_NOTHING) as walk:
        assert walk.wait(EXPECTED_SECONDS) == 0, walk.log()
    assert marks() == before, "on this machine, nothing has changed"
    return walk.log().replace("\r\n", "\n")


def test_every_step_of_the_path_is_walked_in_order(walked: str) -> None:
    titles = re.findall(r"^### (.+) \(\d+ s\)$", walked, re.MULTILINE)
    steps = path.sections(upgrade=FROM_NOTHING)
    assert titles == [*(each.title for each in steps), "The end"]


def test_the_path_says_that_all_is_well_on_the_way(walked: str) -> None:
    assert '"status": "ok"' in walked
    assert "desk-1: ready, 1280×800" in walked
    assert "desk-1: alice is operator" in walked


def test_the_path_ends_with_control_of_a_desktop(walked: str) -> None:
    # What was typed has been seen on the desktop, or the walk would have failed (browser.py).
    end = walked.partition("### Take control")[2]
    assert re.search(r"^desk-1: held by alice \(user, .*, epoch 1$", end, re.MULTILINE)


# --- The documents, without a machine -------------------------------------------------------------
def test_each_step_has_something_to_do() -> None:
    sections = path.sections()
    assert len(sections) > len(STEPS) + 1
    assert [each.title for each in sections if not each.blocks] == []
    assert [each.title for each in sections if each.says_browser] == list(STEPS)


@pytest.mark.parametrize("title", [each.title for each in path.sections(upgrade=True)])
def test_the_shell_understands_a_step(title: str) -> None:
    [section] = [each for each in path.sections(upgrade=True) if each.title == title]
    for block in section.blocks:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_readme_begins_with_two_commands() -> None:
    assert clean.commands() == ["make run", "make test"]


def test_each_step_has_its_number() -> None:
    text = (path.ROOT / path.DOCUMENT).read_text()
    numbers = [int(each) for each in re.findall(r"^### (\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(path.sections())))
