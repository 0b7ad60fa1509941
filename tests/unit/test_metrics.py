"""The table of metrics and the alerts in the documentation, and what is defined in the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from controlplane import metrics
from controlplane.exceptions import UpstreamError
from controlplane.scraping import DatabaseMetrics, Facts
from tests.support.processes import ROOT
from tests.support.scrape import Scrape

PAGE = (ROOT / "docs/observability.md").read_text()
FACTS = Facts(
    held={"user": 1, "agent": 2},
    parked=3,
    closed=4,
    deliveries=[("Platform", 6, 7)],
    waiting=5,
    longest_wait=8.5,
)


def counted() -> list[tuple[str, ...]]:
    """Return the rows of what processes count, as they are defined."""
    return [
        (
            f"{each._name}{'_total' if each._type == 'counter' else ''}",
            each._type,
            ", ".join(each._labelnames),
            "node",
            each._documentation,
        )
        for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase) and not each._labelvalues
    ]


def read() -> list[tuple[str, ...]]:
    """Return the rows of what is read from the database."""
    rows = []
    for each in DatabaseMetrics(FACTS).collect():
        labels = {label: None for sample in each.samples for label in sample.labels}
        of = "node" if each.name == "desktopctl_database_up" else "all"
        name = f"{each.name}{'_total' if each.type == 'counter' else ''}"
        rows.append((name, each.type, ", ".join(labels), of, each.documentation))
    return rows


def test_the_page_lists_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(desktopctl_\w+)` \|(.*)\|$", PAGE, re.MULTILINE)
    listed = [(name, *(cell.strip() for cell in rest.split("|"))) for name, rest in rows]
    assert listed == [*counted(), *read()]


def test_all_that_is_counted_is_told() -> None:
    text = metrics.exposition().decode()
    assert {name for name, *_ in counted() if f"# TYPE {name} " not in text} == set()


def test_what_the_database_does_not_tell_is_left_out() -> None:
    assert [each.name for each in DatabaseMetrics(None).collect()] == ["desktopctl_database_up"]


def test_the_steps_are_those_of_the_errors() -> None:
    [steps] = re.findall(r"Steps, in order: ([^.]+)\.", UpstreamError.__doc__ or "")
    assert tuple(steps.split(", ")) == metrics.STEPS


RULES = yaml.safe_load(PAGE.partition("## Alerts")[2].partition("```yaml")[2].partition("```")[0])


@pytest.mark.parametrize("rule", RULES["groups"][0]["rules"], ids=lambda rule: rule["alert"])
def test_an_alert_is_about_metrics_that_exist_and_says_why(rule: dict[str, object]) -> None:
    known = {name for name, *_ in [*counted(), *read()]}
    named = set(re.findall(r"desktopctl_\w+", str(rule["expr"])))
    assert named
    assert named <= known
    assert {"summary", "why"} <= rule["annotations"].keys()  # type: ignore[attr-defined]  # YAML


# --- Several processes ----------------------------------------------------------------------------
_WORKER = """
import os, sys
from controlplane import metrics
metrics.streams.labels("observe").set(2)
metrics.watch_lag_seconds.set(float(sys.argv[1]))
metrics.refused_input.inc(3)
print(os.getpid())
"""


def run(source: str, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source, *argv], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_workers_add_up_until_one_is_forgotten(tmp_path: Path) -> None:
    with metrics.shared_by_workers():
        directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        first, second = (int(run(_WORKER, lag)) for lag in ("1.5", "7.5"))
        told = Scrape.of(metrics.exposition().decode())
        assert told.value("streams", mode="observe") == 4
        assert told.value("watch_lag_seconds") == 7.5
        assert told.value("refused_input_total") == 6
        metrics.forget(second)
        told = Scrape.of(metrics.exposition().decode())
        assert told.value("streams", mode="observe") == 2
        assert told.value("watch_lag_seconds") == 1.5
        assert told.value("refused_input_total") == 6
        metrics.forget(first)
        assert not Scrape.of(metrics.exposition().decode()).has("streams")
    assert not directory.exists()
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_a_process_alone_has_nobody_to_forget() -> None:
    metrics.forget(os.getpid())
