"""Which pages may open a display websocket: browsers let any page try, with our cookies or not."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from controlplane.exceptions import StreamForbidden

_PORTS = {"http": 80, "https": 443}
_HTTP = {"ws": "http", "wss": "https", "http": "http", "https": "https"}

Origin = tuple[str, str, int | None]


def check(scope: dict[str, Any]) -> None:
    """Raise StreamForbidden unless the page is ours, PUBLIC_URL's or an embedding one.

    Compares scheme, host and port. A program that sends no Origin is let through: what it may do,
    its token decides.
    """
    headers = dict(scope["headers"])
    sent = headers.get(b"origin", b"").decode("latin-1")
    if not sent:
        return
    allowed = {_parse(url) for url in (settings.PUBLIC_URL, *settings.EMBED_ORIGINS)}
    own = _own(_HTTP[scope.get("scheme", "ws")], headers.get(b"host", b"").decode("latin-1"))
    origin = _parse(sent)  # None for “null”, which any page can send: equal to nothing, then
    if origin is None or origin not in allowed | own:
        raise StreamForbidden("A page from another address may not open this display.")


def _own(scheme: str, host: str) -> set[Origin | None]:
    """The origin under which the request itself came, if that is a name of ours at all."""
    domain, _ = split_domain_port(host)
    if not validate_host(domain, settings.ALLOWED_HOSTS):
        return set()
    return {_parse(f"{scheme}://{host}")}


def _parse(origin: str) -> Origin | None:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]
