"""The authority of a stream: what an answer does to the gate, to held keys, and to its page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.authority import Authority
from controlplane.closecodes import CloseCode
from controlplane.driving import Driver
from controlplane.gate import Gate
from controlplane.verdicts import Cause, Verdict
from tests.support.timing import Clock


class FakeBridge:
    """Holds a key until it is told to let go."""

    def __init__(self) -> None:
        self.holds_input = True
        self.last_input = None

    def let_go(self) -> None:
        self.holds_input = False


class Rig:
    """The authority of a holder's stream, with a clock, a page and a bridge of the test's."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[dict[str, Any]] = []
        self.ended: list[tuple[CloseCode, str]] = []
        admission: Any = SimpleNamespace(
            stream=SimpleNamespace(pk=7),
            workspace=SimpleNamespace(upstream_version=0),
            token=SimpleNamespace(workspace=1, user=2, client_id="tab-00000001", session_key=""),
        )
        self.authority: Any = Authority(
            admission, say=self.said.append, end=lambda *ending: self.ended.append(ending)
        )
        self.authority.gate = Gate(self.clock)
        self.authority._watch = SimpleNamespace(
            wake=lambda *_: None, leave=lambda *_: None, join=lambda *_: None
        )

    @property
    def gate(self) -> Gate:
        gate: Gate = self.authority.gate
        return gate

    def hold_a_key(self) -> FakeBridge:
        self.authority.bridge = FakeBridge()
        bridge: FakeBridge = self.authority.bridge
        return bridge

    def answer(self, remaining: float, started: float, **more: Any) -> None:
        """Tell of a read: the lease is the stream's own for so long, or nobody's."""
        workspace = SimpleNamespace(accepts_clipboard=True)
        view: Any = SimpleNamespace(
            lease=SimpleNamespace(version=3, epoch=1, workspace=workspace),
            remaining=remaining,
            is_held=remaining > 0,
            is_holder_connected=True,
            is_held_by=lambda *_: remaining > 0,
            warns=None,
            requests=(),
        )
        told = {"view": view, "may_drive": remaining > 0, "control": {"epoch": 1}} | more
        self.authority.answer(Verdict(**told), started)


@pytest.fixture
async def rig() -> Any:
    rig = Rig()
    yield rig
    rig.authority.resign()


async def test_a_holders_gate_is_open_until_the_lease_ends(rig: Rig) -> None:
    rig.answer(remaining=5, started=rig.clock.now)
    assert rig.gate.is_open
    rig.clock.now += 5
    assert not rig.gate.is_open


@pytest.mark.parametrize("remaining", [0.0, 0.5], ids=["not held", "held, but over by now"])
async def test_an_answer_between_the_deadline_and_its_timer_lets_go_of_what_is_held(
    remaining: float, rig: Rig
) -> None:
    rig.answer(remaining=5, started=rig.clock.now)
    bridge = rig.hold_a_key()
    asked = rig.clock.now + 4.4
    rig.clock.now += 5.1  # the loop was busy: the timer has not run yet
    rig.answer(remaining=remaining, started=asked)
    assert not rig.gate.is_open
    assert not bridge.holds_input
    assert [text["mode"] for text in rig.said] == ["control", "observe"]
    assert remaining == 0 or rig.said[-1]["reason"] == "expired", "nobody else says why"


async def test_an_answer_that_a_notice_has_overtaken_opens_nothing(rig: Rig) -> None:
    started = rig.clock.now
    rig.clock.now += 0.01
    rig.authority.shut_gate()
    rig.answer(remaining=300, started=started)
    assert not rig.gate.is_open
    assert rig.said == []


async def test_an_answer_that_ends_the_stream_shuts_its_gate_first(rig: Rig) -> None:
    rig.answer(remaining=300, started=rig.clock.now)
    bridge = rig.hold_a_key()
    rig.authority.answer(Verdict(end=(CloseCode.FORBIDDEN, "You are signed out.")), rig.clock.now)
    assert (rig.gate.is_open, bridge.holds_input) == (False, False)
    assert rig.ended == [(CloseCode.FORBIDDEN, "You are signed out.")]


async def test_who_has_to_wait_for_the_previous_controller_is_told_so_once(rig: Rig) -> None:
    rig.answer(remaining=0, started=rig.clock.now)
    turn = Driver(stream_id=7, workspace_id=1, user_id=2, client_id="tab-00000001", epoch=1)
    waiting = {"may_drive": False, "wants_to_drive": turn, "cause": Cause("acquired")}
    rig.answer(remaining=300, started=rig.clock.now, **waiting)
    assert len(rig.said) == 1, "its claim is decided first"
    rig.answer(remaining=300, started=rig.clock.now, **waiting)
    rig.answer(remaining=300, started=rig.clock.now, **waiting)
    reasons = [text.get("reason") for text in rig.said]
    assert reasons == [None, "acquired", "waiting", "acquired"]
    assert {text["mode"] for text in rig.said} == {"observe"}
