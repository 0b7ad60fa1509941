"""Every error of the client, as one tree. None of them ever holds the token.

DesktopctlError
├── ControlLost    control has ended while it was in use; nothing is released then
├── Refused        the server has understood the call, and says no
├── Unavailable    the server could not be reached, or did not answer as the API does
└── WaitedInVain   what was waited for has not come in time
"""

from __future__ import annotations

from desktopctl_client.states import ControlState


class DesktopctlError(Exception):
    """The root: catching it catches every expected failure, and no bug."""


class ControlLost(DesktopctlError):
    """Control has ended: why (``preempted``, ``forced``, ``expired``, …), by whom, and their note.

    ``by`` is None where time, or nobody in particular, has ended it.
    """

    def __init__(self, reason: str, by: str | None = None, note: str | None = None) -> None:
        by_whom = f" by {by}" if by else ""
        with_note = f": “{note}”" if note else ""
        super().__init__(f"control has ended ({reason}{by_whom}){with_note}")
        self.reason = reason
        self.by = by
        self.note = note


class Refused(DesktopctlError):
    """The server says no: ``code`` is that of the API, ``state`` how control is, where it tells."""

    def __init__(
        self, code: str, message: str, status: int, state: ControlState | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.state = state


class Unavailable(DesktopctlError):
    """The server could not be reached, or not just now; ``retry_after`` is in seconds, if known."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class WaitedInVain(DesktopctlError):
    """What was waited for has not come in time; ``state`` is the last that was seen."""

    def __init__(self, what: str, seconds: float, state: ControlState | None) -> None:
        super().__init__(f"waited {seconds:g} s in vain: {what}")
        self.state = state
