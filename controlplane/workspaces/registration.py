"""Registration tokens: with its own, a desktop reports where it is, and can do nothing else.

As of API tokens (apitokens.py), a digest is kept, and the token is shown once.
"""

from __future__ import annotations

import secrets
from ipaddress import IPv6Address, ip_address

from django.core.exceptions import ValidationError

from controlplane.apitokens import digest
from controlplane.destinations import UNIX
from controlplane.models import Workspace
from controlplane.workspaces import configuring

PREFIX = "dreg_"  # so that scanners, and people, can tell what has leaked
DEFAULT_PORT = 5900
_SECRET_BYTES = 32


def new_token(workspace: Workspace) -> str:
    """Return a new token for the workspace's desktop: its only showing. The former one is void."""
    text = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    Workspace.objects.filter(pk=workspace.pk).update(registration_digest=digest(text))
    return text


def find(slug: str, text: str) -> Workspace | None:
    """Return the workspace of this name if the token is its own."""
    return Workspace.objects.filter(slug=slug, registration_digest=digest(text)).first()


def report(slug: str, url: str) -> Workspace:
    """Set the address of a workspace, and nothing else.

    Raises ValidationError; also for ``unix://``: a path on the control plane's own machine is not
    for a desktop to name. WorkspaceNotFound where the workspace has just been removed.
    """
    if not url:
        raise ValidationError({"upstream_url": "This field cannot be blank."})
    if url.startswith(f"{UNIX}:"):
        raise ValidationError({"upstream_url": "A desktop reports tcp://, ws:// or wss:// only."})
    return configuring.patch(slug, {"upstream_url": url})


def address_of(ip: str, port: int) -> str:
    """Return the address of a VNC server on this machine."""
    found = ip_address(ip)
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped  # of a socket for both versions
        return f"tcp://{mapped}:{port}" if mapped else f"tcp://[{found}]:{port}"
    return f"tcp://{found}:{port}"
