"""The pages: the list of workspaces and the display of one; health; errors."""

from __future__ import annotations

import sys

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe
from django.views.defaults import server_error as default_server_error

from controlplane import access, readiness
from controlplane.api import workspaces as workspaces_api
from controlplane.api.auth import user_of
from controlplane.api.errors import RETRY_AFTER_SECONDS
from controlplane.models import Workspace


@login_required
@ensure_csrf_cookie
def workspaces(request: HttpRequest) -> HttpResponse:
    """List the workspaces that the user may watch."""
    visible = access.visible(user_of(request))
    page = Paginator(visible, workspaces_api.PAGE_SIZE).get_page(request.GET.get("page", 1))
    rows = [
        row | {"url": reverse("display", args=[row["id"]])}
        for row in workspaces_api.overview(request, list(page))
    ]
    return render(request, "controlplane/workspaces.html", {"workspaces": rows, "page": page})


@login_required
@ensure_csrf_cookie
def display(request: HttpRequest, slug: str) -> HttpResponse:
    """Show a workspace's display; its script does the rest."""
    workspace = Workspace.objects.filter(slug=slug).first()
    if not workspace or not access.permissions(user_of(request), workspace).observe:
        raise Http404
    shown = {"id": workspace.slug, "name": workspace.name}
    return render(request, "controlplane/display.html", {"workspace": shown})


def healthz(request: HttpRequest) -> HttpResponse:
    """Say that this process is alive; it asks nobody else."""
    return HttpResponse("ok", content_type="text/plain")


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Say whether this process can do its work, and if not, what is wrong."""
    checks = readiness.current().words()
    is_ready = all(words == readiness.OK for words in checks.values())
    told = {"status": "ok" if is_ready else "unavailable", "checks": checks}
    response = JsonResponse(told, status=200 if is_ready else 503)
    response["Cache-Control"] = "no-store"
    if not is_ready:
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 where the database is away, and 500 for what is our own fault."""
    if not isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        return default_server_error(request)
    response = render(request, "503.html", status=503)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
