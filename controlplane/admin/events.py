"""What happened to control."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from controlplane import eventlog
from controlplane.admin.shared import ReadOnlyAdmin
from controlplane.models import ControlEvent


@admin.register(ControlEvent)
class EventAdmin(ReadOnlyAdmin):
    """What happened to control."""

    list_display = ["at", "workspace_slug", "what", "who", "epoch", "reason", "note"]
    list_filter = ["what", "at"]
    search_fields = ["workspace_slug", "who", "note", "ip"]
    exclude = ["client_id"]
    actions = ["export"]

    @admin.action(description="Export as JSON lines", permissions=["view"])
    def export(self, request: HttpRequest, chosen: QuerySet[ControlEvent]) -> HttpResponse:
        """Send the chosen ones; “select all” chooses all that are filtered."""
        content = "".join(f"{line}\n" for line in eventlog.lines(chosen))
        headers = {"Content-Disposition": 'attachment; filename="events.jsonl"'}
        return HttpResponse(content, content_type="application/x-ndjson", headers=headers)
