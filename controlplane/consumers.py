"""The display websocket's consumer (design §5, §7): accept, admit by token, run the stream.

It is a Channels consumer, but without Channels' dispatch (streams.py tells why).
"""

from __future__ import annotations

import logging
from typing import Any

from channels.consumer import AsyncConsumer
from django.db import Error as AnyDatabaseError

from controlplane import logs, metrics, origins
from controlplane.admissions import Admissions
from controlplane.closecodes import CloseCode, code_of
from controlplane.displaysocket import DisplaySocket, token_of
from controlplane.exceptions import StreamRefused
from controlplane.streams import Stream, threads
from controlplane.tokens import Admission

logger = logging.getLogger(__name__)

_admissions = Admissions(threads)


class DisplayConsumer(AsyncConsumer):
    """Admits a websocket by its token, then runs its stream until one side ends it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one websocket from accept to close (ASGI)."""
        socket = DisplaySocket(scope, receive, send)
        await socket.accept()
        admission = await self._admit(scope, socket)
        if admission is None:
            return
        running = Stream(socket, admission).run(admission)
        del admission  # a stream lives for hours: it keeps none of the rows that let it in
        _forget_request(scope)
        await running

    async def _admit(self, scope: Any, socket: DisplaySocket) -> Admission | None:
        slug = scope["url_route"]["kwargs"]["slug"]
        logs.note(workspace=slug)
        try:
            origins.check(scope)
            return await _admissions.admit(token_of(scope), slug)
        except StreamRefused as error:
            logger.info("stream of %s refused: %s", slug, error.detail)
            ending = code_of(error), error.detail
        except AnyDatabaseError as error:
            logger.error("stream of %s refused: the database is away: %s", slug, error)
            ending = CloseCode.RESTARTING, "The database is away."
        metrics.stream_ends.labels(int(ending[0])).inc()
        await socket.close(*ending)
        return None


def _forget_request(scope: Any) -> None:
    """Let go of cookies, token and the like: all who have passed the scope on hold these lists."""
    for name in ("headers", "subprotocols"):
        if isinstance(scope.get(name), list):  # as with uvicorn and Daphne; ASGI does not say so
            scope[name].clear()
