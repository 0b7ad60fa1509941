"""People whom an authenticating proxy has signed in (``AUTH_PROXY_HEADER``).

``proxies.py`` decides whose word counts; here, it becomes a session. The groups that the proxy
names give what they were granted; nobody becomes staff by a header.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

from django.contrib import auth
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils.timezone import now

from controlplane import proxies
from controlplane.proxies import Identity
from controlplane.proxyusers import BACKEND, ProxyBackend

logger = logging.getLogger(__name__)

SESSION_TIME = timedelta(hours=12)  # since the proxy has last named its user

_GROUPS = "proxy_groups"  # in the session: what they were set to


def sign_in(request: HttpRequest) -> None:
    """Let the request be that of whom the proxy names, if it names anybody.

    A request that changes something gets no new session: its CSRF token was another one's. It is
    answered 401, and the next page signs in.
    """
    identity = proxies.identity_of(getattr(request, "scope", {}))
    if identity is None:
        return
    if request.user.is_authenticated and request.user.get_username() != identity.user:
        auth.logout(request)
    if not request.user.is_authenticated and request.method in {"GET", "HEAD"}:
        _begin_session(request, identity)
    if request.user.is_authenticated:
        _keep(request, request.user, identity)


def is_a_name(text: str) -> bool:
    """Whether somebody can be called so here."""
    try:
        User.username_validator(text)
        User._meta.get_field("username").run_validators(text)
    except ValidationError:
        return False
    return True


def set_groups(user: User, names: Iterable[str]) -> None:
    """Let these be all of the user's groups; names that no group has here mean nothing."""
    user.groups.set(Group.objects.filter(name__in=names))


def _begin_session(request: HttpRequest, identity: Identity) -> None:
    if not is_a_name(identity.user):
        logger.warning("A proxy names a user as none can be called here: not signed in")
        return
    with transaction.atomic():  # a new user is seen by others once it is whole
        user = ProxyBackend().authenticate(request, remote_user=identity.user)
    if user is None:
        logger.warning("A proxy names %s, who may not sign in here", identity.user)
        return
    auth.login(request, user, backend=BACKEND)
    request.session.set_expiry(now() + SESSION_TIME)


def _keep(request: HttpRequest, user: User, identity: Identity) -> None:
    """Set the groups anew where the proxy names others; let the session go on."""
    session = request.session
    if identity.groups is not None and session.get(_GROUPS) != list(identity.groups):
        set_groups(user, identity.groups)
        session[_GROUPS] = list(identity.groups)
    if session.get(auth.BACKEND_SESSION_KEY) != BACKEND:
        return
    if session.get_expiry_age() < SESSION_TIME.total_seconds() / 2:
        session.set_expiry(now() + SESSION_TIME)
