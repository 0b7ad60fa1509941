"""Control of a workspace: who has it, taking it, renewing it, giving it back; and watching."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from controlplane import (
    access,
    conf,
    handovers,
    leases,
    leaseviews,
    longpoll,
    presenters,
    schemas,
    tokens,
    waiting,
)
from controlplane.api.auth import holder_of, ip_of, kind_of, session_key_of, user_of
from controlplane.api.errors import CONFLICTS, FAILURES
from controlplane.api.workspaces import find
from controlplane.exceptions import (
    ControlForbidden,
    ControlRefused,
    Forbidden,
    InvalidRequest,
    LeaseRefused,
    WorkspaceNotFound,
)
from controlplane.models import Controller, HandBack, Workspace
from controlplane.presenters import Json, Viewer

_REFUSALS = {
    "held": "{holder} has control.",
    "held_elsewhere": "You have control in another tab.",
    "display_not_enabled": "The display of this workspace is not enabled.",
    "closed": "{by} has closed this workspace to control.",
    "human_in_control": "{holder}, a person, has control. Wait until it is handed back.",
    "parked": "{by}'s control ended without being handed back. "
    "Wait until a person lets agents continue.",
    "nothing_to_hand_back": "No agent waits for this workspace.",
    "forced": "Your control was ended by {by}.",
    "preempted": "{by} took control.",
    "moved": "You moved control to another tab.",
    "released": "You released control.",
    "handed_over": "Your control was handed over.",
    "expired": "Your control ran out.",
    "idle": "Your control ended for lack of input.",
    "max_hold": "Your control had lasted as long as this workspace allows.",
    "taken": "Your control ran out, and somebody else has had it since.",
    "not_needed": "You need not ask: control can be taken, or is yours.",
    "not_asked": "This request is no longer open.",
    "access_ended": "Your access to control this workspace has ended.",
    "hidden": "{holder} hides this desktop from watchers.",
}
_KINDS = {
    Controller.USER: "A logged-in person takes control as “user”.",
    Controller.AGENT: "An API token takes control as “agent”.",
}

_PATH = "/workspaces/{slug:slug}/display"

router = Router(tags=["control"])


@router.get(f"{_PATH}/control", response={200: schemas.Control, **FAILURES})
def get_control(
    request: HttpRequest,
    slug: str,
    response: HttpResponse,
    x_client_id: schemas.ClientIdHeader = "",
    wait: Annotated[int, Query(ge=0, le=longpoll.MAX_SECONDS)] = 0,
    epoch: Annotated[int | None, Query()] = None,
    version: Annotated[int | None, Query()] = None,
) -> Json:
    """Tell who has control. With `wait`, as soon as that is news, or after so many seconds.

    News is what differs from `epoch` and `version`, as an answer before has told them. Requests for
    control, and what the display finds, are no news to wait for.
    """
    workspace, can = find(request, slug)
    view = view_of(workspace)
    is_news = epoch not in {None, view.lease.epoch} or version not in {None, view.lease.version}
    if wait and not is_news and not longpoll.has_waited(request):
        longpoll.wait(response, workspace.pk, waiting.mark_of(view.lease, view.now), wait)
    return presenters.control(view, Viewer(user_of(request), x_client_id, can))


@router.post(f"{_PATH}/control/acquire", response={200: schemas.Acquired, **CONFLICTS})
def acquire(request: HttpRequest, slug: str, body: schemas.AcquireBody) -> Json:
    """Take control, or renew it where the body names the epoch."""
    workspace, viewer = _enter(request, slug, body.client_id)
    kind = kind_of(request)
    if body.controller not in {None, kind}:
        raise Forbidden("wrong_controller", _KINDS[kind])
    ttl = _ttl(body.ttl_seconds)
    holder = holder_of(request, body.client_id)
    with _telling_refusals(workspace, viewer):
        leases.acquire(workspace, holder, ttl=ttl, epoch=body.epoch, move=body.move)
    renew_after = settings.DISPLAY.renew_after_seconds(ttl)
    return {
        **control_of(workspace, viewer),
        **_session(request, workspace, body.client_id),
        "renew_after_seconds": renew_after,
    }


@router.post(f"{_PATH}/control/release", response={200: schemas.Control, **CONFLICTS})
def release(request: HttpRequest, slug: str, body: schemas.ReleaseBody) -> Json:
    """Give control back. With ``force``, end somebody else's control and say why."""
    workspace, viewer = _enter(request, slug, body.client_id)
    if body.close and not body.force:
        raise InvalidRequest("close", "only together with “force”")
    if body.outcome and body.force:
        raise InvalidRequest("outcome", "not together with “force”: who hands back is asked")
    if body.force:
        _force_release(request, workspace, viewer, body)
        return control_of(workspace, viewer)
    holder = holder_of(request, body.client_id)
    with _telling_refusals(workspace, viewer):
        if body.outcome is None:
            leases.release(workspace, holder, epoch=body.epoch)
        else:
            _check_kind(request, Controller.USER, "Only people hand back: an agent releases.")
            outcome, note = HandBack(body.outcome), body.note.strip()
            leases.hand_back(workspace, holder, outcome, note=note, epoch=body.epoch)
    return control_of(workspace, viewer)


def _force_release(
    request: HttpRequest, workspace: Workspace, viewer: Viewer, body: schemas.ReleaseBody
) -> None:
    _check_force(viewer, "Only managers may end other people's control.")
    if not body.note.strip():
        raise InvalidRequest("note", "say why you end this control; its holder will read it")
    end = leases.close if body.close else leases.force_release
    by, ip = access.display_name(viewer.user), ip_of(request)
    end(workspace, by=by, note=body.note, ip=ip, epoch=body.epoch)


@router.post(f"{_PATH}/control/open", response={200: schemas.Control, **FAILURES})
def open_control(request: HttpRequest, slug: str, body: schemas.OpenBody) -> Json:
    """Let a closed workspace be controlled again."""
    workspace, viewer = _enter(request, slug, body.client_id)
    _check_force(viewer, "Only managers may open a workspace again.")
    leases.open_again(workspace, by=access.display_name(viewer.user), ip=ip_of(request))
    return control_of(workspace, viewer)


@router.post(f"{_PATH}/control/free", response={200: schemas.Control, **FAILURES})
def free(request: HttpRequest, slug: str, body: schemas.FreeBody) -> Json:
    """Let agents have a parked workspace, without handing anything back."""
    workspace, viewer = _enter(request, slug, body.client_id)
    _check_force(viewer, "Only managers may free a parked workspace.")
    leases.free(workspace, by=access.display_name(viewer.user), ip=ip_of(request))
    return control_of(workspace, viewer)


@router.post(f"{_PATH}/control/keep", response={200: schemas.Control, **CONFLICTS})
def keep(request: HttpRequest, slug: str, body: schemas.KeepBody) -> Json:
    """Keep control although it is about to end by a limit: the limits count anew."""
    workspace, viewer = _enter(request, slug, body.client_id)
    ttl = _ttl(body.ttl_seconds)
    with _telling_refusals(workspace, viewer):
        leases.keep(workspace, holder_of(request, body.client_id), epoch=body.epoch, ttl=ttl)
    return control_of(workspace, viewer)


@router.post(f"{_PATH}/control/hide", response={200: schemas.Control, **CONFLICTS})
def hide(request: HttpRequest, slug: str, body: schemas.HideBody) -> Json:
    """Hide the desktop from everybody else until control ends, or show it again."""
    workspace, viewer = _enter(request, slug, body.client_id)
    _check_kind(request, Controller.USER, "Only people hide a desktop: agents are watched.")
    with _telling_refusals(workspace, viewer):
        leases.hide(
            workspace,
            holder_of(request, body.client_id),
            epoch=body.epoch,
            hidden=body.hidden,
        )
    return control_of(workspace, viewer)


# --- Asking for control ---------------------------------------------------------------------------
@router.post(f"{_PATH}/control/request", response={200: schemas.Control, **CONFLICTS})
def ask(request: HttpRequest, slug: str, body: schemas.RequestBody) -> Json:
    """Ask the holder for control; asking again changes the message."""
    workspace, viewer = _enter(request, slug, body.client_id)
    _check_kind(request, Controller.USER, "Only people ask for control; an agent takes turns.")
    if not viewer.can.control:
        raise _only_watches()
    with _telling_refusals(workspace, viewer):
        handovers.ask(workspace, holder_of(request, body.client_id), body.message.strip())
    return control_of(workspace, viewer)


@router.post(f"{_PATH}/control/request/withdraw", response={200: schemas.Control, **FAILURES})
def withdraw(request: HttpRequest, slug: str, body: schemas.WithdrawBody) -> Json:
    """Take one's own request back; harmless where there is none."""
    workspace, viewer = _enter(request, slug, body.client_id)
    handovers.withdraw(workspace, user_of(request), body.client_id)
    return control_of(workspace, viewer)


@router.post(f"{_PATH}/control/request/answer", response={200: schemas.Control, **CONFLICTS})
def answer(request: HttpRequest, slug: str, body: schemas.AnswerBody) -> Json:
    """Hand control over to the person who asked, or keep it."""
    workspace, viewer = _enter(request, slug, body.client_id)
    with _telling_refusals(workspace, viewer):
        handovers.answer(
            workspace,
            holder_of(request, body.client_id),
            body.request,
            epoch=body.epoch,
            accept=body.accept,
            ttl=settings.DISPLAY.lease_seconds,
        )
    return control_of(workspace, viewer)


# --- An agent asks for a person -------------------------------------------------------------------
@router.post(f"{_PATH}/control/request-human", response={200: schemas.Control, **CONFLICTS})
def request_human(request: HttpRequest, slug: str, body: schemas.HelpBody) -> Json:
    """Ask for a person, who is told why. It waits for nobody, and ends nobody's control."""
    workspace, viewer = _enter(request, slug, body.client_id)
    _check_kind(request, Controller.AGENT, "Only agents ask for a person.")
    if not body.reason.strip():
        raise InvalidRequest("reason", "say in a few words what a person is needed for")
    with _telling_refusals(workspace, viewer):
        leases.ask_for_help(workspace, holder_of(request, body.client_id), body.reason.strip())
    return control_of(workspace, viewer)


@router.post(
    f"{_PATH}/control/request-human/withdraw", response={200: schemas.Control, **CONFLICTS}
)
def withdraw_request_human(request: HttpRequest, slug: str, body: schemas.WithdrawBody) -> Json:
    """Need no person any more; harmless where this agent has not asked."""
    workspace, viewer = _enter(request, slug, body.client_id)
    _check_kind(request, Controller.AGENT, "Only agents ask for a person.")
    leases.withdraw_help(workspace, holder_of(request, body.client_id))
    return control_of(workspace, viewer)


@router.post(f"{_PATH}/session", response={200: schemas.Session, **FAILURES})
def open_session(request: HttpRequest, slug: str, body: schemas.SessionBody) -> Json:
    """Return a one-time address at which to watch the display."""
    workspace, _ = find(request, slug)
    return _session(request, workspace, body.client_id)


# --- Shared steps ---------------------------------------------------------------------------------
def _enter(request: HttpRequest, slug: str, client_id: str) -> tuple[Workspace, Viewer]:
    """Return the workspace, and who asks about it; raise WorkspaceNotFound as ``find`` does."""
    workspace, can = find(request, slug)
    return workspace, Viewer(user_of(request), client_id, can)


def control_of(workspace: Workspace, viewer: Viewer) -> Json:
    """Return Control as ``viewer`` may see it, read now."""
    return presenters.control(view_of(workspace), viewer)


def view_of(workspace: Workspace) -> leaseviews.LeaseView:
    """Return the workspace's lease, read now."""
    view = leaseviews.read_one(workspace.pk)
    if view is None:  # it has been removed since it was found
        raise WorkspaceNotFound(workspace.slug)
    return view


@contextmanager
def _telling_refusals(workspace: Workspace, viewer: Viewer) -> Iterator[None]:
    """Turn a ControlRefused into an answer: 403, or 409 with the lease as it is."""
    try:
        yield
    except ControlForbidden:
        raise _only_watches() from None
    except ControlRefused as refusal:
        raise refused(refusal, workspace, viewer) from None


def _check_force(viewer: Viewer, message: str) -> None:
    if not viewer.can.force:
        raise Forbidden("forbidden", message)


def _check_kind(request: HttpRequest, kind: Controller, message: str) -> None:
    if kind_of(request) != kind:
        raise Forbidden("wrong_controller", message)


def _only_watches() -> Forbidden:
    return Forbidden("forbidden", "You may watch this workspace, but not control it.")


def refused(refusal: ControlRefused, workspace: Workspace, viewer: Viewer) -> LeaseRefused:
    """Return the 409 for what leases.py has refused."""
    current = control_of(workspace, viewer)
    holder = current["controlled_by"] or "Somebody"
    message = _REFUSALS[refusal.code].format(holder=holder, by=refusal.by or "Somebody")
    return LeaseRefused(refusal.code, message, current)


def _ttl(seconds: float | None) -> float:
    shortest, longest = settings.DISPLAY.min_lease_seconds, conf.MAX_LEASE_SECONDS
    if seconds is None:
        return float(settings.DISPLAY.lease_seconds)
    if not shortest <= seconds <= longest:
        raise InvalidRequest("ttl_seconds", f"must be from {shortest:g} to {longest} seconds")
    return seconds


def _session(request: HttpRequest, workspace: Workspace, client_id: str) -> Json:
    minted = tokens.mint(workspace, user_of(request), client_id, session_key_of(request))
    scheme = "wss" if request.is_secure() else "ws"
    path = f"/api/workspaces/{workspace.slug}/display/session/websockify"
    return {
        "session_url": f"{scheme}://{request.get_host()}{path}#token={minted.token}",
        "session_expires_at": presenters.iso(minted.expires_at),
    }
