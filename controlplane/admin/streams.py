"""Display streams, open and closed."""

from __future__ import annotations

from django.contrib import admin

from controlplane.admin.shared import ReadOnlyAdmin
from controlplane.models import DisplayStream


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
