"""The product's settings at DEBUG, but for what it says must not be: what websockets carry.

Requests are told of without their queries, as ever.
"""

from desktopctl.settings import *  # noqa: F403  (the same, but for the log)
from desktopctl.settings import LOGGING

_KEPT = {
    name: LOGGING["loggers"][name]
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error", "websockets")
}
LOGGING = LOGGING | {"root": {"handlers": ["stream"], "level": "DEBUG"}, "loggers": _KEPT}
