"""How many streams a process carries: the steps, without any stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from bench import bars, scaling
from bench.bars import Results
from bench.busy import Times
from bench.client import Dial
from bench.contenders import DESKS, Contender, Desktopctl, Seat, Site
from bench.rounds import QUICK, Round, Sizes

SIZES = Sizes(scaling_streams=(10, 20, 30))
BARE_MS = 5.0


class Backstage:
    def __init__(self) -> None:
        self.acquired: list[Seat] = []

    def ask(self, what: str, seats: list[Seat]) -> None:
        assert what == "acquire"
        self.acquired = seats


class Node(Desktopctl):
    """Dials name the seats that they were made for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def dials_to(self, seats: Sequence[Seat]) -> Sequence[Dial]:
        return [cast(Dial, f"{self.name} {slug}") for slug, _ in seats]


class Bare:
    def dials(self, count: int) -> list[str]:
        return ["bare"] * count


class FakeSite:
    def __init__(self) -> None:
        self.backstage = Backstage()


class Measured:
    """Stands in for the streams: what each number of them takes, in milliseconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: dict[int, list[float]]) -> None:
        self.bare: list[int] = []
        self._takes = takes
        monkeypatch.setattr(scaling, "p99", self._p99)
        standing = {bars.DIRECT: cast(Contender, Bare())}
        self.round = Round(0, cast(Site, FakeSite()), SIZES, Results(), standing)
        self.steps = scaling.Steps(self.round, [Node("a"), Node("b")])

    def _p99(self, site: Site, dials: Sequence[Dial], sizes: Sizes) -> Times:
        if dials[0] == "bare":
            self.bare.append(len(dials))
            return Times(BARE_MS, BARE_MS)
        takes = self._takes.get(len(dials), [BARE_MS])
        return Times(BARE_MS, takes.pop(0) if len(takes) > 1 else takes[0])


ENOUGH, TOO_LONG = BARE_MS + bars.ADDED_MS, BARE_MS + bars.ADDED_MS + 1


@pytest.mark.parametrize(
    ("takes", "carried"),
    [
        ({}, 30),
        ({20: [ENOUGH], 30: [TOO_LONG]}, 20),
        ({20: [TOO_LONG]}, 10),  # not 30, which would be met by chance
        ({10: [TOO_LONG]}, 0),
        ({20: [TOO_LONG, ENOUGH], 30: [TOO_LONG]}, 20),  # the second try counts
    ],
)
def test_the_last_step_before_one_that_is_too_much_counts(
    monkeypatch: pytest.MonkeyPatch, takes: dict[int, list[float]], carried: int
) -> None:
    assert Measured(monkeypatch, takes).steps.carried(1) == carried


def test_what_there_is_without_a_bridge_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(monkeypatch, {})
    measured.steps.carried(1)
    measured.steps.carried(2)
    assert measured.bare == [10, 20, 30]


def test_streams_are_dealt_out_in_turn_each_with_a_desk_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = Measured(monkeypatch, {})
    assert measured.steps._dials(3, 2) == [f"a {DESKS[0]}", f"b {DESKS[1]}", f"a {DESKS[2]}"]
    site = cast(FakeSite, measured.round.site)
    assert [slug for slug, _ in site.backstage.acquired] == DESKS[:3]


@pytest.mark.parametrize("sizes", [Sizes(), QUICK])
def test_no_step_needs_more_desks_than_there_are(sizes: Sizes) -> None:
    assert max(sizes.scaling_streams) <= len(DESKS)
    assert list(sizes.scaling_streams) == sorted(sizes.scaling_streams)
