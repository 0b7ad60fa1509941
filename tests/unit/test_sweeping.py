"""What a desktop says unasked is not taken for the answer that the key-ups are done."""

from __future__ import annotations

import pytest

from controlplane.exceptions import UpstreamError
from controlplane.sweeping import has_update
from tests.support.rfb import BELL

CUT_TEXT = b"\x03\0\0\0\0\0\0\x05\0\0\0\0\0"  # five zeros: no update either
COLOURS = b"\x01\0\0\0\0\x01" + bytes(6)
UPDATE = bytes(4)


@pytest.mark.parametrize("unasked", [b"", BELL, CUT_TEXT, COLOURS, BELL + CUT_TEXT + COLOURS])
def test_the_update_is_found_behind_what_came_before_it_and_never_earlier(unasked: bytes) -> None:
    answer = bytearray()
    for byte in unasked:
        answer.append(byte)
        assert not has_update(answer)
    assert has_update(answer + UPDATE)


def test_what_is_no_message_is_no_answer() -> None:
    with pytest.raises(UpstreamError, match="type 77"):
        has_update(bytearray(b"\x4d"))
