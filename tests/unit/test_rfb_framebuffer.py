"""What a desktop sends, in any pieces, gives the same whole picture, or ends the reading."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.exceptions import UpstreamError
from controlplane.rfb.framebuffer import (
    MAX_CUT_TEXT,
    FramebufferReader,
    encode_whole_picture_request,
)
from tests.support.rfb import BELL

COLOURS = b"\x01\0\0\0\0\x02" + bytes(12)
EMPTY_UPDATE = bytes(4)
DESKTOP_SIZE = -223


def cut_text(length: int, text: bytes = b"") -> bytes:
    return struct.pack(">BxxxI", 3, length) + text


@dataclass(frozen=True)
class Rectangle:
    """Some pixels, each of them four bytes."""

    x: int
    y: int
    width: int
    height: int
    pixels: bytes
    encoding: int = 0

    @property
    def raw(self) -> bytes:
        place = struct.pack(">HHHHi", self.x, self.y, self.width, self.height, self.encoding)
        return place + self.pixels


def filled(x: int, y: int, width: int, height: int, pixel: bytes = b"BGR.") -> Rectangle:
    return Rectangle(x, y, width, height, pixel * (width * height))


def update(*rectangles: Rectangle) -> bytes:
    return struct.pack(">BxH", 0, len(rectangles)) + b"".join(each.raw for each in rectangles)


def painted(width: int, height: int, rectangles: list[Rectangle]) -> bytes:
    """Return the picture, pixel by pixel: another way than the one that is tested."""
    pixels = [bytes(4)] * (width * height)
    for each in rectangles:
        for number in range(each.width * each.height):
            row, column = divmod(number, each.width)
            place = (each.y + row) * width + each.x + column
            pixels[place] = each.pixels[4 * number : 4 * number + 4]
    return b"".join(pixels)


def read(reader: FramebufferReader, *pieces: bytes) -> FramebufferReader:
    for piece in pieces:
        reader.feed(piece)
    return reader


# -- Any picture, in any pieces ----------------------------------------------------------------
@st.composite
def rectangles(draw: st.DrawFn, width: int, height: int) -> Rectangle:
    x, y = draw(st.integers(0, width)), draw(st.integers(0, height))
    wide, high = draw(st.integers(0, width - x)), draw(st.integers(0, height - y))
    size = wide * high * 4
    return Rectangle(x, y, wide, high, draw(st.binary(min_size=size, max_size=size)))


unasked = st.sampled_from([BELL, COLOURS, EMPTY_UPDATE, cut_text(0), cut_text(5, b"\0\0\0\0\0")])


@given(data=st.data(), width=st.integers(1, 9), height=st.integers(1, 9))
def test_any_pieces_of_what_is_sent_give_the_same_picture(
    data: st.DataObject, width: int, height: int
) -> None:
    some = rectangles(width, height)
    updates = data.draw(st.lists(st.lists(some, min_size=1, max_size=4), max_size=4))
    if not updates:
        updates = [[filled(0, 0, width, height)]]
    sent = b"".join(data.draw(unasked) + update(*each) for each in updates)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(sent)), max_size=20)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

    reader = read(FramebufferReader(width, height), *pieces)
    whole = read(FramebufferReader(width, height), sent)
    assert (reader.pixels, reader.is_complete) == (whole.pixels, whole.is_complete)
    # By then, and not earlier, it is complete; what comes after that is not read.
    seen: list[Rectangle] = []
    for each in updates:
        seen += each
        if is_covered(width, height, seen):
            break
    assert reader.is_complete is is_covered(width, height, seen)
    assert bytes(reader.pixels) == painted(width, height, seen)


def is_covered(width: int, height: int, seen: list[Rectangle]) -> bool:
    ones = [filled(each.x, each.y, each.width, each.height, b"1111") for each in seen]
    return b"\0" not in painted(width, height, ones)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_hostile_bytes_are_refused_or_wait_for_more_and_nothing_else(pieces: list[bytes]) -> None:
    reader = FramebufferReader(7, 5)
    with suppress(UpstreamError):
        read(reader, *pieces)
    assert len(reader.pixels) == 7 * 5 * 4


# -- One thing at a time -------------------------------------------------------------------------
def test_the_whole_screen_is_asked_for_once_raw_and_in_true_colour() -> None:
    asked = encode_whole_picture_request(800, 600)
    pixel_format = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
    assert asked[:20] == b"\0\0\0\0" + pixel_format
    assert asked[20:28] == b"\x02\0\0\x01\0\0\0\0"
    assert asked[28:] == b"\x03\0" + struct.pack(">HHHH", 0, 0, 800, 600)


def test_a_picture_is_whole_only_when_each_pixel_has_come() -> None:
    reader = read(FramebufferReader(4, 2), update(filled(0, 0, 4, 1), filled(0, 1, 3, 1)))
    assert not reader.is_complete
    assert not read(reader, update(filled(0, 0, 4, 1), filled(1, 1, 2, 1))).is_complete, "as many"
    assert read(reader, update(filled(3, 1, 1, 1))).is_complete


def test_an_update_is_read_to_its_end() -> None:
    sent = update(filled(0, 0, 2, 2), filled(0, 0, 1, 1, b"last"))
    reader = read(FramebufferReader(2, 2), sent[:-1])
    assert not reader.is_complete
    assert read(reader, sent[-1:]).is_complete
    assert reader.pixels[:8] == b"lastBGR."


@pytest.mark.parametrize("cut", range(len(update(filled(0, 0, 2, 2, b"1111"))) + 1))
def test_what_comes_after_a_picture_changes_neither_it_nor_the_next_wherever_that_begins(
    cut: int,
) -> None:
    first, unasked, last = (update(filled(0, 0, 2, 2, pixel * 4)) for pixel in (b"0", b"1", b"2"))
    reader = read(FramebufferReader(2, 2), first, unasked[:cut])
    assert (reader.is_complete, bytes(reader.pixels)) == (True, b"0" * 16)
    reader.begin_again()
    read(reader, unasked[cut:])
    is_of_the_next = cut < len(update()) + len(Rectangle(0, 0, 2, 2, b"").raw)
    assert reader.is_complete == is_of_the_next
    assert bytes(reader.pixels) == (b"1" if is_of_the_next else b"0") * 16
    reader.begin_again()
    assert read(reader, last).is_complete
    assert bytes(reader.pixels) == b"2" * 16


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\xff", "a message of type 255"),
        (b"\x04", "a message of type 4"),
        (update(filled(0, 0, 5, 1)), "beyond its screen"),
        (update(filled(3, 0, 2, 1)), "beyond its screen"),
        (update(filled(0, 4, 1, 1)), "beyond its screen"),
        (update(Rectangle(0, 0, 4, 4, b"", DESKTOP_SIZE)), "in encoding -223"),
        (update(Rectangle(0, 0, 4, 4, b"", 7)), "in encoding 7"),
        (cut_text(MAX_CUT_TEXT + 1), "a clipboard of 16777217 bytes"),
        (cut_text(2**32 - 8), "a clipboard of 4294967288 bytes"),
    ],
)
def test_what_a_desktop_may_not_say_ends_the_reading(sent: bytes, expected: str) -> None:
    with pytest.raises(UpstreamError, match=expected) as caught:
        read(FramebufferReader(4, 4), sent)
    assert caught.value.step == "stream"


def test_a_screen_that_is_too_large_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(UpstreamError, match="too large for a picture"):
        FramebufferReader(8193, 8192)
