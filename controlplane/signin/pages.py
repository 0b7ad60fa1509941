"""The pages of signing in: with a password, with an OpenID provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allauth.account.utils import perform_login
from allauth.socialaccount.providers.base import AuthProcess
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, resolve_url
from django.utils.crypto import get_random_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from controlplane import ratelimits
from controlplane.conf import TOTP_OFF
from controlplane.exceptions import TooManyRequests
from controlplane.signin import failures
from controlplane.signin.provider import FAULTS, NONCE, Protocol, failure, refusal
from controlplane.signin.steps import is_own_path

_OUR_OWN_WISH = {"same-origin", "none"}  # a link of ours, or an address that somebody has typed


class SignIn(LoginView):
    """The page with the form, and with the way to the provider."""

    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return what the page shows."""
        return super().get_context_data(**kwargs) | failures.beside_the_form()

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Go on: to the session, or to what is asked for before it."""
        if settings.SIGNIN_TOTP == TOTP_OFF:
            return super().form_valid(form)
        response: HttpResponse = perform_login(
            self.request, form.get_user(), redirect_url=self.get_success_url()
        )
        return response


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """Send whoever comes to the admin to the one page of signing in: the admin has no other."""
    after = _way_on(request, "admin:index")
    if not request.user.is_authenticated:
        return redirect_to_login(after)
    if not request.user.is_staff:
        raise PermissionDenied
    return redirect(after)


@require_safe
@never_cache
def provider_begin(request: HttpRequest) -> HttpResponseBase:
    """Send somebody to the provider.

    A GET: our policy for forms (``form-action``) holds for where their answers redirect to as well,
    and a provider may send people on to others. Another site's page cannot begin it in their stead.
    """
    after = _way_on(request, settings.LOGIN_REDIRECT_URL)
    if request.user.is_authenticated:
        return redirect(after)
    if request.headers.get("Sec-Fetch-Site", "none") not in _OUR_OWN_WISH:
        return redirect_to_login(after)
    try:
        ratelimits.count_beginning(request.META.get("REMOTE_ADDR") or "")
    except TooManyRequests as too_many:
        return _not_now(request, too_many)
    nonce = get_random_string(32)
    provider = Protocol(request, settings.OIDC_ISSUER).get_provider()
    sent: dict[str, Any] = {NONCE: nonce, "auth_params": {"nonce": nonce}}
    return _spoken(
        request, lambda: provider.redirect(request, AuthProcess.LOGIN, next_url=after, **sent)
    )


@require_safe
@never_cache
def provider_callback(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Let in whom the provider has sent back, if that sign-in has begun in this browser.

    Who has signed in meanwhile, in another tab, stays so: a new login would end that one's.
    """
    if request.user.is_authenticated:
        return redirect(settings.LOGIN_REDIRECT_URL)
    answer = OAuth2CallbackView.adapter_view(Protocol(request, provider_id))
    return _spoken(request, lambda: answer(request))


def _not_now(request: HttpRequest, too_many: TooManyRequests) -> HttpResponse:
    response = refusal(request, "often", status=429)
    response["Retry-After"] = str(too_many.retry_after)
    return response


def _spoken(request: HttpRequest, with_provider: Callable[[], HttpResponse]) -> HttpResponse:
    """Return the answer after a talk to the provider, or the page that says that it has failed."""
    try:
        return with_provider()
    except FAULTS as fault:
        return failure(request, fault)


def _way_on(request: HttpRequest, otherwise: str) -> str:
    wished = request.GET.get("next", "")
    return wished if is_own_path(wished) else resolve_url(otherwise)
