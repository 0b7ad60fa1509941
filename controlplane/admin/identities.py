"""Who is who at the OpenID provider; the rest of what django-allauth has is not in use here."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.http import HttpRequest

from controlplane.admin.shared import ReadOnlyAdmin

admin.site.unregister([EmailAddress, SocialAccount, SocialApp, SocialToken])


@admin.register(SocialAccount)
class IdentityAdmin(ReadOnlyAdmin):
    """A row for each person who has come from a provider; without it, they come as somebody new."""

    list_display = ["user", "provider", "uid", "date_joined", "last_login"]
    fields = ["user", "provider", "uid", "date_joined", "last_login"]
    search_fields = ["user__username", "uid"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever has Django's permission to."""
        return request.user.has_perm("socialaccount.delete_socialaccount")
