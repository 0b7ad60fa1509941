"""System checks. Each has an id and a hint that names the very command that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db import DatabaseError

from controlplane.models import Webhook, Workspace
from controlplane.signin import secondfactor


@register(Tags.staticfiles)
def novnc_is_installed(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """E001: the page cannot show a desktop without noVNC."""
    if (settings.NOVNC_DIR / "core" / "rfb.js").is_file():
        return []
    return [
        Error(
            "noVNC is not installed, so no desktop can be shown.",
            hint="Run: npm ci",
            id="controlplane.E001",
        )
    ]


@register(Tags.database)
def secrets_are_readable(
    app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W001: secrets that were stored with a SECRET_KEY we no longer have."""
    if not databases:
        return []
    try:
        unreadable = [each.slug for each in Workspace.objects.all() if each.unreadable_secrets]
        webhooks = [each for each in Webhook.objects.all() if not each.is_secret_readable]
        unreadable += secondfactor.unreadable(Authenticator.objects.select_related("user"))
        unreadable += [f"webhook {each.name}" for each in webhooks]
    except DatabaseError:
        return []  # not migrated, or away: other checks and commands say so
    if not unreadable:
        return []
    return [
        CheckWarning(
            f"The stored secrets of {len(unreadable)} workspace(s), webhook(s) or second "
            f"factor(s) cannot be read: "
            f"{', '.join(unreadable)}.",
            hint="Put the former SECRET_KEY into SECRET_KEY_FALLBACKS and run: "
            "manage.py reencrypt; or set them anew.",
            id="controlplane.W001",
        )
    ]
