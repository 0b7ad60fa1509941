"""Who calls: a person with a session cookie or a control link, or a program with an API token."""

from __future__ import annotations

import json
from ipaddress import ip_address

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from ninja.errors import AuthenticationError
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from controlplane import access, apitokens, leases, logs, ratelimits
from controlplane.exceptions import Forbidden
from controlplane.models import ApiToken, Controller


class ApiTokenBearer(HttpBearer):
    """A program: ``Authorization: Bearer <API token>``; or a tab that a control link was opened in.

    A bad one never falls back to a cookie.
    """

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken:
        """Return the token, whose account then is the request's user; 401 where it is not good."""
        address = request.META.get("REMOTE_ADDR") or ""
        ratelimits.check_bad_tokens(address)
        known = apitokens.find(token)
        if known is None:
            ratelimits.count_bad_token(address)
            raise AuthenticationError
        if known.is_link and not _comes_from(request, known.client_id):
            ratelimits.count_bad_token(address)
            raise AuthenticationError
        ratelimits.count_call_of_token(known.pk)
        request.user = known.account
        logs.note(user_id=known.account_id)
        return known


def _comes_from(request: HttpRequest, client_id: str) -> bool:
    """Whether the call says by its header that it is from this tab, and nowhere anything else.

    Here, for all calls together: one that forgot to compare would let the link into other tabs.
    """
    named: list[object] = [
        request.headers.get("X-Client-Id", ""),
        *request.GET.getlist("client_id"),
    ]
    if request.body:
        try:
            body = json.loads(request.body)
        except ValueError:
            return False
        named += [body["client_id"]] if isinstance(body, dict) and "client_id" in body else []
    return bool(client_id) and all(
        isinstance(each, str) and each.isascii() and constant_time_compare(each, client_id)
        for each in named
    )


class SessionCookie(APIKeyCookie):
    """A logged-in person: the session cookie, with the CSRF token for all that changes things."""

    param_name = settings.SESSION_COOKIE_NAME

    def __init__(self) -> None:
        super().__init__(csrf=False)  # checked below, so that a stranger gets 401 and not 403

    def authenticate(self, request: HttpRequest, key: str | None) -> User | None:
        """Return the user, or None for a stranger (401)."""
        if not isinstance(request.user, User):
            return None
        if check_csrf(request):
            raise Forbidden("csrf", "The CSRF token is missing or wrong; reload the page.")
        return request.user


def user_of(request: HttpRequest) -> User:
    """Return the user whom authentication has let in; an API token's is its account."""
    assert isinstance(request.user, User)  # authentication has let the request in
    return request.user


def kind_of(request: HttpRequest) -> Controller:
    """Return what kind of holder the request's credential makes."""
    token = _token_of(request)
    return Controller(token.kind) if token else Controller.USER


def session_key_of(request: HttpRequest) -> str:
    """Return the key of the login that the request came with; empty for an API token or a link."""
    return "" if _token_of(request) else (request.session.session_key or "")


def _token_of(request: HttpRequest) -> ApiToken | None:
    token = getattr(request, "auth", None)
    return token if isinstance(token, ApiToken) else None


def ip_of(request: HttpRequest) -> str | None:
    """Return the client's address if it is one: a socket has none, a proxy may say “unknown”."""
    try:
        address = ip_address(request.META.get("REMOTE_ADDR") or "")
    except ValueError:
        return None
    return str(address).partition("%")[0]  # without the zone of a link-local one


def holder_of(request: HttpRequest, client_id: str) -> leases.Holder:
    """Return who would have control if this request were granted it."""
    return leases.Holder(
        user=user_of(request),
        client_id=client_id,
        kind=kind_of(request),
        login=access.login_id(session_key_of(request)),
        ip=ip_of(request),
    )
