"""The client's half of RFC 6455: no more of it than measuring needs, so that it costs little."""

from __future__ import annotations

import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_LONGER = {126: 2, 127: 8}  # bytes of length that follow the first two


def encode(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame of at most 64 KiB.

    Its mask is zero: unmasking is the same work for the server, and masking is none for us.
    """
    size = len(payload)
    if size < min(_LONGER):
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
    else:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    return head + bytes(4) + payload


class FrameReader:
    """Cuts what a server sends, however it arrives. Binary payload is counted, not kept.

    ``others`` collects the other frames as ``(opcode, payload)``; whoever reads them empties it.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._opcode = BINARY
        self._left = 0  # of the present frame's payload
        self._payload = bytearray()
        self.others: list[tuple[int, bytes]] = []

    def feed(self, data: memoryview) -> int:
        """Take what has arrived; return how many bytes of it were binary payload."""
        count = at = 0
        while at < len(data):
            if not self._left:
                at = self._take_head(data, at)
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            count += self._take_payload(piece)
        return count

    def _take_payload(self, piece: memoryview) -> int:
        self._left -= len(piece)
        if self._opcode == BINARY:
            return len(piece)
        self._payload += piece
        self._end_frame()
        return 0

    def _take_head(self, data: memoryview, at: int) -> int:
        """Take what of a header there is; return where the rest of ``data`` begins."""
        end = at + self._head_size() - len(self._head)
        self._head += data[at:end]
        if len(self._head) == self._head_size():
            self._begin_frame()
        return end

    def _head_size(self) -> int:
        return 2 + _LONGER.get(self._head[1], 0) if len(self._head) > 1 else 2

    def _begin_frame(self) -> None:
        first, short = self._head[:2]
        if not first & 0x80:
            raise ValueError("fragmented messages were not expected here")
        self._opcode = first & 0x0F
        self._left = int.from_bytes(self._head[2:], "big") if short in _LONGER else short
        self._head.clear()
        self._end_frame()

    def _end_frame(self) -> None:
        if self._left or self._opcode == BINARY:
            return
        self.others.append((self._opcode, bytes(self._payload)))
        self._payload.clear()
