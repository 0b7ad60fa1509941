"""The page and the chart of a run, from figures that stand in for measured ones."""

from __future__ import annotations

from datetime import date
from xml.etree import ElementTree

import pytest

from bench import bars, chart, report
from bench.bars import BARS, BROWSER_CONTENDERS, BROWSER_MEASURES, CONTENDERS, MEASURES, Results
from bench.rounds import Sizes

SVG = "{http://www.w3.org/2000/svg}"


def run_of(results: Results) -> report.Run:
    return report.Run(results, Sizes(), {"cores": "2"}, {"Python": "3"}, date(2026, 1, 2))


@pytest.fixture
def full() -> Results:
    results = Results()
    for measure in MEASURES:
        for name in CONTENDERS:
            for value in (1200, 1000, 1100):
                results.add(name, measure, value)
    return results


def test_the_page_tells_every_bar_and_every_figure(full: Results) -> None:
    page = report.render(run_of(full))
    assert [bar.title for bar in BARS if f"| {bar.title} |" not in page] == []
    assert [each.title for each in MEASURES if f"| {each.title} | {each.unit} |" not in page] == []


def test_what_is_measured_in_a_browser_has_a_table_beside_the_page_of_novnc() -> None:
    results = Results()
    for name in BROWSER_CONTENDERS:
        for measure in BROWSER_MEASURES:
            results.add(name, measure, 1000)
    page = report.render(run_of(results))
    assert f"|  | unit | {bars.UVICORN} | {bars.STOCK} |" in page
    for measure in BROWSER_MEASURES:
        cell = report.figure(measure, bars.Spread(1000, 1000, 1000))
        assert f"| {measure.title} | {measure.unit} | {cell} | {cell} |" in page


def test_what_one_process_carries_stands_beside_what_two_do() -> None:
    results = Results()
    results.add(bars.ONE_PROCESS, bars.CARRIED, 40)
    results.add(bars.TWO_PROCESSES, bars.CARRIED, 60)
    page = report.render(run_of(results))
    assert f"|  | unit | {bars.ONE_PROCESS} | {bars.TWO_PROCESSES} |" in page
    assert f"| {bars.CARRIED.title} | in all | 40 (40 – 40) | 60 (60 – 60) |" in page


def test_it_tells_when_and_with_what(full: Results) -> None:
    page = report.render(run_of(full))
    assert "2026-01-02" in page
    assert "| cores | 2 |\n| Python | 3 |" in page


def test_a_cell_has_the_median_and_the_interval(full: Results) -> None:
    assert "1,100 (1,000 – 1,200)" in report.render(run_of(full))


def test_a_page_can_be_written_of_a_run_that_measured_nothing() -> None:
    page = report.render(run_of(Results()))
    assert page.count("**not measured**") == len(BARS)


def test_a_small_ratio_keeps_its_digits() -> None:
    results = Results()
    results.add(bars.UVICORN, bars.MEMORY, 30)
    results.add(bars.WEBSOCKIFY, bars.MEMORY, 3600)
    bar = next(bar for bar in BARS if bar.measure == bars.MEMORY and bar.other)
    assert report.judged(bar, results) == ("0.0083", "0.0083 – 0.0083")


def test_the_chart_draws_bars_in_proportion() -> None:
    results = Results()
    for name, value in ((bars.UVICORN, 100), (bars.WEBSOCKIFY, 50), (bars.DIRECT, 900)):
        results.add(name, bars.DIALS, value)
    drawing = ElementTree.fromstring(chart.draw(results, [bars.DIALS], CONTENDERS))
    ours, websockify = (int(each.attrib["width"]) for each in drawing.iter(f"{SVG}rect"))
    assert ours == 2 * websockify


def test_the_chart_leaves_out_what_was_not_measured() -> None:
    drawing = ElementTree.fromstring(chart.draw(Results(), MEASURES, CONTENDERS))
    assert list(drawing.iter(f"{SVG}rect")) == []


def test_page_and_chart_are_written_side_by_side(full: Results, tmp_path) -> None:
    page = report.write(run_of(full), tmp_path)
    assert page.read_text().count("](images/benchmarks.svg)") == 1
    assert (tmp_path / "images/benchmarks.svg").is_file()
