"""The pages: the list of workspaces and the display of one; health, metrics; errors."""

from __future__ import annotations

import sys
from typing import Any

from csp.decorators import csp_replace
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe
from django.views.defaults import server_error as default_server_error
from django.views.i18n import JavaScriptCatalog

from controlplane import access, readiness, scraping
from controlplane.api import workspaces as workspaces_api
from controlplane.api.auth import user_of
from controlplane.api.errors import RETRY_AFTER_SECONDS
from controlplane.models import Workspace


@login_required
@ensure_csrf_cookie
def workspaces(request: HttpRequest) -> HttpResponse:
    """List the workspaces that the user may watch, or those of them that ``q`` looks for."""
    words = request.GET.get("q", "").strip()
    page = workspaces_api.search(request, words).get_page(request.GET.get("page", 1))
    rows = [
        row | {"url": reverse("display", args=[row["id"]])}
        for row in workspaces_api.overview(request, list(page))
    ]
    shown = {"workspaces": rows, "page": page, "words": words}
    return render(request, "controlplane/workspaces.html", shown)


@login_required
@ensure_csrf_cookie
def display(request: HttpRequest, slug: str) -> HttpResponse:
    """Show a workspace's display; its script does the rest."""
    workspace = Workspace.objects.filter(slug=slug).first()
    if not workspace or not access.permissions(user_of(request), workspace).observe:
        raise Http404
    shown = {"id": workspace.slug, "name": workspace.name}
    return render(request, "controlplane/display.html", _limits() | {"workspace": shown})


def _limits() -> dict[str, Any]:
    """Return what the page's script has to know of the settings."""
    return {"clipboard_bytes": settings.DISPLAY.clipboard_bytes}


class Words(JavaScriptCatalog):
    """What the scripts of the pages say, in the reader's language: LOCALE_PATHS' alone."""

    def get_paths(self, packages: list[str] | None) -> list[str]:
        """Return where those are."""
        return [str(path) for path in settings.LOCALE_PATHS]


@login_required
@never_cache
def signed_in(request: HttpRequest) -> HttpResponse:
    """End a sign-in in a window of its own; pages that were signed out ask here who it was."""
    return render(request, "registration/signed_in.html")


@xframe_options_exempt
@require_safe
def embed(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Show the page that opens a control link, alone or in the pages of EMBED_ORIGINS.

    It is the same for everybody and every ``slug``: what there is to know, the ticket opens.
    """
    nobody_knows = {"id": "", "name": "the desktop"}
    context = _limits() | {"workspace": nobody_knows, "origins": settings.EMBED_ORIGINS}

    @csp_replace({"frame-ancestors": ["'self'", *settings.EMBED_ORIGINS]})
    def framed(request: HttpRequest) -> HttpResponse:
        return render(request, "controlplane/embed.html", context)

    response = framed(request)
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    return response


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


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Tell Prometheus what is counted, if it shows METRICS_TOKEN; without one, there is no page."""
    if not settings.METRICS_TOKEN:
        raise Http404
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not constant_time_compare(token, settings.METRICS_TOKEN):
        refusal = HttpResponse("This needs METRICS_TOKEN.\n", status=401, content_type="text/plain")
        refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    response = HttpResponse(scraping.exposition(), content_type=scraping.CONTENT_TYPE)
    response["Cache-Control"] = "no-store"
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 where the database is away, and 500 for what is our own fault."""
    if not isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        return default_server_error(request)
    response = render(request, "503.html", status=503)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
