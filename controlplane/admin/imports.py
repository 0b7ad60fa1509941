"""The page that imports workspaces and grants from a file: first a look, then the change."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views import View

from controlplane.exceptions import WorkspaceFileError
from controlplane.workspaces import files, sync

MAX_BYTES = 1 << 20


class UploadForm(forms.Form):
    """The file, and what becomes of workspaces that are not in it."""

    file = forms.FileField()
    prune = forms.BooleanField(required=False, label="Remove the workspaces that are not in it")

    def clean_file(self) -> tuple[str, str]:
        """Return its name and its text."""
        file: UploadedFile[Any] = self.cleaned_data["file"]
        if (file.size or 0) > MAX_BYTES:
            raise forms.ValidationError("It is larger than a MiB.")
        try:
            return str(file.name), file.read().decode()
        except UnicodeDecodeError:
            raise forms.ValidationError("It is not text.") from None


class ApplyForm(forms.Form):
    """What has been looked at."""

    text = forms.CharField(widget=forms.HiddenInput, strip=False)
    prune = forms.BooleanField(required=False, widget=forms.HiddenInput)


class ImportView(View):
    """For superusers only: a file decides who may do what."""

    model_admin: Any = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Let superusers in."""
        if not request.user.is_superuser:
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Ask for the file."""
        return self._page(request, UploadForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Show what the file would change, or change it."""
        return self._apply(request) if "apply" in request.POST else self._look(request)

    def _look(self, request: HttpRequest) -> HttpResponse:
        form = UploadForm(request.POST, request.FILES)
        if not form.is_valid():
            return self._page(request, form)
        name, text = form.cleaned_data["file"]
        prune = form.cleaned_data["prune"]
        try:
            changes = _carry_out(name, text, prune, dry_run=True)
        except WorkspaceFileError as error:
            form.add_error("file", str(error))
            return self._page(request, form)
        return self._page(request, ApplyForm(initial={"text": text, "prune": prune}), changes)

    def _apply(self, request: HttpRequest) -> HttpResponse:
        form = ApplyForm(request.POST)
        if not form.is_valid():
            return self._page(request, UploadForm())
        text, prune = form.cleaned_data["text"], form.cleaned_data["prune"]
        try:
            changes = _carry_out("import", text, prune, dry_run=False)
        except WorkspaceFileError as error:  # it has become impossible since it was looked at
            self.model_admin.message_user(request, str(error), messages.ERROR)
            return self._page(request, UploadForm())
        done = f"{len(changes)} change(s) made." if changes else "Nothing changed."
        self.model_admin.message_user(request, done)
        return redirect("admin:controlplane_workspace_changelist")

    def _page(
        self, request: HttpRequest, form: forms.Form, changes: list[str] | None = None
    ) -> HttpResponse:
        context = {
            **self.model_admin.admin_site.each_context(request),
            "title": "Import workspaces",
            "form": form,
            "changes": changes,
            "opts": self.model_admin.model._meta,
        }
        return render(request, "admin/controlplane/import.html", context)


def _carry_out(name: str, text: str, prune: bool, *, dry_run: bool) -> list[str]:
    file = files.read(name, text, directory=None)
    return sync.carry_out(file, prune=prune, dry_run=dry_run)
