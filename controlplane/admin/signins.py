"""Passwords that were wrong: who is locked out where, and letting them try again."""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane.admin.shared import ReadOnlyAdmin
from controlplane.signin import failures


@admin.register(AccessAttempt)
class SignInFailureAdmin(ReadOnlyAdmin):
    """A row for each user, address and browser; who deletes it lets them try again at once."""

    list_display = ["username", "ip_address", "failures_since_start", "attempt_time", "is_locked"]
    fields = ["username", "ip_address", "user_agent", "failures_since_start", "attempt_time"]
    search_fields = ["username", "ip_address"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return them with what ``is_locked`` needs."""
        return failures.with_failures(super().get_queryset(request))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever has Django's permission to."""
        return request.user.has_perm("axes.delete_accessattempt")

    @admin.display(description="locked out", boolean=True)
    def is_locked(self, attempt: Any) -> bool:
        """Whether their next password will not be looked at."""
        return (attempt.counted or 0) >= settings.AXES_FAILURE_LIMIT
