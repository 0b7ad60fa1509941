"""Encryption with keys from SECRET_KEY: a key for each purpose, old keys as fallbacks."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import crypto
from controlplane.crypto import Unreadable, decrypt, encrypt

# Lone surrogates are not text: they cannot be encoded, and nothing we store can hold them.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(text=texts)
def test_what_was_encrypted_can_be_decrypted(text: str) -> None:
    assert decrypt("purpose", encrypt("purpose", text)) == text


def test_a_ciphertext_is_url_safe_and_shows_nothing_of_the_text() -> None:
    found = encrypt("purpose", "a very secret text")
    assert re.fullmatch(r"[A-Za-z0-9_-]+=*", found)
    assert "secret" not in found


def test_no_two_ciphertexts_are_equal() -> None:
    assert len({encrypt("purpose", "text") for _ in range(20)}) == 20


def test_what_was_encrypted_for_one_purpose_cannot_be_read_for_another() -> None:
    with pytest.raises(Unreadable):
        decrypt("token", encrypt("password", "text"))


@given(position=st.integers(0, 99))
def test_a_ciphertext_that_was_changed_is_unreadable(position: int) -> None:
    found = encrypt("purpose", "x" * 16)
    changed = found[:position] + ("A" if found[position] != "A" else "B") + found[position + 1 :]
    with pytest.raises(Unreadable):
        decrypt("purpose", changed)


@given(text=texts)
def test_what_is_no_ciphertext_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        decrypt("purpose", text)


def test_a_new_key_reads_old_text_only_as_long_as_the_old_one_is_a_fallback(settings: Any) -> None:
    found, old = encrypt("purpose", "text"), settings.SECRET_KEY
    settings.SECRET_KEY = "another-" * 8
    with pytest.raises(Unreadable):
        decrypt("purpose", found)
    settings.SECRET_KEY_FALLBACKS = ["a-third-key-" * 5, old]
    assert decrypt("purpose", found) == "text"
    newest = encrypt("purpose", "text")
    settings.SECRET_KEY_FALLBACKS = []
    assert decrypt("purpose", newest) == "text"


def test_the_key_is_not_the_secret_itself(settings: Any) -> None:
    derived = crypto._derive(settings.SECRET_KEY, "purpose")
    assert derived != crypto._derive(settings.SECRET_KEY, "another purpose")
    assert settings.SECRET_KEY.encode() not in derived
