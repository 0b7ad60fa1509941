"""Every answer that is not a success: JSON with a stable code and a sentence for people."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError as ModelValidationError
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from controlplane import configuring, schemas
from controlplane.exceptions import LeaseRefused, RequestRefused
from controlplane.models import DisplayControlLease, Workspace
from controlplane.presenters import Json

RETRY_AFTER_SECONDS = 2

# What each call may answer besides its success, for the OpenAPI document.
FAILURES: dict[Any, Any] = {frozenset({400, 401, 403, 404, 429, 503}): schemas.Error}
CONFLICTS: dict[Any, Any] = FAILURES | {409: schemas.Conflict}


def error_json(code: str, message: str, **more: object) -> Json:
    """Return the body of every answer that is not a success."""
    return {"error": {"code": code, "message": message}, **more}


DATABASE_AWAY = error_json("unavailable", "The database does not answer; try again shortly.")


def add_handlers(api: NinjaAPI) -> None:
    """Let ``api`` answer our errors, and those of its framework, in our own way."""

    def answer(request: HttpRequest, body: Json, status: int) -> HttpResponse:
        return api.create_response(request, body, status=status)

    @api.exception_handler(RequestRefused)
    def on_refused(request: HttpRequest, error: RequestRefused) -> HttpResponse:
        more = {"current": error.current} if isinstance(error, LeaseRefused) else {}
        response = answer(request, error_json(error.code, error.message, **more), error.status)
        if error.retry_after:
            response["Retry-After"] = str(error.retry_after)
        return response

    @api.exception_handler(AuthenticationError)
    def on_stranger(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
        response = answer(request, error_json("unauthenticated", "You are not signed in."), 401)
        response["WWW-Authenticate"] = "Bearer"
        return response

    @api.exception_handler(ValidationError)
    def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
        problems = [f"{_field(each['loc'])}: {each['msg']}" for each in error.errors]
        return answer(request, error_json("invalid", "; ".join(problems)), 400)

    @api.exception_handler(ModelValidationError)
    def on_unfit(request: HttpRequest, error: ModelValidationError) -> HttpResponse:
        return answer(request, error_json("invalid", configuring.sentence(error)), 400)

    @api.exception_handler(Workspace.DoesNotExist)
    @api.exception_handler(DisplayControlLease.DoesNotExist)
    def on_gone(request: HttpRequest, error: Exception) -> HttpResponse:
        message = "This workspace has just been removed."
        return answer(request, error_json("not_found", message), 404)

    @api.exception_handler(HttpError)
    def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
        return answer(request, error_json("invalid", str(error)), error.status_code)

    @api.exception_handler(OperationalError)
    @api.exception_handler(InterfaceError)
    def on_database_away(request: HttpRequest, error: Exception) -> HttpResponse:
        response = answer(request, DATABASE_AWAY, 503)
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response


def _field(location: tuple[str, ...]) -> str:
    """The name a client knows: without “body” and the parameter that ninja puts before it."""
    return ".".join(str(part) for part in location[2:]) or str(location[-1])
