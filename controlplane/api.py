"""The HTTP API (design §6): JSON in, one service call, JSON out."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import Header, NinjaAPI, Query
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security import APIKeyCookie
from ninja.utils import check_csrf

from controlplane import access, conf, leases, presenters, schemas, tokens
from controlplane.exceptions import (
    Forbidden,
    InvalidRequest,
    LeaseRefused,
    RequestRefused,
    WorkspaceNotFound,
)
from controlplane.models import CLIENT_ID_PATTERN, Controller, Workspace
from controlplane.presenters import Json, Viewer

PAGE_SIZE = 100
RETRY_AFTER_SECONDS = 2

_REFUSALS = {
    "held": "{holder} has control.",
    "held_elsewhere": "You have control in another tab.",
    "display_not_enabled": "The display of this workspace is not enabled.",
    "forced": "Your control was ended by {by}.",
    "preempted": "{by} took control.",
    "moved": "You moved control to another tab.",
    "released": "You released control.",
    "expired": "Your control ran out.",
    "taken": "Your control ran out, and somebody else has had it since.",
    "access_ended": "Your access to control this workspace has ended.",
}


class SessionCookie(APIKeyCookie):
    """A logged-in person: the session cookie, with the CSRF token for all that changes things."""

    param_name = settings.SESSION_COOKIE_NAME

    def __init__(self) -> None:
        super().__init__(csrf=False)  # checked below, so that a stranger gets 401 and not 403

    def authenticate(self, request: HttpRequest, key: str | None) -> User | None:
        """Return the user, or None for a stranger (401)."""
        if not isinstance(request.user, User):
            return None
        if check_csrf(request):
            raise Forbidden("csrf", "The CSRF token is missing or wrong; reload the page.")
        return request.user


api = NinjaAPI(
    title="desktopctl",
    version="1",
    description="Watch remote desktops, take control of them, hand it back.",
    auth=SessionCookie(),
    openapi_url="/openapi.json",
    docs_url="/docs",
    urls_namespace="api",
)

_FAILURES: dict[Any, Any] = {frozenset({400, 401, 403, 404, 429, 503}): schemas.Error}
_CONFLICTS: dict[Any, Any] = _FAILURES | {409: schemas.Conflict}
_BASE = "/workspaces/{slug:slug}/display"


# --- Reading --------------------------------------------------------------------------------------
@api.get("/workspaces", response={200: schemas.WorkspaceList, **_FAILURES})
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


@api.get(_BASE, response={200: schemas.Display, **_FAILURES})
def get_display(request: HttpRequest, slug: str) -> Json:
    """Tell what the last connection to the desktop found. This never dials."""
    workspace, _ = _find(request, slug)
    return presenters.display(workspace)


@api.get(f"{_BASE}/control", response={200: schemas.Control, **_FAILURES})
def get_control(
    request: HttpRequest,
    slug: str,
    x_client_id: Annotated[str, Header(pattern=rf"{CLIENT_ID_PATTERN}|^$")] = "",
) -> Json:
    """Tell who has control."""
    workspace, can = _find(request, slug)
    return _control(workspace, Viewer(user_of(request), x_client_id, can))


# --- Changing -------------------------------------------------------------------------------------
@api.post(f"{_BASE}/control/acquire", response={200: schemas.Acquired, **_CONFLICTS})
def acquire(request: HttpRequest, slug: str, body: schemas.AcquireBody) -> Json:
    """Take control, or renew it where the body names the epoch."""
    workspace, can = _find(request, slug)
    if body.controller not in {None, Controller.USER}:
        raise Forbidden("wrong_controller", "A logged-in person takes control as “user”.")
    ttl = _ttl(body.ttl_seconds)
    viewer = Viewer(user_of(request), body.client_id, can)
    try:
        leases.acquire(
            workspace, _holder(request, viewer), ttl=ttl, epoch=body.epoch, move=body.move
        )
    except leases.NotPermitted:
        raise Forbidden("forbidden", "You may watch this workspace, but not control it.") from None
    except leases.Refused as refusal:
        raise _refused(refusal, workspace, viewer) from None
    renew_after = settings.DISPLAY.renew_after_seconds(ttl)
    return {
        **_control(workspace, viewer),
        **_session(request, workspace, body.client_id),
        "renew_after_seconds": renew_after,
    }


@api.post(f"{_BASE}/control/release", response={200: schemas.Control, **_CONFLICTS})
def release(request: HttpRequest, slug: str, body: schemas.ReleaseBody) -> Json:
    """Give control back. With ``force``, end somebody else's control and say why."""
    workspace, can = _find(request, slug)
    viewer = Viewer(user_of(request), body.client_id, can)
    if body.force:
        _force_release(request, workspace, viewer, body)
        return _control(workspace, viewer)
    try:
        leases.release(workspace, _holder(request, viewer), epoch=body.epoch)
    except leases.Refused as refusal:
        raise _refused(refusal, workspace, viewer) from None
    return _control(workspace, viewer)


def _force_release(
    request: HttpRequest, workspace: Workspace, viewer: Viewer, body: schemas.ReleaseBody
) -> None:
    if not viewer.can.force:
        raise Forbidden("forbidden", "Only managers may end other people's control.")
    if not body.note.strip():
        raise InvalidRequest("note", "say why you end this control; its holder will read it")
    by = access.display_name(viewer.user)
    leases.force_release(workspace, by=by, note=body.note, ip=ip_of(request), epoch=body.epoch)


@api.post(f"{_BASE}/session", response={200: schemas.Session, **_FAILURES})
def open_session(request: HttpRequest, slug: str, body: schemas.SessionBody) -> Json:
    """Return a one-time address at which to watch the display."""
    workspace, _ = _find(request, slug)
    return _session(request, workspace, body.client_id)


# --- Shared steps ---------------------------------------------------------------------------------
def user_of(request: HttpRequest) -> User:
    """Return the user whom authentication has let in."""
    assert isinstance(request.user, User)  # SessionCookie has let the request in
    return request.user


def ip_of(request: HttpRequest) -> str | None:
    """Return the client's address if it is one: a socket has none, a proxy may say “unknown”."""
    try:
        address = ip_address(request.META.get("REMOTE_ADDR") or "")
    except ValueError:
        return None
    return str(address).partition("%")[0]  # without the zone of a link-local one


def _find(request: HttpRequest, slug: str) -> tuple[Workspace, access.Permissions]:
    """Return a workspace that the caller may watch; others do not exist for them."""
    workspace = Workspace.objects.filter(slug=slug).first()
    can = access.permissions(user_of(request), workspace) if workspace else access.NONE
    if workspace is None or not can.observe:
        raise WorkspaceNotFound(slug)
    return workspace, can


def _ttl(seconds: float | None) -> float:
    shortest, longest = settings.DISPLAY.min_lease_seconds, conf.MAX_LEASE_SECONDS
    if seconds is None:
        return float(settings.DISPLAY.lease_seconds)
    if not shortest <= seconds <= longest:
        raise InvalidRequest("ttl_seconds", f"must be from {shortest:g} to {longest} seconds")
    return seconds


def _holder(request: HttpRequest, viewer: Viewer) -> leases.Holder:
    return leases.Holder(
        user=viewer.user,
        client_id=viewer.client_id,
        login=access.login_id(request.session.session_key or ""),
        ip=ip_of(request),
    )


def _control(workspace: Workspace, viewer: Viewer) -> Json:
    return presenters.control(presenters.read([workspace.pk])[workspace.pk], viewer)


def _refused(refusal: leases.Refused, workspace: Workspace, viewer: Viewer) -> LeaseRefused:
    current = _control(workspace, viewer)
    holder = current["controlled_by"] or "Somebody"
    message = _REFUSALS[refusal.code].format(holder=holder, by=refusal.by or "somebody")
    return LeaseRefused(refusal.code, message, current)


def _session(request: HttpRequest, workspace: Workspace, client_id: str) -> Json:
    minted = tokens.mint(workspace, user_of(request), client_id, request.session.session_key or "")
    scheme = "wss" if request.is_secure() else "ws"
    path = f"/api/workspaces/{workspace.slug}/display/session/websockify"
    return {
        "session_url": f"{scheme}://{request.get_host()}{path}#token={minted.token}",
        "session_expires_at": presenters.iso(minted.expires_at),
    }


# --- Errors ---------------------------------------------------------------------------------------
def error_json(code: str, message: str, **more: object) -> Json:
    """Return the body of every answer that is not a success."""
    return {"error": {"code": code, "message": message}, **more}


@api.exception_handler(RequestRefused)
def _on_refused(request: HttpRequest, error: RequestRefused) -> HttpResponse:
    more = {"current": error.current} if isinstance(error, LeaseRefused) else {}
    body = error_json(error.code, error.message, **more)
    return api.create_response(request, body, status=error.status)


@api.exception_handler(AuthenticationError)
def _on_stranger(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    body = error_json("unauthenticated", "You are not signed in.")
    return api.create_response(request, body, status=401)


@api.exception_handler(ValidationError)
def _on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    problems = [f"{_field(each['loc'])}: {each['msg']}" for each in error.errors]
    body = error_json("invalid", "; ".join(problems))
    return api.create_response(request, body, status=400)


def _field(location: tuple[str, ...]) -> str:
    """The name a client knows: without “body” and the parameter that ninja puts before it."""
    return ".".join(str(part) for part in location[2:]) or str(location[-1])


@api.exception_handler(HttpError)
def _on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    body = error_json("invalid", str(error))
    return api.create_response(request, body, status=error.status_code)


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
def _on_database_away(request: HttpRequest, error: Exception) -> HttpResponse:
    response = api.create_response(request, DATABASE_AWAY, status=503)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


DATABASE_AWAY = error_json("unavailable", "The database does not answer; try again shortly.")
