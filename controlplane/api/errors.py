"""Every answer that is not a success: JSON with a stable code and a sentence for people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError as ModelValidationError
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from controlplane import schemas
from controlplane.exceptions import LeaseRefused, RequestRefused
from controlplane.models import DisplayControlLease, Workspace
from controlplane.presenters import Json
from controlplane.workspaces import configuring

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
    for kind, answer_to in _ANSWERS.items():
        api.add_exception_handler(kind, partial(_answer, api, answer_to))


class _Answer(NamedTuple):
    status: int
    body: Json
    headers: dict[str, str] = {}


def _answer(
    api: NinjaAPI, answer_to: Callable[[Any], _Answer], request: HttpRequest, error: Exception
) -> HttpResponse:
    answer = answer_to(error)
    response = api.create_response(request, answer.body, status=answer.status)
    for name, value in answer.headers.items():
        response[name] = value
    return response


def _refused(error: RequestRefused) -> _Answer:
    more = {"current": error.current} if isinstance(error, LeaseRefused) else {}
    wait = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return _Answer(error.status, error_json(error.code, error.message, **more), wait)


def _stranger(_: AuthenticationError) -> _Answer:
    body = error_json("unauthenticated", "You are not signed in.")
    return _Answer(401, body, {"WWW-Authenticate": "Bearer"})


def _invalid(error: ValidationError) -> _Answer:
    problems = [f"{_field(each['loc'])}: {each['msg']}" for each in error.errors]
    return _Answer(400, error_json("invalid", "; ".join(problems)))


def _unfit(error: ModelValidationError) -> _Answer:
    return _Answer(400, error_json("invalid", configuring.sentence(error)))


def _gone(_: Exception) -> _Answer:
    return _Answer(404, error_json("not_found", "This workspace has just been removed."))


def _http_error(error: HttpError) -> _Answer:
    return _Answer(error.status_code, error_json("invalid", str(error)))


def _database_away(_: Exception) -> _Answer:
    return _Answer(503, DATABASE_AWAY, {"Retry-After": str(RETRY_AFTER_SECONDS)})


_ANSWERS: dict[type[Exception], Callable[[Any], _Answer]] = {
    RequestRefused: _refused,
    AuthenticationError: _stranger,
    ValidationError: _invalid,
    ModelValidationError: _unfit,
    Workspace.DoesNotExist: _gone,
    DisplayControlLease.DoesNotExist: _gone,
    HttpError: _http_error,
    OperationalError: _database_away,
    InterfaceError: _database_away,
}


def _field(location: tuple[str, ...]) -> str:
    """The name a client knows: without “body” and the parameter that ninja puts before it."""
    return ".".join(str(part) for part in location[2:]) or str(location[-1])
