"""The pages of second factors: asking for a code, and enrolling."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from allauth.account.stages import LoginStageController
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from controlplane.api.auth import user_of
from controlplane.conf import TOTP_REQUIRED
from controlplane.signin import secondfactor
from controlplane.signin.secondfactor import Step

_pages = require_http_methods(["GET", "HEAD", "POST"])


@_pages
@never_cache
def code(request: HttpRequest) -> HttpResponse:
    """Ask who has given the right password for a code; with it, the session begins."""
    if request.user.is_authenticated:
        return redirect(settings.LOGIN_REDIRECT_URL)
    step = _step(request)
    if step is None or not secondfactor.is_enrolled(step.login.user):
        return redirect("login")
    if request.method != "POST":
        return render(request, "registration/code.html")
    if not secondfactor.accept(request, step.login.user, request.POST.get("code", "")):
        return render(request, "registration/code.html", {"is_wrong": True})
    way_on: HttpResponse = step.exit()
    return way_on


@_pages
@never_cache
def second_factor(request: HttpRequest) -> HttpResponse:
    """Let somebody enrol, in the middle of a sign-in or afterwards; then, see to what they have."""
    step = None if request.user.is_authenticated else _step(request)
    if step is None and not request.user.is_authenticated:
        return redirect("login")
    user = step.login.user if step else user_of(request)
    if secondfactor.is_enrolled(user):
        return redirect("code") if step else _manage(request, user)
    return _enrol(request, user, step)


def _enrol(request: HttpRequest, user: User, step: Step | None) -> HttpResponse:
    if request.method != "POST":
        return _show_key(request, secondfactor.key_of(request, user))
    codes = secondfactor.enrol(request, user, request.POST.get("code", ""))
    if codes is None:
        return _show_key(request, secondfactor.key_of(request, user), is_wrong=True)
    way_on = step.exit().headers["Location"] if step else resolve_url("second_factor")
    return _show_codes(request, codes, way_on)


def _show_key(request: HttpRequest, key: secondfactor.Key, **more: Any) -> HttpResponse:
    picture = f"data:image/svg+xml;base64,{b64encode(key.svg.encode()).decode()}"
    groups = " ".join(key.secret[at : at + 4] for at in range(0, len(key.secret), 4))
    shown = {"picture": picture, "secret": groups} | more
    return render(request, "registration/enrol.html", shown)


def _show_codes(request: HttpRequest, codes: list[str], way_on: str) -> HttpResponse:
    return render(request, "registration/recovery_codes.html", {"codes": codes, "way_on": way_on})


def _manage(request: HttpRequest, user: User) -> HttpResponse:
    """What somebody can do about the second factor that they have: with a code, each of it."""
    may_remove = settings.SIGNIN_TOTP != TOTP_REQUIRED
    shown = {"left": secondfactor.recovery_codes_left(user), "may_remove": may_remove}
    if request.method != "POST":
        return render(request, "registration/second_factor.html", shown)
    if not secondfactor.accept(request, user, request.POST.get("code", "")):
        return render(request, "registration/second_factor.html", shown | {"is_wrong": True})
    if request.POST.get("do") == "remove" and may_remove:
        secondfactor.remove(user)
        return redirect("second_factor")
    return _show_codes(
        request, secondfactor.renew_recovery_codes(user), resolve_url("second_factor")
    )


def _step(request: HttpRequest) -> Step | None:
    """Return the sign-in that waits for its second factor in this session."""
    found = LoginStageController.enter(request, Step.key)
    return found if found and found.stands else None
