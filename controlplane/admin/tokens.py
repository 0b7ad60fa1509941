"""API tokens: made here, shown once, and revoked. Nothing else about them can be changed.

Control links are listed and revoked here as well; they are made by the API.

A token whose scopes or workspaces could grow would be another token in the hands of whoever has
it, and its record would no longer say what it could do when. Who needs more gets a new one.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from controlplane import access, apitokens, links
from controlplane.admin.shared import MakesSecrets
from controlplane.api.auth import ip_of, user_of
from controlplane.models import ApiToken, Scope

_ASKED = ["name", "scopes", "all_workspaces", "workspaces", "expires_at"]
_KNOWN = ["kind", "created_at", "created_by", "exchanged_at", "last_used_at", "revoked_at", "state"]


class TokenForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in the stubs only
    """A new token."""

    scopes = forms.MultipleChoiceField(choices=Scope, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = ApiToken
        fields = _ASKED

    def clean_scopes(self) -> str:
        """Return them as the row keeps them."""
        return apitokens.join_scopes(self.cleaned_data["scopes"])

    def clean_expires_at(self) -> Any:
        """Refuse a slip of the pen; whether a token has expired is the database's to say."""
        expires_at = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise ValidationError("This lies in the past. Empty means: never.")
        return expires_at

    def clean(self) -> None:
        """Ask for one of the two: all workspaces, or some."""
        super().clean()
        chosen = self.cleaned_data.get("workspaces")
        if bool(chosen) == bool(self.cleaned_data.get("all_workspaces")):
            raise ValidationError("Choose workspaces, or all of them: one of the two.")


@admin.register(ApiToken)
class TokenAdmin(MakesSecrets):
    """Makes tokens, lists them, and revokes them."""

    asked, known = _ASKED, _KNOWN
    noun = "token"
    advice = (
        "Give it to its program now, which sends it as “Authorization: Bearer …”. "
        "If it is lost, revoke it and make another."
    )
    form = TokenForm
    list_display = ["name", "kind", "scopes", "reach", "expires_at", "last_used_at", "state"]
    list_filter = ["kind", "all_workspaces", "revoked_at"]
    search_fields = ["name", "workspaces__slug", "workspaces__name"]
    filter_horizontal = ["workspaces"]
    actions = ["revoke"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        """Read the rows together with the database's clock."""
        return apitokens.rows()

    def issue(self, made: ApiToken) -> str:
        """Save a new token, with an account of its own."""
        return apitokens.issue(made)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """All of a token that has been made."""
        return [*_ASKED, *_KNOWN] if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes a token."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes one: what it did stays explained."""
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Those who may change tokens may end them."""
        return request.user.has_perm("controlplane.change_apitoken")

    @admin.display(description="workspaces")
    def reach(self, token: ApiToken) -> str:
        """Tell where the token counts."""
        slugs = apitokens.reach(token)
        return "all" if slugs is None else ", ".join(slugs) or "none"

    @admin.display(description="state")
    def state(self, token: ApiToken) -> str:
        """Tell whether the token is good, and if not, why."""
        return links.state(token) if token.is_link else apitokens.state(token)

    @admin.action(description="Revoke", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiToken]) -> None:
        """End the chosen tokens for good."""
        by, ip = access.display_name(user_of(request)), ip_of(request)
        ended = [token for token in chosen if apitokens.revoke(token, by=by, ip=ip)]
        self.message_user(
            request,
            f"{len(ended)} revoked; {len(chosen) - len(ended)} were already.",
            messages.SUCCESS if ended else messages.WARNING,
        )
