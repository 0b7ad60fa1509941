"""Control of one desktop while a ``with`` block lasts: kept, watched, and released at its end."""

from __future__ import annotations

import logging
import threading
from typing import Self

from desktopctl_client.api import Api, now
from desktopctl_client.errors import (
    ControlLost,
    DesktopctlError,
    Refused,
    Unavailable,
)
from desktopctl_client.polling import Backoff, Poller
from desktopctl_client.states import ControlState, LastEnd

logger = logging.getLogger("desktopctl_client")

_ENDING_SECONDS = 1.0  # how long a block waits for its threads; they end by themselves in any case
_ACCESS_ENDED = {401, 403, 404}  # HTTP statuses


class Control:
    """Control of a desktop in one epoch. Made by ``Desktop.control``; used by ``with``.

    One thread renews it, another one long-polls, so that a loss is known as soon as the server
    tells. Without word from the server it ends with the lease, by a clock of this machine.
    """

    def __init__(
        self, api: Api, slug: str, ttl: float | None, *, move: bool, in_use: dict[str, Control]
    ) -> None:
        self._api = api
        self._slug = slug
        self._ttl = ttl
        self._move = move
        self._in_use = in_use
        self._changed = threading.Condition()  # guards all below
        self._state: ControlState | None = None
        self._lost: LastEnd | None = None
        self._epoch = 0
        self._deadline = 0.0
        self._threads: list[threading.Thread] = []

    # --- The block --------------------------------------------------------------------------
    def __enter__(self) -> Self:
        """Take control. Raises Refused (``human_in_control``, ``parked``, ``held``, …)."""
        if self._state or self._in_use.setdefault(self._slug, self) is not self:
            raise RuntimeError(f"{self._slug}: this client's control is in use; leave that block")
        asked_at = now()
        try:
            self._state, renew_after = self._api.acquire(self._slug, self._ttl, move=self._move)
        except BaseException:
            del self._in_use[self._slug]
            raise
        self._epoch = self._state.epoch
        self._deadline = asked_at + self._state.expires_in
        for work in (lambda: self._keep_renewing(renew_after), self._watch):
            thread = threading.Thread(target=work, name=f"desktopctl {self._slug}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        """Release this epoch, unless it is over. Raises Unavailable where that cannot be told.

        Then control runs out by itself. An exception of the block goes on, with a note of it.
        """
        with self._changed:
            is_held = self.is_held
            self._lose(LastEnd("released", None, None))
        try:
            if is_held:
                self._api.release(self._slug, self.epoch)
        except DesktopctlError as problem:
            if error is None:
                raise
            error.add_note(f"Control was not released, and runs out by itself: {problem}")
        finally:
            del self._in_use[self._slug]
            for thread in self._threads:
                thread.join(_ENDING_SECONDS)

    # --- Facts ------------------------------------------------------------------------------
    @property
    def state(self) -> ControlState:
        """How control is, as the server told it last."""
        if self._state is None:
            raise RuntimeError("control is taken by “with”")
        return self._state

    @property
    def epoch(self) -> int:
        """The number of this time in control; every change of holder makes a new one."""
        return self._epoch

    @property
    def is_held(self) -> bool:
        """Whether control is still ours, as far as is known."""
        try:
            self.check()
        except ControlLost:
            return False
        return True

    def check(self) -> None:
        """Raise ControlLost once control is lost: call it before each thing that is done."""
        with self._changed:
            if self._lost is None and now() >= self._deadline:
                self._lose(LastEnd("expired", None, None))
            if self._lost:
                raise ControlLost(self._lost.reason, self._lost.by, self._lost.note)

    # --- Waiting ----------------------------------------------------------------------------
    def sleep(self, seconds: float) -> None:
        """Wait as time.sleep does, but raise ControlLost as soon as it is known."""
        until = now() + seconds
        with self._changed:
            self.check()
            while (left := until - now()) > 0:
                self._changed.wait(min(left, self._deadline - now()))
                self.check()

    def request_human(self, reason: str) -> None:
        """Ask for a person, who is told ``reason``. Control is kept until one takes over."""
        self.check()
        self._see(self._api.request_human(self._slug, reason))

    def _goes_on(self, seconds: float) -> bool:
        """Whether control is still held after so many seconds; returns at once when it is not."""
        try:
            self.sleep(seconds)
        except ControlLost:
            return False
        return True

    # --- The two threads --------------------------------------------------------------------
    def _keep_renewing(self, renew_after: float) -> None:
        backoff, pause = Backoff(), renew_after
        while self._goes_on(pause):
            asked_at = now()
            try:
                state, pause = self._api.acquire(self._slug, self._ttl, epoch=self.epoch)
            except Unavailable as error:
                pause = backoff.after(error)
                logger.warning("control was not renewed: %s; again in %.1f s", error, pause)
            except Refused as refusal:
                self._hear(refusal)
            else:
                backoff.reset()
                self._renewed(state, asked_at)

    def _renewed(self, state: ControlState, asked_at: float) -> None:
        with self._changed:
            if self.is_held and state.epoch == self.epoch:
                self._deadline = max(self._deadline, asked_at + state.expires_in)
                self._see(state)
                return
        # The answer came after the end: nobody works under this control, so nobody shall wait.
        try:
            self._api.release(self._slug, state.epoch)
        except DesktopctlError as error:
            logger.warning("control that came back too late was not released: %s", error)

    def _watch(self) -> None:
        poller = Poller(self._api, self._slug)
        while self._goes_on(poller.pause):
            try:
                state = poller.next(self.state)
            except Refused as refusal:
                self._hear(refusal)
            else:
                if state:
                    self._see(state)

    # --- What they hear ---------------------------------------------------------------------
    def _see(self, state: ControlState) -> None:
        with self._changed:
            if state.version < self.state.version:
                return  # an answer that has been overtaken by a newer one
            self._state = state
            if not state.this_client or state.epoch != self._epoch:
                self._lose(state.last_end or LastEnd("taken", state.controlled_by, None))
            self._changed.notify_all()

    def _hear(self, refusal: Refused) -> None:
        """Whatever the server refuses now, it does not stand for our control any more."""
        if refusal.status in _ACCESS_ENDED:
            self._lose(LastEnd("access_ended", None, refusal.message))
            return
        end = refusal.state.last_end if refusal.state else None
        if end is None or end.reason != refusal.code:
            end = LastEnd(refusal.code, None, refusal.message)
        self._lose(end)

    def _lose(self, end: LastEnd) -> None:
        """End it here; the first end that is heard of counts."""
        with self._changed:
            if self._lost is None:
                self._lost = end
                logger.info("control of %s: %s", self._slug, end)
            self._changed.notify_all()
