"""Asking again: after failures, and for news; never in a tight loop."""

from __future__ import annotations

import logging
import random

from desktopctl_client.api import WAIT_SECONDS, Api, now
from desktopctl_client.errors import Unavailable
from desktopctl_client.states import ControlState

logger = logging.getLogger("desktopctl_client")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 8.0
_AFTER_NEWS_SECONDS = 0.1
_QUICK_SECONDS = 1.0  # a server that does not wait, as Django's WSGI, is asked once a second


class Backoff:
    """How long to wait after failures in a row: longer and longer, and never in step."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        """Forget the failures: a call has succeeded."""
        self._next = _FIRST_PAUSE_SECONDS

    def after(self, error: Unavailable) -> float:
        """Return how long to wait after this failure; the server may have said so itself."""
        pause = self._next * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)
        self._next = min(2 * self._next, _LONGEST_PAUSE_SECONDS)
        return max(pause, error.retry_after or 0)


class Poller:
    """Asks how control is, call after call; wait ``pause`` seconds before the next."""

    def __init__(self, api: Api, slug: str) -> None:
        self.pause = 0.0
        self.failure: Unavailable | None = None  # of the last call
        self._api = api
        self._slug = slug
        self._backoff = Backoff()

    def next(self, after: ControlState | None, wait: int = WAIT_SECONDS) -> ControlState | None:
        """Return how control is, when that is news; None where the server was unavailable."""
        asked_at = now()
        try:
            state = self._api.state(self._slug, after=after, wait=wait)
        except Unavailable as error:
            self.failure, self.pause = error, self._backoff.after(error)
            logger.warning("%s; asking again in %.1f s", error, self.pause)
            return None
        self.failure = None
        self._backoff.reset()
        is_news = after is None or (state.epoch, state.version) != (after.epoch, after.version)
        is_quick = now() - asked_at < _QUICK_SECONDS
        self.pause = _QUICK_SECONDS if is_quick and not is_news else _AFTER_NEWS_SECONDS
        return state
