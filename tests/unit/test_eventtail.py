"""Reading events in the order in which they can be seen, which is not that of their ids."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from controlplane.feed.tail import GAP_SECONDS, MAX_GAPS, Mark


def test_what_follows_without_a_gap_moves_the_resume_point_to_the_newest() -> None:
    mark = Mark(10).after([11, 12], now=0)
    assert (mark.top, mark.resume_point) == (12, 12)
    assert mark.resume_points([11, 12]) == [11, 12]


def test_nothing_new_changes_nothing() -> None:
    mark = Mark(10).after([], now=0)
    assert (mark.top, mark.resume_point, mark.resume_points([])) == (10, 10, [])


def test_a_missing_id_is_waited_for_and_resuming_begins_before_it() -> None:
    mark = Mark(10).after([12, 13], now=0)
    assert not mark.has_seen(11)
    assert mark.has_seen(12)
    assert not mark.has_seen(14)
    assert (mark.resume_point, mark.resume_points([12, 13])) == (10, [10, 10])


def test_what_was_missing_closes_the_gap() -> None:
    mark = Mark(10).after([12, 13], now=0).after([11, 14], now=1)
    assert mark.resume_points([11, 14]) == [13, 14]


def test_what_stays_missing_was_rolled_back() -> None:
    mark = Mark(10).after([12], now=0)
    assert mark.after([], now=GAP_SECONDS - 1).resume_point == 10
    assert mark.after([], now=GAP_SECONDS + 1).resume_point == 12


def test_a_jump_of_the_sequence_is_not_waited_for_id_by_id() -> None:
    mark = Mark(10).after([10_000_000], now=0)
    assert len(mark.gaps) < MAX_GAPS
    assert not mark.has_seen(9_999_999)


class Processes:
    """Two processes that read what is committed, each at its own pace."""

    def __init__(self) -> None:
        self.committed: set[int] = set()
        self.marks = [Mark(0), Mark(0)]

    def look(self, number: int) -> list[int]:
        """Let one of them read; return what is new to it."""
        mark = self.marks[number]
        new = sorted(each for each in self.committed if not mark.has_seen(each))
        self.marks[number] = mark.after(new, now=0)
        return new


class Page:
    """A listener whose connection breaks now and then, in the middle of what it is told."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.had: set[int] = set()
        self.resume = 0
        self.process: int | None = None

    def hear(self, told: list[int], mark: Mark, *, breaks: bool) -> None:
        """Take some of it, or all."""
        heard = list(zip(told, mark.resume_points(told), strict=True))
        for event_id, point in heard[: self._chance.randint(0, len(heard))] if breaks else heard:
            self.had.add(event_id)
            self.resume = point
        if breaks:
            self.process = None

    def come_back(self, processes: Processes, number: int) -> None:
        """Resume at one of the processes."""
        processes.look(number)
        self.process = number
        mark = processes.marks[number]
        behind = sorted(each for each in processes.committed if each > self.resume)
        self.hear([each for each in behind if mark.has_seen(each)], mark, breaks=False)


@given(chance=st.randoms(use_true_random=False), count=st.integers(1, 30))
def test_whoever_comes_and_goes_while_events_are_committed_in_any_order_misses_none(
    chance: Random, count: int
) -> None:
    order = chance.sample(range(1, count + 1), count)
    processes, page = Processes(), Page(chance)
    while order:
        processes.committed.add(order.pop())
        for number in (0, 1):
            if chance.random() < 0.6:
                new = processes.look(number)
                if page.process == number:
                    page.hear(new, processes.marks[number], breaks=chance.random() < 0.4)
        if page.process is None and chance.random() < 0.6:
            page.come_back(processes, chance.randint(0, 1))
    if page.process is None:
        page.come_back(processes, 0)
    assert page.process is not None
    page.hear(processes.look(page.process), processes.marks[page.process], breaks=False)
    assert page.had == processes.committed == set(range(1, count + 1))
