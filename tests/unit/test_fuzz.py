"""Hostile ends, made up by Hypothesis: nothing escapes or grows, and every end has a code."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane import upstream
from controlplane.bridge import Bridge
from controlplane.closecodes import CloseCode, code_of
from controlplane.exceptions import ProtocolError, UpstreamError
from controlplane.gate import Gate
from controlplane.rfb.handshake import BrowserHandshake, UpstreamHandshake
from controlplane.upstream import Upstream
from tests.support.rfb import REQUEST, key, pointer
from tests.support.vnc_server import Recorded

EXAMPLES = 400
CLIPBOARD_BYTES = 256 * 1024
SERVER_INIT = struct.pack(">HH", 800, 600) + bytes(16) + struct.pack(">I", 4) + b"desk"


class Desktop(Upstream):
    """An upstream whose bytes come from a test. What it is sent is read by a parser of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = Recorded()
        self.reads = True

    @property
    def is_writable(self) -> bool:
        return self.reads

    def write(self, data: bytes) -> None:
        self.recorded.take(data)

    async def close(self) -> None:
        """Nothing to close."""

    def says(self, data: bytes) -> None:
        self._deliver(data)

    def leaves(self) -> None:
        self._lose(UpstreamError("stream", "the desktop closed"))

    @property
    def kept(self) -> int:
        return len(self._early)


def cut(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(each % (len(data) + 1) for each in cuts), len(data)]
    return (data[start:end] for start, end in pairwise(edges))


CUTS = st.lists(st.integers(0, 10**6), max_size=12)

# --- Desktops -------------------------------------------------------------------------------------
WELL = [
    *(b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n", b"RFB 003.889\n"),
    *(b"\x01\x01", b"\x01\x02", b"\x02\x01\x02", b"\x00", b"\x00\x00\x00\x01", b"\x00\x00\x00\x02"),
    *(bytes(4), bytes(range(16)), SERVER_INIT, struct.pack(">I", 3) + b"bad"),
]
HOSTILE_SERVER = st.lists(st.one_of(st.sampled_from(WELL), st.binary(max_size=80)), max_size=9)


@settings(max_examples=EXAMPLES)
@given(HOSTILE_SERVER, CUTS, st.sampled_from(["", "geheim12"]))
def test_whatever_a_desktop_says_at_first_its_end_is_documented(
    pieces: list[bytes], cuts: list[int], password: str
) -> None:
    asyncio.run(_greet_badly(b"".join(pieces), cuts, password))


async def _greet_badly(data: bytes, cuts: list[int], password: str) -> None:
    desktop, handshake = Desktop(), UpstreamHandshake(password or None)
    desktop.write = lambda data: None  # type: ignore[method-assign]  # no messages yet
    hands = asyncio.create_task(upstream._shake_hands(desktop, handshake, nullcontext()))
    for piece in cut(data, cuts):
        desktop.says(piece)
        await asyncio.sleep(0)
    desktop.leaves()
    (failure,) = await asyncio.gather(hands, return_exceptions=True)
    if failure is None:
        assert 0 < handshake.server_init.width <= 32767
        return
    assert isinstance(failure, UpstreamError)
    assert code_of(failure) in {CloseCode.UPSTREAM, CloseCode.CREDENTIALS}
    assert "geheim12" not in str(failure)


def test_what_nobody_has_asked_for_is_not_kept() -> None:
    asyncio.run(_flood_before_anybody_listens())


async def _flood_before_anybody_listens() -> None:
    desktop = Desktop()
    for _ in range(100):
        desktop.says(bytes(256 * 1024))
        assert desktop.kept <= upstream.EARLY_BYTES
    with pytest.raises(UpstreamError, match="nobody has asked for"):
        await desktop.read()


# --- Browsers -------------------------------------------------------------------------------------
def cut_text(declared: int, sent: int) -> bytes:
    return b"\x06\0\0\0" + struct.pack(">i", declared) + b"x" * sent


MESSAGES = st.one_of(
    st.builds(key, st.booleans(), st.integers(1, 4)),
    st.builds(pointer, st.integers(0, 255), st.integers(0, 9), st.integers(0, 9)),
    st.just(REQUEST),
    st.just(b"\x00" * 20),
    st.lists(st.integers(-400, 60), max_size=6).map(
        lambda numbers: struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)
    ),
    st.integers(0, 40).map(lambda length: cut_text(length, length)),
    st.sampled_from([b"\x96" + bytes(9), b"\xfa\0\1\2", b"\xff\0" + bytes(10)]),
    st.integers(0, 3).map(lambda n: b"\xfb\0\0\1\0\1" + bytes([n, 0]) + bytes(16 * n)),
)
GARBAGE = st.one_of(
    st.binary(max_size=30),
    st.integers(-(2**31), 2**31 - 1).map(lambda length: cut_text(length, 50)),
)


def bridged(gate: Gate) -> tuple[Desktop, Bridge]:
    desktop = Desktop()
    bridge = Bridge(
        desktop,
        gate,
        frame_pixels=100,
        backlog_bytes=1000,
        backlog_cap_bytes=4000,
        clipboard_bytes=CLIPBOARD_BYTES,
        acknowledges=False,
        notify=lambda text: None,
        fail=lambda error: None,
    )
    desktop.attach(bridge)
    return desktop, bridge


def make_gate() -> Gate:
    """A gate whose clock ticks with every look at it."""
    ticks = count()
    return Gate(clock=lambda: next(ticks) / 1000)


def open_gate(gate: Gate) -> None:
    gate.allow(read_started=gate._clock(), remaining=300, fence=300)


@settings(max_examples=EXAMPLES)
@given(st.lists(st.one_of(MESSAGES, GARBAGE), max_size=20), CUTS, st.booleans())
def test_whatever_a_browser_says_only_whole_allowed_messages_come_of_it(
    messages: list[bytes], cuts: list[int], is_holder: bool
) -> None:
    asyncio.run(_say(b"".join(messages), cuts, is_holder))


async def _say(data: bytes, cuts: list[int], is_holder: bool) -> None:
    gate = make_gate()
    desktop, bridge = bridged(gate)
    if is_holder:
        open_gate(gate)
    with suppress(ProtocolError):
        for piece in cut(data, cuts):
            await bridge.from_browser(piece)
            assert bridge._parser.buffered <= CLIPBOARD_BYTES + 8
    bridge.let_go()
    assert desktop.recorded.unparsed == b"", "half a message freezes x11vnc for everybody"
    allowed = {0, 2, 3, 4, 5, 6} if is_holder else {0, 2, 3}
    assert {message[0] for message in desktop.recorded.messages} <= allowed


@settings(max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=20), max_size=8))
def test_whatever_a_browser_says_at_first_it_is_a_handshake_or_a_violation(
    pieces: list[bytes],
) -> None:
    handshake = BrowserHandshake(SERVER_INIT)
    frames = []
    with suppress(ProtocolError):
        for piece in [b"RFB 003.008\n", *pieces]:
            if not handshake.done:
                frames += handshake.feed(piece)
    assert handshake.done == (SERVER_INIT in frames), "the desktop is shown to who has shaken hands"


# --- Gates that move at any moment ----------------------------------------------------------------
MOVES = st.sampled_from(["open", "shut", "stall", "read"])


@settings(max_examples=EXAMPLES)
@given(
    st.lists(MESSAGES, max_size=25),
    st.lists(st.tuples(st.integers(0, 10**6), MOVES), max_size=15),
    CUTS,
)
def test_at_any_moment_of_any_sequence_a_gate_that_shuts_lets_nothing_more_through(
    messages: list[bytes], moves: list[tuple[int, str]], cuts: list[int]
) -> None:
    asyncio.run(_play(b"".join(messages), moves, cuts))


async def _play(data: bytes, moves: list[tuple[int, str]], cuts: list[int]) -> None:
    gate = make_gate()
    desktop, bridge = bridged(gate)
    shut_at: int | None = 0
    events = sorted((at % (len(data) + 1), move) for at, move in moves)
    cuts = [*cuts, *(at for at, _ in events)]
    position = 0
    for piece in cut(data, cuts):
        await bridge.from_browser(piece)
        position += len(piece)
        while events and events[0][0] <= position:
            shut_at = _move(events.pop(0)[1], gate, bridge, desktop, shut_at)
    desktop.reads = True
    bridge.upstream_writable()
    gate.shut()
    bridge.let_go()
    assert desktop.recorded.unparsed == b""
    assert _held(desktop.recorded.messages) == set()


def _move(
    move: str, gate: Gate, bridge: Bridge, desktop: Desktop, shut_at: int | None
) -> int | None:
    """Carry a move out; ``shut_at`` is how many messages the desktop had when the gate shut."""
    if shut_at is not None:
        _assert_harmless(desktop.recorded.messages[shut_at:])
    match move:
        case "open":
            open_gate(gate)
            return None
        case "shut":
            before = len(desktop.recorded.messages)
            gate.shut()
            bridge.let_go()
            return before if shut_at is None else shut_at
        case "stall":
            desktop.reads = False
        case "read":
            desktop.reads = True
            bridge.upstream_writable()
    return shut_at


def _assert_harmless(messages: list[bytes]) -> None:
    """Only what watchers may send, key-ups, and a pointer without buttons."""
    for message in messages:
        is_release = (message[0] == 4 and not message[1]) or (message[0] == 5 and not message[1])
        assert message[0] in {0, 2, 3} or is_release, message


def _held(messages: list[bytes]) -> set[object]:
    held: set[object] = set()
    for message in messages:
        if message[0] == 4:
            (held.add if message[1] else held.discard)(message[4:8])
        elif message[0] == 5:
            (held.add if message[1] else held.discard)("buttons")
    return held
