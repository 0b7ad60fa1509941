"""The workspaces: what is known of their displays, and changing how they are set up."""

from __future__ import annotations

from typing import Annotated

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest
from django.utils.http import urlencode
from ninja import Query, Router, Status

from controlplane import access, leasestate, leaseviews, presenters, schemas, streamrows
from controlplane.api.auth import user_of
from controlplane.api.errors import FAILURES
from controlplane.exceptions import Forbidden, WorkspaceNotFound
from controlplane.models import Workspace
from controlplane.presenters import Json, Viewer
from controlplane.workspaces import configuring

PAGE_SIZE = 100
MAX_WORDS = 10  # of a search; more would make a statement as long as anybody likes

router = Router(tags=["workspaces"])


def find(request: HttpRequest, slug: str) -> tuple[Workspace, access.Permissions]:
    """Return a workspace that the caller may watch; others do not exist for them."""
    workspace = Workspace.objects.filter(slug=slug).first()
    can = access.permissions(user_of(request), workspace) if workspace else access.NONE
    if workspace is None or not can.observe:
        raise WorkspaceNotFound(slug)
    return workspace, can


@router.get("/workspaces", response={200: schemas.WorkspaceList, **FAILURES})
def list_workspaces(
    request: HttpRequest,
    page: Annotated[int, Query(ge=1)] = 1,
    q: Annotated[str, Query(description="A part of the name, or of the id.")] = "",
    x_client_id: schemas.ClientIdHeader = "",
) -> Json:
    """List the workspaces that the caller may watch, by name, a hundred at a time."""
    found = search(request, q).get_page(page)
    query = {"page": str(page + 1)} | ({"q": q} if q else {})
    address = request.build_absolute_uri(f"?{urlencode(query)}")
    following = address if found.has_next() else None
    return {"workspaces": overview(request, list(found), x_client_id), "next": following}


def search(request: HttpRequest, words: str) -> Paginator[Workspace]:
    """Return those that the caller may watch whose name, or id, has all the words in it.

    Where a person is waited for comes first.
    """
    found = leasestate.waiting_first(access.visible(user_of(request)))
    for word in words.replace("\0", " ").split()[:MAX_WORDS]:
        found = found.filter(Q(name__icontains=word) | Q(slug__icontains=word))
    return Paginator(found, PAGE_SIZE)


def overview(request: HttpRequest, workspaces: list[Workspace], client_id: str = "") -> list[Json]:
    """Return each workspace with its display, its control and the number of its viewers."""
    ids = [workspace.pk for workspace in workspaces]
    views, viewers = leaseviews.read(ids), streamrows.count_viewers(ids)
    can = access.permissions_of(user_of(request), ids)
    return [
        {
            "id": workspace.slug,
            "name": workspace.name,
            "display": presenters.display(workspace),
            "control": presenters.control(
                views[workspace.pk], Viewer(user_of(request), client_id, can[workspace.pk])
            ),
            "viewers": viewers.get(workspace.pk, 0),
        }
        for workspace in workspaces
        if workspace.pk in views  # or it has been removed since
    ]


_ONE = "/workspaces/{slug:slug}"
_DETAIL = {200: schemas.WorkspaceDetail, **FAILURES}


@router.get(_ONE, response=_DETAIL)
def get_workspace(
    request: HttpRequest, slug: str, x_client_id: schemas.ClientIdHeader = ""
) -> Json:
    """Tell of one workspace; those who may change it also read how it is set up."""
    workspace, can = find(request, slug)
    return detail(request, workspace, can, x_client_id)


@router.put(_ONE, response={201: schemas.WorkspaceDetail, **_DETAIL})
def put_workspace(request: HttpRequest, slug: str, body: schemas.SettingsBody) -> Status[Json]:
    """Add a workspace (201), or set up anew the one there is (200).

    Settings that are left out get their defaults. Secrets that are left out stay as they are,
    except that a new address loses the query and the headers of the old one; "" removes one.
    Adding is for superusers, and for API tokens that manage all workspaces.
    """
    may_add = access.may_add(user_of(request))
    if not may_add:
        _find_to_change(request, slug)
    values = {"name": slug, **configuring.DEFAULTS, **body.dict(exclude_unset=True)}
    workspace, is_new = configuring.put(slug, values, may_add=may_add)
    return Status(201 if is_new else 200, _changed(request, workspace))


@router.patch(_ONE, response=_DETAIL)
def patch_workspace(request: HttpRequest, slug: str, body: schemas.SettingsBody) -> Json:
    """Change what the body names. A new address loses the query and the headers of the old one.

    Streams to the old address, or with the old secrets, end with 4503 and come back to the new one.
    """
    _find_to_change(request, slug)
    return _changed(request, configuring.patch(slug, body.dict(exclude_unset=True)))


@router.delete(_ONE, response={204: None, **FAILURES})
def delete_workspace(request: HttpRequest, slug: str) -> Status[None]:
    """Remove a workspace; its streams end with 4404. What happened there stays on record."""
    _find_to_change(request, slug)
    configuring.remove(slug)
    return Status(204, None)


def _find_to_change(request: HttpRequest, slug: str) -> None:
    _, can = find(request, slug)
    if not can.configure:
        raise Forbidden("forbidden", "You may watch this workspace, but not change it.")


def _changed(request: HttpRequest, workspace: Workspace) -> Json:
    return detail(request, workspace, access.permissions(user_of(request), workspace))


def detail(
    request: HttpRequest, workspace: Workspace, can: access.Permissions, client_id: str = ""
) -> Json:
    """Return what the list tells of it, and its settings where the caller may change them."""
    items = overview(request, [workspace], client_id)
    if not items:
        raise WorkspaceNotFound(workspace.slug)
    return {**items[0], "settings": _settings(workspace) if can.configure else None}


def _settings(workspace: Workspace) -> Json:
    shown = ("address", *configuring.DEFAULTS)
    secrets = {"secrets_set": workspace.stored_secrets}
    return {name: getattr(workspace, name) for name in shown} | secrets


@router.get("/workspaces/{slug:slug}/display", response={200: schemas.Display, **FAILURES})
def get_display(request: HttpRequest, slug: str) -> Json:
    """Tell what the last connection to the desktop found. This never dials."""
    workspace, _ = find(request, slug)
    return presenters.display(workspace)
