"""Where an agent begins: a server, and the desktops on it."""

from __future__ import annotations

import re
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Self

from desktopctl_client.api import WAIT_SECONDS, Api, now
from desktopctl_client.control import Control
from desktopctl_client.errors import WaitedInVain
from desktopctl_client.polling import Poller
from desktopctl_client.states import ControlState, HandedBack, Screenshot

_SLUG = re.compile(r"[-\w]+", re.ASCII)


class Client:
    """A server, as one agent process sees it with its API token (scopes observe and control).

    ``client_id`` names the process towards the server; a new one is made if it is left out. One
    that is kept over restarts gets control back that the process had before it ended.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        client_id: str | None = None,
        timeout: float = 10.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        client_id = client_id or secrets.token_hex(16)
        self._api = Api(base_url, token, client_id, timeout, verify=verify)
        self._in_use: dict[str, Control] = {}

    def __repr__(self) -> str:
        return f"Client({self._api.base_url!r})"

    def desktop(self, slug: str) -> Desktop:
        """Return a workspace's desktop; nothing is asked yet."""
        if not _SLUG.fullmatch(slug):
            raise ValueError(f"slug: {slug!r} is no workspace's id")
        return Desktop(self._api, slug, self._in_use)

    def close(self) -> None:
        """End all connections. Control that is still held runs out by itself."""
        self._api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Desktop:
    """One desktop. Made by ``Client.desktop``."""

    def __init__(self, api: Api, slug: str, in_use: dict[str, Control]) -> None:
        self.slug = slug
        self._api = api
        self._in_use = in_use

    def __repr__(self) -> str:
        return f"Desktop({self.slug!r})"

    def state(self) -> ControlState:
        """Return who has control now."""
        return self._api.state(self.slug)

    def control(self, ttl: float | None = None, *, move: bool = False) -> Control:
        """Return control for a ``with`` block: taken at its start, released at its end.

        It lasts ``ttl`` seconds (the server's default if left out) without word from us, and is
        renewed while the block lasts. ``move`` takes it from another process with this token.
        """
        return Control(self._api, self.slug, ttl, move=move, in_use=self._in_use)

    def wait_until_free(self, timeout: float = float("inf")) -> ControlState:
        """Wait until an agent may acquire, and return how control is then: see ``handed_back``.

        Another one may still be faster: then acquiring is Refused. While the server cannot be
        reached it is asked again, with a warning in the log. Raises WaitedInVain after about
        ``timeout`` seconds (from the last failure, where there was one), or Refused.
        """
        what = f"{self.slug} is not free for an agent"
        return self._wait_until(lambda state: state.is_free, what, timeout)

    def request_human(self, reason: str) -> ControlState:
        """Ask for a person, who is told ``reason``; asking again changes it. Waits for nobody."""
        return self._api.request_human(self.slug, reason)

    def withdraw(self) -> ControlState:
        """Need no person any more; harmless where none was asked for."""
        return self._api.withdraw(self.slug)

    def wait_until_answered(self, timeout: float = float("inf")) -> HandedBack | None:
        """Wait until no person is asked for any more; return the answer, or None without one.

        Raises as ``wait_until_free``. For an agent without control: in control it learns by
        ControlLost that a person has come.
        """
        what = f"nobody has answered for {self.slug}"
        return self._wait_until(lambda state: not state.help, what, timeout).handed_back

    def _wait_until(
        self, is_enough: Callable[[ControlState], bool], what: str, timeout: float
    ) -> ControlState:
        until = now() + timeout
        poller, seen = Poller(self._api, self.slug), None
        while True:
            wait = int(max(1, min(WAIT_SECONDS, until - now())))
            state = poller.next(seen, wait)
            if state and is_enough(state):
                return state
            seen = state or seen
            if now() + poller.pause >= until:
                raise WaitedInVain(what, timeout, seen) from poller.failure
            time.sleep(poller.pause)

    def screenshot(
        self, image_format: str = "png", *, width: int | None = None, quality: int | None = None
    ) -> Screenshot:
        """Return a picture of the desktop now, as ``png`` or ``jpeg``, scaled down to ``width``.

        Raises Refused: ``human_in_control`` while a person has control, ``hidden``, and others.
        """
        wishes = {"format": image_format, "width": width, "quality": quality}
        given = {name: wish for name, wish in wishes.items() if wish is not None}
        return self._api.screenshot(self.slug, given)
