"""Client-to-server messages (RFC 6143 §7.5, rfbproto "Client to server messages").

Browsers send a byte stream: one websocket frame may hold half a message or ten of them. The
parser turns it back into whole messages and never guesses a length: whatever it does not know
ends the stream, because a parser that skips differently from the server behind it can be used to
smuggle input past the gate.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from controlplane.exceptions import ProtocolError

SET_PIXEL_FORMAT: Final = 0
SET_ENCODINGS: Final = 2
FRAMEBUFFER_UPDATE_REQUEST: Final = 3
KEY_EVENT: Final = 4
POINTER_EVENT: Final = 5
CLIENT_CUT_TEXT: Final = 6
ENABLE_CONTINUOUS_UPDATES: Final = 150
FENCE: Final = 248
XVP: Final = 250
SET_DESKTOP_SIZE: Final = 251
QEMU: Final = 255

QEMU_EXTENDED_KEY: Final = 0
"""The only QEMU submessage that viewers send; the others (audio) have other lengths."""

CUT_TEXT_HEADER: Final = 8
MAX_DECLARED_CUT_TEXT: Final = 16 * 1024 * 1024
"""A clipboard length above this is no clipboard: the stream ends instead of being read past it."""


@dataclass(frozen=True, slots=True)
class _Message:
    raw: bytes = field(kw_only=True)
    """The exact bytes as received, fit to be forwarded."""


@dataclass(frozen=True, slots=True)
class SetPixelFormat(_Message):
    """§7.5.1: the pixel format in which the client wants its updates."""


@dataclass(frozen=True, slots=True)
class SetEncodings(_Message):
    """§7.5.2: what the client can decode, best first; to be rewritten before it is forwarded."""

    encodings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FramebufferUpdateRequest(_Message):
    """§7.5.3: the client asks for a rectangle, or for its changes only when ``incremental``."""

    incremental: bool
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class KeyEvent(_Message):
    """§7.5.4: a key went down or up; ``keysym`` is X11's number for it."""

    down: bool
    keysym: int


@dataclass(frozen=True, slots=True)
class PointerEvent(_Message):
    """§7.5.5: the pointer is at ``x``, ``y``; bit n of ``buttons`` is button n + 1."""

    buttons: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class ClientCutText(_Message):
    """§7.5.6: plain text for the desktop's clipboard, within the parser's limit."""


@dataclass(frozen=True, slots=True)
class ClipboardTooLarge(_Message):
    """A plain ClientCutText of ``length`` bytes, above the limit.

    Told once, as soon as its header is read. Its text is skipped unread, so ``raw`` is empty.
    """

    length: int
    raw: bytes = field(kw_only=True, default=b"")


@dataclass(frozen=True, slots=True)
class Ignored(_Message):
    """A message that is understood and never forwarded, in any mode.

    ``type`` is its first byte. For the extended clipboard (type 6) it is told as soon as the
    header is read; the body is skipped unread, so ``raw`` is empty.
    """

    type: int


ClientMessage: TypeAlias = (
    SetPixelFormat
    | SetEncodings
    | FramebufferUpdateRequest
    | KeyEvent
    | PointerEvent
    | ClientCutText
    | ClipboardTooLarge
    | Ignored
)


class ClientMessageParser:
    """Turns what a browser sends into whole messages, however it was cut into pieces.

    Between two calls it keeps at most one incomplete message: ``clipboard_limit`` bytes or
    256 KiB, whichever is more, and 8 bytes of header.
    """

    def __init__(self, clipboard_limit: int) -> None:
        """Pass plain clipboard texts of up to ``clipboard_limit`` bytes."""
        self._clipboard_limit = clipboard_limit
        self._buffer = bytearray()
        self._skip = 0
        self._violation = ""

    @property
    def buffered(self) -> int:
        """How many bytes are kept of messages that were not handed out yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[ClientMessage]:
        """Take ``data`` in at once and iterate over the messages that are whole now.

        The iterator raises ProtocolError at the first message that is unknown or not allowed,
        after those before it. From then on nothing is kept and every iteration raises.
        """
        if not self._violation:
            self._buffer += data
        return self._messages()

    def _messages(self) -> Iterator[ClientMessage]:
        if self._violation:
            raise ProtocolError(self._violation)
        try:
            while (message := self._next()) is not None:
                yield message
        except ProtocolError as error:
            self._violation = error.detail
            self._buffer.clear()
            raise

    def _next(self) -> ClientMessage | None:
        self._drop_skipped()
        if not self._buffer:
            return None
        shape = _SHAPES.get(self._buffer[0])
        if shape is None:
            raise ProtocolError(f"unknown message type {self._buffer[0]}")
        if len(self._buffer) < shape.header:
            return None
        if self._buffer[0] == CLIENT_CUT_TEXT and (refused := self._refused_cut_text()):
            return refused
        length = shape.length(self._buffer)
        if len(self._buffer) < length:
            return None
        return shape.build(self._take(length))

    def _refused_cut_text(self) -> ClipboardTooLarge | Ignored | None:
        """Judge a cut text by its header; arrange for the body of a refused one to be skipped."""
        length = _cut_text_length(self._buffer)
        if abs(length) > MAX_DECLARED_CUT_TEXT:
            raise ProtocolError(f"a clipboard of {abs(length)} bytes is announced")
        if 0 <= length <= self._clipboard_limit:
            return None
        self._skip = CUT_TEXT_HEADER + abs(length)
        if length < 0:
            return Ignored(CLIENT_CUT_TEXT, raw=b"")
        return ClipboardTooLarge(length)

    def _drop_skipped(self) -> None:
        dropped = min(self._skip, len(self._buffer))
        del self._buffer[:dropped]
        self._skip -= dropped

    def _take(self, length: int) -> bytes:
        raw = bytes(self._buffer[:length])
        del self._buffer[:length]
        return raw


def encode_key(down: bool, keysym: int) -> bytes:
    """Build a KeyEvent (§7.5.4). Numbers outside the field are a struct.error, here and below."""
    return struct.pack(">BBxxI", KEY_EVENT, down, keysym)


def encode_pointer(buttons: int, x: int, y: int) -> bytes:
    """Build a PointerEvent (§7.5.5)."""
    return struct.pack(">BBHH", POINTER_EVENT, buttons, x, y)


def encode_update_request(incremental: bool, x: int, y: int, width: int, height: int) -> bytes:
    """Build a FramebufferUpdateRequest (§7.5.3)."""
    return struct.pack(">BBHHHH", FRAMEBUFFER_UPDATE_REQUEST, incremental, x, y, width, height)


def encode_set_pixel_format(pixel_format: bytes) -> bytes:
    """Build a SetPixelFormat (§7.5.1) of the 16 bytes of §7.4."""
    return struct.pack(">Bxxx16s", SET_PIXEL_FORMAT, pixel_format)


def encode_set_encodings(encodings: Iterable[int]) -> bytes:
    """Build a SetEncodings (§7.5.2)."""
    numbers = tuple(encodings)
    return struct.pack(f">BxH{len(numbers)}i", SET_ENCODINGS, len(numbers), *numbers)


def _set_encodings(raw: bytes) -> SetEncodings:
    return SetEncodings(struct.unpack_from(f">{len(raw) // 4 - 1}i", raw, 4), raw=raw)


def _update_request(raw: bytes) -> FramebufferUpdateRequest:
    incremental, x, y, width, height = struct.unpack(">x?HHHH", raw)
    return FramebufferUpdateRequest(incremental, x, y, width, height, raw=raw)


def _key_event(raw: bytes) -> KeyEvent:
    down, keysym = struct.unpack(">x?xxI", raw)
    return KeyEvent(down, keysym, raw=raw)


def _pointer_event(raw: bytes) -> PointerEvent:
    buttons, x, y = struct.unpack(">xBHH", raw)
    return PointerEvent(buttons, x, y, raw=raw)


def _ignored(raw: bytes) -> Ignored:
    return Ignored(raw[0], raw=raw)


def _cut_text_length(buffer: bytearray) -> int:
    """Read the signed length of a ClientCutText; negative means extended (rfbproto)."""
    return int.from_bytes(buffer[4:CUT_TEXT_HEADER], "big", signed=True)


def _qemu_length(buffer: bytearray) -> int:
    if buffer[1] != QEMU_EXTENDED_KEY:
        raise ProtocolError(f"unknown QEMU message {buffer[1]}")
    return 12


class _Shape(NamedTuple):
    """How a message lies on the wire."""

    header: int
    """Bytes needed to know the length."""
    length: Callable[[bytearray], int]
    """The whole message's length, computed from a buffer that holds the header."""
    build: Callable[[bytes], ClientMessage]
    """Makes the message of its bytes."""


def _fixed(length: int, build: Callable[[bytes], ClientMessage]) -> _Shape:
    return _Shape(1, lambda _buffer: length, build)


_SHAPES: Final[dict[int, _Shape]] = {
    SET_PIXEL_FORMAT: _fixed(20, lambda raw: SetPixelFormat(raw=raw)),
    SET_ENCODINGS: _Shape(4, lambda b: 4 + 4 * int.from_bytes(b[2:4], "big"), _set_encodings),
    FRAMEBUFFER_UPDATE_REQUEST: _fixed(10, _update_request),
    KEY_EVENT: _fixed(8, _key_event),
    # Always 6 bytes: the encoding that makes it 7 is never passed on to the desktop.
    POINTER_EVENT: _fixed(6, _pointer_event),
    CLIENT_CUT_TEXT: _Shape(
        CUT_TEXT_HEADER,
        lambda b: CUT_TEXT_HEADER + _cut_text_length(b),
        lambda raw: ClientCutText(raw=raw),
    ),
    ENABLE_CONTINUOUS_UPDATES: _fixed(10, _ignored),
    FENCE: _Shape(9, lambda b: 9 + b[8], _ignored),
    XVP: _fixed(4, _ignored),
    SET_DESKTOP_SIZE: _Shape(8, lambda b: 8 + 16 * b[6], _ignored),
    QEMU: _Shape(2, _qemu_length, _ignored),
}
