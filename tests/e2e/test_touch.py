"""Fingers on a phone: noVNC makes of gestures what a mouse would do, and it arrives."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab
from tests.support.desktop import LiveDesktop
from tests.support.processes import Process, program
from tests.support.timing import wait_until

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
DESKTOP_WIDTH = 800
LEFT, RIGHT, WHEEL_UP, WHEEL_DOWN = 1, 3, 4, 5
LONG_PRESS_MS = 1200  # noVNC waits for one second
Point = tuple[float, float]


class Clicks:
    """A window over the whole desktop that notes which buttons are pressed, and where."""

    def __init__(self, desktop: LiveDesktop, directory: Path) -> None:
        program("xev", "x11-utils")
        self._process = Process(
            ["xev", "-geometry", "800x600+0+0", "-event", "button", "-event", "structure"],
            log=directory / "xev.log",
            env={**os.environ, **desktop.environment},
        )
        wait_until(lambda: "MapNotify" in self._process.log(), "the window is there", 2)

    @property
    def buttons(self) -> list[int]:
        """The buttons that have been pressed, in their order."""
        return [int(number) for number in re.findall(r"ButtonPress.*?button (\d)", self._text)]

    @property
    def last_place(self) -> Point:
        """Where the last one was pressed, on the desktop."""
        x, y = re.findall(r"ButtonPress.*?root:\((\d+),(\d+)\)", self._text)[-1]
        return int(x), int(y)

    @property
    def _text(self) -> str:
        # An event is a paragraph.
        return self._process.log().replace("\n    ", " ")

    def stop(self) -> None:
        self._process.stop()


@pytest.fixture
def clicks(desktop: LiveDesktop, tmp_path: Path) -> Iterator[Clicks]:
    clicks = Clicks(desktop, tmp_path)
    yield clicks
    clicks.stop()


class Fingers:
    """Touch the picture of the desktop, at places of the desktop."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab
        self._keys = tab.page.context.new_cdp_session(tab.page)
        box = tab.page.locator("#screen canvas").bounding_box()
        assert box is not None
        self._left, self._top = box["x"], box["y"]
        self._scale = box["width"] / DESKTOP_WIDTH

    def put(self, *places: Point) -> None:
        """Put down one finger for each place, or move those that are down."""
        self._send("touchMove" if self._is_down else "touchStart", places)
        self._is_down = True

    def lift(self) -> None:
        """Take all fingers off."""
        self._send("touchEnd", ())
        self._is_down = False

    def tap(self, *places: Point) -> None:
        self.put(*places)
        self.lift()

    def wait(self, ms: float) -> None:
        """Keep the fingers where they are."""
        self._tab.page.wait_for_timeout(ms)

    _is_down = False

    def _send(self, kind: str, places: tuple[Point, ...]) -> None:
        points = [
            {"x": self._left + x * self._scale, "y": self._top + y * self._scale, "id": number}
            for number, (x, y) in enumerate(places)
        ]
        self._keys.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def tap(fingers: Fingers) -> None:
    fingers.tap((600, 200))


def hold(fingers: Fingers) -> None:
    fingers.put((600, 200))
    fingers.wait(LONG_PRESS_MS)
    fingers.lift()


def tap_with_two(fingers: Fingers) -> None:
    fingers.tap((560, 200), (640, 200))


def scroll(fingers: Fingers, step: int) -> None:
    for moved in range(0, 10 * step, step):
        fingers.put((500, 300 + moved), (600, 300 + moved))
        fingers.wait(20)
    fingers.lift()


def scroll_up(fingers: Fingers) -> None:
    scroll(fingers, 25)


def scroll_down(fingers: Fingers) -> None:
    scroll(fingers, -25)


@pytest.mark.parametrize(
    ("gesture", "button"),
    [
        (tap, LEFT),
        (hold, RIGHT),
        (tap_with_two, RIGHT),
        (scroll_up, WHEEL_UP),
        (scroll_down, WHEEL_DOWN),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fingers_press_the_buttons_that_a_mouse_would(
    gesture: Callable[[Fingers], None],
    button: int,
    start_server: StartServer,
    person: MakePerson,
    clicks: Clicks,
) -> None:
    tab = person("operator", start_server(), **PHONE).open("desk-1").take_control()
    gesture(Fingers(tab))
    wait_until(lambda: clicks.buttons, "the desktop is clicked", 2)
    assert set(clicks.buttons) == {button}
    if gesture in (tap, hold):
        x, y = clicks.last_place
        assert (abs(x - 600) <= 3, abs(y - 200) <= 3) == (True, True), (x, y)


def test_the_fingers_of_who_only_watches_press_nothing(
    start_server: StartServer, person: MakePerson, clicks: Clicks
) -> None:
    server = start_server()
    watcher = person("observer", server, **PHONE).open("desk-1")
    tap(Fingers(watcher))
    tab = person("operator", server, **PHONE).open("desk-1").take_control()
    hold(Fingers(tab))
    wait_until(lambda: clicks.buttons, "the desktop is clicked by who has control", 2)
    assert clicks.buttons == [RIGHT]
