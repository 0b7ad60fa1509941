"""The bridge: whole allowed messages one way, everything the other, keys let go at every end."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane import bridge as bridge_module
from controlplane import inputqueue
from controlplane.bridge import Bridge, Traffic
from controlplane.exceptions import (
    ControlPlaneError,
    ProtocolError,
    TooSlow,
    UpstreamError,
    UpstreamTimeout,
)
from controlplane.gate import Gate
from controlplane.rfb.messages import (
    encode_key,
    encode_pointer,
    encode_set_encodings,
    encode_update_request,
)
from controlplane.upstream import Upstream
from tests.support.timing import await_until

A, SHIFT = 0x61, 0xFFE1
BACKLOG, CAP = 1000, 4000
MIB = 1 << 20
SET_PIXEL_FORMAT = b"\x00" * 4 + bytes(16)


class FakeDesktop(Upstream):
    """An upstream that records what it is sent, and reads only while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.reads = True

    @property
    def is_writable(self) -> bool:
        return self.reads

    @property
    def received(self) -> bytes:
        return b"".join(self.sent)

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    async def close(self) -> None:
        pass


@dataclass
class Rig:
    """A bridge with both of its ends under the test's control."""

    desktop: FakeDesktop
    gate: Gate
    bridge: Bridge
    told: list[dict[str, object]] = field(default_factory=list)
    failures: list[ControlPlaneError] = field(default_factory=list)

    def open_gate(self) -> None:
        self.gate.accepts_clipboard = True
        started = time.monotonic() + 0.001
        assert self.gate.allow(read_started=started, remaining=300, fence=300)

    async def browser_sends(self, *messages: bytes) -> None:
        await self.bridge.from_browser(b"".join(messages))


def make_rig(*, acknowledges: bool = False, high: int = BACKLOG, cap: int = CAP) -> Rig:
    desktop, gate = FakeDesktop(), Gate()
    told: list[dict[str, object]] = []
    failures: list[ControlPlaneError] = []
    bridge = Bridge(
        desktop,
        gate,
        frame_pixels=100,
        backlog_bytes=high,
        backlog_cap_bytes=cap,
        clipboard_bytes=64,
        acknowledges=acknowledges,
        notify=told.append,
        fail=failures.append,
    )
    desktop.attach(bridge)
    return Rig(desktop, gate, bridge, told, failures)


@pytest.fixture
async def rig() -> Rig:
    return make_rig()


def cut_text(length: int) -> bytes:
    return b"\x06\0\0\0" + length.to_bytes(4, "big") + b"x" * length


INPUT = {
    "a key": encode_key(True, A),
    "a pointer": encode_pointer(1, 5, 5),
    "the clipboard": cut_text(3),
    "extended keys": b"\xff\x00" + bytes(10),
    "a resize": b"\xfb\x00\x04\x00\x03\x00\x00\x00",
    "power": b"\xfa\x00\x01\x02",
}


async def test_traffic_is_told_once(rig: Rig) -> None:
    shown: list[bytes] = []

    async def send(data: bytes) -> None:
        shown.append(data)

    showing = asyncio.create_task(rig.bridge.to_browser(send))
    await rig.browser_sends(encode_key(True, A), encode_pointer(1, 5, 5))
    rig.bridge.upstream_data(b"x" * 100)
    await await_until(lambda: shown, "the browser gets it")
    assert rig.bridge.take_traffic() == Traffic(from_browser=14, to_browser=100, refused_input=2)
    assert rig.bridge.take_traffic() == Traffic()
    showing.cancel()
    rig.bridge.upstream_data(bytes(2 * BACKLOG))
    requests = [encode_update_request(True, 0, 0, 1, 1)] * 3
    await rig.browser_sends(*requests)
    assert rig.bridge.take_traffic() == Traffic(from_browser=30, withheld_requests=3)
    assert rig.bridge.backlog_bytes > 2 * BACKLOG


@pytest.mark.parametrize("name", INPUT)
async def test_a_watcher_can_not_send(rig: Rig, name: str) -> None:
    await rig.browser_sends(INPUT[name])
    assert rig.desktop.received == b""


@pytest.mark.parametrize("name", ["a key", "a pointer", "the clipboard"])
async def test_the_holder_can_send(rig: Rig, name: str) -> None:
    rig.open_gate()
    await rig.browser_sends(INPUT[name])
    assert rig.desktop.received == INPUT[name]


@pytest.mark.parametrize("name", ["extended keys", "a resize", "power"])
async def test_not_even_the_holder_can_send(rig: Rig, name: str) -> None:
    rig.open_gate()
    await rig.browser_sends(INPUT[name])
    assert rig.desktop.received == b""


async def test_a_key_and_the_pointer_are_a_sign_of_the_person_and_the_clipboard_is_none(
    rig: Rig,
) -> None:
    await rig.browser_sends(encode_key(True, A))
    assert rig.bridge.last_input is None, "it did not pass"
    rig.open_gate()
    await rig.browser_sends(cut_text(3))
    assert rig.bridge.last_input is None, "a client may send it by itself"
    for message in (encode_key(False, A), encode_pointer(0, 5, 5)):
        rig.bridge.last_input = None
        await rig.browser_sends(message)
        assert rig.bridge.last_input is not None


async def test_input_behind_a_harmless_message_in_one_frame_is_dropped(rig: Rig) -> None:
    request = encode_update_request(True, 0, 0, 10, 10)
    await rig.browser_sends(request, encode_key(True, A), request)
    assert rig.desktop.received == request * 2


async def test_input_that_comes_byte_by_byte_is_dropped_too(rig: Rig) -> None:
    for byte in encode_key(True, A) + SET_PIXEL_FORMAT:
        await rig.browser_sends(bytes([byte]))
    assert rig.desktop.received == SET_PIXEL_FORMAT


async def test_a_message_is_forwarded_only_when_it_is_whole(rig: Rig) -> None:
    rig.open_gate()
    key = encode_key(True, A)
    await rig.browser_sends(key[:5])
    assert rig.desktop.received == b""
    await rig.browser_sends(key[5:])
    assert rig.desktop.received == key


async def test_encodings_are_rewritten_to_those_that_are_allowed(rig: Rig) -> None:
    await rig.browser_sends(encode_set_encodings([7, -316, -313, -312, 0, -308]))
    assert rig.desktop.received == encode_set_encodings([7, 0])


async def test_an_unknown_message_is_a_violation_and_what_came_before_it_counts(rig: Rig) -> None:
    rig.open_gate()
    with pytest.raises(ProtocolError):
        await rig.browser_sends(encode_key(True, A), b"\x63")
    assert rig.desktop.received == encode_key(True, A)


async def test_a_desktop_that_takes_no_texts_takes_keys_and_the_page_is_told(rig: Rig) -> None:
    rig.open_gate()
    rig.gate.accepts_clipboard = False
    await rig.browser_sends(INPUT["the clipboard"], INPUT["a key"])
    assert rig.desktop.received == INPUT["a key"]
    assert rig.told == [{"type": "clipboard_refused"}]


async def test_a_clipboard_that_is_too_large_is_skipped_and_the_page_is_told(rig: Rig) -> None:
    rig.open_gate()
    await rig.browser_sends(cut_text(65), encode_key(True, A))
    assert rig.desktop.received == encode_key(True, A)
    assert rig.told == [{"type": "clipboard_too_large", "length": 65}]


async def test_what_is_held_is_let_go_latest_first_then_the_buttons(rig: Rig) -> None:
    rig.open_gate()
    await rig.browser_sends(encode_key(True, SHIFT), encode_key(True, A), encode_pointer(1, 7, 8))
    rig.desktop.sent.clear()
    rig.bridge.let_go()
    assert rig.desktop.received == (
        encode_key(False, A) + encode_key(False, SHIFT) + encode_pointer(0, 7, 8)
    )


async def test_letting_go_twice_sends_nothing_the_second_time(rig: Rig) -> None:
    rig.open_gate()
    await rig.browser_sends(encode_key(True, A))
    rig.bridge.let_go()
    rig.desktop.sent.clear()
    rig.bridge.let_go()
    assert rig.desktop.received == b""


async def test_input_that_waited_is_withdrawn_but_requests_stay(rig: Rig) -> None:
    rig.open_gate()
    rig.desktop.reads = False
    request = encode_update_request(True, 0, 0, 10, 10)
    await rig.browser_sends(encode_key(True, A), request, SET_PIXEL_FORMAT)
    rig.gate.shut()
    rig.bridge.let_go()
    rig.desktop.reads = True
    rig.bridge.upstream_writable()
    assert rig.desktop.received == request + SET_PIXEL_FORMAT


async def test_input_that_has_waited_past_the_end_of_the_lease_is_not_sent(rig: Rig) -> None:
    """A process that was stopped for a while hears that it may write before its timers run."""
    rig.open_gate()
    rig.desktop.reads = False
    request = encode_update_request(True, 0, 0, 10, 10)
    await rig.browser_sends(encode_key(True, A), request)
    rig.gate.shut()
    rig.desktop.reads = True
    rig.bridge.upstream_writable()
    assert rig.desktop.received == request
    assert not rig.bridge.holds_input


async def test_more_keys_than_a_keyboard_has_are_a_violation(rig: Rig) -> None:
    rig.open_gate()
    with pytest.raises(ProtocolError, match="more keys are down"):
        await rig.browser_sends(*[encode_key(True, keysym) for keysym in range(1000)])
    rig.desktop.sent.clear()
    rig.bridge.let_go()
    assert len(rig.desktop.sent) == 1


async def test_a_frame_full_of_messages_leaves_others_their_turn(rig: Rig) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await rig.browser_sends(*[encode_key(True, A)] * 10_000)
    assert turns > 10
    task.cancel()


async def test_an_empty_frame_of_the_desktop_holds_nothing_up(rig: Rig) -> None:
    arrived: list[bytes] = []

    async def send(data: bytes) -> None:
        arrived.append(data)

    pump = asyncio.create_task(rig.bridge.to_browser(send))
    for data in (b"", b"one", b"", b"two"):
        rig.desktop._deliver(data)
    await settle()
    assert arrived == [b"one", b"two"]
    pump.cancel()


async def test_a_desktop_that_does_not_read_stops_the_browser_and_then_the_stream(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputqueue, "INPUT_STALL_SECONDS", 0.01)
    rig.open_gate()
    rig.desktop.reads = False
    with pytest.raises(UpstreamTimeout):
        await rig.browser_sends(*[encode_pointer(0, x, 1) for x in range(20_000)])


async def test_a_desktop_that_does_not_read_costs_less_than_a_mebibyte(rig: Rig) -> None:
    rig.open_gate()
    rig.desktop.reads = False
    frame = b"".join(encode_pointer(0, x, 1) for x in range(20_000))
    tracemalloc.start()
    waiting = asyncio.create_task(rig.browser_sends(frame))
    await settle()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not waiting.done(), "nothing more is read from the browser"
    assert peak <= MIB
    waiting.cancel()


async def test_all_that_the_desktop_sends_reaches_the_browser_in_order(rig: Rig) -> None:
    chunks = [bytes([n]) * n for n in range(1, 20)]
    arrived: list[bytes] = []

    async def send(data: bytes) -> None:
        arrived.append(data)

    for chunk in chunks:
        rig.bridge.upstream_data(chunk)
    rig.bridge.upstream_lost(UpstreamError("stream", "gone"))
    with pytest.raises(UpstreamError, match="gone"):
        await rig.bridge.to_browser(send)
    assert b"".join(arrived) == b"".join(chunks)


async def test_requests_of_a_slow_browser_are_withheld_and_merged_into_one(rig: Rig) -> None:
    may_send = asyncio.Semaphore(0)

    async def send(data: bytes) -> None:
        await may_send.acquire()

    pump = asyncio.create_task(rig.bridge.to_browser(send))
    rig.bridge.upstream_data(bytes(BACKLOG + 1))
    await rig.browser_sends(
        encode_update_request(True, 10, 10, 10, 10), encode_update_request(False, 50, 0, 10, 5)
    )
    assert rig.desktop.received == b""
    may_send.release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rig.desktop.received == encode_update_request(False, 10, 0, 50, 20)
    pump.cancel()


async def test_a_browser_that_does_not_read_fails_the_stream_and_never_the_desktop(
    rig: Rig,
) -> None:
    for _ in range(5):
        rig.bridge.upstream_data(bytes(1000))
    assert isinstance(rig.failures[0], TooSlow)


async def take_at_once(data: bytes) -> None:
    """Like Daphne: takes everything, whatever the browser reads."""


async def pumped(rig: Rig, *sizes: int) -> asyncio.Task[None]:
    """Let the desktop send pieces of these sizes, each of which is passed on before the next."""
    pump = asyncio.create_task(rig.bridge.to_browser(take_at_once))
    for size in sizes:
        rig.bridge.upstream_data(bytes(size))
        await settle()
    return pump


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_what_is_sent_without_a_sign_is_bounded_too(rig: Rig) -> None:
    pump = await pumped(rig, *[1000] * 5)
    assert isinstance(rig.failures[0], TooSlow)
    pump.cancel()


async def test_requests_and_pongs_show_that_the_browser_keeps_up(rig: Rig) -> None:
    pump = asyncio.create_task(rig.bridge.to_browser(take_at_once))
    for number in range(10):
        rig.bridge.upstream_data(bytes(1000))
        await settle()
        if number % 2:
            await rig.browser_sends(encode_update_request(True, 0, 0, 1, 1))
        else:
            rig.bridge.ask_browser()
            rig.bridge.browser_answers(rig.told[-1]["id"])
    assert rig.failures == []
    assert not pump.done()
    pump.cancel()


@pytest.fixture
async def windowed() -> Rig:
    """On a server without backpressure, with a page that answers pings."""
    return make_rig(acknowledges=True, cap=8 * MIB, high=2 * MIB)


async def test_a_window_is_sent_and_the_rest_waits_for_a_pong(windowed: Rig) -> None:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    pump = asyncio.create_task(windowed.bridge.to_browser(send))
    for _ in range(16):
        windowed.bridge.upstream_data(bytes(MIB // 4))
    await settle()
    assert sum(map(len, sent)) == MIB
    assert [each["type"] for each in windowed.told] == ["ping", "ping"]
    windowed.bridge.browser_answers(windowed.told[0]["id"])
    await settle()
    assert sum(map(len, sent)) == MIB * 3 // 2
    pump.cancel()


async def test_a_browser_that_only_pretends_to_read_is_not_believed(windowed: Rig) -> None:
    pump = await pumped(windowed, *[MIB // 2] * 4)
    for guess in (0, 1, "1", None, windowed.told[0]["id"] + "0", [], {}):
        windowed.bridge.browser_answers(guess)
    await windowed.browser_sends(*[encode_update_request(True, 0, 0, 1, 1)] * 5)
    for _ in range(13):
        windowed.bridge.upstream_data(bytes(MIB // 2))
    assert isinstance(windowed.failures[0], TooSlow)
    pump.cancel()


async def test_a_pong_counts_once_and_covers_the_pings_before_it(windowed: Rig) -> None:
    pump = await pumped(windowed, *[MIB // 2] * 2)
    first, second = (each["id"] for each in windowed.told)
    windowed.bridge.browser_answers(second)
    windowed.bridge.browser_answers(first)
    windowed.bridge.browser_answers(second)
    await settle()
    for _ in range(2):
        windowed.bridge.upstream_data(bytes(MIB // 2))
        await settle()
    assert len(windowed.told) == 4
    pump.cancel()


async def test_what_is_on_its_way_counts_when_requests_are_withheld(windowed: Rig) -> None:
    windowed = make_rig(acknowledges=True, cap=8 * MIB, high=MIB // 2)
    pump = await pumped(windowed, MIB // 2, MIB // 4)
    request = encode_update_request(True, 0, 0, 1, 1)
    await windowed.browser_sends(request)
    assert windowed.desktop.received == b""
    windowed.bridge.browser_answers(windowed.told[0]["id"])
    await settle()
    assert windowed.desktop.received == request
    pump.cancel()


@pytest.mark.parametrize("high", [BACKLOG, 100_000, MIB // 4, MIB, 4 * MIB])
async def test_requests_are_never_withheld_without_a_ping_under_way(high: int) -> None:
    rig = make_rig(acknowledges=True, cap=64 * MIB, high=high)
    pump = asyncio.create_task(rig.bridge.to_browser(take_at_once))
    request = encode_update_request(True, 0, 0, 1, 1)
    for size in (high // 3, high // 3, high, high * 2, high // 2):
        rig.bridge.upstream_data(bytes(size))
        await settle()
        await rig.browser_sends(request)
        for ping in [each["id"] for each in rig.told]:
            rig.bridge.browser_answers(ping)
            await settle()
        rig.told.clear()
    assert rig.desktop.received == request * 5
    pump.cancel()


async def test_texts_that_are_not_read_count_like_pictures(windowed: Rig) -> None:
    for _ in range(2048):
        windowed.bridge.text_sent(4096)
    with pytest.raises(TooSlow):
        windowed.bridge.text_sent(1)


async def test_pieces_of_one_byte_are_charged_for_what_they_occupy(rig: Rig) -> None:
    for _ in range(CAP // 60):
        rig.bridge.upstream_data(b"x")
    assert isinstance(rig.failures[0], TooSlow)


async def test_a_silent_desktop_is_asked_for_a_pixel_once_and_then_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(bridge_module.time, "monotonic", lambda: now)
    pixel = encode_update_request(False, 0, 0, 1, 1)
    now += 14
    rig.bridge.check_desktop()
    assert rig.desktop.received == b""
    now += 1
    rig.bridge.check_desktop()
    now += 9
    rig.bridge.check_desktop()
    assert rig.desktop.received == pixel
    now += 1
    with pytest.raises(UpstreamTimeout, match="does not answer"):
        rig.bridge.check_desktop()


async def test_a_desktop_that_answers_is_asked_again_only_after_the_next_silence(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(bridge_module.time, "monotonic", lambda: now)
    pixel = encode_update_request(False, 0, 0, 1, 1)
    pump = asyncio.create_task(rig.bridge.to_browser(take_at_once))
    for _ in range(3):
        rig.bridge.upstream_data(b"x")
        await settle()
        now += 15
        rig.bridge.check_desktop()
    assert rig.desktop.received == pixel * 3
    pump.cancel()


async def test_a_desktop_is_not_suspected_while_the_browser_is_what_is_slow(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(bridge_module.time, "monotonic", lambda: now)
    rig.bridge.upstream_data(b"still waiting for the browser")
    now += 60
    rig.bridge.check_desktop()
    assert rig.desktop.received == b""


MESSAGES = st.one_of(
    st.builds(encode_key, st.booleans(), st.integers(1, 5)),
    st.builds(encode_pointer, st.integers(0, 7), st.integers(0, 9), st.integers(0, 9)),
    st.just(encode_update_request(True, 0, 0, 10, 10)),
    st.just(SET_PIXEL_FORMAT),
    st.just(cut_text(3)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), MESSAGES),
        st.tuples(st.sampled_from(["open", "shut", "stall", "read"]), st.just(b"")),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(STEPS)
def test_whatever_happens_nothing_stays_pressed_and_nothing_passes_a_shut_gate(
    steps: list[tuple[str, bytes]],
) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, bytes]]) -> None:
    rig = make_rig()
    for step, message in steps:
        before = len(rig.desktop.sent)
        match step:
            case "send":
                await rig.browser_sends(message)
                if not rig.gate.is_open:
                    _assert_no_input(rig.desktop.sent[before:])
            case "open":
                await asyncio.sleep(0.001)
                rig.open_gate()
            case "shut":
                rig.gate.shut()
                rig.bridge.let_go()
                assert not _pressed(rig.desktop.sent)
            case "stall":
                rig.desktop.reads = False
            case "read":
                rig.desktop.reads = True
                rig.bridge.upstream_writable()
    rig.gate.shut()
    rig.bridge.let_go()
    assert not _pressed(rig.desktop.sent)


def _assert_no_input(messages: list[bytes]) -> None:
    assert all(message[0] in {0, 2, 3} for message in messages)


def _pressed(messages: list[bytes]) -> set[int]:
    """Return what the desktop believes to be down: keysyms, and -1 for any button."""
    down: set[int] = set()
    stream = b"".join(messages)
    lengths = {0: 20, 3: 10, 4: 8, 5: 6, 6: 11}
    while stream:
        message, stream = stream[: lengths[stream[0]]], stream[lengths[stream[0]] :]
        if message[0] == 4:
            key = int.from_bytes(message[4:8], "big")
            (down.add if message[1] else down.discard)(key)
        elif message[0] == 5:
            (down.add if message[1] else down.discard)(-1)
    return down
