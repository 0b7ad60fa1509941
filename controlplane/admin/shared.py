"""What several pages of the admin have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django import forms
from django.contrib import admin
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane import access
from controlplane.api.auth import user_of
from controlplane.models import DisplayControlLease, DisplayStream, WebhookDelivery

_TAKEN_ALONG = (
    *(Authenticator, DisplayControlLease, DisplayStream, SocialAccount),
    WebhookDelivery,
)


class TakesRowsAlong:
    """Lease, streams, deliveries, identities and second factors go with what they belong to."""

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


class MakesSecrets(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs only
    """Makes rows that have a secret: it is shown in the answer that makes it, and never again."""

    asked: ClassVar[list[str]]
    known: ClassVar[list[str]]  # besides, once it has been made
    noun: ClassVar[str]  # what the secret is called
    advice: ClassVar[str]  # what to do with the secret, and when it is lost

    def issue(self, made: Any) -> str:
        """Save a new row and return its secret."""
        raise NotImplementedError

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """What is asked for, and afterwards all that is known."""
        return [*self.asked, *self.known] if obj else self.asked

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save it; the secret of a new one lives as long as this request."""
        if change:
            super().save_model(request, obj, form, change)
            return
        obj.created_by = access.display_name(user_of(request))
        obj._secret_text = self.issue(obj)  # for response_add

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret in this very answer: a redirect would keep it somewhere."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"The {self.opts.verbose_name} “{obj.name}”",
            "noun": self.noun,
            "advice": self.advice,
            "text": obj._secret_text,
            "made": obj,
            "opts": self.opts,
        }
        return render(request, "admin/controlplane/secret_made.html", context)


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
