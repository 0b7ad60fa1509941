"""Workspaces and their grants. Secrets can be set, but are never shown."""

from __future__ import annotations

from django import forms
from django.contrib import admin

from controlplane.admin.shared import TakesRowsAlong
from controlplane.models import (
    SECRET_FIELDS,
    Workspace,
    WorkspaceGrant,
    validate_headers,
    validate_query,
)


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
