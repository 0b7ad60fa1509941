"""The client-message parser: any messages, cut in any way, give the same decisions."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.exceptions import ProtocolError
from controlplane.rfb.messages import (
    MAX_DECLARED_CUT_TEXT,
    ClientCutText,
    ClientMessage,
    ClientMessageParser,
    ClipboardTooLarge,
    FramebufferUpdateRequest,
    Ignored,
    KeyEvent,
    PointerEvent,
    SetEncodings,
    SetPixelFormat,
    encode_key,
    encode_pointer,
    encode_set_encodings,
    encode_set_pixel_format,
    encode_update_request,
)

LIMIT = 1000
LARGEST_SET_ENCODINGS = 4 + 4 * 65535
KNOWN_TYPES = {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255}

KEY = encode_key(True, 0x61)
REQUEST = encode_update_request(True, 1, 2, 3, 4)

Decisions = tuple[list[ClientMessage], str | None]


# -- Messages as a browser may send them -------------------------------------------------------


def cut_text(length: int, body: bytes = b"") -> bytes:
    return struct.pack(">Bxxxi", 6, length) + body


def desktop_size(screens: int) -> bytes:
    return struct.pack(">BxHHBx", 251, 800, 600, screens) + b"s" * 16 * screens


def fence(length: int) -> bytes:
    return struct.pack(">BxxxIB", 248, 0, length) + b"f" * length


def qemu_key(down: bool = True) -> bytes:
    return struct.pack(">BBHII", 255, 0, down, 0x61, 30)


u8, u16, u32 = st.integers(0, 2**8 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
s32 = st.integers(-(2**31), 2**31 - 1)

messages = st.one_of(
    st.binary(min_size=19, max_size=19).map(lambda rest: b"\0" + rest),
    st.lists(s32, max_size=30).map(encode_set_encodings),
    st.builds(encode_update_request, st.booleans(), u16, u16, u16, u16),
    st.builds(encode_key, st.booleans(), u32),
    st.builds(encode_pointer, u8, u16, u16),
    st.binary(max_size=LIMIT).map(lambda text: cut_text(len(text), text)),
    st.integers(LIMIT + 1, LIMIT + 300).map(lambda size: cut_text(size, b"x" * size)),
    st.integers(1, LIMIT + 300).map(lambda size: cut_text(-size, b"\4" * size)),
    st.binary(min_size=9, max_size=9).map(lambda rest: b"\x96" + rest),
    st.integers(0, 255).map(fence),
    st.binary(min_size=3, max_size=3).map(lambda rest: b"\xfa" + rest),
    st.integers(0, 5).map(desktop_size),
    st.booleans().map(qemu_key),
)

hostile_bytes = st.lists(messages | st.binary(max_size=40), max_size=8).map(b"".join)


# -- Reading them ------------------------------------------------------------------------------


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[index : index + 1] for index in range(len(data)))


def decide(chunks: Iterator[bytes], limit: int = LIMIT) -> Decisions:
    """Parse until the end or the first violation."""
    parser, told = ClientMessageParser(limit), list[ClientMessage]()
    try:
        for chunk in chunks:
            told.extend(parser.feed(chunk))
    except ProtocolError as error:
        return told, error.detail
    return told, None


def parse(data: bytes) -> list[ClientMessage]:
    told, violation = decide(iter([data]))
    assert violation is None
    return told


# -- Single messages ---------------------------------------------------------------------------


def test_each_message_is_told_with_its_fields_and_its_exact_bytes() -> None:
    pixel_format = b"\0" + bytes(range(19))
    encodings = encode_set_encodings([7, -239, 0])
    pointer = encode_pointer(5, 640, 480)
    text = cut_text(5, b"caf\xe9!")

    assert parse(pixel_format + encodings + REQUEST + KEY + pointer + text) == [
        SetPixelFormat(raw=pixel_format),
        SetEncodings((7, -239, 0), raw=encodings),
        FramebufferUpdateRequest(True, 1, 2, 3, 4, raw=REQUEST),
        KeyEvent(True, 0x61, raw=KEY),
        PointerEvent(5, 640, 480, raw=pointer),
        ClientCutText(raw=text),
    ]


def test_the_builders_write_what_the_rfc_says() -> None:
    assert encode_key(False, 0xFFE1) == bytes.fromhex("04 00 0000 0000ffe1")
    assert encode_key(True, 0x61) == bytes.fromhex("04 01 0000 00000061")
    assert encode_pointer(1, 258, 3) == bytes.fromhex("05 01 0102 0003")
    assert encode_update_request(False, 1, 2, 3, 4) == bytes.fromhex("03 00 0001 0002 0003 0004")
    assert encode_set_encodings([0, -239]) == bytes.fromhex("02 00 0002 00000000 ffffff11")
    assert encode_set_encodings([]) == bytes.fromhex("02 00 0000")
    assert encode_set_pixel_format(bytes(range(16))) == bytes(4) + bytes(range(16))


def test_padding_is_forwarded_as_it_came() -> None:
    raw = bytes.fromhex("04 ff abcd 00000061")

    assert parse(raw) == [KeyEvent(True, 0x61, raw=raw)]


def test_padding_before_a_count_is_no_part_of_it() -> None:
    raw = bytes.fromhex("02 ff 0001 00000007")

    assert parse(raw + KEY) == [SetEncodings((7,), raw=raw), KeyEvent(True, 0x61, raw=KEY)]


@pytest.mark.parametrize(
    "raw",
    [
        bytes.fromhex("96 01 0000 0000 0320 0258"),
        fence(0),
        fence(64),
        fence(255),
        bytes.fromhex("fa 00 01 02"),
        desktop_size(0),
        desktop_size(1),
        desktop_size(255),
        qemu_key(),
    ],
    ids=lambda raw: f"type {raw[0]}, {len(raw)} bytes",
)
def test_resize_power_fence_and_qemu_messages_are_understood_and_ignored(raw: bytes) -> None:
    assert parse(raw + KEY) == [Ignored(raw[0], raw=raw), KeyEvent(True, 0x61, raw=KEY)]


@pytest.mark.parametrize("count", [255, 256, 300, 65535])
def test_any_number_of_encodings_is_one_message(count: int) -> None:
    raw = encode_set_encodings(range(count))
    assert parse(raw + KEY) == [
        SetEncodings(tuple(range(count)), raw=raw),
        KeyEvent(True, 0x61, raw=KEY),
    ]


@pytest.mark.parametrize("kind", sorted(set(range(256)) - KNOWN_TYPES))
def test_an_unknown_type_ends_the_stream(kind: int) -> None:
    told, violation = decide(iter([KEY + bytes([kind])]))

    assert told == [KeyEvent(True, 0x61, raw=KEY)]
    assert violation == f"unknown message type {kind}"


@pytest.mark.parametrize("sub", [1, 2, 255])
def test_a_qemu_message_other_than_a_key_ends_the_stream(sub: int) -> None:
    assert decide(iter([bytes([255, sub])])) == ([], f"unknown QEMU message {sub}")


# -- Pitfalls ----------------------------------------------------------------------------------


def test_input_behind_a_harmless_message_in_one_frame_is_seen() -> None:
    """Pitfall 13: looking at a frame's first byte only would let the key ride along."""
    assert parse(REQUEST + KEY) == [
        FramebufferUpdateRequest(True, 1, 2, 3, 4, raw=REQUEST),
        KeyEvent(True, 0x61, raw=KEY),
    ]


def test_a_message_cut_bytewise_is_told_once_with_its_last_byte() -> None:
    """Pitfall 13: nothing of it may be forwarded before it is whole."""
    parser = ClientMessageParser(LIMIT)

    told = [list(parser.feed(byte)) for byte in bytewise(KEY)]

    assert told == [[]] * 7 + [[KeyEvent(True, 0x61, raw=KEY)]]


def test_what_novnc_sends_for_fences_and_updates_does_not_end_the_stream() -> None:
    """Pitfall 14: a watcher would be disconnected for its viewer's routine."""
    enable_updates = bytes.fromhex("96 01 0000 0000 0320 0258")

    assert parse(fence(8) + enable_updates) == [
        Ignored(248, raw=fence(8)),
        Ignored(150, raw=enable_updates),
    ]


def test_a_pointer_event_of_seven_bytes_is_never_assumed() -> None:
    """Pitfall 14: bit 7 of the buttons marks an extended event; here it is a plain button."""
    raw = encode_pointer(0x80, 1, 2)

    assert parse(raw + KEY) == [PointerEvent(0x80, 1, 2, raw=raw), KeyEvent(True, 0x61, raw=KEY)]


def test_every_other_way_to_act_is_told_apart_from_what_a_watcher_may_send() -> None:
    """Pitfall 15: resizing, QEMU keys, power and clipboard are input too."""
    acts = desktop_size(1) + qemu_key() + b"\xfa\x00\x01\x02" + cut_text(2, b"hi")
    watcher_may = (SetPixelFormat, SetEncodings, FramebufferUpdateRequest)

    assert not [told for told in parse(acts) if isinstance(told, watcher_may)]


@pytest.mark.parametrize("length", [MAX_DECLARED_CUT_TEXT + 1, 2**31 - 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_clipboard_of_gigabytes_ends_the_stream_at_its_header(length: int, sign: int) -> None:
    """Pitfall 16."""
    told, violation = decide(iter([KEY + cut_text(sign * length)]))

    assert told == [KeyEvent(True, 0x61, raw=KEY)]
    assert violation == f"a clipboard of {length} bytes is announced"


def test_sixteen_mebibytes_are_the_longest_clipboard_that_may_be_announced() -> None:
    assert MAX_DECLARED_CUT_TEXT == 16 * 2**20


def test_the_most_negative_clipboard_length_is_a_violation_too() -> None:
    assert decide(iter([cut_text(-(2**31))])) == (
        [],
        "a clipboard of 2147483648 bytes is announced",
    )


# -- The clipboard -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_clipboard_text_within_the_limit_is_told_whole(size: int) -> None:
    raw = cut_text(size, b"x" * size)

    assert parse(raw) == [ClientCutText(raw=raw)]


@pytest.mark.parametrize("length", [LIMIT + 1, MAX_DECLARED_CUT_TEXT])
def test_a_clipboard_above_the_limit_is_told_at_its_header(length: int) -> None:
    assert parse(cut_text(length)) == [ClipboardTooLarge(length)]


def test_a_clipboard_above_the_limit_is_skipped_without_being_kept() -> None:
    parser = ClientMessageParser(LIMIT)
    told = list(parser.feed(cut_text(MAX_DECLARED_CUT_TEXT)))
    half = bytes(MAX_DECLARED_CUT_TEXT // 2)

    for body in (half, half):
        told += parser.feed(body)
        assert parser.buffered == 0
    told += parser.feed(KEY)

    assert told == [ClipboardTooLarge(MAX_DECLARED_CUT_TEXT), KeyEvent(True, 0x61, raw=KEY)]


def test_keys_inside_a_skipped_clipboard_text_are_not_keys() -> None:
    body = (KEY * LIMIT)[: LIMIT + 8]

    assert parse(cut_text(LIMIT + 8, body) + REQUEST) == [
        ClipboardTooLarge(LIMIT + 8),
        FramebufferUpdateRequest(True, 1, 2, 3, 4, raw=REQUEST),
    ]


@pytest.mark.parametrize("size", [1, 4, LIMIT, LIMIT + 1, 5000])
def test_an_extended_clipboard_message_is_ignored_whatever_its_size(size: int) -> None:
    raw = cut_text(-size, b"\4" * size)

    assert parse(raw + KEY) == [Ignored(6, raw=b""), KeyEvent(True, 0x61, raw=KEY)]


def test_a_paste_that_comes_in_frames_of_ten_kilobytes_is_one_message() -> None:
    text = bytes(range(256)) * 195
    raw = cut_text(len(text), text)
    frames = pieces(raw, [10240, 20480, 30720, 40960])

    assert decide(frames, limit=262144) == ([ClientCutText(raw=raw)], None)


# -- Any sequence, any chunking ----------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(messages, max_size=12), st.lists(st.integers(0, 10**6), max_size=30))
def test_any_messages_in_any_pieces_give_the_same_decisions(
    sent: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(sent)
    whole = decide(iter([data]))

    assert whole[1] is None
    assert len(whole[0]) == len(sent)
    assert decide(pieces(data, cuts)) == whole
    assert decide(bytewise(data)) == whole
    assert decide(iter(sent)) == whole


@settings(deadline=None)
@given(st.lists(messages, max_size=12))
def test_the_bytes_of_what_may_be_forwarded_are_those_that_came(sent: list[bytes]) -> None:
    for raw, message in zip(sent, parse(b"".join(sent)), strict=True):
        assert message.raw in (raw, b"")
        assert message.raw or isinstance(message, ClipboardTooLarge | Ignored)


@settings(deadline=None)
@given(hostile_bytes, st.lists(st.integers(0, 10**6), max_size=30))
def test_hostile_bytes_in_any_pieces_give_the_same_decisions(data: bytes, cuts: list[int]) -> None:
    whole = decide(iter([data]))

    assert decide(pieces(data, cuts)) == whole
    assert decide(bytewise(data)) == whole


@settings(deadline=None)
@given(st.lists(hostile_bytes, max_size=8))
def test_hostile_bytes_are_never_kept_beyond_one_message(chunks: list[bytes]) -> None:
    parser = ClientMessageParser(LIMIT)

    for chunk in chunks:
        try:
            list(parser.feed(chunk))
        except ProtocolError:
            assert parser.buffered == 0
        assert parser.buffered < LARGEST_SET_ENCODINGS


@pytest.mark.parametrize(
    ("start", "whole"),
    [
        (bytes.fromhex("02 00 ffff"), LARGEST_SET_ENCODINGS),
        (cut_text(300_000), 300_008),
        (cut_text(300_001), 0),
        (cut_text(-300_000), 0),
        (desktop_size(255)[:8], 4088),
        (fence(255)[:9], 264),
    ],
    ids=["SetEncodings", "clipboard", "large clipboard", "extended", "SetDesktopSize", "Fence"],
)
def test_a_message_that_never_ends_is_kept_up_to_its_declared_length(
    start: bytes, whole: int
) -> None:
    parser = ClientMessageParser(300_000)
    list(parser.feed(start))

    list(parser.feed(bytes(max(whole, 200_000) - len(start) - 1)))

    # One byte short of whole: the most that there can be to keep.
    assert parser.buffered <= max(whole - 1, 0)
    assert parser.buffered <= max(300_000, 262_144) + 8


# -- How it is called --------------------------------------------------------------------------


def test_bytes_are_taken_in_even_if_nobody_asks_for_the_messages_yet() -> None:
    parser = ClientMessageParser(LIMIT)
    parser.feed(KEY[:4])

    assert list(parser.feed(KEY[4:])) == [KeyEvent(True, 0x61, raw=KEY)]


@pytest.mark.parametrize(
    "first", [KEY, cut_text(LIMIT + 1, bytes(LIMIT + 1)), cut_text(-9, KEY + b"x")]
)
def test_an_iteration_that_was_left_early_goes_on_with_the_next(first: bytes) -> None:
    parser = ClientMessageParser(LIMIT)
    next(parser.feed(first + REQUEST))

    assert [message.raw for message in parser.feed(KEY)] == [REQUEST, KEY]


def test_after_a_violation_nothing_is_kept_and_every_call_tells_it_again() -> None:
    parser = ClientMessageParser(LIMIT)

    for data in (b"\x63", KEY, b""):
        with pytest.raises(ProtocolError, match="unknown message type 99"):
            list(parser.feed(data))
        assert parser.buffered == 0
