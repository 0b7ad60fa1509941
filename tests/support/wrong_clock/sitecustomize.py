"""Shift the time of day of a whole Python process; ``time.monotonic`` stays as it is.

Python imports a module of this name before anything else, wherever its directory is on PYTHONPATH.
libfaketime cannot be used: under it, ``time.sleep`` of Python 3.11 fails, and waits with a time
limit spin.
"""

from __future__ import annotations

import datetime as module
import os
import time
from collections.abc import Callable
from typing import Any

_SECONDS = int(os.environ["WRONG_CLOCK_SECONDS"])
_real = module.datetime
_time, _time_ns = time.time, time.time_ns


class _Kind(type):
    """Real dates and times count as instances of what stands in their place."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _real)


class _Shifted(_real, metaclass=_Kind):
    __slots__ = ()  # extensions in C compare its size with what they were built for

    def __new__(cls, *args: Any, **more: Any) -> Any:
        return _real(*args, **more)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _real.fromtimestamp(time.time(), tz)

    @classmethod
    def today(cls) -> Any:
        return cls.now()

    @classmethod
    def utcnow(cls) -> Any:
        return _real.fromtimestamp(time.time(), module.UTC).replace(tzinfo=None)


def _by_default_now(real: Callable[[float], Any]) -> Callable[..., Any]:
    # logging calls it as a method of its formatters: what comes last counts.
    return lambda *given: real(time.time() if given[-1:] in {(), (None,)} else given[-1])


time.time = lambda: _time() + _SECONDS
time.time_ns = lambda: _time_ns() + _SECONDS * 10**9
time.gmtime, time.localtime = _by_default_now(time.gmtime), _by_default_now(time.localtime)
module.datetime = _Shifted
