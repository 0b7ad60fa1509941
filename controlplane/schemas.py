"""The JSON of the HTTP contract, in and out. Unknown fields of a request are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from ninja import Field, Schema
from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from controlplane import conf
from controlplane.models import (
    CLIENT_ID_PATTERN,
    MAX_LIMIT_SECONDS,
    MAX_MESSAGE_LENGTH,
    MAX_NOTE_LENGTH,
    MIN_LIMIT_SECONDS,
)

ClientId = Field(
    pattern=CLIENT_ID_PATTERN,
    description="One browser tab or agent process; chosen by it, kept secret from others.",
)


NO_NUL = r"^[^\x00]*$"  # PostgreSQL stores none


def _whole(value: object) -> object:
    """To JSON, 2.0 is an integer; bodies are read strictly otherwise."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
# Checked in api/control.py: a server with shorter leases takes shorter times as well.
TimeToLive = Annotated[
    float,
    WithJsonSchema(
        {
            "type": "number",
            "minimum": conf.MIN_LEASE_SECONDS,
            "maximum": conf.MAX_LEASE_SECONDS,
        }
    ),
]
# These are judged by the models, for the admin and for files as well (configuring.py).
LimitSeconds = Annotated[
    Whole,
    WithJsonSchema({"type": "integer", "minimum": MIN_LIMIT_SECONDS, "maximum": MAX_LIMIT_SECONDS}),
]
Name = Annotated[
    str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200, "pattern": NO_NUL})
]
Text = Annotated[str, WithJsonSchema({"type": "string", "pattern": NO_NUL})]


class _Body(Schema):
    model_config = ConfigDict(extra="forbid", strict=True)


class AcquireBody(_Body):
    """Take control; with ``epoch``, renew it."""

    client_id: str = ClientId
    controller: Literal["user", "agent"] | None = None
    ttl_seconds: TimeToLive | None = None
    epoch: Whole | None = None
    move: bool = False


class ReleaseBody(_Body):
    """Give control back; with ``force``, end somebody else's."""

    client_id: str = ClientId
    epoch: Whole | None = None
    force: bool = False
    close: bool = Field(False, description="With force: let nobody have control until opened.")
    note: str = Field("", max_length=MAX_NOTE_LENGTH, pattern=NO_NUL)


class OpenBody(_Body):
    """Let a closed workspace be controlled again."""

    client_id: str = ClientId


class KeepBody(_Body):
    """Keep control although it is about to end by a limit."""

    client_id: str = ClientId
    epoch: Whole
    ttl_seconds: TimeToLive | None = None


class RequestBody(_Body):
    """Ask the holder for control."""

    client_id: str = ClientId
    message: str = Field("", max_length=MAX_MESSAGE_LENGTH, pattern=NO_NUL)


class WithdrawBody(_Body):
    """Take one's own request back."""

    client_id: str = ClientId


class AnswerBody(_Body):
    """Hand control over to who has asked, or keep it."""

    client_id: str = ClientId
    epoch: Whole
    request: Whole
    accept: bool


class SessionBody(_Body):
    """Ask to watch."""

    client_id: str = ClientId
    mode: Literal["observe"] = "observe"


class SettingsBody(_Body):
    """What is known of a workspace. Secrets are stored encrypted, and never come back."""

    name: Name = Field(
        default_factory=str, description="What people see; the workspace's id if left out."
    )
    upstream_url: Text = Field(
        "",
        description="tcp://host:port or unix:///path of a VNC server; ws://, wss:// of websockify. "
        "A query in it is kept as upstream_query. Empty: where DISPLAY_UPSTREAM_TEMPLATE says.",
    )
    vnc_password: Text = ""
    upstream_query: Text = Field("", description="For websockify's token plugins: token=….")
    upstream_headers: Text = Field("", description="Lines of “Name: value” for websockify.")
    enabled: bool = True
    idle_seconds: LimitSeconds | None = Field(
        None, description="Control ends after so long without input; null: never."
    )
    max_hold_seconds: LimitSeconds | None = Field(
        None, description="Control ends after so long in all; null: never."
    )


class RegisterBody(_Body):
    """Where the desktop that calls is: an address, or only its port."""

    upstream_url: str | None = Field(
        None, description="tcp://, ws:// or wss://; a query in it is stored as a secret."
    )
    port: Whole | None = Field(
        None,
        ge=1,
        le=65535,
        description="Of the VNC server at the caller's own address; 5900 if both are left out.",
    )


class Display(Schema):
    """What the last connection to the desktop, or check of it, found."""

    available: bool
    reason: Literal["display_not_enabled", "display_unreachable"] | None
    protocol: Literal["vnc"]
    status: Literal["ready", "not_configured", "unreachable", "unknown"]
    width: int | None
    height: int | None
    checked_at: str | None


class LastEnd(Schema):
    """How control ended the last time."""

    reason: str
    by: str | None
    note: str | None
    at: str | None


class Limit(Schema):
    """When control ends although it is renewed; “keep” puts it off."""

    reason: Literal["idle", "max_hold"]
    at: str


class Closed(Schema):
    """Nobody may have control until the workspace is opened again."""

    by: str | None
    note: str
    at: str


class Asked(Schema):
    """Somebody asks the holder for control; granted by itself at ``granted_at`` if that is set."""

    id: int
    by: str
    message: str
    yours: bool
    this_client: bool
    asked_at: str
    granted_at: str | None


class Can(Schema):
    """What the caller may do."""

    observe: bool
    control: bool
    force: bool


class Control(Schema):
    """Who has control, until when, and what that means for the caller."""

    controller: Literal["none", "user", "agent"]
    controlled_by: str | None
    yours: bool
    this_client: bool
    epoch: int
    version: int
    acquired_at: str | None
    expires_at: str | None
    server_time: str
    holder_connected: bool | None
    last_input_at: str | None
    last_end: LastEnd | None
    ends: Limit | None
    closed: Closed | None
    requests: list[Asked]
    can: Can


class Session(Schema):
    """Where to open the display: the token in the fragment works once."""

    session_url: str
    session_expires_at: datetime


class Acquired(Control, Session):
    """Control is the caller's."""

    renew_after_seconds: float


class WorkspaceItem(Schema):
    """One workspace that the caller may watch."""

    id: str
    name: str
    display: Display
    control: Control
    viewers: int


class Settings(Schema):
    """How a workspace is set up, for those who may change that; of secrets only which there are."""

    upstream_url: str
    address: str = Field(description="Where it leads: its own address, or the template's.")
    enabled: bool
    idle_seconds: int | None
    max_hold_seconds: int | None
    secrets_set: list[Literal["vnc_password", "upstream_query", "upstream_headers"]]


class WorkspaceDetail(WorkspaceItem):
    """One workspace; ``settings`` is null for those who may not change them."""

    settings: Settings | None


class Registered(Schema):
    """Where streams will look for the desktop now."""

    id: str
    upstream_url: str


class WorkspaceList(Schema):
    """A page of workspaces; ``next`` is the address of the one after it."""

    workspaces: list[WorkspaceItem]
    next: str | None


class ErrorInfo(Schema):
    """What went wrong: a stable code and a sentence for people."""

    code: str
    message: str


class Error(Schema):
    """Every answer that is not a success."""

    error: ErrorInfo


class Conflict(Error):
    """The lease's state forbids the call; this is what it is."""

    current: Control
