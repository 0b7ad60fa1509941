"""Middleware: headers for browsers, the API's errors and rates, log lines, probes, static files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.http.response import HttpResponseBase
from django.middleware.common import CommonMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware

from controlplane import logs, ratelimits
from controlplane.exceptions import TooManyRequests
from controlplane.signin import proxy

API_PREFIX = "/api/"
# Load balancers, containers and Prometheus call by address. These answers are the same under every
# name, and hold no link that a forged one could bend, so ALLOWED_HOSTS protects nothing there.
UNDER_ANY_NAME = {"/healthz", "/readyz", "/metrics"}

_MESSAGES = {
    400: ("invalid", "The request is not valid."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take this method."),
    500: ("internal", "An error on the server; it has been logged."),
    503: ("unavailable", "The database does not answer; try again shortly."),
}


class PermissionsPolicyMiddleware:
    """Tells browsers which of their features our pages may use."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on; add the header."""
        response = self._get_response(request)
        response["Permissions-Policy"] = settings.PERMISSIONS_POLICY
        return response


class ApiErrorsMiddleware:
    """Below /api/, every error is JSON: also those that never reached the API's own code."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on; replace an HTML or plain error."""
        response = self._get_response(request)
        if response.status_code < 400 or not request.path.startswith(API_PREFIX):
            return response
        if response.headers.get("Content-Type", "").startswith("application/json"):
            return response
        return _as_json(response)


def _as_json(response: HttpResponseBase) -> HttpResponse:
    code, message = _MESSAGES.get(response.status_code, ("error", "The request failed."))
    replacement = _error(response.status_code, code, message, **_request_id(response))
    for header in ("Allow", "Retry-After", "Vary"):
        if header in response.headers:
            replacement[header] = response.headers[header]
    return replacement


def _request_id(response: HttpResponseBase) -> dict[str, object]:
    """Of an error of ours, what to look for in the log."""
    found = logs.ids().get("request_id")
    return {"request_id": found} if found and response.status_code == 500 else {}


def _error(status: int, code: str, message: str, **more: object) -> HttpResponse:
    return HttpResponse(
        json.dumps({"error": {"code": code, "message": message, **more}}),
        status=status,
        content_type="application/json; charset=utf-8",
    )


class ApiRateMiddleware:
    """Counts every call below /api/ by its address, whatever becomes of it; 429 if too many."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on, unless its address has made too many."""
        if request.path.startswith(API_PREFIX):
            try:
                ratelimits.count_call(request.META.get("REMOTE_ADDR") or "")
            except TooManyRequests as refusal:
                return _too_many(refusal)
        return self._get_response(request)


def _too_many(refusal: TooManyRequests) -> HttpResponse:
    response = _error(refusal.status, refusal.code, refusal.message)
    response["Retry-After"] = str(refusal.retry_after)
    return response


class LogMiddleware:
    """Names the workspace that a call is about in its log lines."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on."""
        return self._get_response(request)

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: dict[str, Any]
    ) -> None:
        """Its address has been understood."""
        if "slug" in kwargs:
            logs.note(workspace=kwargs["slug"])


class NamedHostMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, which refuses foreign host names, except for health checks."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        """Refuse a name that is not ours."""
        return None if request.path in UNDER_ANY_NAME else super().process_request(request)


class ProxySignInMiddleware:
    """Signs in whom a trusted proxy names; in use where AUTH_PROXY_HEADER is set."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on, as that person's, unless it is a health check or a program's."""
        if request.path not in UNDER_ANY_NAME and not _brings_a_token(request):
            proxy.sign_in(request)
        return self._get_response(request)


def _brings_a_token(request: HttpRequest) -> bool:
    """Whether it is the token's call, whoever the proxy has let it through as."""
    scheme = request.headers.get("Authorization", "").partition(" ")[0]
    return request.path.startswith(API_PREFIX) and scheme.lower() == "bearer"


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # untyped
    """WhiteNoise, with whole responses: its file iterators are synchronous, and Django would warn.

    The files are scripts, styles and icons of a few hundred KiB at most.
    """

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        """Return the static file, or the part of it, that ``request`` asks for."""
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file as file:
                content = file.read()
        response = HttpResponse(content, status=int(found.status))
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response
