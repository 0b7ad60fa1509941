"""What the fake VNC server and the client agree on: RFB 3.8 without authentication, raw pixels."""

from __future__ import annotations

import struct
from typing import NamedTuple

BANNER = b"RFB 003.008\n"
NO_SECURITY = b"\x01\x01"
SECURITY_OK = bytes(4)
SIDE = 1024  # of the framebuffer, in pixels
_NAME = b"bench"
_PIXELS = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
SERVER_INIT = struct.pack(">HH", SIDE, SIDE) + _PIXELS + struct.pack(">I", len(_NAME)) + _NAME

KEY, POINTER = 4, 5
_FIXED = {0: 20, 3: 10, KEY: 8, POINTER: 6}


class Square(NamedTuple):
    """An update of ``side`` × ``side`` raw pixels of four bytes."""

    side: int

    @property
    def request(self) -> bytes:
        """The client's FramebufferUpdateRequest."""
        return struct.pack(">BBHHHH", 3, 0, 0, 0, self.side, self.side)

    @property
    def pixel_bytes(self) -> int:
        """The size by which it is called."""
        return self.side**2 * 4

    @property
    def wire_bytes(self) -> int:
        """The size with its headers."""
        return 16 + self.pixel_bytes

    def encode(self) -> bytes:
        """Return the server's FramebufferUpdate."""
        head = struct.pack(">BxHHHHHi", 0, 1, 0, 0, self.side, self.side, 0)
        return head + bytes(self.pixel_bytes)


KIB_1, KIB_16, MIB_4 = Square(16), Square(64), Square(1024)


def message_size(data: bytes | bytearray) -> int:
    """Return the length of the client message that ``data`` begins with; 0 where it cannot tell."""
    kind = data[0]
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == 2:
        return 4 + 4 * int.from_bytes(data[2:4], "big") if len(data) >= 4 else 0
    raise ValueError(f"a message of type {kind} was not expected here")


def key(down: bool, value: int) -> bytes:
    """Return a KeyEvent."""
    return struct.pack(">BBxxI", KEY, down, value)


def pointer(value: int) -> bytes:
    """Return a PointerEvent without buttons; its position carries a number of 32 bits."""
    return struct.pack(">BBI", POINTER, 0, value)
