"""Changing how workspaces are set up: one way for the API, for files and for desktops.

Each change is made under the lock of the workspace's lease, as the decisions about control are: of
two at once, the second starts from what the first has left. The order is always the lease's row,
then the workspace's, so that no two transactions wait for each other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from controlplane.exceptions import WorkspaceNotFound
from controlplane.models import SECRET_FIELDS, DisplayControlLease, Workspace

DEFAULTS: Mapping[str, Any] = {
    "upstream_url": "",
    "enabled": True,
    "idle_seconds": None,
    "max_hold_seconds": None,
    "parked_seconds": None,
    "accepts_clipboard": True,
    "agents_see_people": False,
}
"""The settings of a workspace about which nothing is said; its name is then its slug."""

STANDARD_INPUT = Path("-")
"""As the path of a secret's file."""

NAMES = ("name", *DEFAULTS, *SECRET_FIELDS)


def put(slug: str, values: Mapping[str, Any], *, may_add: bool) -> tuple[Workspace, bool]:
    """Add the workspace, or change these of its settings; return it, and whether it is new.

    Raises ValidationError with Django's ``message_dict``; WorkspaceNotFound where there is none
    and it may not be added.
    """
    try:
        with transaction.atomic():
            workspace = lock(slug)
            if workspace is None and not may_add:
                raise WorkspaceNotFound(slug)
            is_new = workspace is None
            return save(workspace or Workspace(slug=slug, name=slug), values)[0], is_new
    except IntegrityError:
        if not may_add:
            raise
        # Somebody else has added it at the same time.
        return put(slug, values, may_add=False)


def patch(slug: str, values: Mapping[str, Any]) -> Workspace:
    """Change these settings. Raises ValidationError, or WorkspaceNotFound."""
    return put(slug, values, may_add=False)[0]


def remove(slug: str) -> None:
    """Remove a workspace with its grants, its lease and its streams; what happened stays on record.

    Raises WorkspaceNotFound.
    """
    with transaction.atomic():
        workspace = lock(slug)
        if workspace is None:
            raise WorkspaceNotFound(slug)
        # Rows that are just being added to it are seen by what deletes them, or come too late.
        Workspace.objects.select_for_update().get(pk=workspace.pk)
        workspace.delete()


def lock(slug: str) -> Workspace | None:
    """Return the workspace as it is now; nobody changes it until the transaction ends."""
    rows = DisplayControlLease.objects.select_for_update(of=("self",))
    lease = rows.filter(workspace__slug=slug).first()
    return Workspace.objects.filter(pk=lease.workspace_id).first() if lease else None


def save(workspace: Workspace, values: Mapping[str, Any]) -> tuple[Workspace, list[str]]:
    """Validate and write these settings; return the workspace and which of them have changed."""
    changed = assign(workspace, values)
    if workspace.pk is None:
        workspace.save(force_insert=True)
    elif changed:
        workspace.save(update_fields=changed)
    return workspace, changed


def assign(workspace: Workspace, values: Mapping[str, Any]) -> list[str]:
    """Set these settings on the instance, validate all, and return which have changed.

    A new address loses the query and the headers of the old one, as ``Workspace.point_to`` does.
    """
    before = {name: getattr(workspace, name) for name in NAMES}
    _check_texts(values)
    if "upstream_url" in values:
        workspace.point_to(values["upstream_url"])
    for name in set(values) - {"upstream_url"}:
        setattr(workspace, name, values[name])
    workspace.upstream_query = workspace.upstream_query.lstrip("?")
    # The database judges the slug when it is added: another may be adding the same one now.
    workspace.full_clean(validate_unique=False)
    return [name for name in NAMES if _differs(before[name], getattr(workspace, name))]


def _check_texts(values: Mapping[str, Any]) -> None:
    """PostgreSQL stores no NUL, and half a character is none."""
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    bad = [name for name, text in texts.items() if "\0" in text or not _is_whole(text)]
    if bad:
        raise ValidationError(dict.fromkeys(bad, "It holds characters that no text can have."))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _differs(before: Any, after: Any) -> bool:
    """Whether it has changed; a secret that no key fits reads as empty, and is not."""
    return type(before) is not type(after) or before != after


def sentence(error: ValidationError) -> str:
    """Return what was wrong, each problem with the name of its field."""
    return "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())


def read_secret(name: str, path: Path) -> str:
    """Return the secret ``name`` from its file: the first line, or all of them of the headers.

    The path ``-`` is standard input: whoever runs us may open it, although our user may not.
    Raises ValueError with what is wrong with the file, and nothing that is in it.
    """
    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(error.strerror) from None
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise ValueError("its first line is empty")
    return "\n".join(lines) if name == "upstream_headers" else lines[0]
