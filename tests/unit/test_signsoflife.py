"""Signs of life of a browser: when it is asked for one, and what long silence means."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.exceptions import ProtocolError, TooSlow
from controlplane.signsoflife import MAX_PINGS, SignsOfLife
from tests.support.timing import Clock

PING_SECONDS = 10.0


class FakeBridge:
    """Counts how often its browser was asked."""

    def __init__(self) -> None:
        self.holds_input = False
        self.asked = 0

    def let_go(self) -> None:
        self.holds_input = False

    def ask_browser(self) -> None:
        self.asked += 1


class Rig:
    """The signs of one browser, looked after as often as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.signs = SignsOfLife(self.clock)
        self.bridge = FakeBridge()

    def look_after(self, seconds: float, every: float = 2.0) -> None:
        bridge: Any = self.bridge
        for _ in range(round(seconds / every)):
            self.clock.now += every
            self.signs.look_after(bridge, PING_SECONDS)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_browser_is_asked_at_its_interval(rig: Rig) -> None:
    rig.look_after(seconds=8)
    assert rig.bridge.asked == 0
    rig.look_after(seconds=12)
    assert rig.bridge.asked == 2


def test_a_browser_that_holds_a_key_is_asked_every_other_second(rig: Rig) -> None:
    rig.bridge.holds_input = True
    rig.look_after(seconds=4)
    assert rig.bridge.asked == 2


def test_after_four_seconds_of_silence_what_is_held_is_let_go_of(rig: Rig) -> None:
    rig.bridge.holds_input = True
    rig.look_after(seconds=4)
    assert rig.bridge.holds_input
    rig.look_after(seconds=2)
    assert not rig.bridge.holds_input


def test_whoever_answers_keeps_the_key_down(rig: Rig) -> None:
    rig.bridge.holds_input = True
    for _ in range(10):
        rig.look_after(seconds=4)
        rig.signs.heard()
    assert rig.bridge.holds_input


def test_a_browser_that_says_nothing_for_two_pings_and_a_half_is_dead(rig: Rig) -> None:
    rig.look_after(seconds=24)
    with pytest.raises(TooSlow, match="for 26 s"):
        rig.look_after(seconds=2)


def test_pings_may_come_so_often_between_two_looks_and_no_more(rig: Rig) -> None:
    for _ in range(3):
        for _ in range(MAX_PINGS):
            rig.signs.pinged()
        rig.signs.forget_pings()
    for _ in range(MAX_PINGS):
        rig.signs.pinged()
    with pytest.raises(ProtocolError, match="too often"):
        rig.signs.pinged()
