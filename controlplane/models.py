"""The tables: workspaces and who may use them, the lease of each, streams, and what happened.

Lease rows are written by ``leases.py`` alone. Times are the database's clock. Columns that came
later have a ``db_default`` too: during an upgrade, servers of the version before still insert.
"""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from controlplane.destinations import parse_url
from controlplane.exceptions import PostFailed, UpstreamError
from controlplane.fields import EncryptedTextField, UnreadableSecret
from controlplane.webhooks.posting import parse_endpoint

CLIENT_ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"
MAX_NOTE_LENGTH = 500
MAX_MESSAGE_LENGTH = 200
MIN_LIMIT_SECONDS = 60  # of idle_seconds and max_hold_seconds: 30 of them are for the warning
MAX_LIMIT_SECONDS = 365 * 24 * 3600  # beyond it, leave the limit out


class Controller(models.TextChoices):
    """What kind of holder has control; it comes from the credential, never from a wish."""

    NONE = "none"
    USER = "user"
    AGENT = "agent"


class Role(models.TextChoices):
    """What a grant allows; each role includes the ones before it."""

    OBSERVER = "observer", "Observer: may watch"
    OPERATOR = "operator", "Operator: may watch and take control"
    MANAGER = "manager", "Manager: may also end other people's control"


class Scope(models.TextChoices):
    """What an API token may do in its workspaces. The last two include watching."""

    OBSERVE = "observe", "observe: watch"
    CONTROL = "control", "control: watch and take control"
    MANAGE = "manage", "manage: add, change and remove workspaces, end control"


class EndReason(models.TextChoices):
    """Why an epoch ended."""

    PREEMPTED = "preempted"
    MOVED = "moved"
    HANDED_OVER = "handed_over"
    RELEASED = "released"
    EXPIRED = "expired"
    IDLE = "idle"
    MAX_HOLD = "max_hold"
    FORCED = "forced"
    ACCESS_ENDED = "access_ended"


class HandBack(models.TextChoices):
    """What a person tells an agent on handing control back."""

    DONE = "done", "Done"
    COULD_NOT = "could_not", "Could not be done"
    SKIPPED = "skipped", "Not done"


class DisplayStatus(models.TextChoices):
    """What the last connection or check found."""

    UNKNOWN = "unknown"
    READY = "ready"
    UNREACHABLE = "unreachable"


def validate_upstream_url(url: str) -> None:
    """Raise ValidationError unless ``url`` names a desktop that a stream could dial."""
    try:
        settings.DISPLAY.upstream_allow.check(parse_url(url))
    except UpstreamError as error:
        raise ValidationError(error.detail) from None


def validate_webhook_url(url: str) -> None:
    """Raise ValidationError unless ``url`` names a server that a webhook may be sent to."""
    try:
        parse_endpoint(url).check(settings.WEBHOOK_ALLOW)
    except PostFailed as error:
        raise ValidationError(error.detail) from None


def validate_query(text: str) -> None:
    """Raise ValidationError unless ``text`` can stand behind the ? of an address."""
    if not re.fullmatch(r"[!\"$-~]*", text):
        raise ValidationError("Only printable characters, without blanks and “#”.")


def validate_headers(text: str) -> None:
    """Raise ValidationError unless ``text`` is lines of ``Name: value``; never repeats a value."""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _HEADER.fullmatch(line)
        if line.strip() and not match:
            raise ValidationError(f"Line {number} is not “Name: value”.")
        if match and _OF_THE_HANDSHAKE.match(match["name"]):
            raise ValidationError(f"Line {number}: {match['name']} belongs to the handshake.")


_HEADER = re.compile(r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(?P<value>[\x20-\x7e]*)")
_OF_THE_HANDSHAKE = re.compile(r"(host|upgrade|connection|sec-websocket-.*)$", re.IGNORECASE)

LIMITS = ("idle_seconds", "max_hold_seconds", "parked_seconds")
SECRET_FIELDS = ("vnc_password", "upstream_query", "upstream_headers")
_NOTHING_FOUND_YET: dict[str, object] = {
    "display_status": DisplayStatus.UNKNOWN,
    "display_width": None,
    "display_height": None,
    "display_checked_at": None,
}


class Workspace(models.Model):
    """One remote desktop and how to reach it."""

    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=200)
    upstream_url = models.CharField(
        max_length=500,
        blank=True,
        validators=[validate_upstream_url],
        help_text="tcp://host:port or unix:///path of a VNC server; ws://, wss:// of websockify.",
    )
    # For websockify's token plugins, and proxies before it.
    upstream_query = EncryptedTextField(
        "address's query", blank=True, default="", db_default="", validators=[validate_query]
    )
    upstream_headers = EncryptedTextField(
        "address's headers", blank=True, default="", db_default="", validators=[validate_headers]
    )
    vnc_password = EncryptedTextField(
        "VNC password",
        blank=True,
        default="",
        help_text="Stored encrypted. VNC servers look at the first 8 characters only.",
    )
    # One more with each change of the address or its secrets: streams to the old one end.
    upstream_version = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    enabled = models.BooleanField(default=True)
    idle_seconds = models.PositiveIntegerField(
        "idle limit",
        null=True,
        blank=True,
        validators=[MinValueValidator(MIN_LIMIT_SECONDS)],
        help_text="Control ends after so many seconds without key or pointer input. Empty: never.",
    )
    max_hold_seconds = models.PositiveIntegerField(
        "longest hold",
        null=True,
        blank=True,
        validators=[MinValueValidator(MIN_LIMIT_SECONDS)],
        help_text="Control ends after so many seconds in all, unless its holder asks to keep it. "
        "Empty: never.",
    )
    parked_seconds = models.PositiveIntegerField(
        "parked for",
        null=True,
        blank=True,
        validators=[MinValueValidator(MIN_LIMIT_SECONDS)],
        help_text="After so many seconds a desktop whose controller went without handing it back "
        "is free for agents again. Empty: only when a person says so.",
    )
    accepts_clipboard = models.BooleanField(
        "takes pasted text",
        default=True,
        db_default=True,
        help_text="Whether text from the controller's clipboard goes to the desktop's.",
    )
    agents_see_people = models.BooleanField(
        "agents see what people do",
        default=False,
        db_default=False,
        help_text="Whether API tokens get screenshots while a person has control.",
    )
    # With it, the desktop itself may report its address (hashed: it is shown once).
    registration_digest = models.CharField(
        max_length=64, null=True, blank=True, unique=True, editable=False
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    # What the last connection or check found; a GET never dials.
    display_status = models.CharField(
        max_length=16, choices=DisplayStatus, default=DisplayStatus.UNKNOWN, editable=False
    )
    display_width = models.PositiveIntegerField(null=True, editable=False)
    display_height = models.PositiveIntegerField(null=True, editable=False)
    display_checked_at = models.DateTimeField(null=True, editable=False)
    # Which address and password the desktop refused, and when: not dialled again for a while.
    refused_credentials = models.CharField(max_length=64, blank=True, default="", editable=False)
    refused_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["name", "slug"]

    def __str__(self) -> str:
        return self.name

    def save(self, **kwargs: Any) -> None:
        """Save; a new workspace gets its lease row in the same transaction.

        A query in the address may be a secret: it is kept encrypted, beside it. What is there
        already is saved under its lease's lock: of two changes of the address, both are counted.
        """
        if "?" in self.upstream_url:
            self.point_to(self.upstream_url)
        with transaction.atomic():
            if self._state.adding:
                super().save(**kwargs)
                DisplayControlLease.objects.create(workspace=self)
                return
            moved = self._note_move()
            if moved and kwargs.get("update_fields") is not None:
                kwargs["update_fields"] = {*kwargs["update_fields"], *moved}
            super().save(**kwargs)

    def _note_move(self) -> dict[str, object]:
        """Where it leads elsewhere than before, set what follows from that, and return it."""
        DisplayControlLease.objects.select_for_update().filter(workspace=self.pk).first()
        before = Workspace.objects.filter(pk=self.pk).first()
        if before is None:
            return {}
        self.upstream_version = before.upstream_version
        names = ("upstream_url", *SECRET_FIELDS)
        if all(getattr(before, name) == getattr(self, name) for name in names):
            return {}
        moved = {"upstream_version": before.upstream_version + 1, **_NOTHING_FOUND_YET}
        for name, value in moved.items():
            setattr(self, name, value)
        return moved

    def clean(self) -> None:
        """Refuse limits that no clock can reckon with."""
        limits = {name: getattr(self, name) or 0 for name in LIMITS}
        problem = f"At most {MAX_LIMIT_SECONDS} seconds (a year); leave it empty for no limit."
        too_long = {name: problem for name, value in limits.items() if value > MAX_LIMIT_SECONDS}
        if too_long:
            raise ValidationError(too_long)

    @property
    def address(self) -> str:
        """Where its desktop is: its own address, or what DISPLAY_UPSTREAM_TEMPLATE makes of it."""
        if self.upstream_url:
            return self.upstream_url
        return str(settings.DISPLAY.upstream_template).replace("{slug}", self.slug)

    @property
    def is_configured(self) -> bool:
        """Whether a stream could be opened at all."""
        return self.enabled and bool(self.address)

    def point_to(self, url: str) -> None:
        """Change the address. The old one's query and headers are not for another's eyes."""
        address, has_query, query = url.partition("?")
        if address != self.upstream_url.partition("?")[0]:
            self.upstream_query = self.upstream_headers = ""
        if has_query:
            self.upstream_query = query
        self.upstream_url = address

    @property
    def shown_upstream(self) -> str:
        """The address as people may see it: that there are secrets, and not which."""
        query = "?••••" if self.upstream_query else ""
        headers = " with headers" if self.upstream_headers else ""
        origin = " (by the template)" if self.address and not self.upstream_url else ""
        return f"{self.address}{query}{headers}{origin}"

    @property
    def stored_secrets(self) -> list[str]:
        """The names of the secrets that are stored, readable or not."""
        stored = ((name, getattr(self, name)) for name in SECRET_FIELDS)
        return [name for name, value in stored if value or isinstance(value, UnreadableSecret)]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers to send to websockify, as (name, value)."""
        found = (_HEADER.fullmatch(line) for line in self.upstream_headers.splitlines())
        return tuple((match["name"], match["value"]) for match in found if match)

    @property
    def unreadable_secrets(self) -> list[str]:
        """The secrets that were stored with a SECRET_KEY that we no longer have."""
        return [name for name in SECRET_FIELDS if isinstance(getattr(self, name), UnreadableSecret)]


class WorkspaceGrant(models.Model):
    """What one user, or the members of one group, may do with a workspace."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="grants")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE
    )
    group = models.ForeignKey("auth.Group", null=True, blank=True, on_delete=models.CASCADE)
    role = models.CharField(max_length=16, choices=Role)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, group__isnull=True)
                | Q(user__isnull=True, group__isnull=False),
                name="grant_to_a_user_or_a_group",
                violation_error_message="Choose either a user or a group.",
            ),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="grant_role_is_known"),
            models.UniqueConstraint(
                fields=["workspace", "user"],
                condition=Q(user__isnull=False),
                name="one_grant_per_user",
                violation_error_message="This user has a grant for this workspace already.",
            ),
            models.UniqueConstraint(
                fields=["workspace", "group"],
                condition=Q(group__isnull=False),
                name="one_grant_per_group",
                violation_error_message="This group has a grant for this workspace already.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group}: {self.role} of {self.workspace}"


class ApiToken(models.Model):
    """A program's credential: an account of its own, and what that may do where.

    The token itself is shown once and kept as a digest. A revoked or expired one may do nothing.
    One of kind ``user`` is a control link (``links.py``): a person's, for one browser tab.
    """

    name = models.CharField(max_length=100, unique=True)
    account = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="api_token",
        editable=False,
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.CharField(max_length=64, help_text="observe, control, manage; blanks between")
    all_workspaces = models.BooleanField(
        default=False, help_text="Also those that will be added later."
    )
    workspaces = models.ManyToManyField(Workspace, blank=True, related_name="api_tokens")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.CharField(max_length=301, blank=True, default="", editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    # Of control links alone: the ticket until it is exchanged, then when, and for which tab.
    kind = models.CharField(
        max_length=8,
        choices=[(Controller.AGENT, "program"), (Controller.USER, "control link")],
        default=Controller.AGENT,
        db_default=Controller.AGENT,
        editable=False,
    )
    ticket_digest = models.CharField(
        max_length=64, null=True, blank=True, unique=True, editable=False
    )
    exchanged_at = models.DateTimeField("link opened at", null=True, editable=False)
    client_id = models.CharField(
        max_length=64, blank=True, default="", db_default="", editable=False
    )

    class Meta:
        verbose_name = "API token"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def scope_set(self) -> frozenset[str]:
        """The scopes, as a set."""
        return frozenset(self.scopes.split())

    @property
    def is_link(self) -> bool:
        """Whether a person holds it, in one browser tab."""
        return self.kind == Controller.USER


class DisplayControlLease(models.Model):
    """Who has control of a workspace, until when. One row per workspace, never deleted alone.

    Held means: ``ended_at`` is null and ``expires_at`` lies ahead. ``epoch`` is the fencing
    number: one more with each change of holder, never reset. ``version`` counts writes.
    """

    workspace = models.OneToOneField(Workspace, on_delete=models.CASCADE, related_name="lease")
    epoch = models.PositiveBigIntegerField(default=0)
    version = models.PositiveBigIntegerField(default=0)
    controller = models.CharField(max_length=8, choices=Controller, default=Controller.NONE)
    holder = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    client_id = models.CharField(max_length=64, blank=True, default="")
    login = models.CharField(max_length=64, blank=True, default="")  # see access.login_id
    acquired_at = models.DateTimeField(null=True)
    renewed_at = models.DateTimeField(null=True)
    kept_at = models.DateTimeField(null=True)  # taken, or “Keep control” pressed: limits count on
    expires_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    ended_reason = models.CharField(max_length=16, blank=True, default="", choices=EndReason)
    ended_by = models.CharField(max_length=301, blank=True, default="")  # 150 + space + 150
    ended_note = models.CharField(max_length=MAX_NOTE_LENGTH, blank=True, default="")
    renewals = models.PositiveBigIntegerField(default=0)
    # Hidden from watchers, for as long as this epoch is held.
    hidden_at = models.DateTimeField(null=True)
    # The agent that has had control, or has asked for a person, and has not let go of it since.
    agent = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # Parked: a person's control ended without their handing it back; no agent may have it.
    parked_at = models.DateTimeField(null=True)
    parked_by = models.CharField(max_length=301, blank=True, default="", db_default="")
    parked_reason = models.CharField(
        max_length=16, blank=True, default="", db_default="", choices=EndReason
    )
    # The agent asks for a person.
    help_at = models.DateTimeField(null=True)
    help_reason = models.CharField(
        max_length=MAX_MESSAGE_LENGTH, blank=True, default="", db_default=""
    )
    # Handed back by a person, until a person has control again.
    handed_back_at = models.DateTimeField(null=True)
    handed_back_epoch = models.PositiveBigIntegerField(null=True)
    handed_back_by = models.CharField(max_length=301, blank=True, default="", db_default="")
    handed_back_outcome = models.CharField(
        max_length=16, blank=True, default="", db_default="", choices=HandBack
    )
    handed_back_note = models.CharField(
        max_length=MAX_NOTE_LENGTH, blank=True, default="", db_default=""
    )
    # Closed: nobody may have control until it is opened again.
    closed_at = models.DateTimeField(null=True)
    closed_by = models.CharField(max_length=301, blank=True, default="", db_default="")
    closed_note = models.CharField(
        max_length=MAX_NOTE_LENGTH, blank=True, default="", db_default=""
    )

    class Meta:
        verbose_name = "lease"
        constraints = [
            models.CheckConstraint(
                condition=Q(controller__in=Controller.values), name="lease_controller_is_known"
            ),
            models.CheckConstraint(
                # A holder's account may be deleted while its lease stands; it can do nothing then.
                condition=Q(controller=Controller.NONE)
                | (~Q(client_id="") & Q(acquired_at__isnull=False, expires_at__isnull=False)),
                name="lease_held_is_complete",
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(controller=Controller.NONE),
                name="lease_ended_has_no_controller",
            ),
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True) | Q(controller=Controller.NONE),
                name="lease_closed_has_no_controller",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.workspace}, epoch {self.epoch}"


class DisplayStream(models.Model):
    """One display websocket, written by streamrows.py. Inserting it spends its session token."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="streams")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    client_id = models.CharField(max_length=64)
    token_id = models.CharField(max_length=64, unique=True)
    mode = models.CharField(max_length=8, default="observe")
    process = models.CharField(max_length=64)
    opened_at = models.DateTimeField(db_default=Now())
    stamped_at = models.DateTimeField(db_default=Now())
    last_input_at = models.DateTimeField(null=True)
    # The epoch in which its input may reach the desktop: set before its gate opens, cleared once
    # its gate has shut and its key-ups are written.
    driving_epoch = models.PositiveBigIntegerField(null=True)
    # Its pointer at the newest poll, for whoever has to let go of the buttons of a dead process.
    pointer_x = models.PositiveIntegerField(null=True)
    pointer_y = models.PositiveIntegerField(null=True)
    pointer_buttons = models.PositiveSmallIntegerField(null=True)
    disconnected_by = models.CharField(max_length=301, blank=True, default="", db_default="")
    closed_at = models.DateTimeField(null=True)
    close_code = models.PositiveIntegerField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(mode__in=["observe", "control"]), name="stream_mode_is_known"
            ),
        ]
        indexes = [
            models.Index(
                fields=["workspace", "client_id"],
                condition=Q(closed_at__isnull=True),
                name="open_streams",
            ),
            models.Index(
                fields=["workspace"],
                condition=Q(driving_epoch__isnull=False),
                name="driving_streams",
            ),
            models.Index(fields=["workspace", "user", "client_id"], name="streams_of_a_seat"),
        ]

    def __str__(self) -> str:
        return f"stream {self.pk} of {self.workspace}"


class ControlRequest(models.Model):
    """Somebody asks the holder for control. One open request per person and workspace."""

    class Outcome(models.TextChoices):
        """How a request ended."""

        GRANTED = "granted"
        DECLINED = "declined"
        WITHDRAWN = "withdrawn"

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="requests")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    client_id = models.CharField(max_length=64)
    login = models.CharField(max_length=64, blank=True, default="")  # see access.login_id
    message = models.CharField(max_length=MAX_MESSAGE_LENGTH, blank=True, default="")
    asked_at = models.DateTimeField(db_default=Now())
    granted_at = models.DateTimeField(null=True)  # granted by itself then, unless there is input
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=16, blank=True, default="", choices=Outcome)

    class Meta:
        verbose_name = "request"
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "user"],
                condition=Q(ended_at__isnull=True),
                name="one_open_request_per_person",
            ),
        ]

    def __str__(self) -> str:
        return f"request {self.pk} for {self.workspace}"


class ControlEvent(models.Model):
    """What happened to control, and what was refused. Written with the change it tells of.

    Refusals are counted: one row for each person, client, reason and minute.
    """

    class What(models.TextChoices):
        """The kinds of events."""

        ACQUIRED = "acquired"
        RESUMED = "resumed"
        PREEMPTED = "preempted"
        MOVED = "moved"
        HANDED_OVER = "handed_over"
        RELEASED = "released"
        EXPIRED = "expired"
        IDLE = "idle"
        MAX_HOLD = "max_hold"
        FORCED = "forced"
        ACCESS_ENDED = "access_ended"
        CLOSED = "closed"
        OPENED = "opened"
        KEPT = "kept"
        REQUESTED = "requested"
        DECLINED = "declined"
        WITHDRAWN = "withdrawn"
        HIDDEN = "hidden"
        SHOWN = "shown"
        HELP_ASKED = "help_asked"
        HELP_WITHDRAWN = "help_withdrawn"
        HANDED_BACK = "handed_back"
        PARKED = "parked"
        FREED = "freed"
        REFUSED = "refused"
        LINK_MADE = "link_made"
        LINK_OPENED = "link_opened"
        LINK_REVOKED = "link_revoked"

    TRANSITIONS = frozenset(
        {
            *(What.ACQUIRED, What.RESUMED, What.PREEMPTED, What.MOVED, What.HANDED_OVER),
            *(What.RELEASED, What.EXPIRED, What.IDLE, What.MAX_HOLD, What.FORCED),
            What.ACCESS_ENDED,
        }
    )
    """Those after which somebody else, or nobody, has control."""

    workspace = models.ForeignKey(
        Workspace, null=True, on_delete=models.SET_NULL, related_name="events"
    )
    workspace_slug = models.CharField(max_length=64)
    what = models.CharField(max_length=16, choices=What)
    who = models.CharField(max_length=301, blank=True, default="")
    client_id = models.CharField(max_length=64, blank=True, default="")
    epoch = models.PositiveBigIntegerField()
    ended_epoch = models.PositiveBigIntegerField(null=True)
    reason = models.CharField(max_length=32, blank=True, default="")
    note = models.CharField(max_length=MAX_NOTE_LENGTH, blank=True, default="")
    ip = models.GenericIPAddressField(null=True)
    # Of refusals in the minute that begins with ``at``.
    count = models.PositiveIntegerField(default=1, db_default=1)
    at = models.DateTimeField()

    class Meta:
        verbose_name = "event"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["workspace", "ended_epoch"], name="epoch_ends"),
            models.Index(
                fields=["workspace", "client_id", "at"],
                condition=Q(what="refused"),
                name="refusals_of_the_minute",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.what} ({self.workspace_slug}, epoch {self.epoch})"


class Webhook(models.Model):
    """Another server that is told what happens to control, in one workspace or in all."""

    name = models.CharField(max_length=100, unique=True)
    url = models.CharField(
        "address",
        max_length=1000,
        validators=[validate_webhook_url],
        help_text="https://… or http://…; it gets a POST for each event.",
    )
    secret = EncryptedTextField(editable=False)
    workspace = models.ForeignKey(
        Workspace,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="webhooks",
        help_text="Empty: all, also those that will be added later.",
    )
    enabled = models.BooleanField(
        default=True, help_text="While it is not, it is told nothing; what waits goes on waiting."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.CharField(max_length=301, blank=True, default="", editable=False)
    # How many of its deliveries there have ever been: the rows of most are gone, and many.
    delivered = models.PositiveBigIntegerField(default=0, db_default=0, editable=False)
    given_up = models.PositiveBigIntegerField(default=0, db_default=0, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_secret_readable(self) -> bool:
        """Whether its secret was stored with a SECRET_KEY that we still have."""
        return not isinstance(self.secret, UnreadableSecret)


class WebhookDelivery(models.Model):
    """One event that one webhook is told. Waits until ``delivered_at`` or ``failed_at`` is set.

    The row is written with its event, by the database alone (``webhooks/outbox.py``): hence the
    defaults.
    """

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.ForeignKey(ControlEvent, on_delete=models.CASCADE, related_name="deliveries")
    workspace_slug = models.CharField(max_length=64)
    attempts = models.PositiveIntegerField(default=0, db_default=0)
    next_try_at = models.DateTimeField(db_default=Now())
    delivered_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField("given up at", null=True)
    last_status = models.PositiveIntegerField(null=True)
    last_error = models.CharField(max_length=300, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "webhook deliveries"
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["webhook", "workspace_slug", "event"],
                condition=Q(delivered_at__isnull=True, failed_at__isnull=True),
                name="waiting_deliveries",
            ),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk} of event {self.event_id} to {self.webhook}"
