"""The close codes of the display websocket (design §7) and what a page does about each.

``docs/close-codes.md`` and ``static/controlplane/closecodes.js`` are compared with this enum.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from controlplane.exceptions import (
    ControlPlaneError,
    CredentialsRefused,
    DisplayHidden,
    DisplayMissing,
    ProtocolError,
    StreamForbidden,
    TokenRefused,
    TooManyStreams,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)


class Action(StrEnum):
    """What a page does after a close."""

    STOP = "stop"
    RETRY = "retry"
    RETRY_AT_ONCE = "retry_at_once"
    RETRY_LATER = "retry_later"
    WAIT = "wait"


class CloseCode(IntEnum):
    """A close code, its action, and its meaning in a few words."""

    action: Action
    meaning: str

    def __new__(cls, code: int, action: Action, meaning: str) -> CloseCode:
        member = int.__new__(cls, code)
        member._value_ = code
        member.action = action
        member.meaning = meaning
        return member

    DONE = 1000, Action.STOP, "the page left"
    PROTOCOL = 4400, Action.STOP, "protocol violation"
    TOKEN = 4401, Action.RETRY, "token missing, expired, spent or forged"
    FORBIDDEN = 4403, Action.STOP, "not permitted (any more), or logged out"
    MISSING = 4404, Action.STOP, "no such workspace, or its display is not enabled"
    SUPERSEDED = 4410, Action.STOP, "a newer stream of the same client_id took over"
    HIDDEN = 4411, Action.WAIT, "the holder has hidden the desktop from watchers"
    TOO_SLOW = 4413, Action.RETRY, "the browser reads too slowly"
    TOO_MANY = 4429, Action.RETRY_LATER, "too many streams"
    UPSTREAM = 4502, Action.RETRY, "the desktop refused, failed or closed"
    RESTARTING = (
        4503,
        Action.RETRY_AT_ONCE,
        "the server restarts, or cannot go on with this stream for now",
    )
    UPSTREAM_TIMEOUT = 4504, Action.RETRY, "the desktop did not answer in time"
    CREDENTIALS = 4511, Action.STOP, "the desktop refused our credentials"


# The first class that an error is an instance of decides: subclasses come before their parents.
_CODE_OF_ERROR: tuple[tuple[type[ControlPlaneError], CloseCode], ...] = (
    (ProtocolError, CloseCode.PROTOCOL),
    (TooSlow, CloseCode.TOO_SLOW),
    (TokenRefused, CloseCode.TOKEN),
    (StreamForbidden, CloseCode.FORBIDDEN),
    (DisplayMissing, CloseCode.MISSING),
    (DisplayHidden, CloseCode.HIDDEN),
    (TooManyStreams, CloseCode.TOO_MANY),
    (CredentialsRefused, CloseCode.CREDENTIALS),
    (UpstreamTimeout, CloseCode.UPSTREAM_TIMEOUT),
    (UpstreamError, CloseCode.UPSTREAM),
)


def code_of(error: ControlPlaneError) -> CloseCode:
    """Return the close code that tells a page about ``error``."""
    for kind, code in _CODE_OF_ERROR:
        if isinstance(error, kind):
            return code
    raise error
