"""Accounts of people: Django's own page, but for deleting, and without those of API tokens."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane.admin.shared import TakesRowsAlong

admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(TakesRowsAlong, UserAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Django's own, but for deleting. A token's account is none that anybody may see or change."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Leave the accounts of API tokens out, here and wherever a user can be chosen."""
        return super().get_queryset(request).filter(api_token=None)
