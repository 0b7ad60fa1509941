"""What no log line may carry: session tokens, also when they came in a URL."""

from __future__ import annotations

import logging
import re

_TOKENS = re.compile(r"(token=|desktopctl\.token\.)[^\s&\"',)\]]+")


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, with the value of every session token hidden."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line or lines."""
        return _TOKENS.sub(r"\1[hidden]", super().format(record))
