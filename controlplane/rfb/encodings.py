"""Which encodings a browser may ask a desktop for.

What a client lists in SetEncodings decides which messages both sides may send from then on
(rfbproto, "Encodings"), so the list is cut down to what the proxy understands before the desktop
sees it. A whitelist, because every extension yet to be invented may carry input.

Left out on purpose:

- extended pointer events (-316): servers disagree on whether pointer events then have 6 or 7
  bytes, and a filter that reads them differently from the server can be tricked;
- QEMU extended key events (-258), xvp (-309), ExtendedDesktopSize (-308): ways to type, to power
  off and to resize;
- Fence (-312) and ContinuousUpdates (-313): without them the desktop sends only what was asked
  for, so a slow browser slows its own desktop traffic;
- the extended clipboard (-1063131698): encodings are settled at connect, while a stream may move
  between watching and control at any time, and a watching noVNC loses its place in the stream on
  such a clipboard message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

RAW: Final = 0
COPY_RECT: Final = 1
RRE: Final = 2
CORRE: Final = 4
HEXTILE: Final = 5
ZLIB: Final = 6
TIGHT: Final = 7
ZLIB_HEX: Final = 8
TRLE: Final = 15
ZRLE: Final = 16
ZYWRLE: Final = 17
JPEG: Final = 21
H264: Final = 50
TIGHT_PNG: Final = -260

DESKTOP_SIZE: Final = -223
LAST_RECT: Final = -224
CURSOR: Final = -239
VMWARE_CURSOR: Final = 0x574D5664
LED_STATE: Final = -261
DESKTOP_NAME: Final = -307

QUALITY_LEVELS: Final = range(-32, -22)
"""JPEG quality 0 (worst) to 9."""
COMPRESSION_LEVELS: Final = range(-256, -246)
"""Compression 0 (least) to 9."""

QEMU_EXTENDED_KEY: Final = -258
EXTENDED_DESKTOP_SIZE: Final = -308
XVP: Final = -309
FENCE: Final = -312
CONTINUOUS_UPDATES: Final = -313
EXTENDED_POINTER: Final = -316
EXTENDED_CLIPBOARD: Final = -1063131698

ALLOWED: Final[frozenset[int]] = frozenset(
    {
        RAW,
        COPY_RECT,
        RRE,
        CORRE,
        HEXTILE,
        ZLIB,
        TIGHT,
        ZLIB_HEX,
        TRLE,
        ZRLE,
        ZYWRLE,
        JPEG,
        H264,
        TIGHT_PNG,
        DESKTOP_SIZE,
        LAST_RECT,
        CURSOR,
        VMWARE_CURSOR,
        LED_STATE,
        DESKTOP_NAME,
        *QUALITY_LEVELS,
        *COMPRESSION_LEVELS,
    }
)


def allowed(encodings: Iterable[int]) -> tuple[int, ...]:
    """Return those of ``encodings`` that may reach a desktop, in the order of preference given.

    Each appears once, so the answer stays short whatever a client lists.
    """
    return tuple(number for number in dict.fromkeys(encodings) if number in ALLOWED)
