"""Display streams, live and ended, and disconnecting those that live."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane import access, events, streamrows
from controlplane.admin.shared import ReadOnlyAdmin
from controlplane.api.auth import user_of
from controlplane.models import DisplayStream


class _LiveFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "live"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer both."""
        return [("yes", "live"), ("no", "ended")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[DisplayStream]
    ) -> QuerySet[DisplayStream]:
        """Keep those whose process lives and has not closed them, or the others."""
        live = streamrows.open_streams().values("pk")
        match self.value():
            case "yes":
                return queryset.filter(pk__in=live)
            case "no":
                return queryset.exclude(pk__in=live)
        return queryset


@admin.register(DisplayStream)
class StreamAdmin(ReadOnlyAdmin):
    """Display streams, live and ended; the action disconnects."""

    list_display = [
        "workspace",
        "user",
        "mode",
        "opened_at",
        "stamped_at",
        "closed_at",
        "close_code",
        "disconnected_by",
    ]
    list_filter = [_LiveFilter, "mode", "close_code"]
    exclude = ["client_id", "token_id"]
    list_select_related = ["workspace", "user"]
    search_fields = ["workspace__slug", "user__username"]
    actions = ["disconnect"]

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        """Only those who may change streams may end them; superusers may."""
        return request.user.has_perm("controlplane.change_displaystream")

    @admin.action(description="Disconnect", permissions=["disconnect"])
    def disconnect(self, request: HttpRequest, chosen: QuerySet[DisplayStream]) -> None:
        """End the chosen streams that live: their processes do it, as soon as they have looked."""
        by = access.display_name(user_of(request))
        ended = streamrows.disconnect(chosen, by)
        events.announce_access()
        if not ended:
            return self.message_user(request, "None of these was live.", messages.WARNING)
        return self.message_user(
            request,
            f"{ended} disconnected. Who may watch can come back, until their grant is revoked.",
        )
