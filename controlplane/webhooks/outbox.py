"""What webhooks are told of an event: the deliveries are written with it, in one statement.

The rows are what counts: whoever has them can deliver them. On PostgreSQL the queue of their worker
is told after commit, to be fast; should that fail, the worker finds the rows a little later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from procrastinate.contrib.django import app as queue
from procrastinate.exceptions import AlreadyEnqueued, ProcrastinateException

from controlplane.models import ControlEvent, Webhook, WebhookDelivery, Workspace
from controlplane.statements import run

logger = logging.getLogger(__name__)

What = ControlEvent.What

QUEUE = "webhooks"
DELIVER = f"{QUEUE}:deliver"
_UNTOLD = frozenset({What.REFUSED, What.KEPT})


@dataclass(frozen=True, slots=True)
class Lane:
    """What one webhook is told of one workspace: in order, one after the other."""

    webhook_id: int
    workspace_slug: str

    @property
    def key(self) -> str:
        """Its name among locks."""
        return f"{QUEUE}/{self.webhook_id}/{self.workspace_slug}"


def put(workspace: Workspace, what: What, event_id: int) -> None:
    """Write a delivery for each webhook that wants the event; within the event's transaction."""
    if what in _UNTOLD:
        return
    here = connections[DEFAULT_DB_ALIAS]
    with run(here, _text(here.vendor), [event_id, workspace.slug, workspace.pk]) as cursor:
        lanes = [Lane(row[0], workspace.slug) for row in cursor.fetchall()]
    if lanes:
        transaction.on_commit(partial(wake, lanes))


def put_again(deliveries: Iterable[WebhookDelivery]) -> int:
    """Write each of them once more, as if its event had just happened; return how many."""
    anew = [
        WebhookDelivery(
            webhook_id=each.webhook_id, event_id=each.event_id, workspace_slug=each.workspace_slug
        )
        for each in deliveries
    ]
    with transaction.atomic():
        WebhookDelivery.objects.bulk_create(anew)
        lanes = {Lane(each.webhook_id, each.workspace_slug) for each in anew}
        transaction.on_commit(partial(wake, lanes, overrides=True))
    return len(anew)


@cache
def _text(vendor: str) -> str:
    """For one kind of database, whose quotes are in it."""
    quoted = connections[DEFAULT_DB_ALIAS].ops.quote_name
    columns = ", ".join(map(quoted, ("webhook_id", "event_id", "workspace_slug")))
    only = quoted("workspace_id")
    wants = f"{quoted('enabled')} AND ({only} IS NULL OR {only} = %s)"
    return (
        f"INSERT INTO {quoted(WebhookDelivery._meta.db_table)} ({columns})"  # noqa: S608  (names of ours)
        f" SELECT {quoted('id')}, %s, %s FROM {quoted(Webhook._meta.db_table)} WHERE {wants}"
        f" RETURNING {quoted('webhook_id')}"
    )


def has_queue() -> bool:
    """Whether deliveries go through the queue: only PostgreSQL has one."""
    return apps.is_installed("procrastinate.contrib.django")


def wake(lanes: Iterable[Lane], *, at: datetime | None = None, overrides: bool = False) -> None:
    """Have the queue look into these lanes, now or at a later time; log it where that fails.

    A lane that it is to look into later stays that way, for what comes first there is not due yet;
    with ``overrides``, it is looked into now.
    """
    if not has_queue():
        return
    try:
        for lane in lanes:
            _wake(lane, at, overrides)
    except ProcrastinateException as error:
        logger.warning("webhooks will be some seconds late: the queue was not told (%s)", error)


def _wake(lane: Lane, at: datetime | None, overrides: bool) -> None:
    # Asked first, although the queue would refuse: the database would log each refusal.
    for waiting in queue.job_manager.list_jobs(queueing_lock=lane.key, status="todo"):
        if not overrides or waiting.scheduled_at is None:
            return
        assert waiting.id is not None
        queue.job_manager.cancel_job_by_id(waiting.id, delete_job=True)
    # At most one job of a lane waits, and at most one is being done.
    job = queue.configure_task(
        DELIVER, queue=QUEUE, lock=lane.key, queueing_lock=lane.key, schedule_at=at
    )
    with suppress(AlreadyEnqueued):  # just now, by another
        job.defer(webhook_id=lane.webhook_id, workspace_slug=lane.workspace_slug)
