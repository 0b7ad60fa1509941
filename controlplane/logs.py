"""What no log line may carry: tokens, tickets and client_ids, also when they came in a URL."""

from __future__ import annotations

import logging
import re

_SECRETS = re.compile(r"(token=|ticket=|client_id=|desktopctl\.token\.)[^\s&\"',)\]]+")


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, with the value of each token and client_id hidden."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished line or lines."""
        return _SECRETS.sub(r"\1[hidden]", super().format(record))
