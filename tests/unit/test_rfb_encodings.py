"""What a browser may ask a desktop to send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.rfb import encodings
from controlplane.rfb.encodings import allowed

# What noVNC 1.7.0 offers, in its order, with the lowest quality and compression levels.
NOVNC_OFFERS = (
    1, 50, 7, -260, 16, 21, 5, 2, 6, 0, -32, -256, -223, -224, -258, -261,
    -308, -309, -312, -313, -307, -1063131698, -316, 0x574D5664, -239,
)  # fmt: skip

GIVES_INPUT_OR_ANOTHER_GRAMMAR = {
    "extended pointer events": encodings.EXTENDED_POINTER,
    "QEMU keys": encodings.QEMU_EXTENDED_KEY,
    "resizing": encodings.EXTENDED_DESKTOP_SIZE,
    "power": encodings.XVP,
    "fences": encodings.FENCE,
    "continuous updates": encodings.CONTINUOUS_UPDATES,
    "extended clipboard": encodings.EXTENDED_CLIPBOARD,
}

encoding_numbers = st.integers(-(2**31), 2**31 - 1) | st.sampled_from(
    [*encodings.ALLOWED, *GIVES_INPUT_OR_ANOTHER_GRAMMAR.values()]
)


def test_novnc_keeps_its_picture_cursor_and_name_and_loses_the_rest() -> None:
    kept = (1, 50, 7, -260, 16, 21, 5, 2, 6, 0, -32, -256, -223, -224, -261)

    assert allowed(NOVNC_OFFERS) == (*kept, -307, 0x574D5664, -239)


@pytest.mark.parametrize("name", GIVES_INPUT_OR_ANOTHER_GRAMMAR)
def test_an_extension_that_could_carry_input_is_stripped(name: str) -> None:
    assert allowed([GIVES_INPUT_OR_ANOTHER_GRAMMAR[name]]) == ()


@pytest.mark.parametrize("number", [-316, -258, -312, -313, -309, -308, -1063131698])
def test_the_numbers_that_must_never_pass_are_not_in_the_whitelist(number: int) -> None:
    assert number not in encodings.ALLOWED


@pytest.mark.parametrize("number", [*range(-32, -22), *range(-256, -246)])
def test_every_quality_and_compression_level_passes(number: int) -> None:
    assert allowed([number]) == (number,)


@pytest.mark.parametrize("number", [-33, -22, -257, -246])
def test_the_neighbours_of_the_levels_do_not_pass(number: int) -> None:
    assert allowed([number]) == ()


@given(st.lists(encoding_numbers))
def test_the_order_of_preference_is_kept_and_nothing_is_added(offered: list[int]) -> None:
    answer = allowed(offered)

    assert list(answer) == sorted(set(offered) & encodings.ALLOWED, key=offered.index)


def test_the_longest_list_becomes_a_short_one() -> None:
    assert allowed([0, 7] * 32767) == (0, 7)
