"""Who may do what with which workspace, and whether a login still stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from controlplane.models import Role, Workspace, WorkspaceGrant


@dataclass(frozen=True, slots=True)
class Permissions:
    """What somebody may do with one workspace."""

    observe: bool = False
    control: bool = False
    force: bool = False


NONE = Permissions()
ALL = Permissions(observe=True, control=True, force=True)
_OF_ROLE = {
    Role.OBSERVER: Permissions(observe=True),
    Role.OPERATOR: Permissions(observe=True, control=True),
    Role.MANAGER: ALL,
}
_RANK = list(_OF_ROLE)


def permissions(user: User, workspace: Workspace) -> Permissions:
    """Return what ``user`` may do with ``workspace``, read now."""
    return permissions_of(user, [workspace.pk])[workspace.pk]


def permissions_of(user: User, workspace_ids: Iterable[int]) -> dict[int, Permissions]:
    """Return what ``user`` may do with each workspace, in one query. The best role counts."""
    ids = list(workspace_ids)
    if not user.is_active:
        return dict.fromkeys(ids, NONE)
    if user.is_superuser:
        return dict.fromkeys(ids, ALL)
    roles: dict[int, list[Role]] = {pk: [] for pk in ids}
    for pk, role in _grants(user).filter(workspace__in=ids).values_list("workspace", "role"):
        roles[pk].append(Role(role))
    return {pk: _OF_ROLE[max(own, key=_RANK.index)] if own else NONE for pk, own in roles.items()}


def visible(user: User) -> QuerySet[Workspace]:
    """Return the workspaces that ``user`` may observe, in the order of their names."""
    if not user.is_active:
        return Workspace.objects.none()
    if user.is_superuser:
        return Workspace.objects.all()
    return Workspace.objects.filter(pk__in=_grants(user).values("workspace"))


def _grants(user: User) -> QuerySet[WorkspaceGrant]:
    return WorkspaceGrant.objects.filter(Q(user=user) | Q(group__user=user))


def login_id(session_key: str) -> str:
    """Return a name for a login that can be stored and compared, but not used to log in."""
    return salted_hmac("controlplane.login", session_key, algorithm="sha256").hexdigest()


def is_logged_in(user: User, session_key: str) -> bool:
    """Whether the session stands and is still this user's: not after logout or a new password."""
    session = Session.objects.filter(pk=session_key, expire_date__gt=timezone.now()).first()
    if not session:
        return False
    data = session.get_decoded()
    if data.get(SESSION_KEY) != str(user.pk):
        return False
    own = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(data.get(HASH_SESSION_KEY, ""), each) for each in own)


def display_name(user: User) -> str:
    """Return how others see ``user``: the full name, else the username."""
    return user.get_full_name() or user.get_username()
