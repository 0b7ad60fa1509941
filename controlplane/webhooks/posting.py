"""One POST to a server whose address somebody has entered, and nothing but its answer's status.

The name is resolved anew each time, and it is the address found then that is judged and dialled: a
name that led to a public server when it was entered may lead into our own network now. No redirect
is followed, no proxy asked, nothing of the answer read but its head, and all of it has one limit
of time.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import urlsplit

import h11

from controlplane import connecting
from controlplane.connecting import Place, reason_of
from controlplane.destinations import RESERVED, Network, numeric
from controlplane.exceptions import PostFailed

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
READ_BYTES: Final = 4096
HEAD_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send. ``target``, path and query, may hold secrets: it is for the request only."""

    scheme: str
    host: str
    port: int
    target: str

    def check(self, allowed: Iterable[Network]) -> None:
        """Raise PostFailed where it is clear, without resolving anything, that it may not be."""
        try:
            ip = numeric(self.host)
        except ValueError:
            return
        if not may_be_told(ip, allowed):
            raise _forbidden(self.host)

    @property
    def authority(self) -> str:
        """The host as the request names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_endpoint(url: str) -> Endpoint:
    """Return what ``url`` names; PostFailed, which does not repeat it, where it is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise PostFailed("This is not an address.") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
        raise PostFailed("It must be an address that starts with https:// or http://.")
    if not re.fullmatch(r"[!-~]+", url):
        raise PostFailed("Only printable ASCII characters, without blanks.")
    if parts.username is not None or parts.fragment:
        raise PostFailed("It must have neither a user nor a part behind #.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], target)


def may_be_told(ip: IPv4Address | IPv6Address, allowed: Iterable[Network]) -> bool:
    """Whether ``ip`` is a public address, or in one of the networks that are allowed."""
    if any(ip in network for network in allowed):
        return True
    is_reserved = any(ip in network for network in RESERVED)
    return ip.is_global and not ip.is_multicast and not is_reserved


async def post(
    endpoint: Endpoint,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allowed: Sequence[Network],
    seconds: float,
) -> int:
    """Send ``body`` and return the answer's status, whatever it is.

    Raises PostFailed where there was none, or where ``endpoint`` is not to be dialled.
    """
    try:
        async with asyncio.timeout(seconds):
            sock = await connecting.connect(await _places(endpoint, allowed), seconds)
            return await _post(sock, endpoint, headers, body)
    except TimeoutError:
        raise PostFailed(f"no answer within {seconds:g} s") from None
    except ssl.SSLError as error:
        raise PostFailed(f"TLS with {endpoint.host}: {reason_of(error)}") from None
    except OSError as error:
        raise PostFailed(f"{endpoint.host}: {reason_of(error)}") from None


async def _post(
    sock: socket.socket, endpoint: Endpoint, headers: Mapping[str, str], body: bytes
) -> int:
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=connecting.tls() if endpoint.scheme == "https" else None,
            server_hostname=endpoint.host if endpoint.scheme == "https" else None,
        )
    except BaseException:
        sock.close()
        raise
    try:
        return await _ask(reader, writer, _head(endpoint, headers, body), body)
    finally:
        writer.transport.abort()  # what else it has to say is not waited for


def _head(endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> h11.Request:
    always = {
        "Host": endpoint.authority,
        "User-Agent": "desktopctl",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = list({**always, **headers}.items())
    return h11.Request(method="POST", target=endpoint.target, headers=lines)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: h11.Request, body: bytes
) -> int:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
    for part in (head, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ_BYTES))
            elif isinstance(event, h11.Response):
                return event.status_code
            elif not isinstance(event, h11.InformationalResponse):
                raise PostFailed("it closed without an answer")
    except h11.RemoteProtocolError:
        raise PostFailed("its answer is not HTTP") from None


async def _places(endpoint: Endpoint, allowed: Sequence[Network]) -> list[Place]:
    """Return where to try, of where that is allowed."""
    found = await connecting.resolve(endpoint.host, endpoint.port)
    permitted = [each for each in found if may_be_told(numeric(str(each[1][0])), allowed)]
    if not permitted:
        addresses = dict.fromkeys(str(place[0]) for _, place in found)
        raise _forbidden(f"{endpoint.host} ({', '.join(addresses)})")
    return permitted


def _forbidden(what: str) -> PostFailed:
    return PostFailed(f"{what} is no public address; WEBHOOK_ALLOW lists which others may be told.")
