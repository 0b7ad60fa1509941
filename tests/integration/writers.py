"""Who writes which table: rows that decide over control have one module each as their writer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper
from django.db.models import deletion

import controlplane
from controlplane import statements

_APP = Path(controlplane.__file__).parent
_DELETION = Path(deletion.__file__)
_WRITE = re.compile(r'(?:INSERT INTO|UPDATE) "controlplane_\w+"')
_WRITERS = {
    'UPDATE "controlplane_displaycontrollease"': "leases.py",  # it is made with its workspace
    'INSERT INTO "controlplane_displaystream"': "streamrows.py",
    'UPDATE "controlplane_displaystream"': "streamrows.py",
}
_MEANS = {"models.py", "statements.py"}  # by which they write

_violations: dict[str, None] = {}  # each once, in their order


@contextmanager
def watched() -> Iterator[None]:
    """Look at each statement of this process, on whichever connection and way it goes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", _looked_at(CursorWrapper.execute))
        patch.setattr(CursorWrapper, "executemany", _looked_at(CursorWrapper.executemany))
        patch.setattr(statements, "run", _looked_at(statements.run))
        yield


def violations() -> list[str]:
    """Return, and forget, who of the app has written past a row's only writer."""
    found = list(_violations)
    _violations.clear()
    return found


def _looked_at(execute: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(execute)
    def look_and_execute(where: Any, sql: str, *rest: Any) -> Any:
        write = _WRITE.match(sql)
        if write and (writer := _WRITERS.get(write[0])):
            by = next(_modules_above(), writer)  # a test that prepares something is not of the app
            if by != writer:
                _violations[f"{by} writes what only {writer} may: {write[0]}"] = None
        return execute(where, sql, *rest)

    return look_and_execute


def _modules_above() -> Iterator[str]:
    """Name the app's modules that are in the middle of a call, the innermost first.

    What a deletion takes along, such as the account of a holder, Django has decided.
    """
    frame = sys._getframe()
    while frame := frame.f_back:
        path = Path(frame.f_code.co_filename)
        if path == _DELETION:
            return
        if _APP in path.parents and path.name not in _MEANS:
            yield str(path.relative_to(_APP))
