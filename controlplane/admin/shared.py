"""What several pages of the admin have in common."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from controlplane.models import DisplayControlLease, DisplayStream


class TakesRowsAlong:
    """Lease and streams, which nobody may delete alone, go with their workspace or account."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Ask for no permission that nobody has."""
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)  # type: ignore[misc]  # a mixin
        rows = {each._meta.verbose_name for each in (DisplayControlLease, DisplayStream)}
        return deleted, counts, needed - rows, protected


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Shows rows that only the control plane itself may write."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody adds."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes."""
        return False
