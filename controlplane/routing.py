"""The route of the display websocket."""

from typing import Any

from django.urls import path

from controlplane.consumers import DisplayConsumer

# URLRouter takes any URL pattern; its stubs name a private subclass.
websocket_urlpatterns: list[Any] = [
    path(
        "api/workspaces/<slug:slug>/display/session/websockify",
        DisplayConsumer.as_asgi(),  # type: ignore[arg-type]  # channels: an ASGI app as a view
    )
]
