"""Long polls: a call that is to wait is answered by Django twice, and waits outside of it.

A view that has nothing new to tell marks its answer with ``wait``. Then that answer is thrown away,
the wait takes place on the event loop, without a thread and without a database connection, and the
call goes to Django again: who may no longer watch is told so, with the right status. What it waits
for is in ``waiting.py``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from django.http import HttpRequest, HttpResponse

from controlplane import waiting
from controlplane.waiting import Mark

MAX_SECONDS = 60
END_SECONDS = 1.0

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADER = "X-Desktopctl-Wait"  # between the view and us: it never leaves the process
_RAW_HEADER = _HEADER.lower().encode()
_HAS_WAITED = "desktopctl.has_waited"


def has_waited(request: HttpRequest) -> bool:
    """Whether this is the second time that the view sees the call: then it must answer."""
    scope: Scope | None = getattr(request, "scope", None)
    return scope is None or _HAS_WAITED in scope  # without a scope, nobody would wait


def wait(response: HttpResponse, workspace_id: int, mark: Mark, seconds: float) -> None:
    """Have the call wait until control of the workspace is not as ``mark`` says."""
    response[_HEADER] = json.dumps([workspace_id, mark, seconds])


_calls: set[asyncio.Task[Any]] = set()
"""Those that wait, or are answered after they have waited."""


async def end_all() -> None:
    """Answer all who wait, for the process ends; return when that is done, or in a second."""
    waiting.current().end_all()
    if _calls:
        await asyncio.wait(_calls, timeout=END_SECONDS)


class LongPolls:
    """Wraps Django's ASGI application."""

    def __init__(self, application: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on; once more, after a wait, where the view asks for that."""
        if scope["type"] != "http" or b"wait=" not in scope["query_string"]:
            return await self._application(scope, receive, send)
        first = _FirstAnswer(send)
        await self._application(scope, receive, first)
        if first.wait is None:
            return None
        task = asyncio.current_task()
        assert task is not None
        _calls.add(task)
        try:
            workspace_id, mark, seconds = json.loads(first.wait)
            change = waiting.current().until_changed(workspace_id, Mark(*mark), seconds)
            if await _is_over_before(receive, change):
                await self._application({**scope, _HAS_WAITED: True}, _WithoutBody(receive), send)
        finally:
            _calls.discard(task)
        return None


class _FirstAnswer:
    """Sends an answer on, or keeps only how long the view wants to wait."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.wait: bytes | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message["headers"]}
            self.wait = headers.get(_RAW_HEADER)
        if self.wait is None:
            await self._send(message)


async def _is_over_before(receive: Receive, change: Awaitable[None]) -> bool:
    """Wait for the change; return whether the caller is still there."""
    waits = asyncio.ensure_future(change)
    leaves = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([waits, leaves], return_when=asyncio.FIRST_COMPLETED)
        return waits.done()
    finally:
        for task in (waits, leaves):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _WithoutBody:
    """What Django receives the second time: an empty body, then what the server says."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_first = True

    async def __call__(self) -> Message:
        if not self._is_first:
            return await self._receive()
        self._is_first = False
        return {"type": "http.request", "body": b"", "more_body": False}
