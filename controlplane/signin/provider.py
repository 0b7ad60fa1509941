"""People whom an OpenID provider has signed in (``OIDC_ISSUER``).

django-allauth speaks with the provider. Here is what it leaves to us: which answers of a provider
count, whose account they open, and which groups come with them. A person is known by the issuer and
their ``sub`` there, which never change; by a name only when they come for the first time.
"""

from __future__ import annotations

import logging
from typing import Any

from allauth.account.stages import LoginStage
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.base import AuthError
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, close_old_connections, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.crypto import constant_time_compare
from requests import RequestException, Session

from controlplane import conf
from controlplane.backends import PeopleBackend
from controlplane.providerusers import BACKEND
from controlplane.signin.proxy import is_a_name, set_groups
from controlplane.signin.steps import is_a_providers_word

logger = logging.getLogger(__name__)

# What talking to a provider may raise: it does not answer, or not as the standard says.
FAULTS = (RequestException, OAuth2Error, LookupError, TypeError, ValueError)

NONCE = "nonce"  # in the state of a sign-in that is under way, and in the provider's token

_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")


class Vouching(LoginStage):  # type: ignore[misc]  # untyped
    """The last step of a sign-in: a session that is a provider's word is ProviderBackend's."""

    key = "vouching"

    def handle(self) -> tuple[None, bool]:
        """Go on to the session."""
        if is_a_providers_word(self.login.signal_kwargs):
            self.login.user.backend = BACKEND
        return None, True


class Protocol(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]  # untyped
    """django-allauth's, where it is more lenient than OpenID Connect, made strict."""

    @property
    def openid_config(self) -> dict[str, Any]:
        """Return what the provider says of itself, if that is about the issuer that we trust."""
        config: dict[str, Any] = super().openid_config
        if config["issuer"] != settings.OIDC_ISSUER:
            raise OAuth2Error("The provider is another issuer than OIDC_ISSUER, to the letter")
        for name in _ENDPOINTS:
            if not conf.is_private(str(config[name])):
                raise OAuth2Error(f"The provider's {name} is without https")
        return config

    def get_access_token_data(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Fetch the tokens. Their signature counts, though they have come over TLS."""
        data: dict[str, Any] = super().get_access_token_data(*args, **kwargs)
        self.did_fetch_access_token = False
        if "id_token" not in data:
            raise OAuth2Error("The provider has sent no id_token")
        return data


class Provider(OpenIDConnectProvider):  # type: ignore[misc]  # untyped
    """The one of ``OIDC_ISSUER``."""

    oauth2_adapter_class = Protocol

    def sociallogin_from_response(self, request: HttpRequest, response: Any) -> SocialLogin:
        """Return the sign-in, with ``claims``: the token's and, where both tell, the userinfo's."""
        token, told = response["id_token"], response.get("userinfo", {})
        if told and told["sub"] != token["sub"]:
            raise OAuth2Error("The userinfo is about somebody else than the id_token")
        login = super().sociallogin_from_response(request, response)
        login.claims = token | told
        login.nonce = token.get("nonce", "")
        return login

    def extract_extra_data(self, data: Any) -> dict[str, Any]:
        """Keep nothing of it."""
        return {}

    def extract_common_fields(self, data: Any) -> dict[str, Any]:
        """Take no more than a name to show: there is no mail here, and the username is ours."""
        common = super().extract_common_fields(data)
        return {name: common[name] for name in ("name", "first_name", "last_name")}

    def extract_email_addresses(self, data: Any) -> list[Any]:
        """Take none."""
        return []


class Policy(DefaultSocialAccountAdapter):  # type: ignore[misc]  # untyped
    """Who may come in, and as whom; django-allauth asks, here are the answers."""

    def get_requests_session(self) -> Session:
        """Return what to call the provider with; the database's connection is others' meanwhile."""
        close_old_connections()
        session: Session = super().get_requests_session()
        return session

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        """Let it be an account's sign-in, or end it with a page that says why it is not."""
        if not constant_time_compare(sociallogin.nonce, sociallogin.state[NONCE]):
            raise OAuth2Error("The id_token is of another sign-in")
        sociallogin.token = None  # a sign-in that waits for a code is kept in the session
        try:
            with transaction.atomic():  # a new user is seen by others once it is whole
                user = _account_of(request, sociallogin)
                if settings.OIDC_GROUPS_CLAIM:
                    set_groups(user, _groups_in(sociallogin.claims))
        except IntegrityError:
            raise OAuth2Error("The account was made in another sign-in just now") from None

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: str | None = None,
        exception: Exception | None = None,
        extra_context: Any = None,
    ) -> None:
        """End it with a page of ours."""
        if error == AuthError.CANCELLED:
            raise ImmediateHttpResponse(refusal(request, "cancelled"))
        raise ImmediateHttpResponse(failure(request, exception))

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        """Nobody makes an account of their own."""
        return False


def failure(request: HttpRequest, fault: Exception | None) -> HttpResponse:
    """Answer a sign-in that has gone wrong between us and the provider, and log how."""
    is_expected = fault is None or isinstance(fault, RequestException | OAuth2Error)
    trace = None if is_expected else fault
    logger.warning("A sign-in with the provider has failed: %s", _words_for(fault), exc_info=trace)
    is_away = isinstance(fault, RequestException)
    return refusal(request, "away" if is_away else "failed", status=502 if is_away else 400)


def _words_for(fault: Exception | None) -> str:
    """What may be logged of it: not what a provider has answered, for tokens may be in that."""
    if fault is None:
        return "no such sign-in is under way in this browser, or the provider refused it"
    cause = fault.__cause__ or fault
    return f"{type(cause).__name__}: {str(cause).partition(': b')[0]}"


def refusal(request: HttpRequest, reason: str, status: int = 403) -> HttpResponse:
    """Answer with a page that says in plain words why nobody is signed in."""
    response = render(request, "registration/refused.html", {"reason": reason}, status=status)
    response["Cache-Control"] = "no-store"
    return response


def _account_of(request: HttpRequest, login: SocialLogin) -> User:
    """Return whose account the sign-in opens, which may be a new one."""
    user = login.user if login.is_existing else _first_time(request, login)
    if not PeopleBackend().user_can_authenticate(user):
        raise _refused(request, "disabled", user.get_username())
    return user


def _first_time(request: HttpRequest, login: SocialLogin) -> User:
    """Return the account for somebody who has not come from this provider before."""
    name = _name_in(login.claims)
    if not name:
        raise _refused(request, "nameless", login.account.uid)
    found = User.objects.select_for_update().filter(username=name).first()
    login.lookup()  # again: they may have come in another tab while that was waited for
    if login.is_existing:
        theirs: User = login.user
        return theirs
    if found is None and not settings.OIDC_ADD_PEOPLE:
        raise _refused(request, "unknown", name)
    if found is not None and not _waits_for_its_person(found):
        raise _refused(request, "taken", name)
    user: User = found or login.user
    user.username = name
    login.user = user
    login.save(request, connect=True)
    return user


def _waits_for_its_person(user: User) -> bool:
    """Whether an account was made for somebody who is yet to come: nobody can sign in to it."""
    is_known = SocialAccount.objects.filter(user=user).exists()
    return not user.has_usable_password() and not is_known and not hasattr(user, "api_token")


def _name_in(claims: dict[str, Any]) -> str:
    """Return the username that a provider tells; nothing where it tells none that can be one.

    An address of mail that is not known to be theirs could be anybody's.
    """
    name = claims.get(settings.OIDC_USERNAME_CLAIM)
    is_unproven = (
        settings.OIDC_USERNAME_CLAIM == "email" and claims.get("email_verified") is not True
    )
    return name if isinstance(name, str) and is_a_name(name) and not is_unproven else ""


def _groups_in(claims: dict[str, Any]) -> list[str]:
    """Return the groups that a provider tells; where it tells none, there are none."""
    groups = claims.get(settings.OIDC_GROUPS_CLAIM, [])
    listed = groups if isinstance(groups, list) else [groups]
    return [group for group in listed if isinstance(group, str)]


def _refused(request: HttpRequest, reason: str, who: str) -> ImmediateHttpResponse:
    logger.warning("A provider names %s, who may not sign in here (%s)", who, reason)
    return ImmediateHttpResponse(refusal(request, reason))
