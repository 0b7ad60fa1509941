"""VNC authentication against answers that other programs computed or accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.rfb.auth import vnc_response

COUNTING = bytes(range(16))

# The key is the password's bytes, NUL-padded to 8, each with its bits reversed by hand
# ("password" -> 0e86ceceeef64e26). The answers come from OpenSSL 3.0.19's own single DES:
#   printf 000102030405060708090a0b0c0d0e0f | xxd -r -p |
#     openssl enc -des-ecb -K <key> -nopad -nosalt -provider legacy -provider default | xxd -p
FROM_OPENSSL = [
    ("password", "b866924125c8eebb9debc1db61c538e2"),  # key 0e86ceceeef64e26
    ("abc", "9c22b4f2088c3465a1562c4b9d6edb04"),  # key 8646c60000000000
    ("Pässw0rd", "650abc229076eb18e7602c5d855ae0f2"),  # key 0a27ceceee0c4e26
]

# Challenges of a running x11vnc 0.9.16 (libvncserver 0.9.14) whose password file held "Pässw0rd"
# in Latin-1, and the answers that it accepted: one for each of RFB 3.3, 3.7 and 3.8.
ACCEPTED_BY_X11VNC = [
    ("b29e46a43dc4f3aa3ffba1edbab1683d", "2788316c3b62c556ba341820224f227f"),
    ("1a09c157ceb4010dafa2fa6a5463a751", "ba7326c7c228f46f95224c7b52046bec"),
    ("325b73000f750ebf1708296b6bd0bc9d", "0538dff4b3fd9b5e012995b9cda964b7"),
]


@pytest.mark.parametrize(("password", "answer"), FROM_OPENSSL)
def test_the_answer_is_that_of_an_independent_des(password: str, answer: str) -> None:
    assert vnc_response(password, COUNTING).hex() == answer


@pytest.mark.parametrize(("challenge", "answer"), ACCEPTED_BY_X11VNC)
def test_the_answer_is_one_that_x11vnc_accepted(challenge: str, answer: str) -> None:
    assert vnc_response("Pässw0rd", bytes.fromhex(challenge)).hex() == answer


def test_only_the_first_eight_characters_count() -> None:
    assert vnc_response("password and more 日本", COUNTING) == vnc_response("password", COUNTING)


def test_the_two_halves_of_a_challenge_are_answered_independently() -> None:
    answer = vnc_response("password", COUNTING[:8] * 2)

    assert answer[:8] == answer[8:]


@pytest.mark.parametrize("length", [0, 8, 15, 17])
def test_a_challenge_of_another_length_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        vnc_response("password", bytes(length))


def test_the_error_for_an_impossible_password_does_not_repeat_it() -> None:
    with pytest.raises(ValueError, match="outside Latin-1") as caught:
        vnc_response("日本secret", COUNTING)

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=12), st.binary(min_size=16, max_size=16))
def test_every_latin_1_password_gives_an_answer_of_sixteen_bytes(
    password: str, challenge: bytes
) -> None:
    assert len(vnc_response(password, challenge)) == 16
