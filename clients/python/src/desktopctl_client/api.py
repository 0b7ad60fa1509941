"""The calls: JSON in, values or errors of ours out. Only this module knows HTTP and the token."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from desktopctl_client.errors import Refused, Unavailable
from desktopctl_client.states import ControlState, Screenshot

T = TypeVar("T")

WAIT_SECONDS = 20  # of a long poll: less than proxies in between allow
_TRY_AGAIN_LATER = {429, 502, 503, 504}
_SECRET = re.compile(r"[!-~]+")

# Where the system can tell, a clock that goes on while the machine sleeps: leases do, too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Return seconds that never jump, for comparing with each other."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Api:
    """One server, as one agent process (``client_id``) with its token sees it. Thread-safe."""

    def __init__(
        self, base_url: str, token: str, client_id: str, timeout: float, **options: Any
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise ValueError("base_url: must be like https://host, without a user or password")
        if not _SECRET.fullmatch(token.strip()):
            raise ValueError("token: must be one line of letters, digits and signs")
        self.base_url = str(url).rstrip("/")
        self.client_id = client_id
        self._timeout = timeout
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token.strip()}", "X-Client-Id": client_id},
            timeout=timeout,
            **options,
        )

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def state(
        self, slug: str, *, after: ControlState | None = None, wait: int = WAIT_SECONDS
    ) -> ControlState:
        """Return how control is; with ``after``, as soon as it differs, or ``wait`` s later."""
        if after is None:
            return self._control("GET", slug, "")
        news = {"wait": wait, "epoch": after.epoch, "version": after.version}
        return self._control("GET", slug, "", params=news, timeout=wait + self._timeout)

    def acquire(
        self, slug: str, ttl: float | None, *, epoch: int | None = None, move: bool = False
    ) -> tuple[ControlState, float]:
        """Take or renew control; return it, and after how many seconds to renew it."""
        wishes = {"ttl_seconds": ttl, "epoch": epoch, "move": move or None}
        body = {name: wish for name, wish in wishes.items() if wish is not None}
        answer = self._call("POST", slug, "display/control/acquire", json=self._signed(body))
        renew_after = _understood(answer, lambda: float(answer.json()["renew_after_seconds"]))
        return _state_of(answer), renew_after

    def release(self, slug: str, epoch: int) -> ControlState:
        """Give control of ``epoch`` back; harmless where that epoch is over."""
        return self._control("POST", slug, "/release", json=self._signed({"epoch": epoch}))

    def request_human(self, slug: str, reason: str) -> ControlState:
        """Ask for a person."""
        body = self._signed({"reason": reason})
        return self._control("POST", slug, "/request-human", json=body)

    def withdraw(self, slug: str) -> ControlState:
        """Need no person any more."""
        return self._control("POST", slug, "/request-human/withdraw", json=self._signed({}))

    def screenshot(self, slug: str, wishes: dict[str, Any]) -> Screenshot:
        """Return a picture of the desktop as it is now."""
        answer = self._call("GET", slug, "desktop/screenshot", params=wishes)
        headers = answer.headers
        return _understood(
            answer,
            lambda: Screenshot(
                answer.content,
                headers["Content-Type"],
                int(headers["X-Control-Epoch"]),
                int(headers["X-Desktop-Width"]),
                int(headers["X-Desktop-Height"]),
            ),
        )

    def _signed(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"client_id": self.client_id, **body}

    def _control(self, method: str, slug: str, path: str, **options: Any) -> ControlState:
        return _state_of(self._call(method, slug, f"display/control{path}", **options))

    def _call(self, method: str, slug: str, path: str, **options: Any) -> httpx.Response:
        url = f"{self.base_url}/api/workspaces/{slug}/{path}"
        try:
            answer = self._http.request(method, url, **options)
        except httpx.HTTPError as error:
            problem = str(error) or type(error).__name__
            raise Unavailable(f"{method} {url}: {problem}") from error
        if answer.status_code == httpx.codes.OK:
            return answer
        raise _error_of(answer)


def _error_of(answer: httpx.Response) -> Refused | Unavailable:
    what = f"{answer.request.method} {answer.url.copy_with(query=None)}"
    status = answer.status_code
    try:
        body = answer.json()
        code, message = str(body["error"]["code"]), str(body["error"]["message"])
        state = ControlState.of(body["current"]) if "current" in body else None
    except (KeyError, TypeError, ValueError):
        problem = f"{what}: answered {status}, and not as the API does; look at base_url"
        is_outage = status >= httpx.codes.INTERNAL_SERVER_ERROR
        return Unavailable(problem) if is_outage else Refused("not_the_api", problem, status)
    if status in _TRY_AGAIN_LATER:
        return Unavailable(f"{what}: {status}, {code}: {message}", _retry_after(answer))
    return Refused(code, message, status, state)


def _retry_after(answer: httpx.Response) -> float | None:
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else None


def _state_of(answer: httpx.Response) -> ControlState:
    return _understood(answer, lambda: ControlState.of(answer.json()))


def _understood(answer: httpx.Response, read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        url = answer.url.copy_with(query=None)
        raise Unavailable(f"{url}: not what the API answers: {error!r}") from error
