"""Recording what happens to control, and announcing it.

A record is written in the transaction of the change it tells of. The announcement goes out after
commit, to the watch of every process, with a short time limit: it makes things fast and is never
needed for them to be right, so a broker that is away neither delays nor fails the change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import BaseChannelLayer, InMemoryChannelLayer, get_channel_layer
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from controlplane import metrics
from controlplane.models import ControlEvent, Workspace
from controlplane.outages import Outage
from controlplane.statements import Insert
from controlplane.webhooks import outbox

logger = logging.getLogger(__name__)

GROUP = "desktopctl.watch"
ANNOUNCE_SECONDS = 1.0
REST_SECONDS = 1.0


def record(
    workspace: Workspace,
    what: ControlEvent.What,
    *,
    at: datetime | Now,
    epoch: int,
    ended_epoch: int | None = None,
    who: str = "",
    client_id: str = "",
    reason: str = "",
    note: str = "",
    ip: str | None = None,
) -> None:
    """Append one event, and what webhooks are to be told of it.

    Call it inside the transaction of the change.
    """
    values: dict[str, Any] = {
        "workspace_id": workspace.pk,
        "workspace_slug": workspace.slug,
        "what": what,
        "who": who,
        "client_id": client_id,
        "epoch": epoch,
        "ended_epoch": ended_epoch,
        "reason": reason,
        "note": note,
        "ip": ip,
        "at": at,
    }
    if isinstance(at, datetime):
        event_id = _INSERT(values)
    else:  # who has no time at hand lets the database say it
        event_id = ControlEvent.objects.create(**values).pk
    outbox.put(workspace, what, event_id)
    _count(what, reason)


_INSERT = Insert(ControlEvent)


def _count(what: ControlEvent.What, reason: str) -> None:
    """Count it among the metrics once it has happened for good."""
    transaction.on_commit(metrics.control_events.labels(str(what), str(reason)).inc)


def record_refusal(
    workspace: Workspace,
    *,
    at: datetime,
    epoch: int,
    who: str,
    client_id: str,
    reason: str,
    ip: str | None,
) -> None:
    """Count a refusal: one row for each person, client, reason and minute, however many there are.

    Call it under the lease's lock, so that two of them do not both begin a row.
    """
    what = ControlEvent.What.REFUSED
    counted = ControlEvent.objects.filter(
        workspace=workspace,
        what=what,
        at__gte=at.replace(second=0, microsecond=0),
        who=who,
        client_id=client_id,
        reason=reason,
    ).update(count=F("count") + 1)
    if counted:
        _count(what, reason)
    else:
        record(
            workspace,
            what,
            at=at,
            epoch=epoch,
            who=who,
            client_id=client_id,
            reason=reason,
            ip=ip,
        )


def announce(workspace_id: int, version: int) -> None:
    """Tell every watch, after commit, that the workspace's lease now has this version."""
    _announce({"type": "lease", "workspace_id": workspace_id, "version": version})


def announce_look(workspace_id: int) -> None:
    """Tell every watch, after commit, to look at a workspace: who has control has not changed."""
    _announce({"type": "look", "workspace_id": workspace_id})


def announce_access() -> None:
    """Tell every watch, after commit, that somebody's access may have changed."""
    _announce({"type": "access"})


@contextmanager
def announcing_once() -> Iterator[None]:
    """Within it, each notice goes out once, however often it is announced.

    For one transaction that changes many rows, and that commits as a whole or not at all.
    """
    token = _announced.set([])
    try:
        yield
    finally:
        _announced.reset(token)


_announced: ContextVar[list[dict[str, object]] | None] = ContextVar("announced", default=None)


def _announce(message: dict[str, object]) -> None:
    announced = _announced.get()
    if announced is not None:
        if message in announced:
            return
        announced.append(message)
    transaction.on_commit(partial(_broker.send, message))


def channel_layer() -> BaseChannelLayer:
    """Return the channel layer; settings.py always configures one."""
    layer = get_channel_layer()
    assert layer is not None
    return layer


def _reaches_nobody() -> bool:
    """Whether the layer is that of this process, and nobody in it listens: a command, say."""
    layer = channel_layer()
    return isinstance(layer, InMemoryChannelLayer) and GROUP not in layer.groups


class _Broker:
    """The channel layer, with one log line for each change between working and not working."""

    def __init__(self) -> None:
        self._outage = Outage(
            logger,
            begins="notices do not get out (%s): revocations take a second longer",
            ends="notices get out again",
        )
        self._rests_until = -float("inf")

    def send(self, message: dict[str, object]) -> None:
        """Send to all watches; log, and go on, where the broker is away: the polls will notice.

        After a failure nothing is sent for a while: one that hangs must not cost each of a hundred
        changes, or the watch itself, a second.
        """
        if time.monotonic() < self._rests_until:
            return
        try:
            if not _reaches_nobody():
                async_to_sync(self._send)(message)
        except Exception as error:  # whatever the broker's client raises: the poll covers for it
            self._rests_until = time.monotonic() + REST_SECONDS
            self._outage.note(error)
        else:
            self._outage.note(None)

    async def _send(self, message: dict[str, object]) -> None:
        async with asyncio.timeout(ANNOUNCE_SECONDS):
            try:
                await channel_layer().group_send(GROUP, message)
            except Exception:  # that the broker has been restarted is found out by using it
                await channel_layer().group_send(GROUP, message)


_broker = _Broker()
