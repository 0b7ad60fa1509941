"""The gate: two deadlines, and reads that can never undo a shut that came after they began."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gate import Gate
from tests.support.timing import Clock

LEASE = 300.0
FENCE = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(clock)


def allow(gate: Gate, started: float, remaining: float = LEASE, fence: float = FENCE) -> bool:
    return gate.allow(read_started=started, remaining=remaining, fence=fence)


def test_a_new_gate_is_shut_and_no_lease_was_ever_lost_sight_of(gate: Gate) -> None:
    assert not gate.is_open
    assert not gate.is_fenced


def test_a_new_gate_lets_no_clipboard_pass(gate: Gate) -> None:
    assert gate.accepts_clipboard is False


def test_a_read_that_saw_the_lease_opens_it(gate: Gate, clock: Clock) -> None:
    assert allow(gate, clock.now)
    assert gate.is_open


def test_it_shuts_by_itself_when_the_lease_ends(gate: Gate, clock: Clock) -> None:
    allow(gate, clock.now, remaining=5)
    clock.now += 4.999
    assert gate.is_open
    clock.now += 0.001
    assert not gate.is_open
    assert not gate.is_fenced


def test_it_shuts_by_itself_when_reads_have_failed_for_too_long(gate: Gate, clock: Clock) -> None:
    allow(gate, clock.now)
    clock.now += FENCE
    assert not gate.is_open
    assert gate.is_fenced


def test_where_lease_and_fence_end_in_the_same_moment_the_lease_has_ended(
    gate: Gate, clock: Clock
) -> None:
    allow(gate, clock.now, remaining=FENCE)
    clock.now += FENCE
    assert not gate.is_open
    assert not gate.is_fenced


def test_the_lease_is_counted_from_before_the_read_was_sent(gate: Gate, clock: Clock) -> None:
    started = clock.now
    clock.now += 3  # a slow database
    allow(gate, started, remaining=5)
    clock.now += 2
    assert not gate.is_open


def test_a_read_that_began_before_a_shut_does_not_open_it_again(gate: Gate, clock: Clock) -> None:
    started = clock.now
    clock.now += 0.5
    gate.shut()
    clock.now += 0.5
    assert not allow(gate, started)
    assert not gate.is_open


def test_a_read_that_began_in_the_very_moment_of_a_shut_does_not_open_it(
    gate: Gate, clock: Clock
) -> None:
    gate.shut()
    assert not allow(gate, clock.now)


def test_a_read_that_began_after_the_shut_opens_it_again(gate: Gate, clock: Clock) -> None:
    allow(gate, clock.now)
    gate.shut()
    assert not gate.is_open
    clock.now += 0.001
    assert allow(gate, clock.now)
    assert gate.is_open


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.floats(0.001, 20)),
            st.tuples(st.just("read"), st.floats(0, 20)),
            st.tuples(st.just("shut"), st.just(0.0)),
        ),
        max_size=40,
    )
)
def test_it_is_open_only_under_a_read_newer_than_the_last_shut(
    steps: list[tuple[str, float]],
) -> None:
    clock = Clock()
    gate = Gate(clock)
    last_shut = newest_read = -float("inf")
    for step, amount in steps:
        if step == "pass":
            clock.now += amount
        elif step == "shut":
            gate.shut()
            last_shut = clock.now
        elif allow(gate, clock.now - amount):
            newest_read = clock.now - amount
        if gate.is_open:
            assert newest_read > last_shut
            assert clock.now < newest_read + FENCE
