"""What several pages of the admin have in common."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane.models import DisplayControlLease, DisplayStream, WebhookDelivery

_TAKEN_ALONG = (DisplayControlLease, DisplayStream, WebhookDelivery)


class TakesRowsAlong:
    """Lease, streams and deliveries, which nobody may delete alone, go with what they belong to."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Ask for no permission that nobody has."""
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)  # type: ignore[misc]  # a mixin
        rows = {each._meta.verbose_name for each in _TAKEN_ALONG}
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


def ask(
    model_admin: admin.ModelAdmin[Any],
    request: HttpRequest,
    chosen: QuerySet[Any],
    *,
    action: str,
    title: str,
    explanation: str,
    button: str,
    form: forms.Form | None = None,
) -> HttpResponse:
    """Show the page that an action asks with: what it is about to do, to what, and its form.

    Its button sends the action again, with ``apply``.
    """
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "explanation": explanation,
        "chosen": chosen,
        "form": form,
        "action": action,
        "button": button,
        "opts": model_admin.model._meta,
        "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
    }
    return render(request, "admin/controlplane/action.html", context)
