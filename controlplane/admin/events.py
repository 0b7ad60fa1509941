"""What happened to control."""

from __future__ import annotations

from django.contrib import admin

from controlplane.admin.shared import ReadOnlyAdmin
from controlplane.models import ControlEvent


@admin.register(ControlEvent)
class EventAdmin(ReadOnlyAdmin):
    """What happened to control."""

    list_display = ["at", "workspace_slug", "what", "who", "epoch", "reason", "note"]
    list_filter = ["what", "at"]
    search_fields = ["workspace_slug", "who", "note", "ip"]
    exclude = ["client_id"]
