"""Encryption with keys derived from SECRET_KEY: for passwords at rest and for session tokens.

Fernet (AES-128-CBC and HMAC-SHA256) from ``cryptography``; a key for each purpose comes from
HKDF-SHA256 (RFC 5869), so a token can never be mistaken for a stored password. Text written with
an older key stays readable while that key is in SECRET_KEY_FALLBACKS.
"""

from __future__ import annotations

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Unreadable(Exception):
    """The text was not written with any of our keys, or has been changed since."""


def encrypt(purpose: str, text: str) -> str:
    """Return ``text`` encrypted with the newest key for ``purpose``, in URL-safe base64."""
    return _cipher(purpose).encrypt(text.encode()).decode()


def decrypt(purpose: str, text: str) -> str:
    """Return what ``encrypt`` was given; raise Unreadable where no key fits."""
    try:
        return _cipher(purpose).decrypt(text.encode()).decode()
    except InvalidToken:
        raise Unreadable(purpose) from None


def _cipher(purpose: str) -> MultiFernet:
    return _cipher_of(purpose, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=16)
def _cipher_of(purpose: str, secrets: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_derive(secret, purpose)) for secret in secrets])


def _derive(secret: str, purpose: str) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=32, salt=b"desktopctl", info=purpose.encode())
    return base64.urlsafe_b64encode(kdf.derive(secret.encode()))
