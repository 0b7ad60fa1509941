"""Who may do what with which workspace, and whether a login still stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.models import (
    BooleanField,
    Case,
    Exists,
    ExpressionWrapper,
    Q,
    QuerySet,
    When,
)
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare, salted_hmac

from controlplane.models import ApiToken, Role, Scope, Workspace, WorkspaceGrant
from controlplane.statements import Select, made_once


@dataclass(frozen=True, slots=True)
class Permissions:
    """What somebody may do with one workspace."""

    observe: bool = False
    control: bool = False
    force: bool = False
    configure: bool = False


NONE = Permissions()
ALL = Permissions(observe=True, control=True, force=True, configure=True)
_OF_ROLE = {
    Role.OBSERVER: Permissions(observe=True),
    Role.OPERATOR: Permissions(observe=True, control=True),
    Role.MANAGER: Permissions(observe=True, control=True, force=True),
}
_RANK = [NONE, *_OF_ROLE.values()]


def permissions(user: User, workspace: Workspace) -> Permissions:
    """Return what ``user`` may do with ``workspace``, read now."""
    return permissions_of(user, [workspace.pk])[workspace.pk]


def permissions_now(user_id: int, workspace_id: int) -> Permissions:
    """Return what a user may do with a workspace, both given by key. The account is read now, too.

    Each decision about a lease asks for it: one short statement, for most people.
    """
    user = _ACCOUNT.first(user_id, workspace_id)
    if user is None:
        return NONE
    if user.has_token:
        return permission_table([user], [workspace_id])[user_id, workspace_id]
    if user.is_superuser or not user.is_active:
        return _without_grant(user)
    return _OF_ROLE[Role(user.best_role)] if user.best_role else NONE


def permissions_of(user: User, workspace_ids: Iterable[int]) -> dict[int, Permissions]:
    """Return what ``user`` may do with each workspace, in one query. The best role counts."""
    ids = list(workspace_ids)
    table = permission_table([user], ids)
    return {pk: table[user.pk, pk] for pk in ids}


def permission_table(
    users: Iterable[User], workspace_ids: Iterable[int]
) -> dict[tuple[int, int], Permissions]:
    """Return what each user may do with each workspace, by (user, workspace).

    The number of queries is the same for one and for many.
    """
    everybody, ids = list(users), list(workspace_ids)
    table = {(user.pk, pk): _without_grant(user) for user in everybody for pk in ids}
    granted = {user.pk for user in everybody if user.is_active and not user.is_superuser}
    for user_pk, pk, role in _grants_among(granted, ids):
        table[user_pk, pk] = max(table[user_pk, pk], _OF_ROLE[role], key=_RANK.index)
    return table | _token_table(everybody, ids)


def of_token(token: ApiToken) -> Permissions:
    """Return what a token that is good may do with each of its workspaces."""
    scopes = token.scope_set
    manages = Scope.MANAGE in scopes
    return Permissions(
        observe=bool(scopes), control=Scope.CONTROL in scopes, force=manages, configure=manages
    )


def may_add(user: User) -> bool:
    """Whether ``user`` may add workspaces: superusers, and tokens that manage all there will be."""
    token = _tokens_of([user]).first()
    if token is None:
        return _without_grant(user) is ALL
    return bool(token.is_good and token.all_workspaces and of_token(token).configure)


def _token_table(users: list[User], workspaces: list[int]) -> dict[tuple[int, int], Permissions]:
    """Return the same for those users that are tokens' accounts: grants give them nothing."""
    tokens = {token.account_id: token for token in _tokens_of(users)}
    table = {(account, pk): NONE for account in tokens for pk in workspaces}
    good = {account: token for account, token in tokens.items() if token.is_good}
    for account, token in good.items():
        reach = workspaces if token.all_workspaces else []
        table |= {(account, pk): of_token(token) for pk in reach}
    narrow = [token.pk for token in good.values() if not token.all_workspaces]
    if narrow:
        links = ApiToken.workspaces.through.objects.filter(
            apitoken__in=narrow, workspace__in=workspaces
        )
        for account, pk in links.values_list("apitoken__account", "workspace"):
            table[account, pk] = of_token(tokens[account])
    return table


@made_once
def good_tokens() -> QuerySet[ApiToken]:
    """The API tokens that are neither revoked nor expired, by the database's clock."""
    return ApiToken.objects.filter(_IS_GOOD, account__is_active=True)


_IS_GOOD = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))


def _tokens_of(users: Iterable[User]) -> QuerySet[Any]:
    return _judged_tokens().filter(account__in=[user.pk for user in users])


@made_once
def _judged_tokens() -> QuerySet[Any]:
    is_good = Q(pk__in=good_tokens().values("pk"))
    return ApiToken.objects.annotate(is_good=ExpressionWrapper(is_good, BooleanField()))


_Membership: Any = User.groups.through


def _best_role(user: int, workspace: int) -> QuerySet[WorkspaceGrant, Any]:
    mine = Q(user=user) | Q(group__in=_Membership.objects.filter(user=user).values("group"))
    rank = Case(*(When(role=role, then=place) for place, role in enumerate(_OF_ROLE)))
    best_first = WorkspaceGrant.objects.filter(mine, workspace=workspace).order_by(rank.desc())
    return best_first.values("role")[:1]


_ACCOUNT: Select[Any] = Select(
    lambda pk, workspace: (
        User.objects.filter(pk=pk)
        .only("is_active", "is_superuser")
        .annotate(
            has_token=Exists(ApiToken.objects.filter(account=pk)),
            best_role=_best_role(pk, workspace),
        )
    )
)


def _without_grant(user: User) -> Permissions:
    return ALL if user.is_active and user.is_superuser else NONE


def _grants_among(users: set[int], workspaces: list[int]) -> Iterator[tuple[int, int, Role]]:
    """Yield (user, workspace, role) for every grant, given directly or through a group."""
    if not users:
        return
    rows = WorkspaceGrant.objects.filter(
        Q(user__in=users) | Q(group__user__in=users), workspace__in=workspaces
    ).values_list("user", "group__user", "workspace", "role")
    for user, member, workspace, role in rows:
        yield (user or member), workspace, Role(role)


def visible(user: User) -> QuerySet[Workspace]:
    """Return the workspaces that ``user`` may observe, in the order of their names."""
    if not user.is_active:
        return Workspace.objects.none()
    token = ApiToken.objects.filter(account=user).first()
    if token:
        return _visible_to(token)
    if user.is_superuser:
        return Workspace.objects.all()
    return Workspace.objects.filter(pk__in=_grants(user).values("workspace"))


def _visible_to(token: ApiToken) -> QuerySet[Workspace]:
    if not good_tokens().filter(pk=token.pk).exists():
        return Workspace.objects.none()
    return Workspace.objects.all() if token.all_workspaces else token.workspaces.all()


def _grants(user: User) -> QuerySet[WorkspaceGrant]:
    return WorkspaceGrant.objects.filter(Q(user=user) | Q(group__user=user))


def login_id(session_key: str) -> str:
    """Return a name for a login that can be stored and compared, but not used to log in.

    API tokens have none: what ends one of them is seen at its permissions.
    """
    if not session_key:
        return ""
    return salted_hmac("controlplane.login", session_key, algorithm="sha256").hexdigest()


def is_logged_in(user: User, session_key: str) -> bool:
    """Whether the session stands and is still this user's: not after logout or a new password."""
    return (user.pk, session_key) in standing_logins([(user, session_key)])


def standing_logins(logins: Iterable[tuple[User, str]]) -> set[tuple[int, str]]:
    """Return those (user, session key) pairs whose session stands and is the user's.

    An API token's account comes without a session key: its login stands while the token is good.
    """
    claimed = list(logins)
    tokens = {user.pk for user, key in claimed if not key}
    keys = {key for _, key in claimed if key}
    standing = _standing_sessions(claimed, keys)
    if tokens:
        good = good_tokens().filter(account__in=tokens).values_list("account", flat=True)
        standing |= {(account, "") for account in good}
    return standing


def _standing_sessions(claimed: list[tuple[User, str]], keys: set[str]) -> set[tuple[int, str]]:
    sessions = Session.objects.filter(pk__in=keys, expire_date__gt=Now())
    data = {session.pk: session.get_decoded() for session in sessions}
    return {(user.pk, key) for user, key in claimed if key in data and _is_of(user, data[key])}


def _is_of(user: User, data: dict[str, Any]) -> bool:
    if data.get(SESSION_KEY) != str(user.pk):
        return False
    own = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(data.get(HASH_SESSION_KEY, ""), each) for each in own)


def display_name(user: User) -> str:
    """Return how others see ``user``: the full name, else the username."""
    return user.get_full_name() or user.get_username()
