"""The streams of this process (design §4, §5), each from the first dial to the last key-up.

A stream is where the two ways meet: bytes (bridge.py) and authority (authority.py).

A stream runs a loop of its own for each direction: Channels' dispatch costs a thread hop for every
message and handles them one by one, so that a slow one would delay a revocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from django.conf import settings
from django.db import Error as AnyDatabaseError

from controlplane import background, desktops, driving, logs, metrics, streamrows, watch
from controlplane.authority import Authority
from controlplane.bridge import Bridge, Traffic
from controlplane.closecodes import CloseCode, code_of
from controlplane.dbthreads import DatabaseThreads
from controlplane.displaysocket import BrowserLeft, DisplaySocket, ReadAhead, Teller
from controlplane.exceptions import ControlPlaneError, ProtocolError, TooSlow, UpstreamError
from controlplane.models import Workspace
from controlplane.presenters import Json
from controlplane.rfb.handshake import BrowserHandshake
from controlplane.signsoflife import HELD_PING_SECONDS, SignsOfLife
from controlplane.streamrows import PROCESS
from controlplane.tokens import Admission
from controlplane.upstream import Upstream
from controlplane.wakeup import Wakeup

logger = logging.getLogger(__name__)

CLEAN_UP_SECONDS = 5.0
BROWSER_PATIENCE = 3  # times as long as a desktop gets: the page may still load noVNC, 20 s at most

threads = DatabaseThreads("streams", 4)  # for all that streams ask, from the token on

Ending = tuple[CloseCode, str]
_LATER = "stream"  # the step of an UpstreamError after dialling, which counts its own


class OpenStreams:
    """The streams of this process. Every other second, each looks whether its ends still live."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()
        self._beat: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        """Look after ``stream`` from now on."""
        self._streams.add(stream)
        if self._beat is None or self._beat.done():
            self._beat = background.start(self._look_after_all(), "streams-beat")

    def discard(self, stream: Stream) -> None:
        """It has ended."""
        self._streams.discard(stream)
        _count(stream.take_traffic())

    async def end_all(self) -> None:
        """End every stream with 4503; return when they have let go of their keys."""
        streams = list(self._streams)
        for stream in streams:
            stream.end(CloseCode.RESTARTING, "The server restarts.")
        await asyncio.gather(*(stream.finished for stream in streams))

    async def _look_after_all(self) -> None:
        while self._streams:
            await asyncio.sleep(min(HELD_PING_SECONDS, settings.DISPLAY.ping_seconds))
            for look in [*(stream.look_after_ends for stream in self._streams), self._measure]:
                try:
                    look()
                except Exception:  # a bug with one stream must not leave the others alone
                    logger.exception("streams are not looked after: %s failed", look.__name__)

    def _measure(self) -> None:
        """Add up for /metrics what the streams know of themselves."""
        modes = Counter(stream.mode for stream in self._streams)
        for mode in metrics.MODES:
            metrics.streams.labels(mode).set(modes[mode])
        metrics.backlog_bytes.set(sum(stream.backlog_bytes for stream in self._streams))
        metrics.watch_lag_seconds.set(watch.current().lag)
        moved = [stream.take_traffic() for stream in self._streams]
        _count(Traffic(*map(sum, zip(*moved, strict=True))))


def _count(traffic: Traffic) -> None:
    metrics.from_browser.inc(traffic.from_browser)
    metrics.to_browser.inc(traffic.to_browser)
    metrics.refused_input.inc(traffic.refused_input)
    metrics.withheld_requests.inc(traffic.withheld_requests)


open_streams = OpenStreams()


class Stream:
    """One open stream: it dials the desktop, invites the browser, and ends what it has begun.

    What of the browser's input may pass is for its Authority to say, which the watch tells.
    """

    def __init__(self, socket: DisplaySocket, admission: Admission) -> None:
        self._socket = socket
        self._row_id: int = admission.stream.pk
        self._user_id = admission.token.user
        self._workspace: Workspace | None = admission.workspace  # until it has been dialled
        self._name = f"stream {self._row_id} of {admission.workspace.slug}"
        self._authority = Authority(admission, say=self._say, end=self.end)
        self._signs = SignsOfLife()
        self._teller = Teller(self._send_text, self._start)
        self._read_ahead = None if socket.has_backpressure else ReadAhead(self._read)
        self._upstream: Upstream | None = None
        self._handshake: BrowserHandshake | None = None
        self._frame_pixels = 0
        self._bridge: Bridge | None = None
        self._bridged = Wakeup()
        self._tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[Ending] = loop.create_future()

    async def run(self, admission: Admission) -> None:
        """Serve until one side ends it; whatever happens, let go of keys and close the row."""
        logs.note(stream_id=self._row_id, user_id=self._user_id)
        logger.info("%s opened by %s", self._name, admission.user)
        metrics.reconnects.inc(admission.is_reconnect)
        self._authority.join(admission)
        open_streams.add(self)
        del admission
        self._start(self._serve)
        self._start(self._receive)
        if self._read_ahead:
            self._start(self._read_ahead.run)
        try:
            await self._over
        finally:
            self._authority.resign()
            ending = (
                self._over.result() if self._over.done() and not self._over.cancelled() else None
            )
            await asyncio.shield(self._clean_up(ending))

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start a task of this stream: what it raises ends the stream."""
        task = asyncio.create_task(work(), name=f"{work.__name__} {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def end(self, code: CloseCode, reason: str) -> None:
        """End the stream; the first reason counts."""
        if not self._over.done():
            self._over.set_result((code, reason))

    def _fail(self, error: ControlPlaneError) -> None:
        was_lost = isinstance(error, UpstreamError) and error.step == _LATER
        if was_lost and not self._over.done():
            metrics.upstream_failures.labels(_LATER).inc()
        self.end(code_of(error), str(error))

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Turn what a task raised into the stream's end."""
        self._tasks.discard(task)
        if task.cancelled() or not (error := task.exception()):
            return
        match error:
            case BrowserLeft():
                self.end(CloseCode.DONE, "")
            case UpstreamError() | ProtocolError() | TooSlow():
                self._fail(error)
            case _:
                logger.error("%s: %s failed", self._name, task.get_name(), exc_info=error)
                self.end(CloseCode.RESTARTING, "An error on the server; it has been logged.")

    async def _clean_up(self, ending: Ending | None) -> None:
        code, reason = ending or (CloseCode.RESTARTING, "The server ends this stream.")
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                tasks = list(self._tasks)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                # Together: neither end waits for the other to take its last bytes.
                ends = (self._close_upstream(), self._socket.close(code, reason))
                for error in await asyncio.gather(*ends, return_exceptions=True):
                    if isinstance(error, Exception):  # its row must be closed all the same
                        logger.error("%s: an end was not closed", self._name, exc_info=error)
                input_age = self._authority.input_age
                await threads.run(streamrows.close, self._row_id, code, input_age)
        except (TimeoutError, AnyDatabaseError) as error:
            logger.warning("%s: not cleaned up in full: %r", self._name, error)
        finally:  # here, behind the shield: Daphne cancels whoever waits for it
            open_streams.discard(self)
            self.finished.set_result(None)
        metrics.stream_ends.labels(int(code)).inc()
        logger.info("%s closed: %d %s", self._name, code, reason)

    async def _close_upstream(self) -> None:
        """Send the last key-ups; whoever has control now need not wait for our browser."""
        if self._upstream:
            await self._upstream.close()
        if not self._authority.has_claimed:
            return
        try:
            workspaces = {self._authority.workspace_id}
            await threads.run(driving.clear, [self._row_id], workspaces, PROCESS)
        except AnyDatabaseError as error:
            logger.warning("%s: others wait for it until the fence: %s", self._name, error)

    # --- bytes ------------------------------------------------------------------------------------
    async def _serve(self) -> None:
        """Dial the desktop, then invite the browser: an unreachable desktop is a readable end."""
        assert self._workspace is not None
        self._upstream, server_init = await desktops.dial(self._workspace, threads)
        self._workspace = None
        self._frame_pixels = server_init.width * server_init.height
        await self._know_lease()
        self._handshake = BrowserHandshake(server_init.raw)
        begun = time.monotonic()
        for frame in self._handshake.start():
            await self._socket.send_bytes(frame)
        bridge = await self._browser_has_answered()
        metrics.browser_handshake.observe(time.monotonic() - begun)
        await bridge.to_browser(self._socket.send_bytes)

    async def _know_lease(self) -> None:
        """Wait for the first read: from its very first message on, a holder's input passes."""
        try:
            async with asyncio.timeout(settings.DISPLAY.fence_seconds):
                await self._authority.known.wait()
        except TimeoutError:
            self.end(CloseCode.RESTARTING, "The database is away.")

    async def _browser_has_answered(self) -> Bridge:
        try:
            async with asyncio.timeout(BROWSER_PATIENCE * settings.DISPLAY.connect_seconds):
                await self._bridged.wait()
        except TimeoutError:
            raise ProtocolError("the browser did not finish the RFB handshake") from None
        assert self._bridge is not None
        return self._bridge

    async def _read(self) -> bytes | Json:
        frame = await self._socket.receive()
        self._signs.heard()
        return frame

    async def _receive(self) -> None:
        receive = self._read_ahead.receive if self._read_ahead else self._read
        while True:
            frame = await receive()
            if isinstance(frame, dict):
                self._on_text(frame)
            elif self._bridge:
                await self._bridge.from_browser(frame)
            else:
                await self._shake_hands(frame)

    def _on_text(self, message: Json) -> None:
        if message["type"] == "ping":
            self._signs.pinged()
            self._say({"type": "pong", "id": message["id"]})
        elif self._bridge:
            self._bridge.browser_answers(message["id"])

    async def _shake_hands(self, data: bytes) -> None:
        if not self._handshake or not self._upstream:
            raise ProtocolError("the browser spoke before it was greeted")
        for frame in self._handshake.feed(data):
            await self._socket.send_bytes(frame)
        if not self._handshake.done:
            return
        first, self._handshake = self._handshake.leftover, None
        self._bridge = self._authority.bridge = self._start_bridge(self._upstream)
        self._bridged.set()
        await self._bridge.from_browser(first)

    def _start_bridge(self, upstream: Upstream) -> Bridge:
        display = settings.DISPLAY
        bridge = Bridge(
            upstream,
            self._authority.gate,
            frame_pixels=self._frame_pixels,
            backlog_bytes=display.backlog_bytes,
            backlog_cap_bytes=display.backlog_cap_bytes,
            clipboard_bytes=display.clipboard_bytes,
            acknowledges=self._socket.has_text and not self._socket.has_backpressure,
            notify=self._say,
            fail=self._fail,
        )
        upstream.attach(bridge)
        return bridge

    # --- texts ------------------------------------------------------------------------------------
    def _say(self, text: Json) -> None:
        """Put a text for the page in line."""
        if self._over.done():
            return
        try:
            self._teller.say(text)
        except TooSlow as error:
            self._fail(error)

    async def _send_text(self, text: Json) -> None:
        size = await self._socket.send_text(text)
        if self._bridge:
            self._bridge.text_sent(size)

    # --- what all streams of the process are asked (OpenStreams) ----------------------------------
    def look_after_ends(self) -> None:
        """The desktop may hang, the browser may be gone without a word."""
        self._signs.forget_pings()
        if not self._bridge:
            return
        try:
            self._bridge.check_desktop()
            if self._socket.has_text:  # a stock client has the server's websocket pings
                self._signs.look_after(self._bridge, settings.DISPLAY.ping_seconds)
        except ControlPlaneError as error:
            self._fail(error)

    @property
    def mode(self) -> str:
        """What its browser may do, as far as it has been told: control or observe."""
        return self._authority.mode

    @property
    def backlog_bytes(self) -> int:
        """What its browser has not read."""
        return self._bridge.backlog_bytes if self._bridge else 0

    def take_traffic(self) -> Traffic:
        """Return what it has moved since it was asked last."""
        return self._bridge.take_traffic() if self._bridge else Traffic()
