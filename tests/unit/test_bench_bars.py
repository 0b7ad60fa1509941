"""Summing up rounds, and judging them: one bad round never fails a bar, nor one good one saves it
from being called in doubt."""

from __future__ import annotations

import pytest

from bench.bars import (
    BARS,
    BROWSER_CONTENDERS,
    BROWSER_MEASURES,
    CONTENDERS,
    LEASE_CONTENDERS,
    LEASE_MEASURES,
    MEASURES,
    Bar,
    Measure,
    Results,
    Spread,
    Verdict,
    percentile,
)

SPEED = Measure("speed", "MiB/s")
AT_LEAST, AT_MOST = Bar(SPEED, "ours", 10, at_least=True), Bar(SPEED, "ours", 10)
TWICE = Bar(SPEED, "ours", 2, at_least=True, other="theirs")


def results(**rounds: list[float]) -> Results:
    found = Results()
    for name, values in rounds.items():
        for value in values:
            found.add(name, SPEED, value)
    return found


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1, 100)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7], 0.99) == 7


def test_a_spread_is_median_and_interval() -> None:
    assert Spread.of([3, 9, 1, 5]) == Spread(median=4, low=1, high=9)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([9, 10, 11], Verdict.MET),  # the bar itself meets it
        ([8, 9, 10], Verdict.IN_DOUBT),
        ([7, 8, 9], Verdict.MISSED),
        ([], Verdict.NOT_MEASURED),
    ],
)
def test_a_lower_bar_is_missed_only_by_all_rounds(values: list[float], verdict: Verdict) -> None:
    assert AT_LEAST.judge(results(ours=values)) == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([9, 10, 11], Verdict.MET),
        ([10, 11, 12], Verdict.IN_DOUBT),
        ([11, 12, 13], Verdict.MISSED),
    ],
)
def test_so_is_an_upper_one(values: list[float], verdict: Verdict) -> None:
    assert AT_MOST.judge(results(ours=values)) == verdict


def test_ratios_are_formed_round_by_round() -> None:
    rounds = results(ours=[20, 90, 10], theirs=[10, 30, 10])
    assert TWICE.values(rounds) == [2, 3, 1]
    assert TWICE.judge(rounds) == Verdict.MET


def test_a_round_that_one_of_both_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        TWICE.values(results(ours=[1, 2], theirs=[1]))


def test_a_bar_says_in_words_what_it_asks_for() -> None:
    assert AT_MOST.title == "speed ≤ 10 MiB/s"
    assert TWICE.title == "speed ≥ 2 × theirs"


def test_every_bar_is_about_something_that_is_measured() -> None:
    assert {bar.measure for bar in BARS} <= {*MEASURES, *LEASE_MEASURES, *BROWSER_MEASURES}
    contenders = {*CONTENDERS, *LEASE_CONTENDERS, *BROWSER_CONTENDERS}
    assert {bar.contender for bar in BARS} <= contenders
    assert {bar.other for bar in BARS} <= {*contenders, ""}
