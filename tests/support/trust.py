"""What the tests' HTTP clients trust, read once: each would take 20 ms of the processor for it."""

from __future__ import annotations

import os
import ssl
from functools import cache

import httpx


def trusted() -> ssl.SSLContext:
    """Return what httpx makes for a client by itself, for its option ``verify``."""
    return _read(os.environ.get("SSL_CERT_FILE"))


@cache
def _read(file: str | None) -> ssl.SSLContext:  # from which httpx reads it is in the environment
    return httpx.create_ssl_context()
