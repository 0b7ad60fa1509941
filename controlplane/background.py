"""Tasks that serve all, whoever happens to start them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start ``work`` as a task that outlives the request or stream which has need of it first.

    It gets nothing of their context: else its log lines would carry their ids for ever. Nobody
    waits for it: what it dies of is logged.
    """
    task = asyncio.create_task(work, name=name, context=Context())
    task.add_done_callback(_log_death)
    return task


def _log_death(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception():
        logger.critical("%s died", task.get_name(), exc_info=task.exception())
