"""An authenticator app, written from RFC 6238: it is to agree with what the server takes."""

from __future__ import annotations

import base64
import hmac
import re
import struct
import time


def code_of(secret: str, at: float | None = None) -> str:
    """Return the six digits that a phone shows at that time: now, unless it is given."""
    step = int(time.time() if at is None else at) // 30
    digest = hmac.new(base64.b32decode(secret), struct.pack(">Q", step), "sha1").digest()
    start = digest[-1] & 15
    (number,) = struct.unpack(">I", digest[start : start + 4])
    return f"{(number & 0x7FFFFFFF) % 1_000_000:06}"


def wrong_code(secret: str) -> str:
    """Return six digits that it does not show now, nor a little before or after."""
    near = {code_of(secret, time.time() + 30 * step) for step in range(-3, 4)}
    return next(digits for digits in map(str, range(100_000, 999_999)) if digits not in near)


def secret_in(page: str) -> str:
    """Return the secret that the page of enrolling shows for typing."""
    shown = re.search(r'<code class="secret">([A-Z2-7 ]+)</code>', page)
    assert shown, page
    return shown[1].replace(" ", "")


def recovery_codes_in(page: str) -> list[str]:
    """Return the codes on the page that shows them once."""
    return re.findall(r"<li><code>(\d+)</code></li>", page)
