"""A stream of server-sent events without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx

from tests.support.timing import limit


@dataclass(frozen=True)
class Event:
    """One event as the server has sent it."""

    name: str
    data: dict[str, Any]
    id: str | None = None


class EventStream:
    """An open stream. ``last_id`` is where to resume; ``close_all`` closes every one there is."""

    all_opened: ClassVar[list[ExitStack]] = []

    def __init__(self, http: httpx.Client, path: str, **headers: str) -> None:
        self._opened = ExitStack()
        self.all_opened.append(self._opened)
        self.response = self._opened.enter_context(
            http.stream("GET", path, headers=headers, timeout=limit(3))
        )
        self._lines = self.response.iter_lines()
        self.last_id = headers.get("Last-Event-ID", "")
        self.retry_ms = 0

    @classmethod
    def close_all(cls) -> None:
        """Close every stream there is."""
        while cls.all_opened:
            cls.all_opened.pop().close()

    def close(self) -> None:
        """Go away, as a page that is closed."""
        self._opened.close()

    def next(self) -> Event | None:
        """Return the next event; None where the stream has ended."""
        fields: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if not line and "event" in fields:
                self.last_id = fields.get("id", self.last_id)
                return Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
            if name == "retry":
                self.retry_ms = int(value)
            elif name:  # what has none is a comment
                fields[name] = value
        return None

    def until(self, condition: Callable[[Event], bool]) -> list[Event]:
        """Return all events up to the first that fulfils ``condition``."""
        events: list[Event] = []
        while (event := self.next()) is not None:
            events.append(event)
            if condition(event):
                return events
        raise AssertionError(f"the stream has ended after {events}")

    def control_of(self, slug: str, what: str | None = None) -> dict[str, Any]:
        """Return the data of the next ``control`` of a workspace, for an event of this kind."""
        return self.until(
            lambda event: (
                event.name == "control"
                and event.data["workspace"] == slug
                and (event.data["happened"] or {}).get("what") == what
            )
        )[-1].data

    def ended(self) -> bool:
        """Read until the end; True when it has come."""
        while self.next() is not None:
            pass
        return True
