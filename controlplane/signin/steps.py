"""What lies between a password that was right, or a provider's word, and the session.

django-allauth goes through the steps of a sign-in (``Steps.get_login_stages``) and keeps one that
is under way in the session of nobody; there is no login before the last step.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.utils.http import url_has_allowed_host_and_scheme

from controlplane.conf import TOTP_OFF

PROVIDER_SESSION_TIME = timedelta(hours=12)  # then the provider is asked again


class Steps(DefaultAccountAdapter):  # type: ignore[misc]  # untyped
    """How a sign-in goes on; django-allauth asks, here are the answers."""

    def get_login_stages(self) -> list[str]:
        """Return the steps before the session, in their order."""
        asked = (
            [] if settings.SIGNIN_TOTP == TOTP_OFF else ["controlplane.signin.secondfactor.Step"]
        )
        return [*asked, "controlplane.signin.provider.Vouching"]

    def post_login(
        self, request: HttpRequest, user: User, *, signal_kwargs: Any, **kwargs: Any
    ) -> HttpResponse:
        """Give a login that is a provider's word an end; answer with the way on."""
        if is_a_providers_word(signal_kwargs):
            request.session.set_expiry(PROVIDER_SESSION_TIME)
        response: HttpResponse = super().post_login(
            request, user, signal_kwargs=signal_kwargs, **kwargs
        )
        return response

    def is_safe_url(self, url: str | None) -> bool:
        """Whether the way on is a path of ours."""
        return is_own_path(url or "")

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Nobody makes an account of their own."""
        return False

    def add_message(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing: the page that comes next shows who is signed in."""


def is_a_providers_word(signal_kwargs: dict[str, Any] | None) -> bool:
    """Whether a provider vouches for whoever signs in, by what django-allauth keeps of it."""
    return "sociallogin" in (signal_kwargs or {})


def is_own_path(url: str) -> bool:
    """Whether it is a path on this server, of which no browser makes another host."""
    return url.startswith("/") and url_has_allowed_host_and_scheme(url, allowed_hosts=None)
