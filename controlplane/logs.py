"""Log lines: for people or as JSON, with the ids of what they are about, and without secrets.

Secrets are tokens, tickets and client_ids, also when they came in a URL, and every query of what a
server logs of a request.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

FORMATS = ("console", "json")

_SECRETS = re.compile(r"(token=|ticket=|client_id=|desktopctl\.token\.)[^\s&\"',)\]]+")

# A dict that all tasks and threads of a request or stream share: what one notes, the others tell.
_ids: ContextVar[dict[str, object] | None] = ContextVar("ids", default=None)


def begin(request_id: str) -> None:
    """From here on, and in whatever is started from here, lines are about this request."""
    _ids.set({"request_id": request_id})


def note(**ids: object) -> None:
    """Add to the ids of the request: ``stream_id``, ``workspace``, ``user_id``."""
    ids_here = _ids.get()
    if ids_here is not None:
        ids_here.update(ids)


def ids() -> Mapping[str, object]:
    """Return the ids of what is being done here; none in what serves all."""
    return _ids.get() or {}


class IdsFilter(logging.Filter):
    """Gives each record the ids of the request or stream in which it was written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, with ``record.ids``."""
        record.ids = ids()
        return True


class NoQueryFilter(logging.Filter):
    """Cuts off the queries of addresses in the lines of servers: codes and tokens stand there."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass without them."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_query, record.args))
        return True


def _without_query(value: object) -> object:
    is_address = isinstance(value, str) and value.startswith("/")
    return value.partition("?")[0] if is_address and isinstance(value, str) else value


class RedactingFormatter(logging.Formatter):
    """A line for people, traceback included; the request's id at its end."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line or lines."""
        return _redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Return the line, without a traceback."""
        request_id = getattr(record, "ids", {}).get("request_id")
        line = super().formatMessage(record)
        return f"{line} [{request_id}]" if request_id else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, process, message, ids; ``exception`` if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line."""
        found = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": _redacted(record.getMessage()),
            **getattr(record, "ids", {}),
        }
        if record.exc_info:
            found["exception"] = _redacted(self.formatException(record.exc_info))
        return json.dumps(found, ensure_ascii=False, default=str)


def _redacted(text: str) -> str:
    return _SECRETS.sub(r"\1[hidden]", text)
