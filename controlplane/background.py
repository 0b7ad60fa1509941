"""Tasks that serve all, whoever happens to start them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start ``work`` as a task that outlives the request or stream which has need of it first.

    It gets nothing of their context: else its log lines would carry their ids for ever.
    """
    return asyncio.create_task(work, name=name, context=Context())
