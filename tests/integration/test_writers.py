"""That each row has one writer is looked at in all integration tests; this is about the looking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from controlplane import access, leases
from controlplane.models import DisplayControlLease, Workspace
from controlplane.statements import Update
from tests.integration.people import lease_of, tab
from tests.integration.writers import violations


def write_in(file: str, code: str, **names: Any) -> None:
    """Run code as if it stood in this file."""
    exec(compile(code, file, "exec"), names)


@pytest.mark.parametrize(
    "code",
    ["rows.update(epoch=9)", "rows.get().save()", "write(row.pk, row.version, {'epoch': 9})"],
)
def test_whoever_writes_a_lease_past_its_writer_is_named(code: str, desk: Workspace) -> None:
    rows, write = DisplayControlLease.objects.filter(workspace=desk), Update(DisplayControlLease)
    assert access.__file__
    write_in(access.__file__, code, rows=rows, row=lease_of(desk), write=write)
    table = 'UPDATE "controlplane_displaycontrollease"'
    assert violations() == [f"access.py writes what only leases.py may: {table}"]
    write_in(str(Path(__file__)), code, rows=rows, row=lease_of(desk), write=write)
    assert violations() == [], "a test may prepare what it likes"


def test_its_writer_may(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    assert violations() == []
