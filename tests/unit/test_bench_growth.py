"""What counts as flat, and what a soak that went wrong says of itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.growth import (
    DESCRIPTORS,
    FIGURES,
    PSS,
    ROWS,
    Figure,
    Sample,
    is_flat,
    milestones,
    thirds,
)
from bench.soaked import Outcome, Plan, page_of, render

COUNT = Figure("things", more=2)
PLAN = Plan(idle=8, active=2)


def test_thirds_are_medians_of_the_second_and_the_last() -> None:
    assert thirds([9, 9, 9, 1, 2, 3, 4, 5, 6]) == (2, 5)


def test_what_does_not_divide_by_three_is_the_middle_s() -> None:
    assert thirds([9, 1, 2, 3, 4]) == (2, 4)


@pytest.mark.parametrize("values", [[], [1], [1, 2]])
def test_two_samples_have_no_thirds(values: list[float]) -> None:
    with pytest.raises(ValueError, match="thirds"):
        thirds(values)


def test_a_slow_leak_is_growth() -> None:
    assert not is_flat(PSS, [100 + number * 0.1 for number in range(180)])


def test_growing_in_the_first_third_is_not() -> None:
    assert is_flat(PSS, [*range(60), *[100] * 120])


def test_a_single_spike_is_not() -> None:
    assert is_flat(PSS, [*[100] * 170, 900, *[100] * 9])


def test_shrinking_is_not() -> None:
    assert is_flat(ROWS, [3, 2, 1])


@pytest.mark.parametrize(
    ("figure", "last", "verdict"),
    [(PSS, 103, True), (PSS, 103.1, False), (COUNT, 102, True), (COUNT, 103, False)],
)
def test_a_figure_may_grow_by_so_much(figure: Figure, last: float, verdict: bool) -> None:
    assert is_flat(figure, [100, 100, last]) is verdict


def test_milestones_are_samples_at_the_ends_and_the_thirds() -> None:
    assert milestones(range(10)) == [0, 3, 6, 9]


def sample(**changes: float) -> Sample:
    values = {figure.title: 100.0 for figure in FIGURES} | {ROWS.title: 5} | changes
    return {figure: values[figure.title] for figure in FIGURES}


def outcome(series: Sequence[Sample] | None = None, after: Sample | None = None) -> Outcome:
    """Two nodes, one of them without any fault."""
    empty, good = sample(**{ROWS.title: 0}), [sample()] * 6
    samples = [list(series or good), good]
    return Outcome(PLAN, [empty, empty], samples, [after or empty, empty], moves=7, arrived=7)


def test_a_good_soak_misses_nothing() -> None:
    assert outcome().misses() == []


def test_growth_is_told_with_its_node_and_figures() -> None:
    grown = [sample(), sample(), sample(**{PSS.title: 120})]
    seen = outcome(grown)
    seen.samples[1] = [sample()] * 3
    assert seen.misses() == ["node 1: memory, PSS grew from 100.0 MiB to 120.0 MiB"]
    assert "| **grows** |" in render(seen)
    assert f"- **missed**: {seen.misses()[0]}" in render(seen)


def test_descriptors_that_stay_behind_are_told() -> None:
    left = sample(**{DESCRIPTORS.title: 103, ROWS.title: 1})
    assert outcome(after=left).misses() == [
        "node 1: open descriptors: 100 before, 103 afterwards",
        "node 1: rows of open streams: 0 before, 1 afterwards",
    ]


def test_rows_that_are_not_as_many_as_displays_are_told() -> None:
    lost = [sample()] * 5 + [sample(**{ROWS.title: 4})]
    assert outcome(lost).misses() == ["10 displays had [9, 10] rows"]


def test_ends_hung_displays_and_lost_input_are_told() -> None:
    seen = outcome()
    seen.endings["1006 "] = 3
    seen.hung, seen.arrived = 1, 6
    assert seen.misses() == [
        "3 displays ended: 1006 ",
        "1 displays wait in vain for an update",
        "7 pointer events were sent, 6 arrived",
    ]


def test_only_a_full_run_is_for_the_documents() -> None:
    assert page_of(Plan()).parent.name == "docs"
    for less in (Plan(minutes=1), Plan(idle=10), Plan(active=5)):
        assert page_of(less).parent.name == "bench"


def test_each_display_has_a_seat_and_those_in_control_a_desk_of_their_own() -> None:
    seats = PLAN.seats()
    assert len(set(seats)) == 10
    assert len({slug for slug, _ in seats[:2]}) == 2
