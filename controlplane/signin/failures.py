"""Signing in with a password: how often it may fail, and what is said after that.

django-axes counts failures by user and address, in the database: so a stranger who guesses locks
out nobody but whoever shares the address. Beside it, ``ratelimits`` bounds what one address may try
of all users together; it may be a matter of one process where there is no Redis.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, NoReturn

from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import F, Max, Q, QuerySet, Sum, Window
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.timezone import now

from controlplane import ratelimits
from controlplane.exceptions import TooManyRequests


def address_of(request: HttpRequest) -> str | None:
    """Return what failures are counted by: the address, or of IPv6 the first one of its /64."""
    return ratelimits.address_of_network(_remote_address(request))


def check_address(request: HttpRequest) -> None:
    """Raise PermissionDenied where too many passwords from the request's address were wrong."""
    try:
        ratelimits.check_bad_passwords(_remote_address(request))
    except TooManyRequests as refusal:
        refuse_unseen(request, refusal.retry_after)


def check_guesses(request: HttpRequest, user: User) -> None:
    """Raise PermissionDenied where too many passwords or codes were wrong for another look."""
    check_address(request)
    credentials = credentials_of(user)
    if not AxesProxyHandler.is_allowed(request, credentials):  # which forgets those of the request
        request.axes_credentials = credentials  # type: ignore[attr-defined]  # for the answer
        refuse_unseen(request)


def credentials_of(user: User) -> dict[str, str]:
    """Return what django-axes counts somebody's failures by, beside the address."""
    return {"username": user.get_username()}


def refuse_unseen(request: HttpRequest, wait_seconds: int | None = None) -> NoReturn:
    """Raise PermissionDenied, for a password or code that nobody has looked at.

    It is marked as django-axes does, whose middleware then asks ``locked_out`` for the answer, and
    not recorded as wrong.
    """
    request.axes_locked_out = True  # type: ignore[attr-defined]
    request.wait_seconds = wait_seconds  # type: ignore[attr-defined]
    raise PermissionDenied


def count_failure(request: HttpRequest) -> None:
    """Count a wrong password against the request's address."""
    ratelimits.count_bad_password(_remote_address(request))


def locked_out(
    request: HttpRequest, original: HttpResponse | None = None, credentials: Any = None
) -> HttpResponse:
    """Answer who has failed too often: the form, and for how long it is of no use."""
    credentials = credentials or getattr(request, "axes_credentials", None)
    seconds = getattr(request, "wait_seconds", None) or _seconds_left(request, credentials)
    context = {
        "minutes": math.ceil(seconds / 60),
        "next": request.POST.get("next") or request.GET.get("next", ""),
    } | beside_the_form()
    response = render(request, "registration/login.html", context, status=429)
    response["Retry-After"] = str(seconds)
    response["Cache-Control"] = "no-store"
    return response


def beside_the_form() -> dict[str, str]:
    """Return what the page with the form shows beside it: the way to the provider, if any."""
    return {"provider": settings.OIDC_NAME} if settings.OIDC_ISSUER else {}


def _seconds_left(request: HttpRequest, credentials: Any) -> int:
    """Until the last failure that counts is forgotten; at least one second."""
    cool_off: timedelta = settings.AXES_COOLOFF_TIME
    handler = AxesProxyHandler.get_implementation()
    found = [
        attempts.aggregate(last=Max("attempt_time"))["last"]
        for attempts in handler.get_user_attempts(request, credentials)
    ]
    ends = max((last + cool_off for last in found if last), default=now())
    return max(1, math.ceil((ends - now()).total_seconds()))


def with_failures(attempts: QuerySet[Any]) -> QuerySet[Any]:
    """Return ``attempts`` with ``counted``: the failures of their user and address that count now.

    There is a row for each browser, and all of them are counted together.
    """
    recent = Q(attempt_time__gt=now() - settings.AXES_COOLOFF_TIME)
    both = [F("username"), F("ip_address")]
    failures = Sum("failures_since_start", filter=recent)
    counted: QuerySet[Any] = attempts.annotate(counted=Window(failures, partition_by=both))
    return counted


def _remote_address(request: HttpRequest) -> str:
    return request.META.get("REMOTE_ADDR") or ""
