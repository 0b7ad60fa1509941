"""Webhooks, whose secret is shown once, and what they were told."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane.admin.shared import MakesSecrets, ReadOnlyAdmin, TakesRowsAlong
from controlplane.models import Webhook, WebhookDelivery
from controlplane.webhooks import adding, outbox


@admin.register(Webhook)
class WebhookAdmin(TakesRowsAlong, MakesSecrets):
    """Adds, changes and removes webhooks. Nobody sees a secret again, or changes it."""

    asked, known = ["name", "url", "workspace", "enabled"], ["created_at", "created_by"]
    noun = "secret"
    advice = (
        "Give it to its receiver now, which proves with it that what it is told comes from here. "
        "If it is lost, delete the webhook and add another."
    )
    list_display = ["name", "workspace", "enabled", "created_at", "created_by"]
    list_filter = ["enabled", "workspace"]
    search_fields = ["name", "workspace__slug", "workspace__name"]

    def issue(self, made: Webhook) -> str:
        """Save a new webhook, with a secret."""
        return adding.issue(made)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who made it, and when."""
        return self.known if obj else ()

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        """Write no more than was changed: its deliveries are being counted meanwhile."""
        if change:
            obj.save(update_fields=form.changed_data)
        else:
            super().save_model(request, obj, form, change)


class _StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the states."""
        return [("waiting", "waiting"), ("delivered", "delivered"), ("given_up", "given up")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]
    ) -> QuerySet[WebhookDelivery]:
        """Keep those in the state."""
        match self.value():
            case "waiting":
                return queryset.filter(delivered_at=None, failed_at=None)
            case "delivered":
                return queryset.filter(delivered_at__isnull=False)
            case "given_up":
                return queryset.filter(failed_at__isnull=False)
        return queryset


@admin.register(WebhookDelivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """What webhooks were told, or wait to be told; the action tells them again."""

    list_display = [
        *("event_id", "what", "workspace_slug", "webhook", "state", "attempts"),
        *("last_status", "last_error", "next_try_at", "created_at"),
    ]
    list_select_related = ["webhook", "event"]
    list_filter = [_StateFilter, "webhook"]
    search_fields = ["workspace_slug", "webhook__name", "last_error"]
    actions = ["deliver_again"]

    @admin.display(description="what")
    def what(self, delivery: WebhookDelivery) -> str:
        """Tell what its event is about."""
        return delivery.event.what

    @admin.display(description="state")
    def state(self, delivery: WebhookDelivery) -> str:
        """Tell whether it has arrived."""
        if delivery.delivered_at:
            return "delivered"
        return "given up" if delivery.failed_at else "waiting"

    def has_again_permission(self, request: HttpRequest) -> bool:
        """Those who may change deliveries may have them made again; superusers may."""
        return request.user.has_perm("controlplane.change_webhookdelivery")

    @admin.action(description="Deliver again", permissions=["again"])
    def deliver_again(self, request: HttpRequest, chosen: QuerySet[WebhookDelivery]) -> None:
        """Have the chosen events told once more; those that still wait are left to wait."""
        ended = chosen.exclude(delivered_at=None, failed_at=None)
        count = outbox.put_again(ended)
        self.message_user(
            request,
            f"{count} will be delivered again; {chosen.count() - count} were waiting anyway.",
            messages.SUCCESS if count else messages.WARNING,
        )
