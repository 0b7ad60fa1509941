"""Accounts: Django's own page, but for deleting."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User

from controlplane.admin.shared import TakesRowsAlong

admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(TakesRowsAlong, UserAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Django's own, but for deleting."""
