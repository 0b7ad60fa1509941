"""Dialling a workspace's desktop, and remembering what was found there."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import Error as AnyDatabaseError
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from controlplane import metrics, upstream
from controlplane.dbthreads import DatabaseThreads
from controlplane.destinations import parse_url
from controlplane.exceptions import CredentialsRefused, RefusedLately, UpstreamError
from controlplane.models import SECRET_FIELDS, DisplayStatus, Workspace
from controlplane.rfb.handshake import ServerInit
from controlplane.trials import Trials
from controlplane.upstream import Dialling, Target, Upstream

logger = logging.getLogger(__name__)

# VNC servers lock an address out after a few failed authentications: x11vnc's cousin Xvnc after 5.
REFUSED_REST = timedelta(seconds=60)
NOTE_SECONDS = 10.0

_trials = Trials(REFUSED_REST.total_seconds())


@dataclass(frozen=True, slots=True)
class Finding:
    """What dialling a desktop found; ``error`` is None where it is ready."""

    server_init: ServerInit | None = None
    error: UpstreamError | None = None


async def dial(workspace: Workspace, threads: DatabaseThreads) -> tuple[Upstream, ServerInit]:
    """Connect to the workspace's desktop and note how that went.

    Raises UpstreamError and its kin. Refused credentials are not tried again for 60 s, or until
    the address or one of its secrets changes; nor does this process try them for many at once.
    """
    if workspace.refused_credentials or workspace.unreadable_secrets:
        await threads.run(check_credentials, workspace)
    begun = time.monotonic()
    try:
        trial = _trials.trial(_fingerprint(workspace))
        connected = await upstream.dial(_target(workspace), _dialling(), trial)
    except RefusedLately:
        raise  # the desktop has not been asked: it is nothing to note
    except UpstreamError as error:
        metrics.upstream_failures.labels(error.step).inc()
        logger.warning("desktop of %s: %s", workspace.slug, error)
        await _try_to_note(workspace, Finding(error=error), threads)
        raise
    metrics.desktop_handshake.observe(time.monotonic() - begun)
    try:
        if _claim_the_note(workspace, connected[1]):
            await _try_to_note(workspace, Finding(server_init=connected[1]), threads)
    except BaseException:
        await upstream.discard(connected[0])
        raise
    return connected


async def _try_to_note(workspace: Workspace, finding: Finding, threads: DatabaseThreads) -> None:
    """Write down what was found; what is only told to those who ask must not end a stream."""
    try:
        await threads.run(note, workspace, finding)
    except AnyDatabaseError as error:
        logger.warning("desktop of %s: what was found was not noted: %s", workspace.slug, error)


_noted: dict[int, float] = {}  # when this process last wrote down that a desktop works


def _claim_the_note(workspace: Workspace, found: ServerInit) -> bool:
    """Return whether it is for this caller to write down what it has found.

    A thousand who dial at once find the same.
    """
    size = (workspace.display_width, workspace.display_height)
    is_known = workspace.display_status == DisplayStatus.READY and size == (
        found.width,
        found.height,
    )
    now = time.monotonic()
    if is_known and now - _noted.get(workspace.pk, -NOTE_SECONDS) < NOTE_SECONDS:
        return False
    _noted[workspace.pk] = now
    return True


def _target(workspace: Workspace) -> Target:
    return Target(
        parse_url(workspace.address),
        password=workspace.vnc_password,
        query=workspace.upstream_query,
        headers=workspace.headers,
    )


def _dialling() -> Dialling:
    display = settings.DISPLAY
    return Dialling(
        connect_seconds=display.connect_seconds,
        keepalive_seconds=display.upstream_ping_seconds,
        destinations=display.upstream_allow,
        ca_file=display.upstream_ca_file,
    )


def check_credentials(workspace: Workspace) -> None:
    """Raise CredentialsRefused where dialling would be pointless or would lock us out."""
    if workspace.unreadable_secrets:
        raise CredentialsRefused(
            "authentication", "the stored secrets cannot be read with the present SECRET_KEY"
        )
    is_resting = Workspace.objects.filter(
        pk=workspace.pk,
        refused_credentials=_fingerprint(workspace),
        refused_at__gt=Now() - REFUSED_REST,
    ).exists()
    if is_resting:
        raise RefusedLately


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
    """Tell one address and its secrets from another, without giving them away."""
    return salted_hmac(
        "controlplane.credentials",
        "\n".join([workspace.address, *(getattr(workspace, name) for name in SECRET_FIELDS)]),
        algorithm="sha256",
    ).hexdigest()
