"""Telling webhooks what waits for them, in order.

Signed as Standard Webhooks has it (standardwebhooks.com). A delivery is tried for a day; it is then
given up, and the next one's turn. Whoever delivers takes a lane's first delivery for a minute, in
one short transaction: so two workers never send the same, and what a dead one has taken is free
again after that. A receiver may hear something twice, where an answer was lost, never not at all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import PostFailed
from controlplane.models import ControlEvent, Webhook, WebhookDelivery
from controlplane.presenters import iso
from controlplane.webhooks.adding import PREFIX
from controlplane.webhooks.outbox import Lane
from controlplane.webhooks.posting import parse_endpoint, post

logger = logging.getLogger(__name__)

POST_SECONDS = 10.0
TAKEN_SECONDS = 60
TURN_SECONDS = 10.0  # after which a lane makes room for others, and for a worker's end
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5, 3600
GIVE_UP_AFTER = timedelta(days=1)
MAX_ERROR_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try went: the answer's status, if there was one, and what was wrong, if anything."""

    status: int | None = None
    error: str = ""


# --- What is sent ---------------------------------------------------------------------------------
def payload(event: ControlEvent) -> dict[str, Any]:
    """Return what is told of an event: no client_id, no address."""
    workspace = event.workspace  # None where it has been removed since
    return {
        "type": f"control.{event.what}",
        "timestamp": iso(event.at),
        "data": {
            "workspace": event.workspace_slug,
            "name": workspace.name if workspace else event.workspace_slug,
            "what": event.what,
            "who": event.who,
            "epoch": event.epoch,
            "ended_epoch": event.ended_epoch,
            "reason": event.reason,
            "note": event.note,
            "id": event.pk,
        },
    }


def signed(event_id: int, body: bytes, secret: str, timestamp: int) -> dict[str, str]:
    """Return the headers that say what ``body`` is and that it is ours.

    ``webhook-id`` is the event's: the same each time that it is tried, or delivered again.
    """
    message_id = f"evt_{event_id}"
    key = base64.b64decode(secret.removeprefix(PREFIX))
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


async def send(delivery: WebhookDelivery) -> Outcome:
    """Try once. The row comes from ``take``, with its webhook and its event."""
    webhook = delivery.webhook
    if not webhook.is_secret_readable:
        return Outcome(error="no SECRET_KEY fits its secret; see SECRET_KEY_FALLBACKS")
    body = json.dumps(payload(delivery.event), ensure_ascii=False).encode()
    headers = signed(delivery.event_id, body, webhook.secret, int(time.time()))
    allowed = settings.WEBHOOK_ALLOW
    try:
        endpoint = parse_endpoint(webhook.url)
        status = await post(endpoint, headers, body, allowed=allowed, seconds=POST_SECONDS)
    except PostFailed as error:
        return Outcome(error=error.detail)
    return Outcome(status, _problem(status))


def _problem(status: int) -> str:
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"it answered {status}; redirects are not followed"
    return f"it answered {status}"


# --- What waits -----------------------------------------------------------------------------------
_WAITS = Q(delivered_at=None, failed_at=None)


def due_lanes() -> list[Lane]:
    """Return the lanes whose first delivery is due, the one that has waited longest first."""
    waiting = WebhookDelivery.objects.filter(_WAITS)
    same_lane = waiting.filter(
        webhook=OuterRef("webhook"), workspace_slug=OuterRef("workspace_slug")
    )
    is_earlier = Q(event__lt=OuterRef("event")) | Q(event=OuterRef("event"), pk__lt=OuterRef("pk"))
    first = waiting.filter(~Exists(same_lane.filter(is_earlier)), webhook__enabled=True)
    due = first.filter(next_try_at__lte=Now()).order_by("next_try_at", "pk")
    return [Lane(*row) for row in due.values_list("webhook", "workspace_slug")]


def take(lane: Lane) -> WebhookDelivery | datetime | None:
    """Take the lane's first delivery for one try, for which nobody else takes it.

    Otherwise return when that one is due, or None where nothing waits.
    """
    with transaction.atomic():
        first: Any = _in_lane(lane).select_for_update(of=("self",)).first()
        if first is None or not first.webhook.enabled:
            return None
        if first.next_try_at > first.db_now:
            return cast(datetime, first.next_try_at)
        first.attempts += 1
        first.next_try_at = first.db_now + timedelta(seconds=TAKEN_SECONDS)
        first.save(update_fields=["attempts", "next_try_at"])
        return cast(WebhookDelivery, first)


def _in_lane(lane: Lane) -> QuerySet[Any]:
    waiting = WebhookDelivery.objects.filter(
        _WAITS, webhook=lane.webhook_id, workspace_slug=lane.workspace_slug
    )
    related = waiting.select_related("webhook", "event__workspace").order_by("event_id", "pk")
    return related.annotate(db_now=Now())


def settle(delivery: WebhookDelivery, outcome: Outcome) -> None:
    """Write down how a try went, unless another worker has begun one since."""
    values: dict[str, Any] = {
        "last_status": outcome.status,
        "last_error": outcome.error[:MAX_ERROR_LENGTH],
    }
    if not outcome.error:
        values["delivered_at"], total = Now(), "delivered"
    elif is_last_try(delivery):
        values["failed_at"], total = Now(), "given_up"
    else:
        pause = timedelta(seconds=pause_after(delivery.attempts))
        values["next_try_at"], total = Now() + pause, ""
    own = WebhookDelivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts)
    with transaction.atomic():
        is_ours = own.update(**values)
        if is_ours and total:
            Webhook.objects.filter(pk=delivery.webhook_id).update(**{total: F(total) + 1})
    if is_ours:
        _tell(delivery, outcome)


def is_last_try(delivery: Any) -> bool:
    """Whether a failure is for good. What has waited for a day behind others is tried once."""
    age: timedelta = delivery.db_now - delivery.created_at
    return age >= GIVE_UP_AFTER


def pause_after(attempts: int) -> float:
    """Return how many seconds to wait after so many tries in vain."""
    return min(FIRST_PAUSE_SECONDS * 3.0 ** min(attempts - 1, 10), LONGEST_PAUSE_SECONDS)


def _tell(delivery: WebhookDelivery, outcome: Outcome) -> None:
    """One line where a delivery fails first, and one where it is given up; never an address."""
    name, event_id, error = delivery.webhook.name, delivery.event_id, outcome.error
    if error and is_last_try(delivery):
        logger.error("webhook %s: event %s is given up and skipped: %s", name, event_id, error)
    elif error and delivery.attempts == 1:
        logger.warning("webhook %s: event %s waits to be tried again: %s", name, event_id, error)


async def deliver(lane: Lane, threads: DatabaseThreads) -> datetime | None:
    """Deliver what is due in a lane, for a while; return when there is more to do, if ever."""
    begun = time.monotonic()
    while True:
        taken = await threads.run(take, lane)
        if not isinstance(taken, WebhookDelivery):
            return taken
        outcome = await send(taken)
        await threads.run(settle, taken, outcome)
        if time.monotonic() - begun > TURN_SECONDS:
            return await threads.run(_next_time, lane)


def _next_time(lane: Lane) -> datetime | None:
    times = _in_lane(lane).filter(webhook__enabled=True).values_list("next_try_at", flat=True)
    return times.first()
