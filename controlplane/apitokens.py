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

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now
from django.utils.text import slugify

from controlplane import access
from controlplane.models import ApiToken, Scope, Workspace

logger = logging.getLogger(__name__)

PREFIX = "dctl_"  # so that scanners, and people, can tell what has leaked
USE_IS_NOTED_EVERY = timedelta(minutes=1)
_SECRET_BYTES = 32


def create(
    name: str,
    scopes: Iterable[str],
    *,
    workspaces: Iterable[Workspace] | None,
    expires_at: datetime | None = None,
    created_by: str = "",
) -> tuple[ApiToken, str]:
    """Return a new token's row and the text that its program sends: this is its only showing.

    ``workspaces`` is None for all, also those to come. Raises ValueError for an unknown scope.
    """
    known = [scope for scope in Scope.values if scope in set(scopes)]
    if not known or set(scopes) - set(known):
        raise ValueError(f"scopes: one or more of {', '.join(Scope.values)}")
    text = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    with transaction.atomic():
        token = ApiToken.objects.create(
            name=name,
            account=_account(name),
            digest=digest(text),
            scopes=" ".join(known),
            all_workspaces=workspaces is None,
            expires_at=expires_at,
            created_by=created_by,
        )
        token.workspaces.set(workspaces or [])
    return token, text


def _account(name: str) -> User:
    """Make the account that the streams and leases of a token belong to; nobody can log in."""
    username = f"token-{slugify(name)[:40]}-{secrets.token_hex(4)}"
    account = User(username=username, first_name=name)
    account.set_unusable_password()
    account.save()
    return account


def digest(text: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()


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


def revoke(token: ApiToken) -> None:
    """End a token for good: its leases now, its streams within seconds (signals.py, watch.py)."""
    token.revoked_at = Now()
    token.save(update_fields=["revoked_at"])
    token.refresh_from_db(fields=["revoked_at"])
    logger.info("API token %s revoked", token.name)
