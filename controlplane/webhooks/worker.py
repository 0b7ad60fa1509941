"""The worker that delivers to webhooks; ``manage.py deliver_webhooks`` runs it.

On PostgreSQL it is procrastinate's: a job a lane, at most one of which is being done. What to send,
in which order and when again is said by the deliveries' rows (``deliveries.py``); the queue wakes,
spreads the lanes over all workers and keeps to the times. SQLite has no queue: there, the worker
looks into the rows every second.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import psycopg
from django.db import Error as AnyDatabaseError
from procrastinate import App, Blueprint, PsycopgConnector
from procrastinate.contrib.django import app as queue
from procrastinate.contrib.django import connector_params
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Status

from controlplane.dbthreads import DatabaseThreads
from controlplane.outages import words_of
from controlplane.webhooks import deliveries, outbox
from controlplane.webhooks.outbox import QUEUE, Lane

logger = logging.getLogger(__name__)

AT_ONCE = 8  # lanes: one receiver that is slow must not make the others wait
LOOK_SECONDS = 1.0
RETRY_SECONDS = 5.0  # while the database is away

_threads = DatabaseThreads(QUEUE, AT_ONCE)
_tasks = Blueprint()


def register(app: App) -> None:
    """Give procrastinate our tasks: PROCRASTINATE_ON_APP_READY."""
    app.add_tasks_from(_tasks, namespace=QUEUE)


async def run(*, once: bool = False) -> None:
    """Deliver until told to stop; with ``once``, until nothing is due."""
    if outbox.has_queue():
        await _run_queue(once)
    else:
        await _run_loop(once)


# --- PostgreSQL -----------------------------------------------------------------------------------
# Jobs in the database hold these names: they stay, wherever the functions go.
@_tasks.task(name="deliver", queue=QUEUE)
async def _deliver(webhook_id: int, workspace_slug: str) -> None:
    lane = Lane(webhook_id, workspace_slug)
    next_time = await deliveries.deliver(lane, _threads)
    if next_time:
        await _threads.run(outbox.wake, [lane], at=next_time)


@_tasks.periodic(cron="* * * * * */10")  # the last part is seconds
@_tasks.task(name="look", queue=QUEUE)
async def _look(timestamp: int) -> None:
    await look()


async def look() -> None:
    """Wake the lanes whose job was lost: with its worker, or before it reached the queue."""
    for lost in await queue.job_manager.get_stalled_jobs(queue=QUEUE):
        await queue.job_manager.finish_job(lost, Status.FAILED, delete_job=True)
    lanes = await _threads.run(deliveries.due_lanes)
    await _threads.run(outbox.wake, lanes, overrides=True)


async def _run_queue(once: bool) -> None:
    """Procrastinate's worker ends, and says why, where the database goes away: begin anew."""
    while True:
        try:
            await _work(once)
        except (ProcrastinateException, AnyDatabaseError, psycopg.Error) as error:
            if once:
                raise
            logger.warning("webhooks wait: the database is away: %s", words_of(error))
        if once:
            return
        await asyncio.sleep(RETRY_SECONDS)


async def _work(once: bool) -> None:
    # It gives up on a connection as soon as the server's own pool does (settings.py).
    limits: dict[str, Any] = {"timeout": RETRY_SECONDS, "reconnect_timeout": RETRY_SECONDS}
    connector = PsycopgConnector(kwargs=connector_params(), **limits)
    with queue.replace_connector(connector):
        async with queue.open_async():
            await look()
            await queue.run_worker_async(
                queues=[QUEUE],
                concurrency=AT_ONCE,
                wait=not once,
                fetch_job_polling_interval=LOOK_SECONDS,  # nobody is told that a lane is free again
                delete_jobs="always",
                install_signal_handlers=False,  # the command's own cancel us
            )


# --- SQLite ---------------------------------------------------------------------------------------
async def _run_loop(once: bool) -> None:
    while True:
        try:
            lanes = await _threads.run(deliveries.due_lanes)
            await asyncio.gather(*(deliveries.deliver(lane, _threads) for lane in lanes))
        except AnyDatabaseError as error:
            if once:
                raise
            logger.warning("webhooks wait: the database is away: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if once and not lanes:
            return
        await asyncio.sleep(0 if once else LOOK_SECONDS)
