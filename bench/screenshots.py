"""What a program waits for that asks for a picture of a desktop: of us, and of vncdotool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
from vncdotool import api as vncdotool

from bench import bars
from bench.bars import percentile
from bench.client import SECONDS
from bench.contenders import Desktopctl
from bench.rounds import Round
from tests.support.desktop import PASSWORD, LiveDesktop

PAUSE_SECONDS = 1.1  # younger ones are shared
TERMINAL = "exec xterm -fn fixed -geometry 240x70+0+0 -e 'ls -lR --color=always /usr/share; cat'"


def screenshots(this: Round) -> None:
    """Let both take pictures of the same real desktop, each over a connection of its own."""
    with ExitStack() as opened:
        directory = this.site.new_directory()
        options = ("--geometry", "1280x800", "--command", TERMINAL)
        desktop = LiveDesktop(directory, "Bench", *options)
        opened.callback(desktop.stop)
        desktop.wait()
        takers: dict[str, Callable[[], object]] = {
            bars.UVICORN: opened.enter_context(closing(_Ours(this, desktop))).take,
            bars.VNCDOTOOL: _Direct(desktop, directory / "picture.png").take,
        }
        for name in this.turn(bars.UVICORN, bars.VNCDOTOOL):
            times = list(_times(takers[name], this.sizes.pictures))
            this.results.add(name, bars.PICTURE, percentile(times, 0.5) * 1e3)


def _times(take: Callable[[], object], count: int) -> Iterator[float]:
    for _ in range(count):
        time.sleep(PAUSE_SECONDS)
        began = time.monotonic()
        take()
        yield time.monotonic() - began


class _Ours:
    """An agent that asks the API."""

    def __init__(self, this: Round, desktop: LiveDesktop) -> None:
        contender = this.standing[bars.UVICORN]
        assert isinstance(contender, Desktopctl)
        slug = f"pictured-{this.number}"
        facts = (slug, f"tcp://127.0.0.1:{desktop.vnc_port}", PASSWORD)
        this.site.backstage.ask("add_desktop", facts)
        name = f"looking agent {this.number}"
        token = contender.server.manage("add_token", name, "--scope", "observe", "--all-workspaces")
        self._path = f"/api/workspaces/{slug}/desktop/screenshot"
        self._http = httpx.Client(
            base_url=contender.server.url,
            headers={"Authorization": f"Bearer {token.strip()}"},
            timeout=SECONDS,
        )

    def take(self) -> bytes:
        """Return the picture as a PNG."""
        return self._http.get(self._path).raise_for_status().content

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class _Direct:
    """A program that has the desktop's address and password."""

    def __init__(self, desktop: LiveDesktop, file: Path) -> None:
        self._address = f"127.0.0.1::{desktop.vnc_port}"
        self._file = file

    def take(self) -> None:
        """Write the picture as a PNG."""
        with vncdotool.connect(self._address, password=PASSWORD, timeout=SECONDS) as client:
            client.captureScreen(str(self._file))
