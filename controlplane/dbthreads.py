"""Threads for the data plane's database calls, apart from those of HTTP requests.

In a consumer, Django's own ``database_sync_to_async`` runs every call of the process in one thread:
one slow call would delay every other, revocations included. So streams and the watch each have
their own threads, and within them, their own connections.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

P = ParamSpec("P")
R = TypeVar("R")


class DatabaseThreads:
    """A few threads, named for what they do, that run blocking database calls."""

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=f"db-{name}")

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``call`` returns; its connection goes back to the pool afterwards."""

        def with_fresh_connection() -> R:
            close_old_connections()
            try:
                return call(*args, **kwargs)
            finally:
                close_old_connections()

        # sync_to_async, not run_in_executor: announcements made in there find their way back to
        # this loop.
        return await sync_to_async(
            with_fresh_connection, thread_sensitive=False, executor=self._executor
        )()
