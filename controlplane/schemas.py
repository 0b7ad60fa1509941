"""The JSON of the HTTP contract, in and out. Unknown fields of a request are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from ninja import Field, Header, Schema
from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from controlplane import conf, links
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

ClientIdHeader = Annotated[str, Header(pattern=rf"{CLIENT_ID_PATTERN}|^$")]
"""The same where there is no body."""

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
# These are judged by the models, for the admin and for files as well (workspaces/configuring.py).
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
    outcome: Literal["done", "could_not", "skipped"] | None = Field(
        None, description="Of a person's: hand back to the agent that waits, and tell it so."
    )


class HelpBody(_Body):
    """An agent asks for a person."""

    client_id: str = ClientId
    reason: str = Field(min_length=1, max_length=MAX_MESSAGE_LENGTH, pattern=NO_NUL)


class FreeBody(_Body):
    """Let agents have a parked workspace."""

    client_id: str = ClientId


class OpenBody(_Body):
    """Let a closed workspace be controlled again."""

    client_id: str = ClientId


class KeepBody(_Body):
    """Keep control although it is about to end by a limit."""

    client_id: str = ClientId
    epoch: Whole
    ttl_seconds: TimeToLive | None = None


class HideBody(_Body):
    """Hide the desktop from watchers until control ends, or show it again."""

    client_id: str = ClientId
    epoch: Whole
    hidden: bool


class RequestBody(_Body):
    """Ask the holder for control."""

    client_id: str = ClientId
    message: str = Field("", max_length=MAX_MESSAGE_LENGTH, pattern=NO_NUL)


class WithdrawBody(_Body):
    """Take one's own request back."""

    client_id: str = ClientId


class AnswerBody(_Body):
    """Hand control over to the person who asked, or keep it."""

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
    parked_seconds: LimitSeconds | None = Field(
        None, description="A parked workspace is free for agents after so long; null: never."
    )
    accepts_clipboard: bool = Field(
        True, description="Whether text from the holder's clipboard goes to the desktop's."
    )
    agents_see_people: bool = Field(
        False, description="Whether API tokens get screenshots while a person has control."
    )


class LinkBody(_Body):
    """Let a person without an account in, once, for a while."""

    name: str = Field(
        min_length=1,
        max_length=links.MAX_NAME,
        pattern=NO_NUL,
        description="Who it is for; others see it where it has control.",
    )
    role: Literal["observer", "operator"]
    ttl_seconds: Whole = Field(
        ge=links.MIN_SECONDS,
        le=links.MAX_SECONDS,
        description="From now until it ends, whether or not it has been opened.",
    )


class ExchangeBody(_Body):
    """The ticket of a link's fragment, and the tab that shall have it."""

    ticket: str = Field(max_length=200)
    client_id: str = ClientId


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


class Hidden(Schema):
    """Since when the holder hides the desktop from watchers."""

    at: str


class Help(Schema):
    """The agent asks for a person."""

    by: str | None
    reason: str
    at: str


class Parked(Schema):
    """No agent may have control: that of ``by``, a person, ended without being handed back."""

    by: str | None
    reason: str
    at: str


class HandedBack(Schema):
    """A person has handed back to the agent, in this epoch, and nobody has taken over since."""

    epoch: int
    outcome: Literal["done", "could_not", "skipped"]
    by: str | None
    note: str
    at: str


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
    hidden: Hidden | None
    accepts_clipboard: bool
    closed: Closed | None
    agent: str | None = Field(description="Which agent waits to have control, or has it.")
    help: Help | None
    parked: Parked | None
    handed_back: HandedBack | None
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
    parked_seconds: int | None
    accepts_clipboard: bool
    agents_see_people: bool
    secrets_set: list[Literal["vnc_password", "upstream_query", "upstream_headers"]]


class WorkspaceDetail(WorkspaceItem):
    """One workspace; ``settings`` is null for those who may not change them."""

    settings: Settings | None


class Registered(Schema):
    """Where streams will look for the desktop now."""

    id: str
    upstream_url: str


class Link(Schema):
    """A control link. Who opened it from where is among the events."""

    id: int
    name: str
    role: Literal["observer", "operator"]
    state: Literal["unopened", "opened", "revoked", "expired", "disabled"]
    expires_at: str
    used_at: str | None


class LinkList(Schema):
    """A workspace's control links, newest first."""

    links: list[Link]


class MadeLink(Link):
    """A new link: its address works once, and is not shown again."""

    url: str = Field(description="For an iframe, or to be sent to a person.")


class LinkWorkspace(Schema):
    """What a link leads to."""

    id: str
    name: str


class Opened(Schema):
    """What a link's tab sends as its bearer from now on, with its X-Client-Id, and until when."""

    bearer: str
    expires_at: str
    role: Literal["observer", "operator"]
    workspace: LinkWorkspace


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
