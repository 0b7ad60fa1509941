"""Screenshots: what a desktop shows now, for whoever may see it now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from controlplane import desktops, leaseviews, schemas, screenshots
from controlplane.api.auth import kind_of, user_of
from controlplane.api.control import refused
from controlplane.api.errors import CONFLICTS, RETRY_AFTER_SECONDS
from controlplane.api.workspaces import find
from controlplane.exceptions import (
    ControlRefused,
    ControlUnsettled,
    CredentialsRefused,
    DisplayUnreachable,
    UpstreamError,
    WorkspaceNotFound,
)
from controlplane.leaseviews import LeaseView
from controlplane.models import Controller, Workspace
from controlplane.presenters import Viewer
from controlplane.screenshots import Encoding, Format, Picture, State

TRIES = 2

_WHOLE: dict[str, Any] = {"schema": {"type": "integer", "minimum": 0}}
_AS_PICTURE: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The picture.",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/png", "image/jpeg")
            },
            "headers": {
                "X-Control-Epoch": {"description": "Whose control it shows.", **_WHOLE},
                "X-Desktop-Width": {"description": "Of the desktop, in pixels.", **_WHOLE},
                "X-Desktop-Height": {"description": "Of the desktop, in pixels.", **_WHOLE},
            },
        }
    }
}

router = Router(tags=["screenshots"])


@dataclass(frozen=True, slots=True)
class _Look:
    """What was read for one decision."""

    workspace: Workspace
    state: State


@router.get(
    "/workspaces/{slug:slug}/desktop/screenshot",
    response=CONFLICTS,
    openapi_extra=_AS_PICTURE,
    summary="Get Screenshot",
)
def get_screenshot(
    request: HttpRequest,
    slug: str,
    format: Annotated[Format, Query()] = "png",  # noqa: A002  (the contract's name)
    width: Annotated[
        int | None,
        Query(ge=screenshots.MIN_WIDTH, description="Scaled down to it; never up."),
    ] = None,
    quality: Annotated[int, Query(ge=1, le=95, description="Of a JPEG.")] = 80,
    x_client_id: schemas.ClientIdHeader = "",
) -> HttpResponse:
    """Return what the desktop shows now.

    All who ask within a second get the same picture. While its holder hides the desktop, only the
    holder's own client gets one (409 `hidden`); while a person has control, API tokens get none
    (409 `human_in_control`), unless the workspace's `agents_see_people` is set. A desktop that
    gives no picture is answered 503 `display_unreachable`.
    """
    wanted = Encoding(format, width, quality)
    for _ in range(TRIES):
        before = _look(request, slug, x_client_id)
        picture = _take(before)
        content = picture.encoded(wanted)
        # Decided anew: who is in control may have hidden it meanwhile, or shown it again.
        if _look(request, slug, x_client_id).state == before.state:
            return _answer(picture, content, wanted, before.state)
    raise ControlUnsettled


def _look(request: HttpRequest, slug: str, client_id: str) -> _Look:
    """Read how things are; raise what forbids that this caller sees the desktop."""
    workspace, can = find(request, slug)
    view = leaseviews.read_one(workspace.pk)
    if view is None:  # it has been removed since it was found
        raise WorkspaceNotFound(slug)
    code = _why_not(request, workspace, view, client_id)
    if code:
        raise refused(ControlRefused(code), workspace, Viewer(user_of(request), client_id, can))
    return _Look(workspace, State.of(view, workspace))


def _why_not(
    request: HttpRequest, workspace: Workspace, view: LeaseView, client_id: str
) -> str | None:
    if not workspace.is_configured:
        return "display_not_enabled"
    if view.hides_from(user_of(request).pk, client_id):
        return "hidden"
    is_persons = view.is_held and view.lease.controller == Controller.USER
    is_agent = kind_of(request) == Controller.AGENT
    if is_persons and is_agent and not workspace.agents_see_people:
        return "human_in_control"
    return None


def _take(look: _Look) -> Picture:
    try:
        return screenshots.take(look.workspace, look.state)
    except CredentialsRefused as error:
        rest = int(desktops.REFUSED_REST.total_seconds())
        raise DisplayUnreachable(error, rest) from None
    except UpstreamError as error:
        raise DisplayUnreachable(error, RETRY_AFTER_SECONDS) from None


def _answer(picture: Picture, content: bytes, wanted: Encoding, state: State) -> HttpResponse:
    headers = {
        "Cache-Control": "no-store",
        "X-Control-Epoch": str(state.epoch),
        "X-Desktop-Width": str(picture.width),
        "X-Desktop-Height": str(picture.height),
    }
    return HttpResponse(content, content_type=f"image/{wanted.format}", headers=headers)
