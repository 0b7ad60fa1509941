"""Adding a webhook, with a secret that is shown once."""

from __future__ import annotations

import base64
import logging
import secrets

from controlplane.models import Webhook, Workspace

logger = logging.getLogger(__name__)

PREFIX = "whsec_"  # of the scheme by which deliveries are signed
SECRET_BYTES = 32


def issue(webhook: Webhook) -> str:
    """Save a new webhook with a secret, and return that: it is shown this once."""
    secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    webhook.secret = PREFIX + secret
    webhook.save(force_insert=True)
    logger.info("webhook %s added", webhook.name)
    return webhook.secret


def create(
    name: str, url: str, *, workspace: Workspace | None = None, created_by: str = ""
) -> tuple[Webhook, str]:
    """Add a webhook, for one workspace or for all; return it and its secret.

    Raises ValidationError.
    """
    webhook = Webhook(name=name, url=url, workspace=workspace, created_by=created_by)
    webhook.full_clean(exclude=["secret", "created_at"])
    return webhook, issue(webhook)
