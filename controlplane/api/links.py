"""Control links: making, listing and revoking them; and opening one, without a login."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Router, Status

from controlplane import access, apitokens, links, presenters, ratelimits, schemas
from controlplane.api.auth import ip_of, user_of
from controlplane.api.errors import FAILURES
from controlplane.api.workspaces import find
from controlplane.exceptions import Forbidden, InvalidRequest, LinkNotFound, LinkRefused
from controlplane.models import Role, Workspace
from controlplane.presenters import Json

_PATH = "/workspaces/{slug:slug}/links"
_GONE: dict[Any, Any] = FAILURES | {410: schemas.Error}

router = Router(tags=["links"])


@router.post(_PATH, response={201: schemas.MadeLink, **FAILURES})
def make_link(
    request: HttpRequest, response: HttpResponse, slug: str, body: schemas.LinkBody
) -> Status[Json]:
    """Make a link that lets one person in, in one tab, without an account.

    It can be opened once, and ends with `ttl_seconds`, or when it is revoked. For its workspace's
    managers, and API tokens that manage it.
    """
    workspace = _find_to_manage(request, slug)
    name = body.name.strip()
    if not name:
        raise InvalidRequest("name", "say who it is for; others will see it")
    by = access.display_name(user_of(request))
    made = links.make(workspace, name, Role(body.role), body.ttl_seconds, by=by, ip=ip_of(request))
    page = request.build_absolute_uri(reverse("embed", args=[workspace.slug]))
    response["Cache-Control"] = "no-store"
    return Status(201, {**_link(made.link), "url": f"{page}#ticket={made.ticket}"})


@router.get(_PATH, response={200: schemas.LinkList, **FAILURES})
def list_links(request: HttpRequest, slug: str) -> Json:
    """List a workspace's links: those that are good, and those that expired within a day.

    Their tickets are not shown again.
    """
    return {"links": [_link(link) for link in links.recent(_find_to_manage(request, slug))]}


@router.delete(_PATH + "/{int:link_id}", response={204: None, **FAILURES})
def revoke_link(request: HttpRequest, slug: str, link_id: int) -> Status[None]:
    """End a link: its control now, its streams within seconds. One that has ended stays so."""
    workspace = _find_to_manage(request, slug)
    link = links.rows(workspace).filter(pk=link_id).first()
    if link is None:
        raise LinkNotFound(link_id)
    apitokens.revoke(link, by=access.display_name(user_of(request)), ip=ip_of(request))
    return Status(204, None)


@router.post("/links/exchange", auth=None, response={200: schemas.Opened, **_GONE})
def exchange(request: HttpRequest, response: HttpResponse, body: schemas.ExchangeBody) -> Json:
    """Open a link: its ticket, once, for a bearer that works in this tab alone.

    The bearer is sent as `Authorization: Bearer`, with the tab's `X-Client-Id`. No cookie is set,
    and none is read.
    """
    address = request.META.get("REMOTE_ADDR") or ""
    ratelimits.check_bad_tokens(address)
    try:
        opened = links.exchange(body.ticket, body.client_id, ip=ip_of(request))
    except LinkRefused:
        ratelimits.count_bad_token(address)
        raise
    response["Cache-Control"] = "no-store"
    return {
        "bearer": opened.bearer,
        "expires_at": presenters.iso(opened.link.expires_at),
        "role": links.role_of(opened.link),
        "workspace": {"id": opened.workspace.slug, "name": opened.workspace.name},
    }


def _find_to_manage(request: HttpRequest, slug: str) -> Workspace:
    workspace, can = find(request, slug)
    if not can.force:
        raise Forbidden("forbidden", "Only managers may let people in by a link.")
    return workspace


def _link(link: Any) -> Json:
    return {
        "id": link.pk,
        "name": access.display_name(link.account),
        "role": links.role_of(link),
        "state": links.state(link),
        "expires_at": presenters.iso(link.expires_at),
        "used_at": presenters.iso(link.exchanged_at),
    }
