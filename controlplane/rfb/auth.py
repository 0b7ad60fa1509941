"""VNC authentication (RFC 6143 §7.2.2): a DES challenge and response."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

CHALLENGE_LENGTH: Final = 16
KEY_LENGTH: Final = 8


def vnc_response(password: str, challenge: bytes) -> bytes:
    """Answer a server's 16-byte ``challenge`` with the 16 bytes that prove ``password``.

    Only the first eight characters count. Raises ValueError, which never repeats the password,
    when they are not all Latin-1 or when the challenge has another length.
    """
    if len(challenge) != CHALLENGE_LENGTH:
        raise ValueError(f"a challenge has {CHALLENGE_LENGTH} bytes, this one {len(challenge)}")
    # Triple DES with one key three times is single DES, which the library no longer offers.
    # ECB because the protocol says so: the two blocks are encrypted independently.
    cipher = Cipher(TripleDES(_key(password) * 3), modes.ECB())  # noqa: S305  (see above)
    encryptor = cipher.encryptor()
    return encryptor.update(challenge) + encryptor.finalize()


def _key(password: str) -> bytes:
    try:
        plain = password[:KEY_LENGTH].encode("latin-1")
    except UnicodeEncodeError:
        # "from None": that error quotes the password.
        raise ValueError("the password has characters outside Latin-1") from None
    return bytes(_mirrored(byte) for byte in plain.ljust(KEY_LENGTH, b"\0"))


def _mirrored(byte: int) -> int:
    """Reverse the bits of a byte: VNC takes DES keys with the lowest bit first."""
    return int(f"{byte:08b}"[::-1], 2)
