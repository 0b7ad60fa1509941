"""Addresses of desktops, and which of them may be dialled (``DISPLAY_UPSTREAM_ALLOW``).

A name is resolved anew at each connect, and it is the address found then that is judged: a name
that was harmless when it was entered may point elsewhere tomorrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import SplitResult, urlsplit

from controlplane.exceptions import ConfigError, UpstreamError

DEFAULT_PORTS: Final = {"tcp": 5900, "ws": 80, "wss": 443}
UNIX: Final = "unix"

RESERVED: Final = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local (RFC 3927): most clouds' metadata services
        "fe80::/10",  # link-local (RFC 4291)
        "fd00:ec2::/32",  # metadata services outside of it
        "fd00:c1::/32",
        "fd20:ce::/32",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
    )
)
"""Never dialled unless a listed network covers them: what answers there trusts whoever can ask."""

_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052
_NAME_PATTERN = re.compile(r"(?=.*[a-z*])[a-z0-9*?_][a-z0-9*?_-]*(\.[a-z0-9*?_-]+)*")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """Where a desktop is. ``url`` is what was configured, without its query, which may be secret.

    ``path`` is the socket's file for ``unix``, where ``host`` is empty and ``port`` 0.
    """

    scheme: str
    host: str
    port: int
    path: str
    url: str

    def __str__(self) -> str:
        return f"{self.path}" if self.scheme == UNIX else f"{self.host} port {self.port}"


def parse_url(url: str) -> Address:
    """Return the address that ``url`` names, or raise UpstreamError (step ``resolve``)."""
    shown = re.split(r"[?#]", url, maxsplit=1)[0]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _unusable(shown, f"is not an address: {error}") from None
    if parts.username or parts.password:
        raise UpstreamError("resolve", "the address must not contain a user or a password")
    if parts.fragment:
        raise _unusable(shown, "has a part behind #, which no address of a desktop has")
    if parts.scheme == UNIX:
        return _unix_address(parts, shown)
    if parts.scheme not in DEFAULT_PORTS:
        raise _unusable(shown, "must start with tcp://, unix://, ws:// or wss://")
    if not parts.hostname:
        raise _unusable(shown, "names no host")
    if port == 0:
        raise _unusable(shown, "has port 0, which there is not")
    if parts.scheme == "tcp" and (parts.path.strip("/") or parts.query):
        raise _unusable(shown, "has a path, but tcp:// takes a host and a port only")
    number = port or DEFAULT_PORTS[parts.scheme]
    return Address(parts.scheme, parts.hostname, number, parts.path, shown)


def _unix_address(parts: SplitResult, shown: str) -> Address:
    if parts.netloc or not parts.path.startswith("/") or ".." in PurePosixPath(parts.path).parts:
        raise _unusable(shown, "must be unix:///path/of/the/socket")
    if parts.query:
        raise _unusable(shown, "has a query, but unix:// takes a path only")
    return Address(UNIX, "", 0, parts.path, shown)


def _unusable(shown: str, problem: str) -> UpstreamError:
    return UpstreamError("resolve", f"“{shown}” {problem}")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Which addresses may be dialled. Nothing listed permits all but the reserved ones."""

    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    directories: tuple[PurePosixPath, ...] = ()

    def check(self, address: Address) -> None:
        """Raise UpstreamError where it is clear, without resolving anything, that it may not be."""
        if address.scheme == UNIX:
            if not self._permits_socket(address.path):
                raise _forbidden(address.path)
        elif (literal := _literal(address.host)) and not self._permits(address.host, literal):
            raise _forbidden(address.host)

    def permitted(self, host: str, found: Iterable[str]) -> list[str]:
        """Return those of the numeric addresses ``found`` for ``host`` that may be dialled.

        Raises UpstreamError (step ``resolve``) where none may.
        """
        addresses = list(found)
        permitted = [each for each in addresses if self._permits(host, numeric(each))]
        if not permitted:
            raise _forbidden(f"{host} ({', '.join(dict.fromkeys(addresses))})")
        return permitted

    @property
    def _is_open(self) -> bool:
        return not (self.networks or self.names or self.directories)

    def _permits(self, host: str, ip: IPv4Address | IPv6Address) -> bool:
        if any(ip in network for network in self.networks):
            return True
        if ip.is_multicast or any(ip in network for network in RESERVED):
            return False
        return self._is_open or any(fnmatchcase(host.lower(), name) for name in self.names)

    def _permits_socket(self, path: str) -> bool:
        parents = PurePosixPath(path).parents
        return self._is_open or any(directory in parents for directory in self.directories)


ANYWHERE: Final = Destinations()


def _forbidden(what: str) -> UpstreamError:
    return UpstreamError("resolve", f"{what} is not where desktops may be: DISPLAY_UPSTREAM_ALLOW")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return numeric(host)
    except ValueError:
        return None


def numeric(text: str) -> IPv4Address | IPv6Address:
    """Return the address, unwrapped where it is an IPv4 address in IPv6 clothes."""
    ip = ip_address(text.partition("%")[0])  # without the zone of a link-local address
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def parse_destinations(name: str, entries: Iterable[str]) -> Destinations:
    """Return what setting ``name`` lists: networks, names with ``*``, ``unix:///directory/``.

    Raises ConfigError, naming the setting and the entry.
    """
    networks: list[Network] = []
    names: list[str] = []
    directories: list[PurePosixPath] = []
    for entry in filter(None, (each.strip() for each in entries)):
        if entry.startswith("unix:///"):
            directories.append(PurePosixPath(entry.removeprefix("unix://")))
        elif network := _network(entry):
            networks.append(network)
        elif _NAME_PATTERN.fullmatch(entry.lower()):
            names.append(entry.lower())
        else:
            raise ConfigError(
                name, f"“{entry}” is neither a network, nor a host name, nor unix:///directory/"
            )
    return Destinations(tuple(networks), tuple(names), tuple(directories))


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None
