"""How much freed memory the process keeps for the next piece of a picture.

The C library gives memory back to the kernel as soon as 128 KiB at the top of the heap are free,
and takes it again a moment later: for a stream at full speed, that is as much work as moving the
bytes (docs/decisions.md).
"""

from __future__ import annotations

import ctypes

KEPT_BYTES = 8 * 1024 * 1024
_M_TRIM_THRESHOLD = -1  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Keep up to ``KEPT_BYTES`` for reuse; return whether this C library can be told so."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
