"""What the fake VNC server of the measurements sends and understands is RFB."""

from __future__ import annotations

import pytest

from bench import rfb
from controlplane.rfb.handshake import UpstreamHandshake
from controlplane.rfb.messages import (
    ClientMessageParser,
    FramebufferUpdateRequest,
    KeyEvent,
    PointerEvent,
)


@pytest.mark.parametrize(
    ("square", "size"), [(rfb.KIB_1, 1 << 10), (rfb.KIB_16, 16 << 10), (rfb.MIB_4, 4 << 20)]
)
def test_an_update_has_the_size_by_which_it_is_called(square: rfb.Square, size: int) -> None:
    assert (square.pixel_bytes, len(square.encode())) == (size, square.wire_bytes)


def test_our_own_parser_understands_what_the_client_sends() -> None:
    sent = rfb.KIB_1.request + rfb.key(True, 0x61) + rfb.pointer(0x0001_0002)
    request, key, pointer = ClientMessageParser(1024).feed(sent)
    assert isinstance(request, FramebufferUpdateRequest)
    assert (request.width, request.height) == (16, 16)
    assert isinstance(key, KeyEvent)
    assert (key.down, key.keysym) == (True, 0x61)
    assert isinstance(pointer, PointerEvent)
    assert (pointer.buttons, pointer.x, pointer.y) == (0, 1, 2)


def test_our_own_handshake_understands_the_server() -> None:
    handshake = UpstreamHandshake(None)
    handshake.feed(rfb.BANNER + rfb.NO_SECURITY + rfb.SECURITY_OK + rfb.SERVER_INIT)
    assert handshake.done
    assert (handshake.server_init.width, handshake.server_init.height) == (rfb.SIDE, rfb.SIDE)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (rfb.KIB_1.request, 10),
        (rfb.key(True, 1), 8),
        (rfb.pointer(1), 6),
        (bytes(20), 20),
        (b"\x02\x00\x00\x03", 16),
        (b"\x02\x00", 0),
    ],
)
def test_the_server_knows_where_a_message_ends(data: bytes, size: int) -> None:
    assert rfb.message_size(data) == size


def test_the_server_refuses_to_guess() -> None:
    with pytest.raises(ValueError, match="type 255"):
        rfb.message_size(b"\xff")
