"""The HTTP API (design §6): JSON in, one service call, JSON out."""

from __future__ import annotations

from ninja import NinjaAPI

from controlplane.api import (
    control,
    errors,
    events,
    links,
    registration,
    screenshots,
    workspaces,
)
from controlplane.api.auth import ApiTokenBearer, SessionCookie

api = NinjaAPI(
    title="desktopctl",
    version="1",
    description="Watch remote desktops, take control of them, hand it back.",
    auth=[ApiTokenBearer(), SessionCookie()],
    openapi_url="/openapi.json",
    docs_url="/docs",
    urls_namespace="api",
)
errors.add_handlers(api)
for _module in (workspaces, registration, control, screenshots, links, events):
    api.add_router("", _module.router)
