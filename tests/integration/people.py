"""Who the tests are about: named people, the workspace they share, and a browser for each.

The fixtures are imported by ``conftest.py``. The helpers below them look at lease rows, and age
them, which only tests may do: otherwise ``leases.py`` is the only writer.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpResponse
from django.test import Client

from controlplane import access, leaseviews, streamrows
from controlplane.exceptions import ControlRefused
from controlplane.leases import Holder
from controlplane.models import (
    ControlEvent,
    Controller,
    DisplayControlLease,
    DisplayStream,
    Role,
    Workspace,
    WorkspaceGrant,
)
from controlplane.verdicts import Question

CSRF = "c" * 32
UPSTREAM = "tcp://127.0.0.1:5999"
THIS_TAB, OTHER_TAB = "this-tab-0001", "other-tab-0002"


# --- The people -----------------------------------------------------------------------------------
def person(username: str, full_name: str = "", role: Role | None = None, **fields: Any) -> User:
    """Add somebody; ``role`` is what they are granted in the workspace ``desk``.

    In bulk, that is without signals: nobody can have lost control by it, so nobody looks for them.
    The tests add people two thousand times, and would spend a fourth of their time on it.
    """
    first, _, last = full_name.partition(" ")
    user = User(username=username, first_name=first, last_name=last, **fields)
    user.set_unusable_password()  # hashing takes a while; whoever needs a password sets one
    User.objects.bulk_create([user])
    if role:
        grant = WorkspaceGrant(workspace=Workspace.objects.get(slug="desk"), user=user, role=role)
        WorkspaceGrant.objects.bulk_create([grant])
    return user


@pytest.fixture
def desk(db: None) -> Workspace:
    """The workspace that everybody but the stranger may use."""
    return Workspace.objects.create(slug="desk", name="Desk 12", upstream_url=UPSTREAM)


@pytest.fixture
def operator(desk: Workspace) -> User:
    """May watch and take control."""
    return person("operator", "Olive Operator", Role.OPERATOR)


@pytest.fixture
def colleague(desk: Workspace) -> User:
    """A second operator, known by the username alone."""
    return person("colleague", "", Role.OPERATOR)


@pytest.fixture
def observer(desk: Workspace) -> User:
    """May only watch."""
    return person("observer", "Oscar Observer", Role.OBSERVER)


@pytest.fixture
def manager(desk: Workspace) -> User:
    """May also end other people's control."""
    return person("manager", "Mary Manager", Role.MANAGER)


@pytest.fixture
def admin(db: None) -> User:
    """May everything, without any grant."""
    return person("admin", "Ada Admin", is_staff=True, is_superuser=True)


@pytest.fixture
def stranger(db: None) -> User:
    """Has an account, and no grant."""
    return person("stranger", "Sam Stranger")


# --- Their tabs and browsers ----------------------------------------------------------------------
def tab(
    user: User,
    client_id: str = THIS_TAB,
    kind: Controller = Controller.USER,
    login: str = "",
) -> Holder:
    """Return ``user`` in one browser tab."""
    return Holder(user, client_id, kind, login, ip="192.0.2.7")


def agent(user: User, client_id: str = "agent-process-1") -> Holder:
    """Return an agent that works on behalf of ``user``."""
    return tab(user, client_id, Controller.AGENT)


def logged_in(user: User) -> str:
    """Return the key of a new login: what signing in leaves, without what it sets going."""
    session = SessionStore()
    session[auth.SESSION_KEY] = str(user.pk)
    session[auth.BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return str(session.session_key)


class Browser:
    """A browser in which ``user`` is logged in (nobody, if None), CSRF checks and all."""

    def __init__(self, user: User | None = None, **options: Any) -> None:
        self.client = Client(enforce_csrf_checks=True, **options)
        self.client.cookies["csrftoken"] = CSRF
        if user:
            self.client.cookies[settings.SESSION_COOKIE_NAME] = logged_in(user)

    @property
    def session_key(self) -> str:
        """The key of its login."""
        return str(self.client.session.session_key)

    @property
    def login(self) -> str:
        """How its login is written down beside a lease."""
        return access.login_id(self.session_key)

    def get(self, path: str, **headers: str) -> HttpResponse:
        """GET a path."""
        return self.client.get(path, headers=headers)  # type: ignore[return-value]

    def post(self, path: str, body: object, **headers: str) -> HttpResponse:
        """POST JSON with the CSRF token; ``body`` may be raw text or bytes."""
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.client.post(  # type: ignore[return-value]
            path,
            content,
            content_type="application/json",
            headers={"X-CSRFToken": CSRF, **headers},
        )

    def send(self, method: str, path: str, body: object = None, **headers: str) -> HttpResponse:
        """Send JSON, or nothing, with the CSRF token by any method."""
        return self.client.generic(  # type: ignore[return-value]
            method,
            path,
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"X-CSRFToken": CSRF, **headers},
        )

    def acquire(self, client_id: str = THIS_TAB, slug: str = "desk", **more: Any) -> HttpResponse:
        """Take or renew control."""
        path = f"/api/workspaces/{slug}/display/control/acquire"
        return self.post(path, {"client_id": client_id, **more})

    def release(self, client_id: str = THIS_TAB, slug: str = "desk", **more: Any) -> HttpResponse:
        """Give control back, or end somebody's."""
        path = f"/api/workspaces/{slug}/display/control/release"
        return self.post(path, {"client_id": client_id, **more})

    def session(self, client_id: str = THIS_TAB, slug: str = "desk", **more: Any) -> HttpResponse:
        """Ask for an address to watch at."""
        return self.post(
            f"/api/workspaces/{slug}/display/session", {"client_id": client_id, **more}
        )


def token_of(answer: HttpResponse) -> str:
    """Return the session token in an answer of the API."""
    url = str(json.loads(answer.content)["session_url"])
    return url.partition("#token=")[2]


# --- Looking at leases, and ageing them -----------------------------------------------------------
def lease_of(workspace: Workspace) -> DisplayControlLease:
    """Return the row as it is now."""
    return DisplayControlLease.objects.select_related("workspace").get(workspace=workspace)


def view_of(workspace: Workspace) -> leaseviews.LeaseView:
    """Return what everybody is told."""
    return leaseviews.read([workspace.pk])[workspace.pk]


def now() -> datetime:
    """Return the database's time."""
    return leaseviews.lease_rows().values_list("db_now", flat=True)[0]


def let_expire(workspace: Workspace, seconds_ago: float = 1) -> None:
    """Shift all times of the lease so that it ran out ``seconds_ago``."""
    age(workspace, view_of(workspace).remaining + seconds_ago)


def age(workspace: Workspace, seconds: float) -> None:
    """Shift all times of the lease into the past: as if ``seconds`` had gone by."""
    lease = lease_of(workspace)
    shift = timedelta(seconds=seconds)
    DisplayControlLease.objects.filter(pk=lease.pk).update(
        **{
            name: at - shift
            for name in (
                *("acquired_at", "renewed_at", "kept_at", "expires_at", "ended_at"),
                *("parked_at", "help_at", "handed_back_at"),
            )
            if (at := getattr(lease, name))
        }
    )


def history(workspace: Workspace) -> list[tuple[str, int]]:
    """Return what has happened and in which epoch, oldest first; refusals as often as counted."""
    events = ControlEvent.objects.filter(workspace=workspace).order_by("id")
    return [(event.what, event.epoch) for event in events for _ in range(event.count)]


def transitions(workspace: Workspace) -> list[tuple[str, int]]:
    """Return the history without what was refused."""
    return [each for each in history(workspace) if each[0] != ControlEvent.What.REFUSED]


def assert_held_by(workspace: Workspace, holder: Holder, *, epoch: int) -> None:
    """Fail unless exactly this tab has control, in this epoch."""
    view = view_of(workspace)
    assert view.is_held
    assert (view.lease.holder, view.lease.client_id) == (holder.user, holder.client_id)
    assert (view.lease.controller, view.lease.epoch) == (holder.kind, epoch)


def assert_free(workspace: Workspace, *, reason: str, epoch: int) -> None:
    """Fail unless nobody has control, and the newest epoch ended for ``reason``."""
    view = view_of(workspace)
    assert not view.is_held
    assert view.last_end is not None
    assert (view.last_end.reason, view.lease.epoch) == (reason, epoch)


def refusal(call: Any, *args: Any, **options: Any) -> str:
    """Return the code with which leases.py refuses the call."""
    with pytest.raises(ControlRefused) as caught:
        call(*args, **options)
    return caught.value.code


def question(stream_id: int, workspace_id: int, user_id: int, **more: Any) -> Question:
    """Return what a stream asks in its first pass, but for ``more``."""
    first = {
        "client_id": THIS_TAB,
        "session_key": "",
        "upstream_version": 0,
        "mode": "observe",
        "seen": None,
        "driven_epoch": None,
        "has_let_go": True,
        "input_age": None,
        "pointer": None,
    }
    of_whom = {"stream_id": stream_id, "workspace_id": workspace_id, "user_id": user_id}
    return Question(**(first | of_whom | more))


def open_stream(workspace: Workspace, user: User, client_id: str = THIS_TAB) -> DisplayStream:
    """Add the row of an open stream, without a websocket behind it."""
    return DisplayStream.objects.create(
        workspace=workspace,
        user=user,
        client_id=client_id,
        token_id=f"token-{DisplayStream.objects.count()}",
        process=streamrows.PROCESS,
    )
