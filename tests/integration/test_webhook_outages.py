"""The worker of webhooks while its database is away, and decisions while its queue is.

On PostgreSQL only: SQLite is never away, and has no queue.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from procrastinate.contrib.django import app as queue
from procrastinate.exceptions import ConnectorException

from controlplane import leases
from controlplane.models import WebhookDelivery, Workspace
from controlplane.webhooks import adding, deliveries, outbox
from tests.integration.people import tab
from tests.support import commands
from tests.support.receiver import Receiver
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import wait_until

LOOPBACK = "127.0.0.0/8"


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A server that takes down what it is told, and may be."""
    settings.WEBHOOK_ALLOW = [ip_network(LOOPBACK)]
    server = Receiver().start()
    yield server
    server.stop()


@pytest.fixture
def link() -> Iterator[TcpProxy]:
    """What lies between the worker and its database."""
    with TcpProxy(int(connection.settings_dict["PORT"])) as proxy:
        yield proxy


@pytest.mark.django_db(transaction=True)
def test_the_worker_goes_on_after_its_database_was_away(
    desk: Workspace, operator: User, receiver: Receiver, link: TcpProxy, tmp_path: Path
) -> None:
    adding.create("Platform", receiver.url)
    database = f"postgres://postgres@127.0.0.1:{link.port}/{connection.settings_dict['NAME']}"
    env = {**os.environ, "DATABASE_URL": database, "WEBHOOK_ALLOW": LOOPBACK}
    worker = commands.start(["deliver_webhooks"], env, tmp_path / "log")
    try:
        leases.acquire(desk, tab(operator), ttl=300)
        # And has written it down: else it would tell it again, as it may.
        delivered = WebhookDelivery.objects.filter(delivered_at__isnull=False)
        wait_until(delivered.exists, "it delivers", expected=10)
        link.refuse()
        link.cut()
        leases.release(desk, tab(operator))
        failed = " ERROR "
        wait_until(lambda: failed in (tmp_path / "log").read_text(), "it notices", expected=10)
        link.heal()
        wait_until(lambda: len(receiver.told) == 2, "it delivers again", expected=10)
        assert receiver.kinds() == ["acquired", "released"]
        waiting = WebhookDelivery.objects.filter(delivered_at=None)
        wait_until(lambda: not waiting.exists(), "and writes it down")
        assert worker.stop(expected=5) == 0
    finally:
        worker.stop()


@pytest.mark.django_db(transaction=True)
def test_a_queue_that_cannot_be_told_fails_no_decision_and_is_said(
    desk: Workspace,
    operator: User,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(**_: object) -> None:
        raise ConnectorException("away")

    adding.create("Platform", receiver.url)
    monkeypatch.setattr(queue.job_manager, "list_jobs", fail)
    assert leases.acquire(desk, tab(operator), ttl=300).epoch == 1
    assert "some seconds late" in caplog.text
    assert len(deliveries.due_lanes()) == 1
    assert outbox.has_queue()
