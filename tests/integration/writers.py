"""Who writes which table: each row that decides over control has a single module as its writer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import controlplane

_APP = Path(controlplane.__file__).parent
_WRITE = re.compile(r'(?:INSERT INTO|UPDATE) "controlplane_\w+"')
_WRITERS = {
    'UPDATE "controlplane_displaycontrollease"': "leases.py",  # it is made with its workspace
    'INSERT INTO "controlplane_displaystream"': "streamrows.py",
    'UPDATE "controlplane_displaystream"': "streamrows.py",
}


def writes_in_its_place(
    execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
) -> Any:
    """Run a statement, unless the app is about to write a row past that row's only writer.

    An execute wrapper of Django. A test's own preparations pass: nothing of the app has them made.
    """
    write = _WRITE.match(sql)
    writer = _WRITERS.get(write[0]) if write else None
    callers = list(_modules_above()) if writer else []
    assert not callers or writer in callers, f"{writer} is passed by {callers}: {sql}"
    return execute(sql, params, many, context)


def _modules_above() -> Iterator[str]:
    """Name the app's modules that are in the middle of a call, the innermost first."""
    frame = sys._getframe(1)
    while frame := frame.f_back:
        path = Path(frame.f_code.co_filename)
        if path.parent == _APP or _APP in path.parents:
            yield str(path.relative_to(_APP))
