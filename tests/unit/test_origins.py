"""Which pages may open a display: ours by scheme, host and port; never a foreign one."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import origins
from controlplane.exceptions import StreamForbidden


@pytest.fixture(autouse=True)
def addresses(settings: Any) -> None:
    settings.PUBLIC_URL = "https://desk.example"
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "desk.example"]
    settings.EMBED_ORIGINS = ["https://portal.example:8443"]


def scope(origin: str | None, host: str = "localhost:8000", scheme: str = "ws") -> dict[str, Any]:
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode("latin-1")))
    return {"type": "websocket", "scheme": scheme, "headers": headers}


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        (None, "localhost:8000", "ws"),  # a program, not a page
        ("http://localhost:8000", "localhost:8000", "ws"),
        ("http://LOCALHOST:8000", "localhost:8000", "ws"),
        ("http://localhost", "localhost", "ws"),
        ("http://localhost:80", "localhost", "ws"),
        ("https://localhost:8000", "localhost:8000", "wss"),
        ("http://[::1]:8000", "[::1]:8000", "ws"),
        ("https://desk.example", "localhost:8000", "ws"),
        ("https://desk.example:443", "localhost:8000", "ws"),
        ("https://portal.example:8443", "localhost:8000", "ws"),
    ],
)
def test_a_page_of_ours_is_let_in(origin: str | None, host: str, scheme: str) -> None:
    origins.check(scope(origin, host, scheme))


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://evil.example", "localhost:8000", "ws"),
        ("http://localhost:8001", "localhost:8000", "ws"),
        ("http://localhost", "localhost:8000", "ws"),
        ("https://localhost:8000", "localhost:8000", "ws"),
        ("http://localhost:8000", "localhost:8000", "wss"),
        ("http://desk.example", "localhost:8000", "ws"),
        ("https://desk.example.evil.example", "localhost:8000", "ws"),
        ("https://evil-desk.example", "localhost:8000", "ws"),
        ("https://portal.example", "localhost:8000", "ws"),
        ("http://evil.example", "evil.example", "ws"),  # a host that is not ours
        ("null", "localhost:8000", "ws"),
        ("file://", "localhost:8000", "ws"),
        ("chrome-extension://abc", "localhost:8000", "ws"),
        ("http://", "localhost:8000", "ws"),
        ("http://localhost:x", "localhost:8000", "ws"),
        ("http://[::1", "localhost:8000", "ws"),
        ("\xff\xfe", "localhost:8000", "ws"),
    ],
)
def test_a_foreign_page_is_kept_out(origin: str, host: str, scheme: str) -> None:
    with pytest.raises(StreamForbidden):
        origins.check(scope(origin, host, scheme))


@pytest.mark.parametrize("origin", ["null", "file://", "http://x:y"])
@pytest.mark.parametrize("host", ["localhost:port", "localhost:99999", ""])
def test_what_cannot_be_read_is_equal_to_nothing_not_even_to_what_cannot_be_read(
    origin: str, host: str, settings: Any
) -> None:
    settings.EMBED_ORIGINS = ["portal.example"]  # a mistake: it has no scheme
    settings.PUBLIC_URL = "nonsense"
    with pytest.raises(StreamForbidden):
        origins.check(scope(origin, host))


def test_where_any_host_is_allowed_the_page_must_still_be_of_the_same_one(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    origins.check(scope("http://anything.example", "anything.example"))
    with pytest.raises(StreamForbidden):
        origins.check(scope("http://evil.example", "anything.example"))
