"""The sessions of people whom an OpenID provider has signed in; ``signin/provider.py`` does that.

This module stays at its place: each of these sessions holds the dotted path of its backend, and
ends where Django no longer finds it.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet

from controlplane.backends import PeopleBackend

BACKEND = f"{__name__}.ProviderBackend"


class ProviderBackend(PeopleBackend):
    """Of the sessions that are a provider's word: they count while it is the one in use.

    They end with ``OIDC_ISSUER``, and with the row that says who somebody is there.
    """

    def authenticate(self, *args: Any, **kwargs: Any) -> None:
        """Know no passwords."""

    def accounts(self) -> QuerySet[User]:
        """Return those of whom the provider has a word."""
        return super().accounts().filter(socialaccount__provider=settings.OIDC_ISSUER)
