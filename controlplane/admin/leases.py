"""Who has control of what, and ending it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane import access, leases, presenters
from controlplane.admin.shared import ReadOnlyAdmin
from controlplane.api.auth import ip_of, user_of
from controlplane.models import MAX_NOTE_LENGTH, DisplayControlLease
from controlplane.presenters import LeaseView


class NoteForm(forms.Form):
    """Why control is ended; its holder reads it."""

    note = forms.CharField(max_length=MAX_NOTE_LENGTH, widget=forms.TextInput(attrs={"size": 60}))


@admin.register(DisplayControlLease)
class LeaseAdmin(ReadOnlyAdmin):
    """Who has control of what; the action ends it."""

    list_display = [
        "workspace",
        "who",
        "acquired_at",
        "expires_at",
        "remaining",
        "epoch",
        "state",
    ]
    list_select_related = ["workspace", "holder"]
    search_fields = ["workspace__name", "workspace__slug", "holder__username"]
    actions = ["force_release"]
    exclude = ["client_id", "login"]  # never shown: a client_id is its holder's secret

    def get_queryset(self, request: HttpRequest) -> QuerySet[DisplayControlLease]:
        """Read the rows together with the database's clock."""
        return presenters.lease_rows()

    @admin.display(description="who")
    def who(self, lease: DisplayControlLease) -> str:
        """Name the holder, where there is one."""
        return presenters.holder_name(lease) if _view(lease).is_held else "–"

    @admin.display(description="remaining")
    def remaining(self, lease: DisplayControlLease) -> str:
        """Tell how long the lease still lasts."""
        view = _view(lease)
        return f"{view.remaining:.0f} s" if view.is_held else "–"

    @admin.display(description="state")
    def state(self, lease: DisplayControlLease) -> str:
        """Tell held, expired, or how it ended."""
        return presenters.state(_view(lease))

    def has_force_permission(self, request: HttpRequest) -> bool:
        """Only those who may change leases may end them; superusers may."""
        return request.user.has_perm("controlplane.change_displaycontrollease")

    @admin.action(description="Force-release", permissions=["force"])
    def force_release(
        self, request: HttpRequest, chosen: QuerySet[DisplayControlLease]
    ) -> HttpResponse | None:
        """Ask for a note, then end the chosen leases."""
        form = NoteForm(request.POST if "apply" in request.POST else None)
        if not form.is_valid():
            return self._ask_for_note(request, chosen, form)
        by, note = access.display_name(user_of(request)), form.cleaned_data["note"]
        results = [
            leases.force_release(lease.workspace, by=by, note=note, ip=ip_of(request))
            for lease in chosen
        ]
        self.message_user(
            request,
            f"{sum(results)} ended; {results.count(False)} had no holder.",
            messages.SUCCESS if any(results) else messages.WARNING,
        )
        return None

    def _ask_for_note(
        self, request: HttpRequest, chosen: QuerySet[DisplayControlLease], form: NoteForm
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Force-release: why?",
            "form": form,
            "leases": chosen,
            "opts": self.model._meta,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
        }
        return render(request, "admin/controlplane/force_release.html", context)


def _view(lease: Any) -> LeaseView:
    return presenters.view_of(lease, None)
