"""Letting go of the keys that a process held down when it died, over a connection of one's own.

VNC servers with one keyboard for all (x11vnc) keep a key pressed when the client that pressed it
vanishes. Which keys these were nobody knows: all are released. It has to be over before the next
holder's input comes, whose keys it would release as well; driving.py sees to that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from django.conf import settings
from django.db import Error as AnyDatabaseError

from controlplane import desktops, driving, upstream
from controlplane.dbthreads import DatabaseThreads
from controlplane.driving import Driver
from controlplane.exceptions import UpstreamError
from controlplane.models import DisplayStream
from controlplane.rfb.messages import encode_key, encode_pointer, encode_update_request

logger = logging.getLogger(__name__)

AT_ONCE = 8
OF_THE_FENCE = 0.7

# X11's keysymdef: Latin-1, dead keys and levels, editing and keypad, function keys, modifiers.
# Modifiers come last, as when a hand lets go.
KEYSYMS = (
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *range(0xFE50, 0xFE70),
    *range(0xFF08, 0xFF1C),
    *range(0xFF50, 0xFF80),
    *range(0xFF80, 0xFFE1),
    0xFFFF,
    *range(0xFE01, 0xFE10),
    *range(0xFFE1, 0xFFEF),
)


async def sweep(
    stream_ids: list[int], threads: DatabaseThreads, process: str, driver: Driver | None = None
) -> None:
    """Let go of the keys and buttons that these streams have left down, a few at a time.

    A row is done with as well where its desktop cannot be reached: nobody's input reaches it then.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(stream_id: int) -> None:
        async with turns:
            await _sweep_one(stream_id, threads, process, driver)

    await asyncio.gather(*map(in_turn, stream_ids))


async def _sweep_one(
    stream_id: int, threads: DatabaseThreads, process: str, driver: Driver | None
) -> None:
    try:
        adopted = await threads.run(driving.adopt, stream_id, process, driver)
        if adopted:
            await _let_go(adopted.row, threads)
            await threads.run(driving.finish, adopted, process)
    except AnyDatabaseError as error:
        logger.warning("stream %s is not swept yet: %s", stream_id, error)


async def _let_go(row: DisplayStream, threads: DatabaseThreads) -> None:
    """Release all, well within the fence: who adopts it after that must not be disturbed."""
    logger.warning("stream %s was left driving: its keys are released", row.pk)
    try:
        async with asyncio.timeout(settings.DISPLAY.fence_seconds * OF_THE_FENCE):
            await _release_all(row, threads)
    except (UpstreamError, TimeoutError) as error:
        logger.error("the keys of stream %s could not be released: %r", row.pk, error)


async def _release_all(row: DisplayStream, threads: DatabaseThreads) -> None:
    """Return once the desktop has answered what was asked behind the key-ups: they are done."""
    connection, _ = await desktops.dial(row.workspace, threads)
    try:
        connection.write(b"".join(_ups(row)) + encode_update_request(False, 0, 0, 1, 1))
        await connection.read()
    finally:
        await upstream.discard(connection)


def _ups(row: DisplayStream) -> Iterator[bytes]:
    """Yield what lets go of everything.

    x11vnc counts buttons by connection: one that was pressed on another has to be pressed on this
    one before it can be let go of. The X server ignores the press of what is down. So only buttons
    are touched that were down at the newest poll; which means that one that was pressed within the
    last second of a process stays down.
    """
    yield from (encode_key(False, keysym) for keysym in KEYSYMS)
    if row.pointer_buttons and row.pointer_x is not None and row.pointer_y is not None:
        yield encode_pointer(row.pointer_buttons, row.pointer_x, row.pointer_y)
        yield encode_pointer(0, row.pointer_x, row.pointer_y)
