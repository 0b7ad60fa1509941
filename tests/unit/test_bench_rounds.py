"""The order of a run, and the timetable of busy sessions."""

from __future__ import annotations

from typing import cast

from bench.__main__ import PARTS, parse
from bench.bars import Results
from bench.busy import Session, timetable
from bench.contenders import Site
from bench.rounds import Round, Sizes


def turn(number: int) -> tuple[str, ...]:
    return Round(number, cast(Site, None), Sizes(), Results(), {}).turn("a", "b", "c")


def test_each_contender_goes_first_in_turn() -> None:
    assert [turn(number) for number in range(4)] == [
        ("a", "b", "c"),
        ("b", "c", "a"),
        ("c", "a", "b"),
        ("a", "b", "c"),
    ]


def test_the_command_line_may_choose_parts() -> None:
    assert parse(["--only", "relay", "stall", "--rounds", "3"]).only == ["relay", "stall"]
    assert parse([]).only is None
    assert list(PARTS) == [
        *("relay", "busy", "scaling", "sessions", "stall", "control", "authority", "agents"),
        *("screenshots", "browser"),
    ]


class Recording:
    """A session that notes its turns."""

    def __init__(self, name: str, turns: list[str]) -> None:
        self.ask = lambda due: turns.append(f"{name} asks")
        self.move = lambda due: turns.append(f"{name} moves")


def test_the_turns_of_busy_sessions_are_evenly_spread() -> None:
    turns: list[str] = []
    sessions = [cast(Session, Recording(name, turns)) for name in "ab"]
    sizes = Sizes(busy_seconds=1, busy_per_second=10)
    dues = []
    for due, act in timetable(sessions, 100.0, sizes):
        dues.append(round(due, 6))
        act(due)
    assert turns[:5] == ["a asks", "b asks", "a moves", "b moves", "a asks"]
    assert dues[:5] == [100, 100.025, 100.05, 100.075, 100.1]
