"""What /metrics tells: what processes have counted, and what the database knows.

The latter is the same whichever process is asked, on whichever node: it must not be added up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from asgiref.sync import async_to_sync
from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Now
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane import leasestate, metrics
from controlplane.dbthreads import DatabaseThreads
from controlplane.models import (
    SECRET_FIELDS,
    Controller,
    DisplayControlLease,
    Webhook,
    WebhookDelivery,
)

__all__ = ["CONTENT_TYPE", "exposition"]

logger = logging.getLogger(__name__)

READ_SECONDS = 2.0  # Prometheus gives up after 10

_threads = DatabaseThreads("metrics", 1)  # while the database hangs, no more than one waits for it


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database knows."""

    held: dict[str, int]
    parked: int
    closed: int
    deliveries: list[tuple[str, int, int]]  # of each webhook: its name, delivered, given up
    waiting: int
    longest_wait: float  # seconds


def exposition() -> bytes:
    """Return everything, as Prometheus' text; without the database's part where that is away."""
    registry = CollectorRegistry()
    registry.register(DatabaseMetrics(async_to_sync(_look)()))
    return metrics.exposition() + generate_latest(registry)


async def _look() -> Facts | None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await _threads.run(read)
    except Exception as error:  # late, or whatever the database's client raises: told as a metric
        logger.warning("metrics lack what the database knows: %r", error)
        return None


def read() -> Facts:
    """Read it now. No table is read whole that grows with time."""
    return Facts(
        held=_held(),
        parked=_parked(),
        closed=DisplayControlLease.objects.filter(closed_at__isnull=False).count(),
        deliveries=list(Webhook.objects.values_list("name", "delivered", "given_up")),
        waiting=_waiting().count(),
        longest_wait=_longest_wait(),
    )


def _waiting() -> QuerySet[WebhookDelivery]:
    """Return what an index of its own holds, for the rest of a month is many times more."""
    return WebhookDelivery.objects.filter(delivered_at=None, failed_at=None)


def _longest_wait() -> float:
    """Return the age of the oldest delivery that waits; 0 where none does."""
    waiting = _waiting().order_by("created_at")
    times = waiting.annotate(db_now=Now()).values_list("db_now", "created_at").first()
    return (times[0] - times[1]).total_seconds() if times else 0.0


def _held() -> dict[str, int]:
    rows = leasestate.held().order_by().values_list("controller").annotate(Count("pk"))
    return {str(Controller.USER): 0, str(Controller.AGENT): 0, **dict(rows)}


def _parked() -> int:
    """Count what leases.py calls parked among the leases that may be."""
    has_lapsed = Q(controller=Controller.USER, agent__isnull=False)
    secrets = (f"workspace__{name}" for name in SECRET_FIELDS)
    rows = DisplayControlLease.objects.filter(has_lapsed | Q(parked_at__isnull=False))
    rows = rows.select_related("workspace", "holder").defer(*secrets).annotate(db_now=Now())
    return sum(leasestate.parking(row, row.db_now) is not None for row in rows)


class DatabaseMetrics(Collector):
    """The facts, or that there are none, as metrics."""

    def __init__(self, facts: Facts | None) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        """Yield each metric."""
        facts = self._facts
        meaning = "Whether the database has answered while this was being asked (1) or not (0)."
        yield _one("database_up", meaning, facts is not None)
        if facts is None:
            return
        yield _by("leases_held", "Leases that are held.", "controller", facts.held)
        yield _one("workspaces_parked", "Workspaces that no agent may have.", facts.parked)
        yield _one("workspaces_closed", "Workspaces that nobody may have.", facts.closed)
        yield _deliveries(facts.deliveries)
        yield _one("webhook_waiting", "Deliveries to webhooks that wait.", facts.waiting)
        meaning = "Age of the oldest delivery to a webhook that waits."
        yield _one("webhook_longest_wait_seconds", meaning, facts.longest_wait)


def _one(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(metrics.PREFIX + name, meaning, value)


def _deliveries(rows: list[tuple[str, int, int]]) -> CounterMetricFamily:
    meaning = "Deliveries to a webhook that came to an end, by what became of them."
    counter = CounterMetricFamily(
        f"{metrics.PREFIX}webhook_deliveries", meaning, labels=["webhook", "state"]
    )
    for name, delivered, given_up in rows:
        counter.add_metric([name, "delivered"], delivered)
        counter.add_metric([name, "given_up"], given_up)
    return counter


def _by(name: str, meaning: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(metrics.PREFIX + name, meaning, labels=[label])
    for value, number in values.items():
        gauge.add_metric([value], number)
    return gauge
