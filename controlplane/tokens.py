"""Session tokens: a signed, short-lived permission to open one stream, once.

A token is bound to a workspace, a user, a client_id and the login that minted it. It is encrypted,
because it carries the session's key, and consists of A-Za-z0-9_- only: it travels as a websocket
subprotocol. Its time is judged by the database's clock. Spending it is one insert (the stream's own
row), so a second use fails on every node.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from controlplane import access, crypto, presenters
from controlplane.exceptions import DisplayMissing, StreamForbidden, TokenRefused, TooManyStreams
from controlplane.models import DisplayStream, Workspace

_PURPOSE = "session token"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. ``expires`` is seconds since the epoch, by the database's clock."""

    id: str
    workspace: int
    user: int
    client_id: str
    session_key: str
    expires: float


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token and when it ends."""

    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Admission:
    """A token has been spent: this user may open this stream now."""

    stream: DisplayStream
    workspace: Workspace
    user: User
    claims: Claims


def mint(workspace: Workspace, user: User, client_id: str, session_key: str) -> Minted:
    """Return a token with which this tab, in this login, may open one stream within 60 s."""
    expires_at = _now(workspace.pk) + timedelta(seconds=settings.DISPLAY.token_seconds)
    claims = Claims(
        id=secrets.token_urlsafe(16),
        workspace=workspace.pk,
        user=user.pk,
        client_id=client_id,
        session_key=session_key,
        expires=expires_at.timestamp(),
    )
    token = crypto.encrypt(_PURPOSE, json.dumps(asdict(claims))).rstrip("=")
    return Minted(token, expires_at)


def spend(token: str, slug: str, process: str) -> Admission:
    """Open a stream row for the token's bearer, or raise the StreamRefused that says why not."""
    claims = _read(token)
    with transaction.atomic():
        workspace = Workspace.objects.annotate(db_now=Now()).filter(pk=claims.workspace).first()
        if workspace is None:
            raise DisplayMissing("This workspace no longer exists.")
        if workspace.slug != slug:
            raise TokenRefused("The token is for another workspace.")
        if workspace.db_now.timestamp() > claims.expires:
            raise TokenRefused("The token has expired.")
        user = _admit(claims, workspace)
        return Admission(_insert(claims, workspace, process), workspace, user, claims)


def _read(token: str) -> Claims:
    if not token:
        raise TokenRefused("No token was sent.")
    try:
        text = crypto.decrypt(_PURPOSE, token + "=" * (-len(token) % 4))
    except crypto.Unreadable:
        raise TokenRefused("The token is not one of ours.") from None
    return Claims(**json.loads(text))


def _admit(claims: Claims, workspace: Workspace) -> User:
    user = User.objects.filter(pk=claims.user).first()
    if user is None or not access.is_logged_in(user, claims.session_key):
        raise StreamForbidden("You are signed out.")
    may = access.permissions(user, workspace)
    if not may.observe:
        raise StreamForbidden("You may not watch this workspace.")
    if not workspace.is_configured:
        raise DisplayMissing("The display of this workspace is not enabled.")
    _check_limits(user, workspace, claims.client_id, is_exempt=may.force)
    return user


def _check_limits(user: User, workspace: Workspace, client_id: str, *, is_exempt: bool) -> None:
    """Refuse one stream too many; never the holder's or a manager's.

    A stream that replaces its own predecessor does not count twice.
    """
    if is_exempt or _is_held_by(workspace, user, client_id):
        return
    others = presenters.open_streams().exclude(workspace=workspace, user=user, client_id=client_id)
    if others.filter(user=user).count() >= settings.DISPLAY.max_streams_per_user:
        raise TooManyStreams("You have too many displays open.")
    if others.filter(workspace=workspace).count() >= settings.DISPLAY.max_streams_per_workspace:
        raise TooManyStreams("Too many people are watching this workspace.")


def _is_held_by(workspace: Workspace, user: User, client_id: str) -> bool:
    return presenters.read([workspace.pk])[workspace.pk].is_held_by(user.pk, client_id)


def _insert(claims: Claims, workspace: Workspace, process: str) -> DisplayStream:
    try:
        with transaction.atomic():
            return DisplayStream.objects.create(
                workspace=workspace,
                user_id=claims.user,
                client_id=claims.client_id,
                token_id=claims.id,
                process=process,
            )
    except IntegrityError:
        raise TokenRefused("The token has been used already.") from None


def _now(workspace_pk: int) -> datetime:
    return Workspace.objects.annotate(db_now=Now()).only("pk").get(pk=workspace_pk).db_now
