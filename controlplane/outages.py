"""Outages: one line in the log when something goes away, one when it is back, none in between."""

from __future__ import annotations

import logging


class Outage:
    """Whether something that is tried again and again is away now, such as a broker.

    ``begins`` says what that means, with ``%s`` for the error; ``ends``, that it is over.
    """

    def __init__(
        self, logger: logging.Logger, begins: str, ends: str, *, level: int = logging.WARNING
    ) -> None:
        self.is_on = False
        self._logger = logger
        self._begins, self._ends = begins, ends
        self._level = level

    def note(self, error: Exception | None) -> None:
        """Take in what the newest try has failed with, or that it has not."""
        was_on, self.is_on = self.is_on, error is not None
        if error and not was_on:
            shown = error if self._level >= logging.ERROR else None
            self._logger.log(self._level, self._begins, words_of(error), exc_info=shown)
        if was_on and not error:
            self._logger.warning(self._ends)


def words_of(error: Exception) -> str:
    """Return what is wrong: a time limit has no words of its own."""
    return str(error).strip() or type(error).__name__
