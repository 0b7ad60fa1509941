"""When access ends (logout, password, account, grant, display), control ends with it.

An agent that may not control any more is forgotten where control was to be handed back to it.

Changes that bypass these signals (bulk updates, SQL) are noticed by the watch within seconds.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_out, user_login_failed
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.dispatch import receiver
from django.http import HttpRequest

from controlplane import access, events, handovers, leases, leasestate
from controlplane.models import ApiToken, DisplayControlLease, Workspace, WorkspaceGrant
from controlplane.signin import failures


@receiver(user_login_failed)
def _login_failed(request: HttpRequest | None, **_: Any) -> None:
    is_refused_unseen = getattr(request, "axes_locked_out", False)
    if request is not None and not is_refused_unseen:
        failures.count_failure(request)


@receiver(user_logged_out)
def _logged_out(request: HttpRequest, user: User | None, **_: Any) -> None:
    key = request.session.session_key
    if user and key:
        logins = frozenset({access.login_id(key)})
        leases.end_lost_access(leasestate.held().filter(login__in=logins), logins_ended=logins)
        handovers.withdraw_all(login__in=logins)
        request.session.flush()  # as logout() is about to: who is announced to must see it ended
        events.announce_access()


@receiver(pre_save, sender=User)
def _note_password(instance: User, **_: Any) -> None:
    before = User.objects.filter(pk=instance.pk).values_list("password", flat=True).first()
    instance._password_changed = before not in {None, instance.password}  # type: ignore[attr-defined]  # for _user_saved


@receiver(post_save, sender=User)
def _user_saved(instance: User, **_: Any) -> None:
    own = leasestate.held().filter(holder=instance)
    is_new_password = getattr(instance, "_password_changed", False)
    logins = frozenset(own.values_list("login", flat=True)) if is_new_password else frozenset()
    leases.end_lost_access(own, logins_ended=logins)
    if is_new_password:
        handovers.withdraw_all(user=instance)
    if not instance.is_active or is_new_password:
        events.announce_access()


@receiver(post_delete, sender=User)
def _user_deleted(**_: Any) -> None:
    leases.end_lost_access(_without_access(holder=None))
    events.announce_access()


@receiver(post_save, sender=WorkspaceGrant)
@receiver(post_delete, sender=WorkspaceGrant)
def _grant_changed(instance: WorkspaceGrant, **_: Any) -> None:
    leases.end_lost_access(_without_access(workspace=instance.workspace_id))
    events.announce_access()


@receiver(post_save, sender=ApiToken)
def _token_saved(instance: ApiToken, **_: Any) -> None:
    leases.end_lost_access(_without_access(holder=instance.account_id))
    _forget_agents(agent=instance.account_id)
    events.announce_access()


@receiver(m2m_changed, sender=ApiToken.workspaces.through)
def _token_moved(instance: ApiToken | Workspace, action: str, **_: Any) -> None:
    if action in {"post_remove", "post_clear"}:
        leases.end_lost_access(_without_access(holder__api_token__isnull=False))
        if isinstance(instance, ApiToken):
            _forget_agents(agent=instance.account_id)
        else:
            _forget_agents(workspace=instance.pk)
        events.announce_access()


@receiver(m2m_changed, sender=User.groups.through)
def _groups_changed(instance: User | Group, action: str, **_: Any) -> None:
    if action in {"post_remove", "post_clear", "post_add"}:
        leases.end_lost_access(_without_access())
        events.announce_access()


@receiver(post_save, sender=Workspace)
def _workspace_saved(instance: Workspace, created: bool, **_: Any) -> None:
    if created:
        return
    leases.end_lost_access(_without_access(workspace=instance.pk))
    events.announce_access()


@receiver(post_delete, sender=Workspace)
def _workspace_deleted(**_: Any) -> None:
    events.announce_access()


def _without_access(**condition: Any) -> list[DisplayControlLease]:
    return leasestate.without_access(leasestate.held().filter(**condition))


def _forget_agents(**condition: Any) -> None:
    """Do so after the commit: within it, leases would be locked in two rounds, so in no order."""

    def forget() -> None:
        candidates = DisplayControlLease.objects.filter(**condition)
        leases.forget_agents(leasestate.with_agents_gone(candidates))

    transaction.on_commit(forget, robust=True)  # access has ended, whatever becomes of this
