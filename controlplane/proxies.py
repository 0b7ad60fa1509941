"""X-Forwarded-* and X-Request-ID: believed from TRUSTED_PROXIES, removed from all others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from django.conf import settings

from controlplane.exceptions import ConfigError

Network = IPv4Network | IPv6Network
Scope = dict[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}
REQUEST_ID = "desktopctl.request_id"  # in the scope: what the proxy calls this request


def parse_networks(name: str, texts: Iterable[str]) -> list[Network]:
    """Return the networks (``10.0.0.0/8``, ``::1``) that setting ``name`` lists."""
    try:
        return [ip_network(text.strip()) for text in texts]
    except ValueError as error:
        raise ConfigError(name, str(error)) from None


class TrustedProxies:
    """ASGI middleware: sets scheme, host and client of requests that came through our proxies."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass the request on, seen as the outermost trusted proxy saw it."""
        if scope["type"] in {"http", "websocket"}:
            scope = _seen_by_the_proxy(scope)
        await self._application(scope, receive, send)


def _seen_by_the_proxy(scope: Scope) -> Scope:
    forwarded = {
        name: value.decode("latin-1") for name, value in scope["headers"] if name in _FORWARDED
    }
    if not forwarded:
        return scope
    plain = [(name, value) for name, value in scope["headers"] if name not in _FORWARDED]
    if not _is_trusted(scope["client"][0] if scope.get("client") else ""):
        return {**scope, "headers": plain}
    return {
        **scope,
        "scheme": _scheme(scope, forwarded.get(b"x-forwarded-proto", "")),
        "client": _client(scope, forwarded.get(b"x-forwarded-for", "")),
        "headers": _with_host(plain, forwarded.get(b"x-forwarded-host", "")),
        REQUEST_ID: forwarded.get(b"x-request-id", ""),
    }


def _is_trusted(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False  # a unix socket, or a name: never a network
    address = getattr(address, "ipv4_mapped", None) or address  # of a socket for both versions
    return any(address in network for network in settings.TRUSTED_PROXIES)


def _scheme(scope: Scope, proto: str) -> str:
    is_secure = {"https": True, "http": False}.get(proto.strip().lower())
    if is_secure is None:
        return str(scope["scheme"])
    base = "ws" if scope["type"] == "websocket" else "http"
    return f"{base}s" if is_secure else base


def _client(scope: Scope, chain: str) -> Any:
    """The last address of the chain that is not a trusted proxy: those before it may be made up."""
    hops = [hop.strip() for hop in chain.split(",") if hop.strip()]
    outside = next((hop for hop in reversed(hops) if not _is_trusted(hop)), None)
    return [outside, 0] if outside else scope.get("client")


def _with_host(headers: list[tuple[bytes, bytes]], host: str) -> list[tuple[bytes, bytes]]:
    if not host:
        return headers
    return [(b"host", host.encode("latin-1")), *(item for item in headers if item[0] != b"host")]
