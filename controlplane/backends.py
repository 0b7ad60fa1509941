"""Logging in with a password is for people."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from axes.backends import AxesBackend
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane import logs
from controlplane.signin import failures


class PeopleBackend(AxesBackend):  # type: ignore[misc]  # untyped
    """Django's own, for people who have not failed too often.

    The account of an API token has no session, whatever password it is given. A session would
    outlive the token, and its holder would be shown as a person.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Return whose name and password these are; PermissionDenied, unseen, for a guesser."""
        if request is not None:
            failures.check_address(request)
            super().authenticate(request, username, password, **kwargs)
        user = ModelBackend.authenticate(self, request, username, password, **kwargs)
        return user if isinstance(user, User) else None

    def user_can_authenticate(self, user: Any) -> bool:
        """Whether this is the account of a person, and active."""
        return super().user_can_authenticate(user) and not hasattr(user, "api_token")

    def get_user(self, user_id: int) -> User | None:
        """Return the person whose session it is, with one query for all that is asked above."""
        user = self.accounts().filter(pk=user_id).first()
        if user is None or not self.user_can_authenticate(user):
            return None
        logs.note(user_id=user.pk)
        return user

    def accounts(self) -> QuerySet[User]:
        """Return all whose sessions may count, with what is asked of each."""
        return User.objects.select_related("api_token")

    async def aget_user(self, user_id: int) -> User | None:
        """Do the same where nothing may block."""
        return await sync_to_async(self.get_user)(user_id)
