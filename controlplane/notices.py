"""Hearing what events.py announces: one part of each process listens to the channel layer for all.

Notices make things fast and are never needed for them to be right. Whether they arrive is found out
by sending oneself a message now and then: a broker that hangs, has been restarted or has forgotten
our subscription raises nothing. One line is logged for each change between working and away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import cache
from typing import Any

from channels.layers import BaseChannelLayer

from controlplane import background, events
from controlplane.outages import Outage

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
ECHO_SECONDS = 5.0  # how often we listen for ourselves
ANSWER_SECONDS = 2.0  # how long the broker may take
REJOIN_SECONDS = 600.0  # layers forget members of a group after a while

Json = dict[str, Any]
TakeIn = Callable[[Json], None]


class NoEcho(Exception):
    """The broker takes messages and does not bring them back."""


class Notices:
    """Listens while somebody has subscribed; each process has one."""

    def __init__(self) -> None:
        self._subscribers: list[TakeIn] = []
        self._task: asyncio.Task[None] | None = None
        self._echo = asyncio.Event()
        self._outage = Outage(
            logger,
            begins="no notices (%s): polling every second instead",
            ends="notices arrive again",
        )

    def subscribe(self, take_in: TakeIn) -> None:
        """Call ``take_in`` with each notice, from the event loop, until ``unsubscribe``."""
        self._subscribers.append(take_in)
        if self._task is None:
            self._echo = asyncio.Event()  # of the running loop
            self._task = background.start(self._run(), "notices")

    def unsubscribe(self, take_in: TakeIn) -> None:
        """Forget ``take_in``; the last one to go stops the listening."""
        self._subscribers.remove(take_in)
        if not self._subscribers and self._task:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # whatever the broker's client raises: polling goes on
                self._outage.note(error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        """Receive until something fails."""
        layer = events.channel_layer()
        channel = await _in_time(layer.new_channel())
        receiving: asyncio.Task[None] | None = None
        try:
            await _in_time(layer.group_add(events.GROUP, channel))
            receiving = asyncio.create_task(self._receive(layer, channel), name="notices-receive")
            receiving.add_done_callback(lambda _: self._echo.set())
            await self._check_now_and_then(layer, channel, receiving)
        finally:
            with suppress(Exception):  # the broker is away, or we are: nothing hangs on it
                await _in_time(_leave(layer, channel, receiving))

    async def _receive(self, layer: BaseChannelLayer, channel: str) -> None:
        while True:
            message = await layer.receive(channel)
            if message["type"] == "echo":
                self._echo.set()
            else:
                self._hand_out(message)

    def _hand_out(self, message: Json) -> None:
        for take_in in list(self._subscribers):
            try:
                take_in(message)
            except Exception:  # a bug in one must not keep the others from hearing
                logger.exception("a notice could not be taken in")

    async def _check_now_and_then(
        self, layer: BaseChannelLayer, channel: str, receiving: asyncio.Task[None]
    ) -> None:
        joined = time.monotonic()
        while True:
            await self._check(layer, channel, receiving)
            self._outage.note(None)
            await asyncio.wait([receiving], timeout=ECHO_SECONDS)
            if time.monotonic() - joined >= REJOIN_SECONDS:
                joined = time.monotonic()
                await _in_time(layer.group_add(events.GROUP, channel))

    async def _check(
        self, layer: BaseChannelLayer, channel: str, receiving: asyncio.Task[None]
    ) -> None:
        """Raise unless a message of ours comes back in time."""
        self._echo.clear()
        await _in_time(layer.send(channel, {"type": "echo"}))
        with suppress(TimeoutError):
            await _in_time(self._echo.wait())
        if receiving.done():
            receiving.result()  # raises what ended it
        if not self._echo.is_set():
            raise NoEcho("the broker does not answer")


async def _in_time(call: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(ANSWER_SECONDS):
        return await call


async def _leave(
    layer: BaseChannelLayer, channel: str, receiving: asyncio.Task[None] | None
) -> None:
    if receiving:
        receiving.cancel()
        await asyncio.wait([receiving])
    await layer.group_discard(events.GROUP, channel)


@cache
def current() -> Notices:
    """Return this process's."""
    return Notices()
