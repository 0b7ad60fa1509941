"""What becomes of a person whom a proxy names: the session that begins, goes on, or does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import auth
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils.timezone import now

from controlplane.proxies import Identity
from controlplane.proxyusers import BACKEND
from controlplane.signin import proxy
from controlplane.signin.proxy import SESSION_TIME

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def request_of(identity: Identity | None, session: SessionStore | None = None) -> HttpRequest:
    """Return a request as the middleware gets it: with a session, and with its user."""
    request = RequestFactory().get("/")
    request.session = session or SessionStore()
    request.scope = {"desktopctl.identity": identity}  # type: ignore[attr-defined]  # as under ASGI
    request.user = auth.get_user(request)
    return request


def visit(name: str, groups: tuple[str, ...] | None = None) -> HttpRequest:
    """Come with what the proxy says for the first time."""
    request = request_of(Identity(name, groups))
    proxy.sign_in(request)
    return request


@pytest.fixture(autouse=True)
def _proxied(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["controlplane.backends.PeopleBackend", BACKEND]


def test_a_session_that_ends_in_less_than_half_its_time_is_prolonged() -> None:
    session = visit("anna").session
    for left, expected in ((7 * HOUR, 7 * HOUR), (5 * HOUR, SESSION_TIME)):
        session.set_expiry(now() + left)
        request = request_of(Identity("anna", None), session)
        proxy.sign_in(request)
        age = timedelta(seconds=request.session.get_expiry_age())
        assert expected - HOUR < age <= expected


def test_a_session_is_not_prolonged_where_the_proxy_names_nobody() -> None:
    session = visit("anna").session
    session.set_expiry(now() + HOUR)
    request = request_of(None, session)
    proxy.sign_in(request)
    assert request.user.get_username() == "anna"
    assert request.session.get_expiry_age() <= HOUR.total_seconds()


def test_a_login_by_password_keeps_its_own_time() -> None:
    user = User.objects.create_user("anna")
    request = request_of(Identity("anna", None))
    auth.login(request, user, backend="controlplane.backends.PeopleBackend")
    before = request.session.get_expiry_age()
    proxy.sign_in(request)
    assert request.session.get_expiry_age() == before > SESSION_TIME.total_seconds()


def test_groups_are_left_alone_where_the_proxy_tells_none() -> None:
    group = Group.objects.create(name="by hand")
    user = User.objects.create_user("anna")
    user.groups.add(group)
    visit("anna")
    assert list(user.groups.all()) == [group]
    visit("anna", ())
    assert list(user.groups.all()) == []


def test_an_account_that_is_there_keeps_its_password_and_rights() -> None:
    user = User.objects.create_superuser("root", password="a-password")
    assert visit("root", ()).user == user
    user.refresh_from_db()
    assert user.is_superuser
    assert user.check_password("a-password")


def test_who_may_not_sign_in_is_nobody_and_loses_the_session_of_another() -> None:
    User.objects.create_user("gone", is_active=False)
    session = visit("anna").session
    request = request_of(Identity("gone", None), session)
    proxy.sign_in(request)
    assert request.user == AnonymousUser()
    assert auth.SESSION_KEY not in request.session
