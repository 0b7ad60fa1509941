"""The measuring client's frames: cut wherever they may, payload is counted and the rest kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from bench.frames import BINARY, CLOSE, PING, TEXT, FrameReader, encode

KINDS = {BINARY: Opcode.BINARY, TEXT: Opcode.TEXT, CLOSE: Opcode.CLOSE, PING: Opcode.PING}


def sent(opcode: int, payload: bytes) -> bytes:
    """What a server would send."""
    return Frame(KINDS[opcode], payload).serialize(mask=False)


def fed(reader: FrameReader, *pieces: bytes) -> int:
    return sum(reader.feed(memoryview(piece)) for piece in pieces)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
def test_binary_payload_of_every_size_is_counted(size: int) -> None:
    reader = FrameReader()
    assert fed(reader, sent(BINARY, bytes(size))) == size
    assert reader.others == []


def test_other_frames_are_kept_whole_and_in_order() -> None:
    reader = FrameReader()
    data = sent(PING, b"") + sent(BINARY, b"123") + sent(TEXT, b"{}") + sent(CLOSE, b"\x11\x3dslow")
    assert fed(reader, data) == 3
    assert reader.others == [(PING, b""), (TEXT, b"{}"), (CLOSE, b"\x11\x3dslow")]


FRAMES = st.lists(st.tuples(st.sampled_from([*KINDS]), st.binary(max_size=100)), max_size=8)


@given(FRAMES, st.integers(1, 50))
def test_it_does_not_matter_how_frames_arrive(frames: list[tuple[int, bytes]], step: int) -> None:
    reader, data = FrameReader(), b"".join(sent(*frame) for frame in frames)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert fed(reader, *pieces) == sum(len(p) for opcode, p in frames if opcode == BINARY)
    assert reader.others == [frame for frame in frames if frame[0] != BINARY]


def test_a_fragmented_message_is_an_error() -> None:
    with pytest.raises(ValueError, match="fragmented"):
        fed(FrameReader(), b"\x02\x01x")


@pytest.mark.parametrize("size", [0, 6, 10, 125, 126, 4000])
def test_what_the_client_sends_is_a_masked_frame(size: int) -> None:
    frame = Frame(Opcode.BINARY, bytes(size)).serialize(mask=True)
    head = len(frame) - size - 4  # before the mask
    assert encode(BINARY, bytes(size)) == frame[:head] + bytes(4 + size)
