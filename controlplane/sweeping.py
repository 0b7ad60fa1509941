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
from controlplane.rfb.framebuffer import (
    BELL,
    FRAMEBUFFER_UPDATE,
    SERVER_CUT_TEXT,
    SET_COLOUR_MAP_ENTRIES,
)
from controlplane.rfb.messages import encode_key, encode_pointer, encode_update_request

logger = logging.getLogger(__name__)

AT_ONCE = 8
OF_THE_FENCE = 0.7

# X11's keysymdef: what a keyboard of the X server has from the start, and nothing else. To x11vnc
# the release of any other key is a key that is to be added, and there is room for some twenty: then
# nobody could type an “é” there any more. Modifiers come last, as when a hand lets go.
KEYSYMS = (
    *range(0x20, 0x7F),  # letters, digits, signs
    *(0xFF08, 0xFF09, 0xFF0D, 0xFF13, 0xFF14, 0xFF15, 0xFF1B),  # BackSpace to Escape
    *range(0xFF50, 0xFF58),  # Home to End
    *(0xFF61, 0xFF63, 0xFF6B, 0xFF7F, 0xFFFF),  # Print, Insert, Break, Num_Lock, Delete
    *(0xFF8D, *range(0xFF95, 0xFFA0), 0xFFAA, 0xFFAB, *range(0xFFAD, 0xFFBA)),  # the keypad
    *range(0xFFBE, 0xFFCA),  # F1 to F12
    0xFE03,  # ISO_Level3_Shift
    *range(0xFFE1, 0xFFE6),  # Shift, Control, Caps_Lock
    *range(0xFFE7, 0xFFEE),  # Meta, Alt, Super, Hyper
)


async def sweep(
    stream_ids: list[int], threads: DatabaseThreads, process: str, driver: Driver | None = None
) -> None:
    """Let go of the keys and buttons that these streams have left down, a few at a time.

    A row whose desktop cannot be reached is done with after the fence: nobody's input reaches it.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(stream_id: int) -> None:
        async with turns:
            await _sweep_one(stream_id, threads, process, driver)

    await asyncio.gather(*map(in_turn, stream_ids))


async def _sweep_one(
    stream_id: int, threads: DatabaseThreads, process: str, driver: Driver | None
) -> None:
    if stream_id in _under_way:
        return  # a second one would go on when the first has let the next driver in
    _under_way.add(stream_id)
    try:
        adopted = await threads.run(driving.adopt, stream_id, process, driver)
        if not adopted:
            return
        # What fails before the fence is tried once more after it: whoever drives waits for that.
        if await _let_go(adopted.row, threads) or adopted.is_fenced:
            await threads.run(driving.finish, adopted, process)
    except AnyDatabaseError as error:
        logger.warning("stream %s is not swept yet: %s", stream_id, error)
    finally:
        _under_way.discard(stream_id)


_under_way: set[int] = set()  # the streams that this process sweeps just now


async def _let_go(row: DisplayStream, threads: DatabaseThreads) -> bool:
    """Return whether all is released; well within the fence, for whoever adopts it after that."""
    logger.warning("stream %s was left driving: its keys are released", row.pk)
    try:
        async with asyncio.timeout(settings.DISPLAY.fence_seconds * OF_THE_FENCE):
            await _release_all(row, threads)
            return True
    except (UpstreamError, TimeoutError) as error:
        logger.error("the keys of stream %s could not be released: %r", row.pk, error)
        return False


async def _release_all(row: DisplayStream, threads: DatabaseThreads) -> None:
    """Return once the desktop has answered what was asked behind the key-ups: they are done."""
    connection, _ = await desktops.dial(row.workspace, threads)
    try:
        connection.write(b"".join(_ups(row)) + encode_update_request(False, 0, 0, 1, 1))
        answer = bytearray()
        while not has_update(answer):
            answer += await connection.read()
    finally:
        await upstream.discard(connection)


def has_update(answer: bytearray) -> bool:
    """Say whether a FramebufferUpdate has begun; take away what else a desktop says unasked."""
    while answer and answer[0] != FRAMEBUFFER_UPDATE:
        length = _length_of(answer)
        if length is None or len(answer) < length:
            return False
        del answer[:length]
    return bool(answer)


def _length_of(answer: bytearray) -> int | None:
    """Return how long the first message is, in bytes, or None while too little of it has come."""
    if answer[0] == BELL:
        return 1
    if answer[0] == SERVER_CUT_TEXT:
        return 8 + int.from_bytes(answer[4:8]) if len(answer) >= 8 else None
    if answer[0] == SET_COLOUR_MAP_ENTRIES:
        return 6 + 6 * int.from_bytes(answer[4:6]) if len(answer) >= 6 else None
    raise UpstreamError("stream", f"a message of type {answer[0]} that nobody asked for")


def _ups(row: DisplayStream) -> Iterator[bytes]:
    """Yield what lets go of everything.

    x11vnc counts buttons by connection: one that was pressed on another has to be pressed on this
    one before it can be let go of. The X server ignores the press of what is down. So only buttons
    are touched that were down at the newest poll; which means that one that was pressed within the
    last second of a process stays down; so does a key that only some keyboards have.
    """
    yield from (encode_key(False, keysym) for keysym in KEYSYMS)
    if row.pointer_buttons and row.pointer_x is not None and row.pointer_y is not None:
        yield encode_pointer(row.pointer_buttons, row.pointer_x, row.pointer_y)
        yield encode_pointer(0, row.pointer_x, row.pointer_y)
