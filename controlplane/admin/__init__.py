"""The admin inspects; what it changes about control goes through leases.py."""

from __future__ import annotations

from controlplane.admin import (
    accounts,
    events,
    identities,
    leases,
    signins,
    streams,
    tokens,
    webhooks,
    workspaces,
)

__all__ = [
    "accounts",
    "events",
    "identities",
    "leases",
    "signins",
    "streams",
    "tokens",
    "webhooks",
    "workspaces",
]
