"""Reading events one after the other without losing any.

Ids are given when a row is written, and rows become visible when their transactions commit: 12 may
be seen before 11. So whoever has seen 12 remembers that 11 is missing, and looks for it for a
minute; an id that is missing for longer was rolled back. Where to resume (``resume_points``) always
lies before what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from controlplane.models import ControlEvent

GAP_SECONDS = 60.0  # how long a transaction may take between its event and its commit
MAX_GAPS = 1000  # sequences jump after a crash, or by hand
READ_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Mark:
    """How far events have been seen: all up to ``top``, but not those in ``gaps``.

    ``gaps`` says until when (monotonic seconds) each missing id is waited for.
    """

    top: int
    gaps: Mapping[int, float] = field(default_factory=dict)

    def after(self, ids: Iterable[int], now: float) -> Mark:
        """Return the mark once ``ids`` have been seen as well."""
        seen = set(ids)
        top = max(seen | {self.top})
        gaps = {each: end for each, end in self.gaps.items() if each not in seen and end > now}
        missing = set(range(max(self.top, top - MAX_GAPS) + 1, top)) - seen
        return Mark(top, gaps | dict.fromkeys(sorted(missing), now + GAP_SECONDS))

    def has_seen(self, event_id: int) -> bool:
        """Whether this event has been seen, if there is one of this id."""
        return event_id <= self.top and event_id not in self.gaps

    @property
    def resume_point(self) -> int:
        """The id after which somebody who has been told of all that was seen may resume."""
        return min(self.gaps, default=self.top + 1) - 1

    def resume_points(self, ids: list[int]) -> list[int]:
        """Return the same for each of ``ids`` (seen, ascending), when those behind it are untold.

        It is the event's own id, or an older one where something before it is missing.
        """
        if not ids:
            return []
        ends = [*(following - 1 for following in ids[1:]), self.top]
        return [min(end, self.resume_point) for end in ends]


def begin(now: float) -> Mark:
    """Return the mark of somebody who has seen all there is. One query."""
    newest = ControlEvent.objects.order_by("-id").annotate(db_now=Now())
    rows = list(newest.values_list("id", "at", "db_now")[:READ_AT_ONCE])
    ids = [event_id for event_id, _, _ in rows]
    young = timedelta(seconds=GAP_SECONDS)
    oldest_young = min((pk for pk, at, db_now in rows if db_now - at < young), default=None)
    if oldest_young is None:
        return Mark(max(ids, default=0))
    settled = max((pk for pk in ids if pk < oldest_young), default=oldest_young - 1)
    return Mark(settled).after((pk for pk in ids if pk > settled), now)


def read(mark: Mark) -> list[ControlEvent]:
    """Return what can be seen now and has not been, by id: ``READ_AT_ONCE`` at most. One query."""
    unseen = Q(id__gt=mark.top) | Q(id__in=list(mark.gaps))
    return list(ControlEvent.objects.filter(unseen).order_by("id")[:READ_AT_ONCE])


def recent() -> list[ControlEvent]:
    """Return the newest events by id, ``READ_AT_ONCE`` at most. One query."""
    return list(ControlEvent.objects.order_by("-id")[:READ_AT_ONCE])[::-1]
