"""What each process counts, for Prometheus; docs/observability.md explains every metric.

Nothing is counted on the way of the bytes: streams count in plain integers, which are added up
every two seconds (``streams.py``).

Where ``serve`` runs several workers, each keeps its numbers in files of a directory that it makes
(``shared_by_workers``), and whoever is asked adds them up: Prometheus cannot choose whom it asks.
A worker that ends takes its gauges along and leaves its counters.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

PREFIX = "desktopctl_"
MODES = ("observe", "control")
STEPS = ("resolve", "connect", "banner", "security", "authentication", "ServerInit", "stream")
HANDSHAKE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks for it when it is imported
_MEMORY = Path("/dev/shm")  # noqa: S108  (the directory in it is ours alone)

REGISTRY = CollectorRegistry()
"""The metrics of this process."""


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(PREFIX + name, meaning, labels, registry=REGISTRY)


def _sum(name: str, meaning: str, *labels: str) -> Gauge:
    """Of several workers, the sum is told."""
    return Gauge(PREFIX + name, meaning, labels, registry=REGISTRY, multiprocess_mode="livesum")


def _worst(name: str, meaning: str) -> Gauge:
    """Of several workers, the largest value is told."""
    return Gauge(PREFIX + name, meaning, registry=REGISTRY, multiprocess_mode="livemax")


streams = _sum("streams", "Display streams that are open, by what their browser may do.", "mode")
stream_ends = _counter(
    "stream_ends_total", "Streams that have ended or were refused, by close code.", "code"
)
reconnects = _counter(
    "reconnects_total", "Streams opened by a tab that had one to this desktop within a day."
)
bytes_moved = _counter(
    "stream_bytes_total", "Bytes that streams have moved after the RFB handshake.", "direction"
)
backlog_bytes = _sum("backlog_bytes", "Bytes that desktops have sent and browsers have not read.")
withheld_requests = _counter(
    "withheld_update_requests_total",
    "Update requests kept from desktops because their browser does not keep up.",
)
refused_input = _counter(
    "refused_input_total", "Keys, pointer events and texts that came while their gate was shut."
)
handshake_seconds = Histogram(
    PREFIX + "handshake_seconds",
    "RFB handshakes that succeeded: with a desktop, from dialling to ServerInit; with a browser.",
    ("peer",),
    registry=REGISTRY,
    buckets=HANDSHAKE_BUCKETS,
)
upstream_failures = _counter(
    "upstream_failures_total", "Connections to desktops that failed or were lost, by step.", "step"
)
control_events = _counter(
    "control_events_total",
    "What has happened to control through this node, refusals included.",
    *("what", "reason"),
)
watch_lag_seconds = _worst(
    "watch_lag_seconds", "Age of the newest successful read of the leases of open streams."
)
long_polls = _sum("long_polls", "Calls that wait for control to change.")
event_streams = _sum("event_streams", "Streams of server-sent events that are open.")

# Those whose labels are known are there from the start: a rate needs a zero to begin with.
for _mode in MODES:
    streams.labels(_mode)
for _step in STEPS:
    upstream_failures.labels(_step)
to_browser, from_browser = (bytes_moved.labels(each) for each in ("to_browser", "from_browser"))
desktop_handshake, browser_handshake = (
    handshake_seconds.labels(each) for each in ("desktop", "browser")
)


def exposition() -> bytes:
    """Return the metrics of this process and of those it shares them with, as Prometheus' text."""
    if _DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
    return generate_latest(registry)


# --- Several workers ------------------------------------------------------------------------------
@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Have all processes that are started meanwhile share their metrics, in a directory of ours."""
    # In memory: a write into a mapped file on a disk may wait for that disk, and streams with it.
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="desktopctl-metrics-", dir=place) as directory:
        os.environ[_DIRECTORY] = directory
        try:
            yield
        finally:
            del os.environ[_DIRECTORY]


def forget(pid: int) -> None:
    """A worker has ended, in whatever way: what it had open is not open any more."""
    if _DIRECTORY in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types
