"""What only a proxy may say: X-Forwarded-*, X-Request-ID, and who has signed in there.

It is believed from the networks of TRUSTED_PROXIES, and removed from the requests of all others.
Many proxies pass on the X-Request-ID of clients: theirs needs TRUST_REQUEST_ID besides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from django.conf import settings

from controlplane.exceptions import ConfigError

Network = IPv4Network | IPv6Network
Scope = dict[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]

logger = logging.getLogger(__name__)

_FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}
REQUEST_ID = "desktopctl.request_id"  # in the scope: what the proxy calls this request


def parse_networks(name: str, texts: Iterable[str]) -> list[Network]:
    """Return the networks (``10.0.0.0/8``, ``::1``) that setting ``name`` lists."""
    try:
        return [ip_network(text.strip()) for text in texts]
    except ValueError as error:
        raise ConfigError(name, str(error)) from None


_HEADER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NEVER_AN_IDENTITY = {"authorization", "connection", "cookie", "host", "origin", "upgrade"}
_IDENTITY = "desktopctl.identity"  # in the scope, where no header of any spelling can come


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has signed in at a trusted proxy; ``groups`` is None where it is not asked for them."""

    user: str
    groups: tuple[str, ...] | None


def parse_header(name: str, text: str) -> str:
    """Return the header that setting ``name`` gives, in lower case; ConfigError if it is none."""
    header = text.strip().lower()
    is_taken = header.encode() in _FORWARDED or header in _NEVER_AN_IDENTITY
    if header and (is_taken or not _HEADER.fullmatch(header)):
        raise ConfigError(name, "must be the name of a header of its own, such as X-Remote-User")
    return header


def check_headers(user_header: str, groups_header: str, trusted: list[Network]) -> None:
    """Raise ConfigError where the settings of signing in at a proxy do not fit together."""
    if groups_header and not user_header:
        raise ConfigError("AUTH_PROXY_GROUPS_HEADER", "means nothing without AUTH_PROXY_HEADER")
    if user_header and user_header == groups_header:
        raise ConfigError("AUTH_PROXY_GROUPS_HEADER", "must be another one than AUTH_PROXY_HEADER")
    if user_header and not trusted:
        raise ConfigError("AUTH_PROXY_HEADER", "needs TRUSTED_PROXIES: nobody else is believed")


def identity_of(scope: Mapping[str, Any]) -> Identity | None:
    """Return who has signed in at the trusted proxy that the request came through, if anybody."""
    found: Identity | None = scope.get(_IDENTITY)
    return found


class TrustedProxies:
    """ASGI middleware: scheme, host, client and identity of requests through our proxies."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass the request on, seen as the outermost trusted proxy saw it."""
        if scope["type"] in {"http", "websocket"}:
            scope = _seen_by_the_proxy(_identified(scope))
        await self._application(scope, receive, send)


def _identified(scope: Scope) -> Scope:
    """Move the identity from the headers to where only we write, or to nowhere."""
    names = [settings.AUTH_PROXY_HEADER, settings.AUTH_PROXY_GROUPS_HEADER]
    spellings = {name.encode() for name in names if name}
    if not any(_spelling(name) in spellings for name, _ in scope["headers"]):
        return scope
    plain = [(name, value) for name, value in scope["headers"] if _spelling(name) not in spellings]
    identity = _read_identity(scope, *names) if _is_from_a_proxy(scope) else None
    return {**scope, "headers": plain, _IDENTITY: identity}


def _spelling(name: bytes) -> bytes:
    """For Django, and many a proxy, ``x_remote_user`` is the same header."""
    return name.lower().replace(b"_", b"-")


def _read_identity(scope: Scope, user_header: str, groups_header: str) -> Identity | None:
    """What is said twice may have been said by the client first: then nobody has signed in."""
    users, groups = (
        [value for name, value in scope["headers"] if name == header.encode()]
        for header in (user_header, groups_header)
    )
    if len(users) > 1 or len(groups) > 1:
        logger.warning("A proxy sent %s or its groups more than once: not believed", user_header)
        return None
    try:
        user = b"".join(users).decode().strip()
        names = [each.strip() for each in b"".join(groups).decode().split(",")]
    except UnicodeDecodeError:
        logger.warning("A proxy sent %s or its groups in another encoding than UTF-8", user_header)
        return None
    if not user:
        return None
    return Identity(user, tuple(sorted({*names} - {""})) if groups_header else None)


def _is_from_a_proxy(scope: Scope) -> bool:
    return _is_trusted(scope["client"][0] if scope.get("client") else "")


def _seen_by_the_proxy(scope: Scope) -> Scope:
    forwarded = {
        name: value.decode("latin-1") for name, value in scope["headers"] if name in _FORWARDED
    }
    if not forwarded:
        return scope
    plain = [(name, value) for name, value in scope["headers"] if name not in _FORWARDED]
    if not _is_from_a_proxy(scope):
        return {**scope, "headers": plain}
    return {
        **scope,
        "scheme": _scheme(scope, forwarded.get(b"x-forwarded-proto", "")),
        "client": _client(scope, forwarded.get(b"x-forwarded-for", "")),
        "headers": _with_host(plain, forwarded.get(b"x-forwarded-host", "")),
        REQUEST_ID: forwarded.get(b"x-request-id", "") if settings.TRUST_REQUEST_ID else "",
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
