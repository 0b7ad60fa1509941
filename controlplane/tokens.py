"""Session tokens: a signed, short-lived permission to open one stream, once.

A token is bound to a workspace, a user, a client_id and the login that minted it. It is encrypted,
because it carries the session's key, and consists of A-Za-z0-9_- only: it travels as a websocket
subprotocol. Its time is judged by the database's clock. Spending it is one insert (the stream's own
row), so a second use fails on every node.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Count
from django.db.models.functions import Now

from controlplane import access, crypto, leaseviews, presenters, streamrows
from controlplane.access import Permissions
from controlplane.exceptions import (
    DisplayHidden,
    DisplayMissing,
    StreamForbidden,
    StreamRefused,
    TokenRefused,
    TooManyStreams,
)
from controlplane.leaseviews import LeaseView
from controlplane.models import DisplayStream, Workspace

_PURPOSE = "session token"


@dataclass(frozen=True, slots=True)
class TokenContent:
    """What a token says. ``expires`` is Unix time, by the database's clock."""

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
    """A token has been spent: this user may open this stream now.

    ``view`` is the lease, from a read that began at ``read_started`` (monotonic seconds).
    """

    stream: DisplayStream
    workspace: Workspace
    user: User
    token: TokenContent
    can: Permissions
    view: LeaseView
    read_started: float
    is_reconnect: bool = False  # this tab has had a stream to this desktop before


def mint(workspace: Workspace, user: User, client_id: str, session_key: str) -> Minted:
    """Return a token that opens one stream for this tab, in this login, for a short while."""
    expires_at = _now(workspace.pk) + timedelta(seconds=settings.DISPLAY.token_seconds)
    content = TokenContent(
        id=secrets.token_urlsafe(16),
        workspace=workspace.pk,
        user=user.pk,
        client_id=client_id,
        session_key=session_key,
        expires=expires_at.timestamp(),
    )
    token = crypto.encrypt(_PURPOSE, json.dumps(asdict(content))).rstrip("=")
    return Minted(token, expires_at)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What somebody who dials has shown: a token, and the workspace whose address was dialled."""

    token: str
    slug: str


def spend(token: str, slug: str, process: str) -> Admission:
    """Open a stream row for the token's bearer, or raise the StreamRefused that says why not."""
    (outcome,) = spend_all([Ticket(token, slug)], process)
    if isinstance(outcome, StreamRefused):
        raise outcome
    return outcome


def spend_all(tickets: list[Ticket], process: str) -> list[Admission | StreamRefused]:
    """Do the same for several at once, in one transaction and with as many queries as for one.

    Each is judged by itself: one that is refused takes no other with it.
    """
    outcomes: list[Admission | StreamRefused] = []
    contents = [_read(ticket.token) for ticket in tickets]
    with transaction.atomic():
        door = _Door([each for each in contents if isinstance(each, TokenContent)])
        for ticket, content in zip(tickets, contents, strict=True):
            outcomes.append(door.judge(content, ticket.slug, process))
        return _insert(outcomes)


def _read(token: str) -> TokenContent | TokenRefused:
    if not token:
        return TokenRefused("No token was sent.")
    try:
        text = crypto.decrypt(_PURPOSE, token + "=" * (-len(token) % 4))
        return TokenContent(**json.loads(text))
    except (crypto.Unreadable, ValueError, TypeError):
        return TokenRefused("The token is not one of ours.")


class _Door:
    """All that decides about the bearers of these tokens, read together."""

    def __init__(self, contents: list[TokenContent]) -> None:
        self._read_started = time.monotonic()
        workspaces = {each.workspace for each in contents}
        self._workspaces = {
            workspace.pk: workspace
            for workspace in Workspace.objects.annotate(db_now=Now()).filter(pk__in=workspaces)
        }
        self._users = User.objects.in_bulk({each.user for each in contents})
        known = [each for each in contents if each.user in self._users]
        self._logins = access.standing_logins(
            (self._users[each.user], each.session_key) for each in known
        )
        self._permissions = access.permission_table(self._users.values(), workspaces)
        self._views = leaseviews.read(workspaces)
        self._crowd = _Crowd(self._users, workspaces)
        self._seats = _seats(contents)

    def judge(
        self, content: TokenContent | TokenRefused, slug: str, process: str
    ) -> Admission | StreamRefused:
        """Return the admission, its row not yet inserted, or why there is none."""
        if isinstance(content, TokenRefused):
            return content
        try:
            workspace = self._open(content, slug)
            user, can = self._admit(content, workspace)
        except StreamRefused as error:
            return error
        self._crowd.add(content)
        row = DisplayStream(
            workspace=workspace,
            user_id=content.user,
            client_id=content.client_id,
            token_id=content.id,
            process=process,
        )
        view, is_reconnect = self._views[workspace.pk], _seat(content) in self._seats
        return Admission(row, workspace, user, content, can, view, self._read_started, is_reconnect)

    def _open(self, content: TokenContent, slug: str) -> Workspace:
        workspace = self._workspaces.get(content.workspace)
        if workspace is None or workspace.pk not in self._views:
            raise DisplayMissing("This workspace no longer exists.")
        if workspace.slug != slug:
            raise TokenRefused("The token is for another workspace.")
        if workspace.db_now.timestamp() > content.expires:
            raise TokenRefused("The token has expired.")
        return workspace

    def _admit(self, content: TokenContent, workspace: Workspace) -> tuple[User, Permissions]:
        user = self._users.get(content.user)
        if user is None or (user.pk, content.session_key) not in self._logins:
            raise StreamForbidden("You are signed out.")
        can = self._permissions[user.pk, workspace.pk]
        if not can.observe:
            raise StreamForbidden("You may not watch this workspace.")
        if not workspace.is_configured:
            raise DisplayMissing("The display of this workspace is not enabled.")
        view = self._views[workspace.pk]
        if view.hides_from(user.pk, content.client_id):
            raise DisplayHidden(presenters.why_hidden(view))
        is_holder = view.is_held_by(user.pk, content.client_id)
        if not (can.force or is_holder):
            self._crowd.check(content)
        return user, can


Seat = tuple[int, int, str]


def _seat(content: TokenContent) -> Seat:
    return content.workspace, content.user, content.client_id


def _seats(contents: list[TokenContent]) -> set[Seat]:
    """Return those of their seats that have had a stream before; rows are kept for a day."""
    known = DisplayStream.objects.filter(
        workspace__in={each.workspace for each in contents},
        user__in={each.user for each in contents},
        client_id__in={each.client_id for each in contents},
    )
    return set(known.values_list("workspace", "user", "client_id").distinct())


class _Crowd:
    """How many streams are open: of each user, and of each workspace."""

    def __init__(self, users: Iterable[int], workspaces: Iterable[int]) -> None:
        self._by_user = _count("user", users)
        self._by_workspace = _count("workspace", workspaces)

    def add(self, content: TokenContent) -> None:
        """Count one that is let in now."""
        self._by_user[content.user] += 1
        self._by_workspace[content.workspace] += 1

    def check(self, content: TokenContent) -> None:
        """Refuse one stream too many; one that replaces its own predecessor does not count."""
        display = settings.DISPLAY
        is_full_for_user = self._by_user[content.user] >= display.max_streams_per_user
        is_full = self._by_workspace[content.workspace] >= display.max_streams_per_workspace
        if not (is_full_for_user or is_full):
            return
        own = streamrows.open_streams().filter(
            workspace=content.workspace, user=content.user, client_id=content.client_id
        )
        if own.exists():
            return
        if is_full_for_user:
            raise TooManyStreams("You have too many displays open.")
        raise TooManyStreams("Too many people are watching this workspace.")


def _count(column: str, keys: Iterable[int]) -> Counter[int]:
    rows = streamrows.open_streams().filter(**{f"{column}__in": list(keys)})
    return Counter(dict(rows.values_list(column).annotate(number=Count("pk"))))


def _insert(outcomes: list[Admission | StreamRefused]) -> list[Admission | StreamRefused]:
    """Insert the rows of those admitted: that spends their tokens, each once on all nodes."""
    admitted = [each for each in outcomes if isinstance(each, Admission)]
    try:
        streamrows.insert([each.stream for each in admitted])
        return outcomes
    except IntegrityError:  # one of them has been spent: find out which
        return [_insert_one(each) if isinstance(each, Admission) else each for each in outcomes]


def _insert_one(admission: Admission) -> Admission | StreamRefused:
    try:
        streamrows.insert([admission.stream])
    except IntegrityError:
        return TokenRefused("The token has been used already.")
    return admission


def _now(workspace_pk: int) -> datetime:
    return Workspace.objects.annotate(db_now=Now()).only("pk").get(pk=workspace_pk).db_now
