"""Dialling a workspace's desktop, and remembering what was found there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from controlplane import upstream
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import CredentialsRefused, UpstreamError
from controlplane.models import DisplayStatus, Workspace
from controlplane.rfb.handshake import ServerInit
from controlplane.upstream import Upstream

logger = logging.getLogger(__name__)

# VNC servers lock an address out after a few failed authentications: x11vnc's cousin Xvnc after 5.
REFUSED_REST = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Finding:
    """What dialling a desktop found; ``error`` is None where it is ready."""

    server_init: ServerInit | None = None
    error: UpstreamError | None = None


async def dial(workspace: Workspace, threads: DatabaseThreads) -> tuple[Upstream, ServerInit]:
    """Connect to the workspace's desktop and note how that went.

    Raises UpstreamError and its kin. Refused credentials are not tried again for 60 s, or until
    the address or the password changes.
    """
    await threads.run(check_credentials, workspace)
    try:
        connected = await upstream.dial(
            workspace.upstream_url,
            workspace.vnc_password,
            connect_seconds=settings.DISPLAY.connect_seconds,
            keepalive_seconds=settings.DISPLAY.upstream_ping_seconds,
        )
    except UpstreamError as error:
        logger.warning("desktop of %s: %s", workspace.slug, error)
        await threads.run(note, workspace, Finding(error=error))
        raise
    await threads.run(note, workspace, Finding(server_init=connected[1]))
    return connected


def check_credentials(workspace: Workspace) -> None:
    """Raise CredentialsRefused where dialling would be pointless or would lock us out."""
    if workspace.has_unreadable_password:
        raise CredentialsRefused(
            "authentication", "the stored password cannot be read with the present SECRET_KEY"
        )
    is_resting = Workspace.objects.filter(
        pk=workspace.pk,
        refused_credentials=_fingerprint(workspace),
        refused_at__gt=Now() - REFUSED_REST,
    ).exists()
    if is_resting:
        raise CredentialsRefused("authentication", "authentication failed less than a minute ago")


def note(workspace: Workspace, finding: Finding) -> None:
    """Write down what was found, for those who only ask."""
    values: dict[str, object] = {"display_checked_at": Now()}
    if finding.server_init:
        values |= {
            "display_status": DisplayStatus.READY,
            "display_width": finding.server_init.width,
            "display_height": finding.server_init.height,
            "refused_credentials": "",
        }
    else:
        values["display_status"] = DisplayStatus.UNREACHABLE
    if isinstance(finding.error, CredentialsRefused):
        values |= {"refused_credentials": _fingerprint(workspace), "refused_at": Now()}
    Workspace.objects.filter(pk=workspace.pk).update(**values)


def _fingerprint(workspace: Workspace) -> str:
    """Tell one address and password from another, without giving either away."""
    return salted_hmac(
        "controlplane.credentials",
        f"{workspace.upstream_url}\n{workspace.vnc_password}",
        algorithm="sha256",
    ).hexdigest()
