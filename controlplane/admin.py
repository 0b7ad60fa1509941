"""The admin inspects; what it changes about control goes through leases.py."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane import access, leases, presenters
from controlplane.api import ip_of, user_of
from controlplane.models import (
    MAX_NOTE_LENGTH,
    SECRET_FIELDS,
    ControlEvent,
    DisplayControlLease,
    DisplayStream,
    Workspace,
    WorkspaceGrant,
    validate_headers,
    validate_query,
)
from controlplane.presenters import LeaseView


def _secret(label: str, help_text: str, widget: type[forms.Widget]) -> forms.CharField:
    return forms.CharField(
        label=label,
        required=False,
        strip=False,
        widget=widget(attrs={"autocomplete": "new-password"}),
        help_text=f"{help_text} Stored encrypted, never shown; empty keeps what is stored.",
    )


class WorkspaceForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in the stubs only
    """A workspace; its secrets can be set, but are never shown."""

    new_password = _secret("VNC password", "VNC looks at 8 characters only.", forms.PasswordInput)
    new_query = _secret(
        "Query of the address", "For websockify's token plugins: token=….", forms.PasswordInput
    )
    new_headers = _secret(
        "Headers", "“Name: value” lines for websockify or what stands before it.", forms.Textarea
    )

    class Meta:
        model = Workspace
        fields = ["name", "slug", "upstream_url", "enabled"]

    def clean_new_query(self) -> str:
        """Take it with or without its question mark."""
        query = str(self.cleaned_data["new_query"]).strip().lstrip("?")
        validate_query(query)
        return query

    def clean_new_headers(self) -> str:
        """Check each line."""
        text: str = self.cleaned_data["new_headers"]
        validate_headers(text)
        return text

    def _post_clean(self) -> None:
        """Give the instance its address and secrets together: a new address loses the old ones."""
        before = self.instance.upstream_url
        super()._post_clean()  # type: ignore[misc]  # not in the stubs
        after, self.instance.upstream_url = self.instance.upstream_url, before
        self.instance.point_to(after)
        for name, field in zip(SECRET_FIELDS, _SECRET_INPUTS, strict=True):
            if self.cleaned_data.get(field):
                setattr(self.instance, name, self.cleaned_data[field])


_SECRET_INPUTS = ("new_password", "new_query", "new_headers")  # in the order of SECRET_FIELDS


class GrantInline(admin.TabularInline):  # type: ignore[type-arg]  # generic in the stubs only
    """Who may use the workspace."""

    model = WorkspaceGrant
    extra = 1
    autocomplete_fields = ["user", "group"]


class TakesRowsAlong:
    """Lease and streams, which nobody may delete alone, go with their workspace or account."""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Ask for no permission that nobody has."""
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)  # type: ignore[misc]  # a mixin
        rows = {each._meta.verbose_name for each in (DisplayControlLease, DisplayStream)}
        return deleted, counts, needed - rows, protected


admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(TakesRowsAlong, UserAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Django's own, but for deleting."""


@admin.register(Workspace)
class WorkspaceAdmin(TakesRowsAlong, admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Workspaces and their grants."""

    form = WorkspaceForm
    inlines = [GrantInline]
    list_display = ["name", "slug", "shown_upstream", "enabled", "display_status"]
    list_filter = ["enabled", "display_status"]
    search_fields = ["name", "slug", "upstream_url"]
    readonly_fields = ["shown_upstream", "display_status", "display_checked_at"]
    prepopulated_fields = {"slug": ["name"]}


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


@admin.register(ControlEvent)
class EventAdmin(ReadOnlyAdmin):
    """What happened to control."""

    list_display = ["at", "workspace_slug", "what", "who", "epoch", "reason", "note"]
    list_filter = ["what", "at"]
    search_fields = ["workspace_slug", "who", "note", "ip"]
    exclude = ["client_id"]


@admin.register(DisplayStream)
class StreamAdmin(ReadOnlyAdmin):
    """Display streams, open and closed."""

    list_display = [
        "workspace",
        "user",
        "mode",
        "opened_at",
        "stamped_at",
        "closed_at",
        "close_code",
    ]
    list_filter = ["mode", "close_code"]
    exclude = ["client_id", "token_id"]
    list_select_related = ["workspace", "user"]
    search_fields = ["workspace__slug", "user__username"]
