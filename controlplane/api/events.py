"""Server-sent events: all that happens in the workspaces that the caller may watch."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Header, Query, Router

from controlplane.api.auth import session_key_of, user_of
from controlplane.api.errors import FAILURES
from controlplane.feed import eventstreams
from controlplane.feed.reader import Caller
from controlplane.models import CLIENT_ID_PATTERN

_EVENT_ID = r"^[0-9]{0,18}$"
_AS_STREAM: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Never ends by itself.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }
}

router = Router(tags=["events"])


class EventStreamResponse(StreamingHttpResponse):
    """A response that tells the feed when the server is through with it."""

    def __init__(self, listener: eventstreams.Listener) -> None:
        super().__init__(
            eventstreams.current().stream(listener),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._listener = listener

    def close(self) -> None:
        """Close it, and say so: at shutdown that is waited for."""
        super().close()
        self._listener.note_closed()


@router.get("/events", response=FAILURES, openapi_extra=_AS_STREAM)
def get_events(
    request: HttpRequest,
    client_id: Annotated[str, Query(pattern=rf"{CLIENT_ID_PATTERN}|^$")] = "",
    last_seen: Annotated[str, Query(alias="last_event_id", pattern=_EVENT_ID)] = "",
    last_event_id: Annotated[str, Header(alias="Last-Event-ID", pattern=_EVENT_ID)] = "",
) -> EventStreamResponse:
    """Tell how things are, then what changes.

    `hello` comes first. `control` tells who has control of a workspace and what has `happened`, or
    null where no event stands behind the change; `viewers` and `display` what their names say;
    `gone` that the caller may not watch it any more. The id of a message is where to resume: in the
    header `Last-Event-ID`, or, as a browser's EventSource cannot send one at first, in the query.
    """
    resume_after = last_event_id or last_seen
    caller = Caller(user_of(request).pk, client_id, session_key_of(request))
    listener = eventstreams.current().admit(caller, int(resume_after) if resume_after else None)
    return EventStreamResponse(listener)
