"""A stream between its watch and its bridge: what an answer does to the gate and to held keys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.gate import Gate
from controlplane.streams import Stream
from controlplane.verdicts import Verdict
from tests.support.timing import Clock


class FakeBridge:
    """Holds a key until it is told to let go."""

    def __init__(self) -> None:
        self.holds_input = True
        self.last_input = None

    def let_go(self) -> None:
        self.holds_input = False


@pytest.fixture
async def stream() -> Any:
    """The stream of a holder, with a clock and a bridge of the test's."""
    socket: Any = SimpleNamespace(has_backpressure=True, has_text=True)
    token = SimpleNamespace(workspace=1, user=2, client_id="tab-00000001", session_key="")
    admission: Any = SimpleNamespace(
        stream=SimpleNamespace(pk=7),
        workspace=SimpleNamespace(slug="desk", upstream_version=0),
        token=token,
    )
    stream: Any = Stream(socket, admission)
    stream.clock = Clock()
    stream._gate = Gate(stream.clock)
    stream._watch = SimpleNamespace(wake=lambda *_: None)
    yield stream
    if stream._gate_timer:
        stream._gate_timer.cancel()


def answer(stream: Any, remaining: float, started: float) -> None:
    """Tell the stream of a read: the lease is its own for so long, or nobody's."""
    workspace = SimpleNamespace(accepts_clipboard=True)
    lease = SimpleNamespace(version=3, epoch=1, workspace=workspace)
    view: Any = SimpleNamespace(
        lease=lease,
        remaining=remaining,
        is_held=remaining > 0,
        is_holder_connected=True,
        is_held_by=lambda *_: remaining > 0,
        warns=None,
        requests=(),
    )
    stream.answer(Verdict(view, remaining > 0, control={"epoch": 1}), started)


async def test_a_holders_gate_is_open_until_the_lease_ends(stream: Any) -> None:
    answer(stream, remaining=5, started=stream.clock.now)
    assert stream._gate.is_open
    stream.clock.now += 5
    assert not stream._gate.is_open


@pytest.mark.parametrize("remaining", [0.0, 0.5], ids=["not held", "held, but over by now"])
async def test_an_answer_between_the_deadline_and_its_timer_lets_go_of_what_is_held(
    remaining: float, stream: Any
) -> None:
    answer(stream, remaining=5, started=stream.clock.now)
    stream._bridge = FakeBridge()
    asked = stream.clock.now + 4.4
    stream.clock.now += 5.1  # the loop was busy: the timer has not run yet
    answer(stream, remaining=remaining, started=asked)
    assert not stream._gate.is_open
    assert not stream._bridge.holds_input
    assert [text["mode"] for text in stream._texts] == ["control", "observe"]
    assert remaining == 0 or stream._texts[-1]["reason"] == "expired", "nobody else says why"


async def test_an_answer_that_a_notice_has_overtaken_opens_nothing(stream: Any) -> None:
    started = stream.clock.now
    stream.clock.now += 0.01
    stream.shut_gate()
    answer(stream, remaining=300, started=started)
    assert not stream._gate.is_open
    assert stream._texts == []
