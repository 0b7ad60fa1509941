"""Threads for the data plane's database calls, apart from those of HTTP requests.

In a consumer, Django's own ``database_sync_to_async`` runs every call of the process in one thread:
one slow call would delay every other, revocations included. So streams and the watch each have
their own threads, and within them, their own connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import Error as AnyDatabaseError
from django.db import close_old_connections, connection, connections, transaction

P = ParamSpec("P")
R = TypeVar("R")


class DatabaseThreads:
    """A few threads, named for what they do, that run blocking database calls.

    With ``keeps_connections``, each thread keeps its connection between calls, until one fails or
    ``release`` is called: pages that use up the pool do not make it wait.
    """

    def __init__(self, name: str, count: int, *, keeps_connections: bool = False) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=f"db-{name}")
        self._guard = _keeping_connection if keeps_connections else _fresh_connection

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``call`` returns."""

        def guarded() -> R:
            with self._guard():
                return call(*args, **kwargs)

        # sync_to_async, not run_in_executor: announcements made in there find their way back to
        # this loop.
        return await sync_to_async(guarded, thread_sensitive=False, executor=self._executor)()

    def release(self) -> None:
        """Give the kept connection of a single thread back, once what it does now is done."""
        self._executor.submit(connections.close_all)


@contextmanager
def _fresh_connection() -> Iterator[None]:
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@contextmanager
def _keeping_connection() -> Iterator[None]:
    try:
        yield
    except AnyDatabaseError:
        connections.close_all()  # the next call starts afresh
        raise


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Run the block as one transaction, in which no statement waits or works for longer.

    Exceeding it is Django's OperationalError. SQLite has the time limit of its lock instead.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                limit = f"{round(seconds * 1000)}ms"
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [limit])
        yield


async def leave_request_thread() -> None:
    """Give back what Django keeps for a request until its response has ended, which may be hours.

    That is a thread of its own, and the database connection that its view has used there.
    """
    await sync_to_async(connections.close_all)()
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None:
        return
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if executor is not None:  # a later call gets a new one
        executor.shutdown(wait=False)
