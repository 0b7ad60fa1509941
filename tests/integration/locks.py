"""A lease that somebody else has locked, and who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from controlplane.models import DisplayControlLease, Workspace


def in_thread(call: Callable[[], Any]) -> Any:
    """Run ``call`` beside the test, with a connection of its own."""

    def with_own_connection() -> Any:
        try:
            return call()
        finally:
            connection.close()

    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(with_own_connection)
    finally:
        executor.shutdown(wait=False)


@contextmanager
def row_locked_by_another(workspace: Workspace) -> Iterator[DisplayControlLease]:
    """Hold the lease's lock while the block runs; what the block wrote is committed at its end."""
    with transaction.atomic():
        yield DisplayControlLease.objects.select_for_update().get(workspace=workspace)


def is_still_waiting(future: Any) -> bool:
    """Whether the other thread has been held up for a moment."""
    return not _ended.wait(0.15) and not future.done()


_ended = threading.Event()  # never set: a pause that is bounded by being one
