"""Connecting to servers whose names others have entered.

A name is resolved anew each time, the caller judges what was found, and it is these very addresses
that are connected to: a name that leads elsewhere a moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

Place = tuple[int, Any]
"""A socket's family and address."""


async def resolve(host: str, port: int) -> list[Place]:
    """Return where a host can be reached; OSError where there is no such host."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("this is no host name") from None
    return [(info[0], info[4]) for info in found]


async def connect(places: Sequence[Place], seconds: float) -> socket.socket:
    """Return a socket that is connected to the first place that answers; there must be one.

    The time is divided among them, so that one that is silent does not use it up. Raises what the
    last one failed with: OSError, of which TimeoutError is a kind.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        share = (deadline - asyncio.get_running_loop().time()) / left
        try:
            return await _connect_to(place, share)
        except OSError as error:
            failure = error
    raise failure


async def _connect_to(place: Place, seconds: float) -> socket.socket:
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


@lru_cache(maxsize=2)
def tls(ca_file: Path | None = None) -> ssl.SSLContext:
    """Certificates are always verified. A changed file counts from the next start on."""
    return ssl.create_default_context(cafile=ca_file)


def reason_of(error: Exception) -> str:
    """Return in words why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not count: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower()
    if isinstance(error, socket.gaierror):  # its numbers are not those of errno
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error).lower() or type(error).__name__
