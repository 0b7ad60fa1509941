"""What one stream may do: from what the watch finds out to its gate, and to its page.

Each answer of the watch moves the gate, and is told to the page where it changes something. Between
two answers, a notice may shut the gate, or one of the gate's own deadlines: the lease's end, or the
fence. Whoever loses control by any of these lets go of the keys first, and is told then.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from django.conf import settings

from controlplane import presenters, watch
from controlplane.bridge import Bridge
from controlplane.closecodes import CloseCode
from controlplane.gate import Gate
from controlplane.leaseviews import LeaseView
from controlplane.presenters import Json
from controlplane.streamrows import SERVER
from controlplane.tokens import Admission
from controlplane.verdicts import Cause, Question, Seen, Verdict
from controlplane.wakeup import Wakeup

INPUT_REPORT_SECONDS = 5.0


class Authority:
    """A stream, as the watch sees it (watch.Watched): it alone moves the stream's gate.

    ``say`` puts a text for the page in line, ``end`` ends the stream; neither waits or raises.
    """

    __slots__ = (
        "_claimed_epoch",
        "_control",
        "_driven_epoch",
        "_end",
        "_mode",
        "_say",
        "_seen",
        "_stream_id",
        "_timer",
        "_token",
        "_upstream_version",
        "_waits",
        "_watch",
        "bridge",
        "gate",
        "known",
    )

    def __init__(
        self,
        admission: Admission,
        *,
        say: Callable[[Json], None],
        end: Callable[[CloseCode, str], None],
    ) -> None:
        self.gate = Gate()
        self.bridge: Bridge | None = None  # once there is one: what it holds down, it lets go of
        self.known = Wakeup()  # set by the first answer
        self._stream_id: int = admission.stream.pk
        self._token = admission.token
        self._upstream_version = admission.workspace.upstream_version
        self._say = say
        self._end = end
        self._watch = watch.current()
        self._timer: asyncio.TimerHandle | None = None
        self._mode = "observe"
        self._driven_epoch: int | None = None
        self._claimed_epoch: int | None = None
        self._waits = False  # control is ours, but the previous controller has not let go yet
        self._control = ""  # as text: as a dict it would cost each idle stream two KiB more
        self._seen: Seen | None = None

    def join(self, admission: Admission) -> None:
        """Be watched. The read that let us in is the first answer, unless it is outdated already.

        Whether a holder may drive is for the watch to find out.
        """
        self._watch.join(self)
        view, token = admission.view, self._token
        if view.is_held_by(token.user, token.client_id) or self._watch.has_newer(view):
            return self._watch.wake(self)
        viewer = presenters.Viewer(admission.user, token.client_id, admission.can)
        verdict = Verdict(view, control=presenters.control(view, viewer))
        return self.answer(verdict, admission.read_started)

    def resign(self) -> None:
        """The stream ends: shut its gate for good, let go of its keys, be watched no more."""
        self.shut_gate()
        if self._timer:
            self._timer.cancel()
        self._watch.leave(self)

    @property
    def mode(self) -> str:
        """What the browser may do, as far as it has been told: control or observe."""
        return self._mode

    @property
    def has_claimed(self) -> bool:
        """Whether the stream's row may say that it drives."""
        return self._claimed_epoch is not None

    @property
    def input_age(self) -> float | None:
        """Seconds since the newest input, told for a while: a pass that reports it may fail."""
        newest = self.bridge.last_input if self.bridge else None
        age = time.monotonic() - newest if newest is not None else INPUT_REPORT_SECONDS
        return age if age < INPUT_REPORT_SECONDS else None

    # --- what the watch asks (watch.Watched) ------------------------------------------------------
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
            stream_id=self._stream_id,
            workspace_id=token.workspace,
            user_id=token.user,
            client_id=token.client_id,
            session_key=token.session_key,
            upstream_version=self._upstream_version,
            mode=self._mode,
            seen=self._seen,
            driven_epoch=self._driven_epoch,
            has_let_go=self._has_let_go,
            input_age=self.input_age,
            pointer=self.bridge.pointer if self.bridge else None,
        )

    @property
    def _has_let_go(self) -> bool:
        """Whether nothing of ours reaches the desktop any more, key-ups included."""
        return not self.gate.is_open and (self.bridge is None or self.bridge.is_quiet)

    # --- what moves the gate (watch.Watched, and the gate's own deadline) -------------------------
    def shut_gate(self) -> None:
        """A notice: something about control has changed. The read that follows may open again."""
        self.gate.shut()
        self._let_go()

    def answer(self, verdict: Verdict, started: float) -> None:
        """Move the gate to what the read found, and tell the page where that changes something."""
        if verdict.end:
            self.shut_gate()
            return self._end(*verdict.end)
        assert verdict.view is not None
        self.gate.accepts_clipboard = verdict.view.lease.workspace.accepts_clipboard
        if verdict.may_drive:
            if not self._open_gate(verdict.view, started):
                return self._watch.wake(self)  # the read is older than the last notice
        elif self.gate.is_open:
            self.shut_gate()
            self._watch.wake(self)  # so that the next holder need not wait for us
        if self._note_claim(verdict):
            return None  # it is looked at again as soon as that claim is decided
        self._tell(verdict)
        return None

    def _open_gate(self, view: LeaseView, started: float) -> bool:
        """Open it, or keep it open for longer; return whether the read may do so."""
        is_new_enough = self.gate.allow(
            read_started=started,
            remaining=view.remaining,
            fence=settings.DISPLAY.fence_seconds,
        )
        if is_new_enough:
            self._arm_timer()
        return is_new_enough

    def _note_claim(self, verdict: Verdict) -> bool:
        """Return whether it is being claimed for the first time that this stream drives."""
        if verdict.wants_to_drive is None or verdict.wants_to_drive.epoch == self._claimed_epoch:
            return False
        self._claimed_epoch = verdict.wants_to_drive.epoch
        return True

    def _arm_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        delay = max(0.0, self.gate.deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        """The gate has shut by itself: the lease's end has come, or reads have failed too long."""
        if self.gate.is_open:
            return self._arm_timer()  # the timer came a little early
        if self._follow_gate():
            self._tell_control(self._why_shut)
            self._watch.wake(self)
        return None

    def _follow_gate(self) -> bool:
        """Set the mode to what the gate says now; return whether that is another one."""
        before, self._mode = self._mode, "control" if self.gate.is_open else "observe"
        if before == "control" and self._mode == "observe":
            self._let_go()  # the deadline may have passed without its timer having run
        return before != self._mode

    def _let_go(self) -> None:
        if self.bridge:
            self.bridge.let_go()

    # --- what the page is told --------------------------------------------------------------------
    def _tell(self, verdict: Verdict) -> None:
        assert verdict.view is not None
        self._seen = Seen.of(verdict.view)
        changed = self._follow_gate()
        self._driven_epoch = verdict.view.lease.epoch if self._mode == "control" else None
        is_first = not self._control
        if verdict.control:
            self._control = json.dumps(verdict.control, separators=(",", ":"))
        self.known.set()
        if is_first:
            hello = {"type": "hello", "mode": self._mode, "control": verdict.control}
            self._say(hello | {"stream": self._stream_id, "server": SERVER})
        elif changed or verdict.control:
            is_over = changed and self._mode == "observe" and verdict.may_drive
            self._tell_control(self._why_shut if is_over else verdict.cause)
        if self._begins_to_wait(verdict):
            self._tell_control(Cause("waiting"))

    def _begins_to_wait(self, verdict: Verdict) -> bool:
        """Whether control has just become ours, while the previous controller's input may come."""
        waits = verdict.wants_to_drive is not None and self._mode == "observe"
        before, self._waits = self._waits, waits
        return waits and not before

    def _tell_control(self, cause: Cause) -> None:
        self._say(
            {
                "type": "control",
                "mode": self._mode,
                "reason": cause.reason,
                "by": cause.by,
                "note": cause.note,
                "control": json.loads(self._control),
            }
        )

    @property
    def _why_shut(self) -> Cause:
        """Why a gate that no read has shut is shut: by which of its deadlines."""
        return Cause("fenced" if self.gate.is_fenced else "expired")
