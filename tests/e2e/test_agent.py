"""The example agent types on a real desktop; a person takes over in a browser, and hands back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab
from tests.support.desktop import LiveDesktop
from tests.support.processes import ROOT, Process
from tests.support.server import LiveServer
from tests.support.timing import limit, wait_until

EXAMPLE = ROOT / "clients/python/examples/agent.py"
AT_ONCE = limit(0.1)  # "within a second"
AGENTS, PERSONS = "a", "P"  # who types what


@pytest.fixture
def typed(desktop: LiveDesktop, tmp_path: Path) -> Iterator[Path]:
    """A file that grows with each key that arrives on the desktop, at once."""
    file = tmp_path / "typed"
    desktop.run("xdotool", "type", "--delay", "5", f"stty -icanon; cat > {file}\n")
    wait_until(file.exists, "the desktop listens")
    yield file
    desktop.run("xdotool", "key", "ctrl+c")
    desktop.run("xdotool", "type", "--delay", "5", "stty sane\n")


class RunningAgent:
    """The example, as a process of its own."""

    def __init__(
        self, server: LiveServer, desktop: LiveDesktop, directory: Path, *options: str
    ) -> None:
        lines, self.pictures = directory / "lines", directory / "pictures"
        lines.write_text(f"{AGENTS * 40}\n" * 100)
        self.pictures.mkdir()
        scope = ("--scope", "observe", "control", "--all-workspaces")
        token = server.manage("add_token", "Robot", *scope)
        xauthority = desktop.environment["XAUTHORITY"]
        self._process = Process(
            [
                *(sys.executable, EXAMPLE, server.url, "desk-1", *options),
                *("--display", desktop.environment["DISPLAY"], "--xauthority", xauthority),
                *("--lines", lines, "--pictures", self.pictures),
            ],
            log=directory / "agent.log",
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "clients/python/src"),
                "DESKTOPCTL_TOKEN": token,
            },
        )

    @property
    def said(self) -> list[str]:
        """Each line that it has printed."""
        return self._process.log().splitlines()

    def wait_for(self, *words: str) -> None:
        """Return when it has printed lines that begin so, in this order, and others between."""

        def has_said() -> bool:
            assert self._process.is_running, self.said
            lines = iter(self.said)
            return all(any(line.startswith(each) for line in lines) for each in words)

        wait_until(has_said, f"the agent says {words}", expected=3)

    def stop(self) -> None:
        """As a supervisor does."""
        self._process.stop()


@contextmanager
def agent_on(
    server: LiveServer, desktop: LiveDesktop, directory: Path, *options: str
) -> Iterator[RunningAgent]:
    agent = RunningAgent(server, desktop, directory, *options)
    try:
        yield agent
    finally:
        agent.stop()


def hand_back(tab: Tab, outcome: str, note: str) -> None:
    """Hand back as the page does; its button is tried in test_handing_back.py."""
    cookies = {cookie["name"]: cookie["value"] for cookie in tab.page.context.cookies()}
    answer = tab.page.request.post(
        f"/api/workspaces/{tab.slug}/display/control/release",
        data={"client_id": tab.client_id, "epoch": tab.epoch, "outcome": outcome, "note": note},
        headers={"X-CSRFToken": cookies["csrftoken"], "Referer": tab.page.url},
    )
    assert answer.ok, answer.text()


def seconds_of_growth(file: Path) -> float:
    """Return how long after this call the file still grew; it is watched for two seconds."""
    began = last = time.monotonic()
    size = file.stat().st_size
    while time.monotonic() < began + 2:
        if file.stat().st_size != size:
            size, last = file.stat().st_size, time.monotonic()
        time.sleep(0.01)
    return last - began


def test_an_agent_stops_for_a_person_and_goes_on_when_it_is_handed_back(
    start_server: StartServer,
    desktop: LiveDesktop,
    person: MakePerson,
    typed: Path,
    tmp_path: Path,
) -> None:
    server = start_server()
    with agent_on(server, desktop, tmp_path) as agent:
        tab = person("operator", server).open("desk-1")
        wait_until(lambda: AGENTS * 20 in typed.read_text(), "the agent types", expected=2)
        tab.take_control()
        assert seconds_of_growth(typed) < AT_ONCE
        agent.wait_for("in control", "stopped: control has ended (preempted by operator)")
        arrived = len(typed.read_text())
        tab.type(PERSONS * 5)
        wait_until(lambda: typed.read_text()[arrived:] == PERSONS * 5, "only the person types")
        looks = len(list(agent.pictures.iterdir()))
        hand_back(tab, "done", "solved")
        agent.wait_for("stopped", "handed back by operator, done: solved", "in control")
        wait_until(
            lambda: AGENTS * 20 in typed.read_text()[arrived:], "the agent goes on", expected=2
        )
        assert len(list(agent.pictures.iterdir())) == looks + 1
        agent.wait_for("handed back", "looked: 800x600")
    assert tab.control["controller"] == "none"


def test_an_agent_that_asks_for_a_person_types_nothing_until_one_has_helped(
    start_server: StartServer,
    desktop: LiveDesktop,
    person: MakePerson,
    typed: Path,
    tmp_path: Path,
) -> None:
    server = start_server()
    with agent_on(server, desktop, tmp_path, "--ask", "captcha") as agent:
        tab = person("operator", server).open("desk-1")
        agent.wait_for("asked for a person: captcha")
        assert tab.control["help"]["reason"] == "captcha"
        tab.take_control()
        agent.wait_for("stopped")
        assert not typed.read_text()
        hand_back(tab, "could_not", "no such account")
        agent.wait_for("handed back by operator, could_not: no such account", "in control")
        wait_until(lambda: AGENTS in typed.read_text(), "the agent goes on", expected=2)
        assert tab.control["help"] is None
