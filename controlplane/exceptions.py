"""Every error of the control plane, as one tree.

Each error carries its data; its message is built from them. ``closecodes.py`` maps them to
websocket close codes; each RequestRefused names its HTTP status.

    ControlPlaneError
    ├── ConfigError            a setting has a bad value
    ├── WorkspaceFileError     a file with workspaces cannot be understood, or carried out
    ├── ProtocolError          the browser broke RFB or the display protocol
    ├── TooSlow                the browser is silent, or does not keep up with its desktop
    ├── UpstreamError          the desktop could not be reached or did not behave
    │   ├── UpstreamTimeout    ... in time
    │   └── CredentialsRefused the desktop refused our password
    │       └── RefusedLately  ... less than a minute ago: it is not tried again yet
    ├── PostFailed             what was to be told to another server did not get there
    ├── StreamRefused          a stream may not be opened
    │   ├── TokenRefused       its token is missing, expired, spent or forged
    │   ├── StreamForbidden    its user may not watch (any more)
    │   ├── DisplayMissing     no such workspace, or its display is not enabled
    │   ├── DisplayHidden      its holder hides the desktop from all who watch
    │   └── TooManyStreams     a limit is reached
    ├── ControlRefused         the state of a lease forbids what is asked of it
    │   └── ControlForbidden   who asks may not control (any more)
    └── RequestRefused         an API call may not be carried out
        ├── Forbidden          the caller lacks the permission
        ├── WorkspaceNotFound  no such workspace, or the caller may not see it
        ├── InvalidRequest     a field of the request is wrong
        ├── LinkNotFound       this workspace has no such control link
        ├── LinkRefused        a control link is used, expired, revoked or none
        ├── TooManyRequests    calls come faster than they may
        ├── DisplayUnreachable the desktop gives no picture
        ├── ControlUnsettled   control changes faster than a picture is taken
        └── LeaseRefused       a ControlRefused, as the caller is told of it
"""

from __future__ import annotations

from typing import Any


class ControlPlaneError(Exception):
    """The root: catching it catches every expected failure, and no bug."""


class ConfigError(ControlPlaneError):
    """The setting ``name`` has a value that cannot be used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class WorkspaceFileError(ControlPlaneError):
    """A file with workspaces cannot be carried out; says in which line, and where in it, and why.

    ``place`` is empty where the file as a whole is meant.
    """

    def __init__(self, file: str, line: int, place: str, problem: str) -> None:
        super().__init__(": ".join(filter(None, [f"{file}:{line}", place, problem])))
        self.file = file
        self.line = line
        self.place = place
        self.problem = problem


class ProtocolError(ControlPlaneError):
    """The browser sent something that RFB or the display protocol does not allow."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TooSlow(ControlPlaneError):
    """The browser shows no sign of life, or does not read what its desktop sends."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UpstreamError(ControlPlaneError):
    """Connecting to, or talking with, a desktop failed at ``step``.

    Steps, in order: resolve, connect, banner, security, authentication, ServerInit, stream.
    """

    def __init__(self, step: str, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.detail = detail


class UpstreamTimeout(UpstreamError):
    """The desktop did not answer in time at ``step``."""


class CredentialsRefused(UpstreamError):
    """The desktop refused our credentials; dialling again would only lock us out."""


class RefusedLately(CredentialsRefused):
    """They were refused less than a minute ago, so this time they were not tried."""

    def __init__(self) -> None:
        super().__init__("authentication", "authentication failed less than a minute ago")


class PostFailed(ControlPlaneError):
    """Another server could not be told; ``detail`` names neither its path nor its query."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class StreamRefused(ControlPlaneError):
    """A display stream may not be opened; ``detail`` is safe to show to its user."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TokenRefused(StreamRefused):
    """The session token is missing, expired, spent or forged."""


class StreamForbidden(StreamRefused):
    """The token's user may not watch this workspace (any more), or has logged out."""


class DisplayMissing(StreamRefused):
    """There is no such workspace, or its display is not enabled."""


class DisplayHidden(StreamRefused):
    """The holder hides the desktop from all who watch."""


class TooManyStreams(StreamRefused):
    """The user or the workspace has as many open streams as allowed."""


class ControlRefused(ControlPlaneError):
    """The state of a lease forbids what is asked of it; ``code`` is that of the contract.

    ``by`` is who ended the epoch that was to be renewed, where somebody did.
    """

    def __init__(self, code: str, by: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.by = by


class ControlForbidden(ControlRefused):
    """Who asks may not control this workspace (any more)."""

    def __init__(self) -> None:
        super().__init__("forbidden")


class RequestRefused(ControlPlaneError):
    """An API call that is refused, with a stable ``code`` and a sentence for people."""

    status = 400
    retry_after: int | None = None  # seconds, where trying again later may help

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Forbidden(RequestRefused):
    """The caller is known, but lacks the permission."""

    status = 403


class WorkspaceNotFound(RequestRefused):
    """There is no such workspace, or the caller may not know of it."""

    status = 404

    def __init__(self, slug: str) -> None:
        super().__init__("not_found", f"There is no workspace “{slug}” for you.")


class InvalidRequest(RequestRefused):
    """The field ``field`` of a request is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__("invalid", f"{field}: {problem}")
        self.field = field


class LinkNotFound(RequestRefused):
    """The workspace has no control link of this number."""

    status = 404

    def __init__(self, number: int) -> None:
        super().__init__("not_found", f"This workspace has no link {number}.")


class LinkRefused(RequestRefused):
    """A control link that has been used, has expired, was revoked, or never was."""

    status = 410

    def __init__(self) -> None:
        super().__init__("link_ended", "This link has been used or has expired. Ask for a new one.")


class TooManyRequests(RequestRefused):
    """Calls come faster than they may; ``retry_after`` says in how many seconds to come back."""

    status = 429

    def __init__(
        self, retry_after: int, message: str = "", code: str = "too_many_requests"
    ) -> None:
        super().__init__(code, message or f"Too many calls. Try again in {retry_after} s.")
        self.retry_after = retry_after


class DisplayUnreachable(RequestRefused):
    """The desktop cannot be reached, or gives no picture; the message says at which step."""

    status = 503

    def __init__(self, error: UpstreamError, retry_after: int) -> None:
        super().__init__("display_unreachable", f"The desktop gives no picture: {error}.")
        self.retry_after = retry_after


class ControlUnsettled(RequestRefused):
    """Control has changed while a picture was taken, and once more while the next one was."""

    status = 503
    retry_after = 1

    def __init__(self) -> None:
        super().__init__(
            "control_unsettled", "Control changes while the picture is taken; try again shortly."
        )


class LeaseRefused(RequestRefused):
    """A call meets a ControlRefused; ``current`` is the Control that its caller may see."""

    status = 409

    def __init__(self, code: str, message: str, current: dict[str, Any]) -> None:
        super().__init__(code, message)
        self.current = current
