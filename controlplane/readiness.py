"""Whether this process can do its work: the database answers, is migrated, and notices get out.

Anybody may ask (/readyz). So what is told is in words of our own, for an error's text may name
hosts and users: it goes to the log. Findings are kept for a second, and one thread looks while the
others wait for what it finds: a flood of questions is no flood of queries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import cache
from threading import Lock

from asgiref.sync import async_to_sync
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from controlplane import events
from controlplane.dbthreads import DatabaseThreads

logger = logging.getLogger(__name__)

OK = "ok"
GROUP = "desktopctl.readiness"  # nobody listens: that the broker takes the message is the answer
CHECK_SECONDS = 2.0  # the checks run side by side, and none takes longer
KEEP_SECONDS = 1.0

# One thread: while the database hangs, questions wait for it instead of taking a thread each.
_threads = DatabaseThreads("readiness", 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, in words for everybody; for the log, the error behind them."""

    words: str = OK
    error: Exception | None = None


_UNKNOWN = Finding("not known while the database does not answer")


def pending_migrations() -> int:
    """Return how many migrations have not been applied; the database's error where it is away."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def ask_to_migrate(pending: int) -> str:
    """Return the sentence that says so, with the command that mends it."""
    return f"{pending} migration(s) are pending. Run: manage.py migrate"


class Readiness:
    """What this process found when it last looked; each change is logged once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._findings: dict[str, Finding] = {}
        self._found_at = -float("inf")

    def words(self) -> dict[str, str]:
        """Return ``ok`` or what is wrong, by the name of the check; look where that is due."""
        with self._lock:
            if time.monotonic() - self._found_at >= KEEP_SECONDS:
                self._take(async_to_sync(look)())
            return {check: finding.words for check, finding in self._findings.items()}

    def _take(self, findings: dict[str, Finding]) -> None:
        for check, finding in findings.items():
            before = self._findings.get(check, Finding())
            if finding.words != before.words:
                logger.warning("%s: %s", check, _for_the_log(finding))
        self._findings, self._found_at = findings, time.monotonic()


def _for_the_log(finding: Finding) -> str:
    return f"{finding.words} ({finding.error})" if finding.error else finding.words


@cache
def current() -> Readiness:
    """Return this process's findings."""
    return Readiness()


# --- The checks -----------------------------------------------------------------------------------
async def look() -> dict[str, Finding]:
    """Run all checks."""
    database, channel_layer = await asyncio.gather(_look_at_database(), _look_at_channel_layer())
    return {**database, "channel_layer": channel_layer}


async def _look_at_database() -> dict[str, Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await _threads.run(_examine_database)
    except TimeoutError:
        late = Finding(f"does not answer within {CHECK_SECONDS:g} seconds. Look at the database.")
        return {"database": late, "migrations": _UNKNOWN}


def _examine_database() -> dict[str, Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:  # whatever the database's client raises
        words = "does not answer. Look at DATABASE_URL and at the server's log."
        return {"database": Finding(words, error), "migrations": _UNKNOWN}
    return {"database": Finding(), "migrations": _examine_migrations()}


def _examine_migrations() -> Finding:
    try:
        pending = pending_migrations()
    except Exception as error:  # a table that we may not read, files that do not fit together
        return Finding("cannot be read. Look at the server's log.", error)
    return Finding(ask_to_migrate(pending)) if pending else Finding()


async def _look_at_channel_layer() -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await events.channel_layer().group_send(GROUP, {"type": "asked"})
    except TimeoutError:
        return Finding(f"does not answer within {CHECK_SECONDS:g} seconds. Look at Redis.")
    except Exception as error:  # whatever the broker's client raises
        return Finding("does not answer. Look at REDIS_URL and at the server's log.", error)
    return Finding()
