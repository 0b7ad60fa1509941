"""The lease of one workspace as the design tells it (§3), in plain Python, without a database.

Times are seconds since the model began. What leases.py does is held against this, call by call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

OK = "ok"


@dataclass(frozen=True, slots=True)
class Seat:
    """One tab of a person, or one process of a token."""

    name: str  # how others see who sits there
    client_id: str
    kind: str = "user"

    @property
    def login(self) -> str:
        """The login that its calls come with; a token has none."""
        return f"login of {self.name}" if self.kind == "user" else ""


@dataclass(frozen=True, slots=True)
class Happened:
    """A transition, as its event tells of it."""

    what: str
    who: str
    client_id: str
    epoch: int
    ended_epoch: int | None = None
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """Who has closed the workspace, and why."""

    by: str
    note: str


@dataclass(frozen=True, slots=True)
class Parked:
    """Whose control ended how, without being handed back."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class HandedBack:
    """What a person has told the agent, and in which epoch."""

    by: str
    outcome: str
    epoch: int


@dataclass
class LeaseModel:
    """Who has control, until when, and all that has happened."""

    resume_seconds: int
    now: int = 0
    epoch: int = 0
    version: int = 0
    seat: Seat | None = None  # of the newest epoch, whether it is over or not
    controller: str = "none"
    acquired_at: int | None = None
    kept_at: int | None = None
    expires_at: int | None = None
    ended_at: int | None = None
    reason: str = ""
    by: str = ""
    note: str = ""
    closing: Closing | None = None
    is_hidden: bool = False
    agent: str = ""  # that has not let go of it by itself
    parked: Parked | None = None
    wants_help: str = ""
    handed_back: HandedBack | None = None
    # What the world around it looks like.
    may_control: set[str] = field(default_factory=set)
    is_enabled: bool = True
    idle: int | None = None
    longest: int | None = None
    inputs: dict[Seat, int] = field(default_factory=dict)
    # What is told afterwards.
    happened: list[Happened] = field(default_factory=list)
    refusals: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    refused_in: set[tuple[str, str, str, int]] = field(default_factory=set)
    _is_changed: bool = False

    @property
    def is_held(self) -> bool:
        """Whether somebody has control: not ended, and its time lies ahead."""
        return self.controller != "none" and _is_after(self.expires_at, self.now)

    # --- Calls --------------------------------------------------------------------------------
    def acquire(self, seat: Seat, ttl: int, epoch: int | None = None, *, move: bool = False) -> str:
        """Return OK or the code of the refusal."""
        self._begin()
        code = self._may(seat) or (
            self._click(seat, ttl, move) if epoch is None else self._renew(seat, ttl, epoch)
        )
        return self._finish(seat, code)

    def release(self, seat: Seat, epoch: int | None = None) -> str:
        """A stale epoch never ends a newer lease; nothing held is no error."""
        self._begin()
        if not self.is_held or epoch not in {None, self.epoch}:
            return self._finish(seat, OK)
        if self.seat != seat:
            return self._finish(seat, self._held_by_whom(seat))
        self._end("released", by=seat.name)
        return self._finish(seat, OK)

    def hand_back(self, seat: Seat, outcome: str, epoch: int | None) -> str:
        """A person gives control, or a parked desktop, back to the agent that waits."""
        self._begin()
        if self.is_held and self.seat != seat:
            return self._finish(seat, self._held_by_whom(seat))
        if epoch not in {None, self.epoch}:
            return self._finish(seat, OK)
        if not self.agent:
            return self._finish(seat, "nothing_to_hand_back")
        if self.is_held:
            self._end("released", by=seat.name)
        elif refused := self._may(seat):
            return self._finish(seat, refused)
        self._is_changed, self.parked, self.wants_help = True, None, ""
        self.handed_back = HandedBack(seat.name, outcome, self.epoch)
        self._tell("handed_back", seat.name, seat.client_id, reason=outcome)
        return self._finish(seat, OK)

    def ask_for_help(self, seat: Seat, reason: str) -> str:
        """It waits for nobody, and changes nobody's control."""
        self._begin()
        if refused := self._may(seat):
            return self._finish(seat, refused)
        if (self.agent, self.wants_help) != (seat.name, reason):
            self._is_changed, self.agent, self.wants_help = True, seat.name, reason
            self._tell("help_asked", seat.name, seat.client_id, note=reason)
        return self._finish(seat, OK)

    def withdraw_help(self, seat: Seat) -> str:
        """Only by who has asked."""
        self._begin()
        if self.wants_help and self.agent == seat.name:
            self._is_changed, self.wants_help = True, ""
            if self.controller == "agent" and self.seat:
                self.agent = self.seat.name
            self._tell("help_withdrawn", seat.name, seat.client_id)
        return self._finish(seat, OK)

    def free(self, by: str) -> bool:
        """Return whether it was parked."""
        self._begin()
        was_parked = self.parked is not None
        if was_parked:
            self._is_changed, self.parked = True, None
            self._tell("freed", by, "")
        self._commit()
        return was_parked

    def keep(self, seat: Seat, ttl: int, epoch: int) -> str:
        """Limits count anew, for who has control and may have it."""
        self._begin()
        if not (self.is_held and self.seat == seat and self.epoch == epoch):
            return self._finish(seat, self._why(seat, epoch))
        if refused := self._may(seat):
            return self._finish(seat, refused)
        self.kept_at = self.now
        self._extend(ttl)
        self._tell("kept", seat.name, seat.client_id)
        return self._finish(seat, OK)

    def hide(self, seat: Seat, epoch: int, hidden: bool) -> str:
        """Who has control hides the desktop; that ends with control, whatever ends it."""
        self._begin()
        if not (self.is_held and self.seat == seat and self.epoch == epoch):
            return self._finish(seat, self._why(seat, epoch))
        if refused := self._may(seat):
            return self._finish(seat, refused)
        if hidden != self.is_hidden:
            self._is_changed, self.is_hidden = True, hidden
            self._tell("hidden" if hidden else "shown", seat.name, seat.client_id)
        return self._finish(seat, OK)

    def hand_over(self, giver: Seat | None, to: Seat, ttl: int, epoch: int) -> bool:
        """One write, if that epoch is the giver's and still lives, and the other may have it."""
        self._begin()
        is_givers = self.is_held and self.epoch == epoch and giver in {None, self.seat}
        done = is_givers and self.seat != to and not self._may(to)
        if done:
            self._replace(to, ttl, "handed_over")
        self._commit()
        return done

    def force_release(self, by: str, note: str, epoch: int | None = None) -> bool:
        """Return whether anybody had control (in that epoch)."""
        self._begin()
        done = self.is_held and epoch in {None, self.epoch}
        if done:
            self._end("forced", by=by, note=note)
        self._commit()
        return done

    def close(self, by: str, note: str) -> bool:
        """Nobody has control, and nobody can have it until it is opened again."""
        self._begin()
        was_held = self.is_held
        if was_held:
            self._end("forced", by=by, note=note)
        self.closing = Closing(by, note)
        self._is_changed = True
        self._tell("closed", by, "", note=note)
        self._commit()
        return was_held

    def open_again(self, by: str) -> bool:
        """Return whether it was closed."""
        self._begin()
        was_closed = self.closing is not None
        if was_closed:
            self.closing = None
            self._is_changed = True
            self._tell("opened", by, "")
        self._commit()
        return was_closed

    def end_lost_access(self, login_ended: str = "") -> int:
        """Return how many leases ended: of who may not control any more, or of that login."""
        if not self.is_held:
            return 0  # no candidate
        self._begin()
        ended = 0
        logged_out = login_ended and self.seat and self.seat.login == login_ended
        if self.is_held and self.seat and (self._may(self.seat) or logged_out):
            self._end("access_ended", by="")
            ended = 1
        self._commit()
        return ended

    def end_overdue(self) -> None:
        """Record what time alone has ended."""
        self._begin()
        self._commit()

    # --- Rules --------------------------------------------------------------------------------
    def lives_on_as(self, epoch: int) -> int:
        """The epoch that came out of it by resumptions, whose answers may have been lost."""
        resumed = {each.epoch for each in self.happened if each.what == "resumed"}
        while epoch + 1 in resumed:
            epoch += 1
        return epoch

    def _may(self, seat: Seat) -> str:
        if seat.name not in self.may_control:
            return "forbidden"
        return "" if self.is_enabled else "display_not_enabled"

    def _click(self, seat: Seat, ttl: int, move: bool) -> str:
        if self.closing:
            return "closed"
        if not self.is_held:
            if self.parked and seat.kind == "agent":
                return "parked"
            return self._start(seat, ttl, "acquired")
        if self.seat == seat:
            return self._extend(ttl)
        if (self.controller, seat.kind) == ("agent", "user"):
            return self._replace(seat, ttl, "preempted")
        refused = self._held_by_whom(seat)
        if move and refused == "held_elsewhere":
            return self._replace(seat, ttl, "moved")
        if (self.controller, seat.kind) == ("user", "agent"):
            return "human_in_control"
        return refused

    def _renew(self, seat: Seat, ttl: int, epoch: int) -> str:
        epoch = self.lives_on_as(epoch)
        if epoch == self.epoch and self.seat == seat:
            if self.is_held:
                return self._extend(ttl)
            if self._may_resume():
                return "closed" if self.closing else self._start(seat, ttl, "resumed")
        return self._why(seat, epoch)

    def _may_resume(self) -> bool:
        """Expired lately, and it would not end at once by a limit that goes on counting."""
        if self.reason != "expired" or self.expires_at is None:
            return False
        is_late = self.now - self.expires_at > self.resume_seconds
        return not is_late and not self._is_over(self._longest_ends) and not self._is_idle()

    def _why(self, seat: Seat, epoch: int) -> str:
        if epoch == self.epoch and self.is_held:
            return self._held_by_whom(seat)
        ends = [each.reason for each in self.happened if each.ended_epoch == epoch]
        if ends and ends[0] != "expired":
            return ends[0]
        return "taken" if self.epoch > epoch else "expired"

    def _held_by_whom(self, seat: Seat) -> str:
        return "held_elsewhere" if self.seat and self.seat.name == seat.name else "held"

    @property
    def _longest_ends(self) -> int | None:
        if self.longest is None or self.kept_at is None:
            return None
        return self.kept_at + self.longest

    def _is_over(self, end: int | None) -> bool:
        return end is not None and end <= self.now

    def _is_idle(self) -> bool:
        if self.idle is None or self.kept_at is None or self.seat is None:
            return False
        newest = max(self.kept_at, self.inputs.get(self.seat, self.kept_at))
        return self._is_over(newest + self.idle)

    # --- Changes ------------------------------------------------------------------------------
    def _begin(self) -> None:
        """Whoever looks records what time has ended."""
        self._is_changed = False
        if self.controller == "none":
            return
        if not self.is_held:
            limit = self._longest_ends
            reached = limit is not None and not _is_after(limit, self.expires_at or 0)
            self._end("max_hold" if reached else "expired", by="", at=self.expires_at)
        elif self._is_over(self._longest_ends):
            self._end("max_hold", by="")
        elif self._is_idle():
            self._end("idle", by="")

    def _finish(self, seat: Seat, code: str) -> str:
        if code != OK:
            key = (seat.name, seat.client_id, code)
            self.refusals[key] += 1
            self.refused_in.add((*key, self.now // 60))
        self._commit()
        return code

    def _commit(self) -> None:
        self.version += self._is_changed

    def _start(
        self, seat: Seat, ttl: int, what: str, *, ended_epoch: int | None = None, reason: str = ""
    ) -> str:
        self._is_changed, self.is_hidden = True, False
        self.epoch += 1
        self.seat, self.controller = seat, seat.kind
        if what != "resumed":
            self.acquired_at = self.kept_at = self.now
        self.expires_at = self._within_longest(self.now + ttl)
        self.ended_at, self.reason, self.by, self.note = None, "", "", ""
        self.parked = None
        if seat.kind == "user":
            self.handed_back = None
        elif not self.wants_help:
            self.agent = seat.name
        self._tell(what, seat.name, seat.client_id, ended_epoch=ended_epoch, reason=reason)
        return OK

    def _replace(self, seat: Seat, ttl: int, what: str) -> str:
        return self._start(seat, ttl, what, ended_epoch=self.epoch, reason=what)

    def _extend(self, ttl: int) -> str:
        self._is_changed = True
        self.expires_at = self._within_longest(max(self.expires_at or 0, self.now + ttl))
        return OK

    def _within_longest(self, end: int) -> int:
        limit = self._longest_ends
        return end if limit is None else min(end, limit)

    def _end(self, reason: str, *, by: str, note: str = "", at: int | None = None) -> None:
        self._is_changed, self.is_hidden = True, False
        was_persons, self.controller = self.controller == "user", "none"
        self.ended_at = self.now if at is None else at
        self.reason, self.by, self.note = reason, by, note
        client_id = self.seat.client_id if self.seat else ""
        self._tell(reason, by, client_id, ended_epoch=self.epoch, reason=reason, note=note)
        if reason == "released" and not was_persons and self.seat and self.agent == self.seat.name:
            self.agent = self.wants_help = ""
        if reason != "released" and was_persons and self.agent and self.seat:
            self.parked = Parked(self.seat.name, reason)
            self._tell("parked", self.seat.name, "", reason=reason)

    def _tell(
        self,
        what: str,
        who: str,
        client_id: str,
        *,
        ended_epoch: int | None = None,
        reason: str = "",
        note: str = "",
    ) -> None:
        event = Happened(what, who, client_id, self.epoch, ended_epoch, reason, note)
        self.happened.append(event)


def _is_after(at: int | None, moment: int) -> bool:
    return at is not None and at > moment
