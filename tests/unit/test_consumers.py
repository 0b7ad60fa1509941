"""consumers.py: what a stream keeps of the request that opened it, which is nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controlplane import consumers

TOKEN = "desktopctl.token.abc"


def request(headers: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "headers": headers,
        "subprotocols": ["desktopctl.v1", TOKEN],
        "url_route": {"kwargs": {"slug": "desk"}},
    }


@pytest.fixture
def admitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let everybody in, to a stream that ends at once; collect the tokens."""
    tokens: list[str] = []

    async def admit(token: str, slug: str) -> object:
        tokens.append(token)
        return object()

    async def run(admission: object) -> None:
        """It is over."""

    monkeypatch.setattr(consumers, "_admissions", SimpleNamespace(admit=admit))
    monkeypatch.setattr(consumers, "Stream", lambda *_: SimpleNamespace(run=run))
    return tokens


async def receive() -> dict[str, Any]:
    return {"type": "websocket.connect"}


async def send(message: dict[str, Any]) -> None:
    """Accept."""


async def test_an_open_stream_has_forgotten_its_cookies_and_its_token(admitted: list[str]) -> None:
    headers = [(b"host", b"localhost"), (b"cookie", b"sessionid=abc")]
    scope = request(headers)
    await consumers.DisplayConsumer()(scope, receive, send)
    assert admitted == ["abc"]
    assert not headers  # the very list that the server and all in between hold, too
    assert not scope["subprotocols"]


async def test_headers_that_cannot_be_emptied_end_no_stream(admitted: list[str]) -> None:
    await consumers.DisplayConsumer()(request(((b"host", b"localhost"),)), receive, send)
    assert admitted == ["abc"]
