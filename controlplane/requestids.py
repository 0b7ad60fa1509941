"""Every request and websocket has an id: in its log lines, and in the answer (``X-Request-ID``)."""

from __future__ import annotations

import re
import secrets
from typing import Any

from controlplane import logs
from controlplane.proxies import REQUEST_ID, Application, Scope

_FIT = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # it goes into lines and headers


class RequestIds:
    """ASGI middleware, behind TrustedProxies: takes the proxy's id, or makes one."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass the request on, with its id in the context."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._application(scope, receive, send)
        request_id = _fitting(scope.get(REQUEST_ID, "")) or secrets.token_hex(8)
        logs.begin(request_id)
        if scope["type"] == "http":
            send = _Answer(send, request_id)
        return await self._application(scope, receive, send)


def _fitting(request_id: str) -> str:
    return request_id if _FIT.fullmatch(request_id) else ""


class _Answer:
    """Sends an answer with the request's id among its headers."""

    def __init__(self, send: Any, request_id: str) -> None:
        self._send = send
        self._header = (b"x-request-id", request_id.encode())

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        await self._send(message)
