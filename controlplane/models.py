"""The tables: workspaces and who may use them, the lease of each, streams, and what happened.

Lease rows are written by ``leases.py`` alone. Times are the database's clock.
"""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from controlplane.destinations import parse_url
from controlplane.exceptions import UpstreamError
from controlplane.fields import EncryptedTextField, UnreadableSecret

CLIENT_ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"
MAX_NOTE_LENGTH = 500


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


class EndReason(models.TextChoices):
    """Why an epoch ended."""

    PREEMPTED = "preempted"
    MOVED = "moved"
    RELEASED = "released"
    EXPIRED = "expired"
    FORCED = "forced"
    ACCESS_ENDED = "access_ended"


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

SECRET_FIELDS = ("vnc_password", "upstream_query", "upstream_headers")


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
        "address's query", blank=True, default="", validators=[validate_query]
    )
    upstream_headers = EncryptedTextField(
        "address's headers", blank=True, default="", validators=[validate_headers]
    )
    vnc_password = EncryptedTextField(
        "VNC password",
        blank=True,
        default="",
        help_text="Stored encrypted. VNC servers look at the first 8 characters only.",
    )
    enabled = models.BooleanField(default=True)
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

        A query in the address may be a secret: it is kept encrypted, beside it.
        """
        if "?" in self.upstream_url:
            self.point_to(self.upstream_url)
        with transaction.atomic():
            is_new = self._state.adding
            super().save(**kwargs)
            if is_new:
                DisplayControlLease.objects.create(workspace=self)

    @property
    def is_configured(self) -> bool:
        """Whether a stream could be opened at all."""
        return self.enabled and bool(self.upstream_url)

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
        return f"{self.upstream_url}{query}{' with headers' if self.upstream_headers else ''}"

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
    expires_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    ended_reason = models.CharField(max_length=16, blank=True, default="", choices=EndReason)
    ended_by = models.CharField(max_length=301, blank=True, default="")  # 150 + space + 150
    ended_note = models.CharField(max_length=MAX_NOTE_LENGTH, blank=True, default="")
    renewals = models.PositiveBigIntegerField(default=0)

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
        ]

    def __str__(self) -> str:
        return f"{self.workspace}, epoch {self.epoch}"


class DisplayStream(models.Model):
    """One display websocket. Inserting the row spends its session token (``token_id``)."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="streams")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    client_id = models.CharField(max_length=64)
    token_id = models.CharField(max_length=64, unique=True)
    mode = models.CharField(max_length=8, default="observe")
    process = models.CharField(max_length=64)
    opened_at = models.DateTimeField(db_default=Now())
    stamped_at = models.DateTimeField(db_default=Now())
    last_input_at = models.DateTimeField(null=True)
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
        ]

    def __str__(self) -> str:
        return f"stream {self.pk} of {self.workspace}"


class ControlEvent(models.Model):
    """What happened to control, and what was refused. Written with the change it tells of."""

    class What(models.TextChoices):
        """The kinds of events."""

        ACQUIRED = "acquired"
        RESUMED = "resumed"
        PREEMPTED = "preempted"
        MOVED = "moved"
        RELEASED = "released"
        EXPIRED = "expired"
        FORCED = "forced"
        ACCESS_ENDED = "access_ended"
        REFUSED = "refused"

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
    at = models.DateTimeField()

    class Meta:
        verbose_name = "event"
        ordering = ["-id"]
        indexes = [models.Index(fields=["workspace", "ended_epoch"], name="epoch_ends")]

    def __str__(self) -> str:
        return f"{self.what} ({self.workspace_slug}, epoch {self.epoch})"
