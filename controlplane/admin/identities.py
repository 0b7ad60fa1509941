"""Who is who at the OpenID provider, and who has a second factor; the rest is not in use here."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.http import HttpRequest

from controlplane.admin.shared import ReadOnlyAdmin

# django-allauth's own would show secrets, and let somebody add providers.
admin.site.unregister([Authenticator, EmailAddress, SocialAccount, SocialApp, SocialToken])


@admin.register(SocialAccount)
class IdentityAdmin(ReadOnlyAdmin):
    """A row for each person who has come from a provider; without it, they come as somebody new."""

    list_display = ["user", "provider", "uid", "date_joined", "last_login"]
    fields = ["user", "provider", "uid", "date_joined", "last_login"]
    search_fields = ["user__username", "uid"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever has Django's permission to."""
        return request.user.has_perm("socialaccount.delete_socialaccount")


@admin.register(Authenticator)
class SecondFactorAdmin(ReadOnlyAdmin):
    """A person's authenticator, and their recovery codes; both are removed by deleting them."""

    list_display = ["user", "type", "created_at", "last_used_at"]
    fields = ["user", "type", "created_at", "last_used_at"]
    search_fields = ["user__username"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever has Django's permission to."""
        return request.user.has_perm("mfa.delete_authenticator")
