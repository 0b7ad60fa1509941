"""The workspaces, and what is known of their displays."""

from __future__ import annotations

from typing import Annotated

from django.core.paginator import Paginator
from django.http import HttpRequest
from ninja import Query, Router

from controlplane import access, presenters, schemas
from controlplane.api.auth import user_of
from controlplane.api.errors import FAILURES
from controlplane.exceptions import WorkspaceNotFound
from controlplane.models import Workspace
from controlplane.presenters import Json, Viewer

PAGE_SIZE = 100

router = Router(tags=["workspaces"])


def find(request: HttpRequest, slug: str) -> tuple[Workspace, access.Permissions]:
    """Return a workspace that the caller may watch; others do not exist for them."""
    workspace = Workspace.objects.filter(slug=slug).first()
    can = access.permissions(user_of(request), workspace) if workspace else access.NONE
    if workspace is None or not can.observe:
        raise WorkspaceNotFound(slug)
    return workspace, can


@router.get("/workspaces", response={200: schemas.WorkspaceList, **FAILURES})
def list_workspaces(request: HttpRequest, page: Annotated[int, Query(ge=1)] = 1) -> Json:
    """List the workspaces that the caller may watch, by name, a hundred at a time."""
    found = Paginator(access.visible(user_of(request)), PAGE_SIZE).get_page(page)
    following = request.build_absolute_uri(f"?page={page + 1}") if found.has_next() else None
    return {"workspaces": overview(request, list(found)), "next": following}


def overview(request: HttpRequest, workspaces: list[Workspace]) -> list[Json]:
    """Return each workspace with its display, its control and the number of its viewers."""
    ids = [workspace.pk for workspace in workspaces]
    views, viewers = presenters.read(ids), presenters.count_viewers(ids)
    can = access.permissions_of(user_of(request), ids)
    return [
        {
            "id": workspace.slug,
            "name": workspace.name,
            "display": presenters.display(workspace),
            "control": presenters.control(
                views[workspace.pk], Viewer(user_of(request), "", can[workspace.pk])
            ),
            "viewers": viewers.get(workspace.pk, 0),
        }
        for workspace in workspaces
    ]


@router.get("/workspaces/{slug:slug}/display", response={200: schemas.Display, **FAILURES})
def get_display(request: HttpRequest, slug: str) -> Json:
    """Tell what the last connection to the desktop found. This never dials."""
    workspace, _ = find(request, slug)
    return presenters.display(workspace)
