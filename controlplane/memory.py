"""What a process that serves does with its memory (docs/decisions.md).

The C library gives freed memory back to the kernel as soon as 128 KiB at the top of the heap are
free, and takes it again a moment later: for a stream at full speed, that is as much work as moving
the bytes. And the garbage collector looks, again and again, through all that a start has loaded,
of which nothing is garbage.
"""

from __future__ import annotations

import ctypes
import gc

KEPT_BYTES = 8 * 1024 * 1024
NEW_OBJECTS = 10_000
_M_TRIM_THRESHOLD = -1  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Keep up to ``KEPT_BYTES`` for reuse; return whether this C library can be told so."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))


def collect_less_often() -> None:
    """Have the garbage collector look at new objects by the ten thousand, not by the 700.

    Nearly all that a start makes stays, and looking through it again and again takes a fifth of it.
    """
    gc.set_threshold(NEW_OBJECTS)


def spare_what_stays() -> None:
    """Have the garbage collector look at nothing that has been loaded until now.

    Else, it goes through all of it, which takes a tenth of a second, in which no stream moves; and
    the more often, the more streams are opened.
    """
    gc.collect()
    gc.freeze()
