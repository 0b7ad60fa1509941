"""The streams of this process (design §4, §5): each alone knows both leases and bytes.

A stream runs a loop of its own for each direction: Channels' dispatch costs a thread hop for every
message and handles them one by one, so that a slow one would delay a revocation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter

from django.conf import settings
from django.db import Error as AnyDatabaseError

from controlplane import (
    background,
    desktops,
    driving,
    logs,
    metrics,
    presenters,
    streamrows,
    watch,
)
from controlplane.bridge import Bridge, Traffic
from controlplane.closecodes import CloseCode, code_of
from controlplane.dbthreads import DatabaseThreads
from controlplane.displaysocket import BrowserLeft, DisplaySocket, ReadAhead
from controlplane.exceptions import (
    ControlPlaneError,
    ProtocolError,
    TooSlow,
    UpstreamError,
)
from controlplane.gate import Gate
from controlplane.models import Workspace
from controlplane.presenters import Json
from controlplane.rfb.handshake import BrowserHandshake
from controlplane.streamrows import PROCESS, SERVER
from controlplane.tokens import Admission
from controlplane.upstream import Upstream
from controlplane.verdicts import Cause, Question, Seen, Verdict
from controlplane.wakeup import Wakeup

logger = logging.getLogger(__name__)

CLEAN_UP_SECONDS = 5.0
HELD_PING_SECONDS = 2.0  # while a key or button is down: how often to ask for a sign of life
HELD_SILENCE_SECONDS = 4.0  # ... and how long to wait for it before letting go
DEAD_AFTER_PINGS = 2.5
BROWSER_PATIENCE = 3  # times as long as a desktop gets: the page may still load noVNC, 20 s at most
MAX_PINGS = 64  # from a browser, in the two seconds between looks at its ends
MAX_TEXTS = 256  # that wait for a browser
INPUT_REPORT_SECONDS = 5.0

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
    """One open stream: bytes through the bridge, authority through the watch."""

    def __init__(self, socket: DisplaySocket, admission: Admission) -> None:
        self._socket = socket
        self._row_id: int = admission.stream.pk
        self._token = admission.token
        self._workspace: Workspace | None = admission.workspace  # until it has been dialled
        self._upstream_version = admission.workspace.upstream_version
        self._name = f"stream {self._row_id} of {admission.workspace.slug}"
        self._watch = watch.current()
        self._gate = Gate()
        self._gate_timer: asyncio.TimerHandle | None = None
        self._mode = "observe"
        self._driven_epoch: int | None = None
        self._claimed_epoch: int | None = None
        self._waits = False  # control is ours, but the previous controller has not let go yet
        self._control = ""  # as text: as a dict it would cost each idle stream two KiB more
        self._seen: Seen | None = None
        self._upstream: Upstream | None = None
        self._handshake: BrowserHandshake | None = None
        self._frame_pixels = 0
        self._bridge: Bridge | None = None
        self._bridged, self._answered = Wakeup(), Wakeup()
        self._texts: list[Json] = []
        self._teller: asyncio.Task[None] | None = None  # while there are texts
        self._read_ahead = None if socket.has_backpressure else ReadAhead(self._read)
        self._heard = self._asked = time.monotonic()
        self._pings = 0  # of the browser, since its ends were last looked after
        loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[Ending] = loop.create_future()

    def _join(self, admission: Admission) -> None:
        """The read that let us in answers the first question, unless it is outdated already.

        Whether a holder may drive is for the watch to find out.
        """
        self._watch.join(self)
        open_streams.add(self)
        view = admission.view
        is_holder = view.is_held_by(self._token.user, self._token.client_id)
        if is_holder or self._watch.has_newer(view):
            return self._watch.wake(self)
        viewer = presenters.Viewer(admission.user, self._token.client_id, admission.can)
        verdict = Verdict(view, control=presenters.control(view, viewer))
        return self.answer(verdict, admission.read_started)

    async def run(self, admission: Admission) -> None:
        """Serve until one side ends it; whatever happens, let go of keys and close the row."""
        logs.note(stream_id=self._row_id, user_id=self._token.user)
        logger.info("%s opened by %s", self._name, admission.user)
        metrics.reconnects.inc(admission.is_reconnect)
        self._join(admission)
        del admission
        work = [self._serve, self._receive]
        if self._read_ahead:
            work.append(self._read_ahead.run)
        tasks = [asyncio.create_task(each(), name=f"{each.__name__} {self._name}") for each in work]
        for task in tasks:
            task.add_done_callback(self._note_end)
        try:
            await self._over
        finally:
            self._gate.shut()
            self._let_go()
            self._watch.leave(self)
            ending = (
                self._over.result() if self._over.done() and not self._over.cancelled() else None
            )
            await asyncio.shield(self._clean_up(tasks, ending))

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

    async def _clean_up(self, tasks: list[asyncio.Task[None]], ending: Ending | None) -> None:
        code, reason = ending or (CloseCode.RESTARTING, "The server ends this stream.")
        if self._gate_timer:
            self._gate_timer.cancel()
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                tasks += [self._teller] if self._teller else []
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                # Together: neither end waits for the other to take its last bytes.
                ends = (self._close_upstream(), self._socket.close(code, reason))
                for error in await asyncio.gather(*ends, return_exceptions=True):
                    if isinstance(error, Exception):  # its row must be closed all the same
                        logger.error("%s: an end was not closed", self._name, exc_info=error)
                await threads.run(streamrows.close, self._row_id, code, self._new_input_age())
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
        if self._claimed_epoch is None:
            return
        try:
            await threads.run(driving.clear, [self._row_id], {self.workspace_id}, PROCESS)
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
                await self._answered.wait()
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
        self._heard = time.monotonic()
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
            self._pings += 1
            if self._pings > MAX_PINGS:
                raise ProtocolError("pings come too often")
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
        self._bridge = self._start_bridge(self._upstream)
        self._bridged.set()
        await self._bridge.from_browser(first)

    def _start_bridge(self, upstream: Upstream) -> Bridge:
        display = settings.DISPLAY
        bridge = Bridge(
            upstream,
            self._gate,
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

    def _say(self, text: Json) -> None:
        """Put a text for the page in line."""
        if self._over.done():
            return None
        if len(self._texts) >= MAX_TEXTS:
            return self._fail(TooSlow("the browser does not read what it is told"))
        self._texts.append(text)
        if self._teller is None:
            self._teller = asyncio.create_task(self._tell_all(), name=f"tell {self._name}")
            self._teller.add_done_callback(self._note_end)
        return None

    async def _tell_all(self) -> None:
        """Send what is in line; a quiet stream needs no task for that."""
        while self._texts:
            texts, self._texts = self._texts, []
            for text in texts:
                size = await self._socket.send_text(text)
                if self._bridge:
                    self._bridge.text_sent(size)
        self._teller = None

    # --- signs of life ----------------------------------------------------------------------------
    def look_after_ends(self) -> None:
        """The desktop may hang, the browser may be gone without a word."""
        self._pings = 0
        if not self._bridge:
            return
        try:
            self._bridge.check_desktop()
            if self._socket.has_text:  # a stock client has the server's websocket pings
                self._check_browser(self._bridge)
        except ControlPlaneError as error:
            self._fail(error)

    def _check_browser(self, bridge: Bridge) -> None:
        """Ask our own page for signs of life, and judge how long there were none."""
        now, interval = time.monotonic(), settings.DISPLAY.ping_seconds
        self._judge_silence(now - self._heard, interval * DEAD_AFTER_PINGS)
        if now - self._asked >= (HELD_PING_SECONDS if self._holds_input else interval) - 0.1:
            self._asked = now
            bridge.ask_browser()

    def _judge_silence(self, silence: float, dead_after: float) -> None:
        if silence > HELD_SILENCE_SECONDS and self._holds_input:
            self._let_go()
        if silence > dead_after:
            raise TooSlow(f"no sign of life from the browser for {silence:.0f} s")

    @property
    def _holds_input(self) -> bool:
        return self._bridge is not None and self._bridge.holds_input

    def _let_go(self) -> None:
        if self._bridge:
            self._bridge.let_go()

    # --- authority (watch.Watched) ----------------------------------------------------------------
    @property
    def workspace_id(self) -> int:
        """The workspace whose notices concern this stream."""
        return self._token.workspace

    @property
    def seat(self) -> tuple[int, int, str]:
        """Workspace, user and client_id: of two streams with the same, the newer one lives."""
        return self._token.workspace, self._token.user, self._token.client_id

    @property
    def seen_version(self) -> int:
        """The version of the lease that the newest answer rests on; -1 before the first."""
        return self._seen.version if self._seen else -1

    def question(self) -> Question:
        """What the next pass of the watch shall find out."""
        token = self._token
        return Question(
            stream_id=self._row_id,
            workspace_id=token.workspace,
            user_id=token.user,
            client_id=token.client_id,
            session_key=token.session_key,
            upstream_version=self._upstream_version,
            mode=self._mode,
            seen=self._seen,
            driven_epoch=self._driven_epoch,
            has_let_go=self._has_let_go,
            input_age=self._new_input_age(),
            pointer=self._bridge.pointer if self._bridge else None,
        )

    @property
    def mode(self) -> str:
        """What its browser may do, as far as it has been told: control or observe."""
        return self._mode

    @property
    def backlog_bytes(self) -> int:
        """What its browser has not read."""
        return self._bridge.backlog_bytes if self._bridge else 0

    def take_traffic(self) -> Traffic:
        """Return what it has moved since it was asked last."""
        return self._bridge.take_traffic() if self._bridge else Traffic()

    @property
    def _has_let_go(self) -> bool:
        """Whether nothing of ours reaches the desktop any more, key-ups included."""
        return not self._gate.is_open and (self._bridge is None or self._bridge.is_quiet)

    def _new_input_age(self) -> float | None:
        """Report each input for a while: a pass may fail."""
        newest = self._bridge.last_input if self._bridge else None
        age = time.monotonic() - newest if newest is not None else INPUT_REPORT_SECONDS
        return age if age < INPUT_REPORT_SECONDS else None

    def shut_gate(self) -> None:
        """A notice: something about control has changed. The read that follows may open again."""
        self._gate.shut()
        self._let_go()

    def answer(self, verdict: Verdict, started: float) -> None:
        """Move the gate to what the read found, and tell the page where that changes something."""
        if verdict.end:
            self.shut_gate()
            return self.end(*verdict.end)
        assert verdict.view is not None
        view = verdict.view
        self._gate.accepts_clipboard = view.lease.workspace.accepts_clipboard
        if verdict.may_drive:
            if not self._gate.allow(
                read_started=started,
                remaining=view.remaining,
                fence=settings.DISPLAY.fence_seconds,
            ):
                return self._watch.wake(self)  # the read is older than the last notice
            self._arm_timer()
        elif self._gate.is_open:
            self.shut_gate()
            self._watch.wake(self)  # so that the next holder need not wait for us
        if self._note_claim(verdict):
            return None  # it is looked at again as soon as that claim is decided
        self._tell(verdict)
        return None

    def _note_claim(self, verdict: Verdict) -> bool:
        """Return whether it is being claimed for the first time that this stream drives."""
        if verdict.wants_to_drive is None or verdict.wants_to_drive.epoch == self._claimed_epoch:
            return False
        self._claimed_epoch = verdict.wants_to_drive.epoch
        return True

    def _tell(self, verdict: Verdict) -> None:
        assert verdict.view is not None
        view = verdict.view
        self._seen = Seen.of(view)
        mode = "control" if self._gate.is_open else "observe"
        changed, self._mode = mode != self._mode, mode
        if changed and mode == "observe":
            self._let_go()  # the deadline may have passed without its timer having run
        is_first = not self._control
        if verdict.control:
            self._control = json.dumps(verdict.control, separators=(",", ":"))
        waits = verdict.wants_to_drive is not None and mode == "observe"
        began_to_wait, self._waits = waits and not self._waits, waits
        self._driven_epoch = view.lease.epoch if mode == "control" else None
        self._answered.set()
        if is_first:
            hello = {"type": "hello", "mode": mode, "control": verdict.control}
            self._say(hello | {"stream": self._row_id, "server": SERVER})
        elif changed or verdict.control:
            is_over = changed and mode == "observe" and verdict.may_drive
            self._tell_control(mode, self._why_shut if is_over else verdict.cause)
        if began_to_wait:
            self._tell_control(mode, Cause("waiting"))

    def _tell_control(self, mode: str, cause: Cause) -> None:
        self._say(
            {
                "type": "control",
                "mode": mode,
                "reason": cause.reason,
                "by": cause.by,
                "note": cause.note,
                "control": json.loads(self._control),
            }
        )

    @property
    def _why_shut(self) -> Cause:
        """Why a gate that no read has shut is shut: by which of its deadlines."""
        return Cause("fenced" if self._gate.is_fenced else "expired")

    def _arm_timer(self) -> None:
        if self._gate_timer:
            self._gate_timer.cancel()
        delay = max(0.0, self._gate.deadline - time.monotonic())
        self._gate_timer = asyncio.get_running_loop().call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        """The gate has shut by itself: the lease's end has come, or reads have failed too long."""
        if self._gate.is_open:
            return self._arm_timer()  # the timer came a little early
        if self._mode != "control":
            return None
        self._let_go()
        self._mode = "observe"
        self._tell_control("observe", self._why_shut)
        self._watch.wake(self)
        return None
