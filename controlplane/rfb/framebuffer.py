"""What a desktop sends, read as one whole picture (RFC 6143 §7.6).

For a connection of our own, on which one update of the whole screen has been asked for, in Raw
encoding and in the pixels of ``PIXEL_FORMAT``. Whatever else a desktop may say unasked is skipped;
what it may not say ends the reading, for a length is never guessed.
"""

from __future__ import annotations

import struct
from typing import Final

from controlplane.exceptions import UpstreamError
from controlplane.rfb.encodings import RAW
from controlplane.rfb.messages import (
    encode_set_encodings,
    encode_set_pixel_format,
    encode_update_request,
)

FRAMEBUFFER_UPDATE: Final = 0
SET_COLOUR_MAP_ENTRIES: Final = 1
BELL: Final = 2
SERVER_CUT_TEXT: Final = 3

PIXEL_FORMAT: Final = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
"""§7.4: 32 bits, true colour, little-endian: the bytes blue, green, red and one of no meaning."""
BYTES_PER_PIXEL: Final = 4
MAX_PIXELS: Final = 2**26
"""A quarter of a gibibyte. Eight 4K screens; what is larger can be watched, but not pictured."""
MAX_CUT_TEXT: Final = 16 * 1024 * 1024

# How long the start of each message is, which tells how long the rest of it is.
_HEADERS: Final = {FRAMEBUFFER_UPDATE: 4, SET_COLOUR_MAP_ENTRIES: 6, BELL: 1, SERVER_CUT_TEXT: 8}
_RECTANGLE_HEADER: Final = struct.Struct(">HHHHi")


def encode_whole_picture_request(width: int, height: int) -> bytes:
    """Build the three messages that ask for what a FramebufferReader understands."""
    return b"".join(
        (
            encode_set_pixel_format(PIXEL_FORMAT),
            encode_set_encodings([RAW]),
            encode_update_request(False, 0, 0, width, height),
        )
    )


class FramebufferReader:
    """Takes what a desktop sends, however it was cut into pieces, until each pixel was in it.

    ``pixels`` holds the rows from the top, without gaps. They are a whole picture once
    ``is_complete``: at the end of the update with which the last pixel has come. What comes after
    that changes nothing; it is read all the same, so that ``begin_again`` knows where it is.
    """

    def __init__(self, width: int, height: int) -> None:
        """Expect a picture of this size; UpstreamError where that is too large to be kept."""
        if width * height > MAX_PIXELS:
            raise UpstreamError("stream", f"{width} × {height} is too large for a picture")
        self._width, self._height = width, height
        self.pixels = bytearray(width * height * BYTES_PER_PIXEL)
        self._coverage = _Coverage(width, height)
        self._header = bytearray()
        self._skip = 0  # bytes of no interest that are still to come
        self._rectangles = 0  # of this update, that are still to come
        self._painting: _Rectangle | None = None
        self.is_complete = False

    def begin_again(self) -> None:
        """Expect another picture of the same size, on the same connection."""
        self._coverage = _Coverage(self._width, self._height)
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        """Take ``data`` in. Raises UpstreamError where a desktop may not say that."""
        rest = memoryview(data)
        while rest:
            rest = self._step(rest)

    def _step(self, data: memoryview) -> memoryview:
        """Take the next part of ``data``; return what is left of it."""
        if self._skip:
            taken = min(self._skip, len(data))
            self._skip -= taken
        elif self._painting:
            taken = self._painting.paint(data, self.pixels, self._width)
            self._finish(self._painting)
        else:
            taken = min(self._header_length() - len(self._header), len(data))
            self._header += data[:taken]
            if len(self._header) == self._header_length():
                self._read_header(bytes(self._header))
        return data[taken:]

    def _header_length(self) -> int:
        if self._rectangles:
            return _RECTANGLE_HEADER.size
        if not self._header:
            return 1
        length = _HEADERS.get(self._header[0])
        if length is None:
            raise _unasked(f"a message of type {self._header[0]}")
        return length

    def _read_header(self, header: bytes) -> None:
        self._header.clear()
        if self._rectangles:
            self._begin_rectangle(header)
        elif header[0] == FRAMEBUFFER_UPDATE:
            self._rectangles = int.from_bytes(header[2:4], "big")
        elif header[0] == SET_COLOUR_MAP_ENTRIES:
            self._skip = 6 * int.from_bytes(header[4:6], "big")
        elif header[0] == SERVER_CUT_TEXT:
            self._skip_text(int.from_bytes(header[4:8], "big"))

    def _skip_text(self, length: int) -> None:
        if length > MAX_CUT_TEXT:
            raise _unasked(f"a clipboard of {length} bytes")
        self._skip = length

    def _begin_rectangle(self, header: bytes) -> None:
        x, y, width, height, encoding = _RECTANGLE_HEADER.unpack(header)
        if encoding != RAW:
            raise _unasked(f"a rectangle in encoding {encoding}")
        if x + width > self._width or y + height > self._height:
            raise _unasked("a rectangle beyond its screen")
        if self.is_complete:
            self._rectangles -= 1
            self._skip = width * height * BYTES_PER_PIXEL
            return
        self._painting = _Rectangle(x, y, width, height)
        self._finish(self._painting)  # it may be empty

    def _finish(self, rectangle: _Rectangle) -> None:
        if not rectangle.is_done:
            return
        self._coverage.add(rectangle)
        self._painting = None
        self._rectangles -= 1
        self.is_complete = not self._rectangles and self._coverage.is_whole


class _Rectangle:
    """Where in the picture the next bytes belong."""

    def __init__(self, x: int, y: int, width: int, height: int) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height
        self._painted = 0  # bytes
        self._size = width * height * BYTES_PER_PIXEL

    @property
    def is_done(self) -> bool:
        return self._painted == self._size

    def paint(self, data: memoryview, pixels: bytearray, picture_width: int) -> int:
        """Put what is ours of ``data`` into the picture; return how many bytes that were."""
        taken = min(self._size - self._painted, len(data))
        row = self.width * BYTES_PER_PIXEL
        whole_row = picture_width * BYTES_PER_PIXEL
        done = 0
        while done < taken:
            line, column = divmod(self._painted, row)
            # Rows as wide as the picture lie behind each other in it as well.
            length = min(taken - done, taken if row == whole_row else row - column)
            start = (self.y + line) * whole_row + self.x * BYTES_PER_PIXEL + column
            pixels[start : start + length] = data[done : done + length]
            done += length
            self._painted += length
        return taken


class _Coverage:
    """Which pixels have come: for each row, a number with a bit for each of them."""

    def __init__(self, width: int, height: int) -> None:
        self._full = (1 << width) - 1
        self._rows = [0] * height
        self._missing = height  # rows

    @property
    def is_whole(self) -> bool:
        return not self._missing

    def add(self, rectangle: _Rectangle) -> None:
        if not rectangle.width:
            return  # however high: a desktop could make us count rows for nothing
        bits = ((1 << rectangle.width) - 1) << rectangle.x
        for y in range(rectangle.y, rectangle.y + rectangle.height):
            before = self._rows[y]
            self._rows[y] |= bits
            self._missing -= before != self._full and self._rows[y] == self._full


def _unasked(what: str) -> UpstreamError:
    return UpstreamError("stream", f"{what} that nobody asked for")
