"""Client messages as tests send them, built apart from the code they test (RFC 6143, 7.5)."""

from __future__ import annotations

import struct

A, SHIFT = 0x61, 0xFFE1

BELL = b"\x02"
REQUEST = b"\x03\x01" + bytes(8)
RAW_ONLY = b"\x02\0\0\x01\0\0\0\0"


def key(down: bool, keysym: int = A) -> bytes:
    """A KeyEvent."""
    return struct.pack(">BBxxI", 4, down, keysym)


def pointer(buttons: int, x: int = 5, y: int = 6) -> bytes:
    """A PointerEvent."""
    return struct.pack(">BBHH", 5, buttons, x, y)


def request(width: int, height: int, *, incremental: bool = False) -> bytes:
    """A FramebufferUpdateRequest for the upper left corner."""
    return struct.pack(">BBHHHH", 3, incremental, 0, 0, width, height)


def update(width: int, height: int, pixel: bytes = bytes(4)) -> bytes:
    """A FramebufferUpdate of one raw rectangle of 32-bit pixels, all alike."""
    head = struct.pack(">BxHHHHHi", 0, 1, 0, 0, width, height, 0)
    return head + pixel * (width * height)
