"""API tokens: making, finding and revoking the credentials of programs.

A token is a random text that is shown once. The database keeps its digest: 256 random bits need no
slow hash (nothing can be guessed), and a fast one lets every call find its token by an index.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils.text import slugify

from controlplane import access, events
from controlplane.models import ApiToken, ControlEvent, DisplayControlLease, Scope, Workspace

logger = logging.getLogger(__name__)

PREFIX = "dctl_"  # so that scanners, and people, can tell what has leaked
LINK_PREFIX = PREFIX + "link_"
USE_IS_NOTED_EVERY = timedelta(minutes=1)
_SECRET_BYTES = 32


def create(
    name: str,
    scopes: Iterable[str],
    *,
    workspaces: Iterable[Workspace] | None,
    expires_at: datetime | Combinable | None = None,
    created_by: str = "",
) -> tuple[ApiToken, str]:
    """Return a new token's row and the text that its program sends: this is its only showing.

    ``workspaces`` is None for all, also those to come. Raises ValueError for an unknown scope.
    """
    token = ApiToken(
        name=name,
        scopes=join_scopes(scopes),
        all_workspaces=workspaces is None,
        expires_at=expires_at,
        created_by=created_by,
    )
    with transaction.atomic():
        text = issue(token)
        token.workspaces.set(workspaces or [])
    return token, text


def join_scopes(scopes: Iterable[str]) -> str:
    """Return scopes as the row keeps them. Raises ValueError for an unknown one, and for none."""
    given = set(scopes)
    known = [scope for scope in Scope.values if scope in given]
    if not known or given - set(known):
        raise ValueError(f"scopes: one or more of {', '.join(Scope.values)}")
    return " ".join(known)


def issue(token: ApiToken) -> str:
    """Save a new row, with an account of its own, and return the text that its program sends."""
    text = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    with transaction.atomic():
        token.account = make_account(token.name)
        token.digest = digest(text)
        token.save(force_insert=True)
    logger.info("API token %s made (%s)", token.name, token.scopes)
    return text


def make_account(name: str) -> User:
    """Make the account that the streams and leases of a token belong to; nobody can log in."""
    username = f"token-{slugify(name)[:40]}-{secrets.token_hex(4)}"
    account = User(username=username, first_name=name)
    account.set_unusable_password()
    account.save()
    return account


def digest(text: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256((_SALT_OF_LINKS * is_of_link(text) + text).encode()).hexdigest()


def is_of_link(text: str) -> bool:
    """Whether it reads like the bearer of a control link."""
    return text.startswith(LINK_PREFIX)


# A server of the version before, beside us in an upgrade, must not find one: it would take it for a
# program's, and in any tab.
_SALT_OF_LINKS = "control link "


def find(text: str) -> ApiToken | None:
    """Return the token that is good and reads so, and note now and then that it is used."""
    good = access.good_tokens().select_related("account").annotate(is_due=_USE_IS_DUE)
    token = good.filter(digest=digest(text)).first()
    if token and token.is_due:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=Now())
    return token


_USE_IS_DUE = ExpressionWrapper(
    Q(last_used_at=None) | Q(last_used_at__lt=Now() - USE_IS_NOTED_EVERY), BooleanField()
)


def rows() -> QuerySet[ApiToken]:
    """All tokens with what ``state`` and ``reach`` ask of them, by the database's clock."""
    tokens = ApiToken.objects.select_related("account").prefetch_related("workspaces")
    return tokens.annotate(db_now=Now())


def state(token: Any) -> str:
    """Return ``good``, ``revoked``, ``expired`` or ``disabled`` for one of ``rows``."""
    if token.revoked_at:
        return "revoked"
    if token.expires_at and token.expires_at <= token.db_now:
        return "expired"
    return "good" if token.account.is_active else "disabled"


def reach(token: ApiToken) -> list[str] | None:
    """Return the slugs of the workspaces that a token is for; None: all of them."""
    if token.all_workspaces:
        return None
    return sorted(workspace.slug for workspace in token.workspaces.all())


@transaction.atomic
def revoke(token: ApiToken, *, by: str = "", ip: str | None = None) -> bool:
    """End a token for good: its leases now, its streams within seconds (signals.py, watch.py).

    Returns whether it had not been ended before. The end of a control link is an event.
    """
    if ApiToken.objects.select_for_update().get(pk=token.pk).revoked_at:
        return False
    token.revoked_at = Now()
    token.save(update_fields=["revoked_at"])
    token.refresh_from_db(fields=["revoked_at"])
    if token.is_link:
        record(token, ControlEvent.What.LINK_REVOKED, who=by, ip=ip)
    logger.info("API token %s revoked", token.name)
    return True


def record(
    token: ApiToken, what: ControlEvent.What, *, who: str, client_id: str = "", ip: str | None
) -> None:
    """Append an event about a control link to those of its workspace."""
    for lease in DisplayControlLease.objects.select_related("workspace").filter(
        workspace__in=token.workspaces.all()
    ):
        events.record(
            lease.workspace,
            what,
            at=Now(),
            epoch=lease.epoch,
            who=who,
            client_id=client_id,
            note=token.name,
            ip=ip,
        )
