"""The sessions of people whom an authenticating proxy has signed in; ``signin/proxy.py`` does that.

This module stays at its place: each of these sessions holds the dotted path of its backend, and
ends where Django no longer finds it.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import RemoteUserBackend
from django.http import HttpRequest

from controlplane.backends import PeopleBackend

BACKEND = f"{__name__}.ProxyBackend"


class ProxyBackend(RemoteUserBackend, PeopleBackend):  # type: ignore[misc]  # untyped
    """Finds, or adds, whom a proxy names: Django's own; not the account of an API token."""

    def configure_user(self, request: HttpRequest | None, user: Any, created: bool = True) -> Any:
        """Give a new user no password, and no rights either."""
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        return user
