"""Control links: one workspace, for a person without an account, in one browser tab, for a while.

A link is an API token of kind ``user`` (``apitokens.py``). What its maker passes on is a ticket;
the first tab that shows it gets the bearer, and the ticket is spent. So a link that was read on its
way either no longer works, or is noticed by the person for whom it does not.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from controlplane import access, apitokens
from controlplane.exceptions import LinkRefused
from controlplane.models import ApiToken, ControlEvent, Controller, Role, Scope, Workspace

logger = logging.getLogger(__name__)

MIN_SECONDS, MAX_SECONDS = 60, 24 * 3600
MAX_NAME = 80  # the row's name says more, in 100 characters
_SECRET_BYTES = 32
_SCOPES = {
    Role.OBSERVER: Scope.OBSERVE.value,
    Role.OPERATOR: f"{Scope.OBSERVE} {Scope.CONTROL}",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A new link, and the ticket that opens it: this is its only showing."""

    link: ApiToken
    ticket: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A link whose ticket has just been exchanged for ``bearer``."""

    link: ApiToken
    bearer: str
    workspace: Workspace


@transaction.atomic
def make(
    workspace: Workspace, name: str, role: Role, ttl: float, *, by: str, ip: str | None = None
) -> Made:
    """Make a link for whom others see as ``name``. ``ttl`` bounds the ticket and all it leads to.

    ``role`` is observer or operator; KeyError for any other.
    """
    ticket = secrets.token_urlsafe(_SECRET_BYTES)
    link = ApiToken(
        kind=Controller.USER,
        name=f"{name} (link {secrets.token_hex(4)})",
        scopes=_SCOPES[role],
        expires_at=Now() + timedelta(seconds=ttl),
        created_by=by,
        ticket_digest=apitokens.digest(ticket),
        digest=f"unopened:{secrets.token_hex(16)}",  # no text has that digest
        account=apitokens.make_account(name),
    )
    link.save(force_insert=True)
    link.workspaces.add(workspace)
    apitokens.record(link, ControlEvent.What.LINK_MADE, who=by, ip=ip)
    logger.info("control link %s made by %s for %s", link.name, by, workspace.slug)
    return Made(rows(workspace).get(pk=link.pk), ticket)


@transaction.atomic
def exchange(ticket: str, client_id: str, *, ip: str | None = None) -> Opened:
    """Spend a ticket for a bearer that works in the tab ``client_id`` alone, or raise LinkRefused.

    One write decides who was first, on whatever node; nobody is told whether a ticket was spent,
    has expired or never was.
    """
    spent, bearer = apitokens.digest(ticket), apitokens.LINK_PREFIX + secrets.token_urlsafe(32)
    # Both conditions on the row itself: the database judges them again once it has the row's lock.
    unspent = ApiToken.objects.filter(ticket_digest=spent, exchanged_at=None)
    first = unspent.filter(kind=Controller.USER, pk__in=access.good_tokens().values("pk")).update(
        digest=apitokens.digest(bearer), client_id=client_id, exchanged_at=Now()
    )
    if not first:
        raise LinkRefused
    link = ApiToken.objects.select_related("account").get(ticket_digest=spent)
    workspace = link.workspaces.first()
    if workspace is None:  # removed since
        raise LinkRefused
    name = access.display_name(link.account)
    apitokens.record(link, ControlEvent.What.LINK_OPENED, who=name, client_id=client_id, ip=ip)
    logger.info("control link %s opened", link.name)
    return Opened(link, bearer, workspace)


def rows(workspace: Workspace) -> QuerySet[Any]:
    """The workspace's links, newest first, with what ``state`` asks of them."""
    return apitokens.rows().filter(kind=Controller.USER, workspaces=workspace).order_by("-pk")


def recent(workspace: Workspace) -> QuerySet[Any]:
    """Those of ``rows`` that are good, or were within the last day."""
    return rows(workspace).filter(expires_at__gt=Now() - timedelta(days=1))


def role_of(link: ApiToken) -> Role:
    """Return the role for which a link was made."""
    return Role.OPERATOR if Scope.CONTROL in link.scope_set else Role.OBSERVER


def state(link: Any) -> str:
    """Return ``unopened``, ``opened``, or what has ended one of ``rows``."""
    known = apitokens.state(link)
    if known != "good":
        return known
    return "opened" if link.exchanged_at else "unopened"
