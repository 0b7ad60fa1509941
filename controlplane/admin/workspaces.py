"""Workspaces and their grants. Secrets can be set, but are never shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from controlplane.admin.imports import ImportView
from controlplane.admin.shared import TakesRowsAlong, ask
from controlplane.models import (
    SECRET_FIELDS,
    Workspace,
    WorkspaceGrant,
    validate_headers,
    validate_query,
)
from controlplane.workspaces import configuring, files, registration


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
        fields = ["name", "slug", *configuring.DEFAULTS]

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
    readonly_fields = [
        "shown_upstream",
        "upstream_version",
        "display_status",
        "display_checked_at",
        "registers",
    ]
    prepopulated_fields = {"slug": ["name"]}
    actions = ["export", "make_registration_tokens"]

    @admin.display(description="reports its address", boolean=True)
    def registers(self, workspace: Workspace) -> bool:
        """Tell whether there is a registration token."""
        return workspace.registration_digest is not None

    def delete_model(self, request: HttpRequest, obj: Workspace) -> None:
        """Remove it as the API does."""
        configuring.remove(obj.slug)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Workspace]) -> None:
        """Remove each as the API does."""
        for workspace in queryset:
            configuring.remove(workspace.slug)

    def get_urls(self) -> list[Any]:
        """Add the page that imports a file."""
        view = self.admin_site.admin_view(ImportView.as_view(model_admin=self))
        return [path("import/", view, name="controlplane_workspace_import"), *super().get_urls()]

    def has_file_permission(self, request: HttpRequest) -> bool:
        """Only superusers: a file holds all settings and grants."""
        return request.user.is_superuser

    @admin.action(description="Export as a file", permissions=["file"])
    def export(self, request: HttpRequest, chosen: QuerySet[Workspace]) -> HttpResponse:
        """Send the chosen ones with their grants, and without secrets."""
        rows = chosen.prefetch_related("grants__user", "grants__group").order_by("slug")
        headers = {"Content-Disposition": 'attachment; filename="workspaces.yaml"'}
        text = files.write(rows)
        return HttpResponse(text, content_type="application/yaml", headers=headers)

    @admin.action(description="New registration token", permissions=["change"])
    def make_registration_tokens(
        self, request: HttpRequest, chosen: QuerySet[Workspace]
    ) -> HttpResponse:
        """Ask, then make a token for each and show them: the only time."""
        if "apply" not in request.POST:
            return ask(
                self,
                request,
                chosen,
                action="make_registration_tokens",
                title="New registration token",
                explanation="With its token a desktop reports its own address. A new one voids the "
                "former one of its workspace:",
                button="Make and show",
            )
        tokens = []
        for workspace in chosen:
            tokens.append((workspace, registration.new_token(workspace)))
            self.log_change(request, workspace, "Made a new registration token.")
        context = {
            **self.admin_site.each_context(request),
            "title": "New registration tokens",
            "tokens": tokens,
            "opts": self.model._meta,
        }
        return render(request, "admin/controlplane/registration_tokens.html", context)
