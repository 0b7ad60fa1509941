"""Admitting those who dial, many at a time: after a restart, everybody comes back at once.

While one batch is at the database, whoever dials waits for the next; so nobody waits for long where
few come, and a thousand cost hardly more queries than one.
"""

from __future__ import annotations

import asyncio
import logging

from django.db import Error as AnyDatabaseError
from django.db import IntegrityError

from controlplane import background, streamrows, tokens
from controlplane.closecodes import CloseCode
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import StreamRefused
from controlplane.tokens import Admission, Ticket

logger = logging.getLogger(__name__)

BATCH = 64

Waiting = tuple[Ticket, asyncio.Future[Admission]]


class Admissions:
    """Spends tokens in batches, one batch after the other."""

    def __init__(self, threads: DatabaseThreads) -> None:
        self._threads = threads
        self._waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def admit(self, token: str, slug: str) -> Admission:
        """Spend a token; raise the StreamRefused, or the database's error, that came of it."""
        future: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._waiting.append((Ticket(token, slug), future))
        if self._task is None or self._task.done():
            self._task = background.start(self._work(), "admissions")
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                await self._spend(batch)
            except IntegrityError:  # an account or a workspace has just been deleted: whose?
                for each in batch:
                    await self._spend_alone(each)
            except Exception as error:  # each who waits gets it, and logs it
                _fail(batch, error)

    async def _spend_alone(self, waiting: Waiting) -> None:
        try:
            await self._spend([waiting])
        except Exception as error:  # who waits gets it, and logs it
            _fail([waiting], error)

    async def _spend(self, batch: list[Waiting]) -> None:
        tickets = [ticket for ticket, _ in batch]
        outcomes = await self._threads.run(tokens.spend_all, tickets, streamrows.PROCESS)
        pairs = zip(batch, outcomes, strict=True)
        left = [outcome for (_, future), outcome in pairs if not _answered(future, outcome)]
        for outcome in left:
            if isinstance(outcome, Admission):
                await self._close(outcome)

    async def _close(self, admission: Admission) -> None:
        """Its browser has left meanwhile: nobody will run this stream."""
        try:
            await self._threads.run(streamrows.close, admission.stream.pk, CloseCode.DONE)
        except AnyDatabaseError as error:
            logger.warning("stream %s stays open for a while: %s", admission.stream.pk, error)


def _answered(future: asyncio.Future[Admission], outcome: Admission | StreamRefused) -> bool:
    """Give the outcome to who waits; return False where nobody does any more."""
    if future.done():
        return False
    if isinstance(outcome, StreamRefused):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return True


def _fail(batch: list[Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
