"""What happened to control, for other programs: one JSON object a line, oldest first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.db.models.functions import Now

from controlplane.models import ControlEvent
from controlplane.presenters import iso

_TOLD = ("what", "who", "epoch", "ended_epoch", "reason", "note", "ip", "count")


def lines(events: QuerySet[ControlEvent]) -> Iterator[str]:
    """Yield a line for each event. client_ids are never told."""
    for event in events.order_by("id").iterator():
        about = {"id": event.pk, "at": iso(event.at), "workspace": event.workspace_slug}
        about |= {name: getattr(event, name) for name in _TOLD}
        yield json.dumps(about, ensure_ascii=False)


def since(start: int | datetime) -> QuerySet[ControlEvent]:
    """Return the events after the one with this id, or from this time on."""
    if isinstance(start, int):
        return ControlEvent.objects.filter(pk__gt=start)
    return ControlEvent.objects.filter(at__gte=start)


def older_than(days: int) -> QuerySet[ControlEvent]:
    """Return the events that are older than this, by the database's clock."""
    return ControlEvent.objects.filter(at__lt=Now() - timedelta(days=days))
