"""Admitting those who dial, many at a time: after a restart, everybody comes back at once.

While one batch is at the database, whoever dials waits for the next; so nobody waits for long where
few come, and a thousand cost hardly more queries than one.
"""

from __future__ import annotations

import asyncio
import logging

from django.db.models.functions import Now

from controlplane import tokens, watch
from controlplane.closecodes import CloseCode
from controlplane.dbthreads import DatabaseThreads
from controlplane.exceptions import StreamRefused
from controlplane.models import DisplayStream
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
            self._task = asyncio.create_task(self._work(), name="admissions")
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            tickets = [ticket for ticket, _ in batch]
            try:
                outcomes = await self._threads.run(tokens.spend_all, tickets, watch.PROCESS)
            except Exception as error:  # each who waits gets it, and logs it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                await self._answer(future, outcome)

    async def _answer(
        self, future: asyncio.Future[Admission], outcome: Admission | StreamRefused
    ) -> None:
        if isinstance(outcome, StreamRefused):
            if not future.done():
                future.set_exception(outcome)
        elif not future.done():
            future.set_result(outcome)
        else:  # its browser has left meanwhile
            await self._threads.run(close_row, outcome.stream.pk, CloseCode.DONE)


def close_row(stream_id: int, code: CloseCode) -> None:
    """Note that a stream has ended, and how."""
    DisplayStream.objects.filter(pk=stream_id).update(closed_at=Now(), close_code=int(code))
