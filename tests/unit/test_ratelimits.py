"""Rates: what a setting may say, whom an address stands for, and counting in memory."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import ratelimits
from controlplane.exceptions import ConfigError, TooManyRequests
from controlplane.ratelimits import parse_rate


@pytest.fixture(autouse=True)
def _few_calls(settings: Any) -> None:
    ratelimits.forget()
    settings.API_RATE_PER_ADDRESS = parse_rate("X", "2/minute")
    settings.API_RATE_PER_TOKEN = parse_rate("X", "2/minute")


@pytest.mark.parametrize(
    ("text", "calls", "seconds"),
    [("600/minute", 600, 60), ("10 per second", 10, 1), ("5/2minute", 5, 120)],
)
def test_a_rate_is_a_number_of_calls_in_a_time(text: str, calls: int, seconds: int) -> None:
    rate = parse_rate("API_RATE_PER_TOKEN", text)
    assert (rate.amount, rate.get_expiry()) == (calls, seconds)


@pytest.mark.parametrize(
    "text", ["", "600", "many/minute", "0/minute", "-1/minute", "1/fortnight", "1/second;9/minute"]
)
def test_any_other_rate_is_refused_by_the_settings_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^API_RATE_PER_TOKEN: .*600/minute$"):
        parse_rate("API_RATE_PER_TOKEN", text)


def calls_until_refused(address: str) -> int:
    for number in range(10):
        try:
            ratelimits.count_call(address)
        except TooManyRequests:
            return number
    return 10


def test_each_address_has_its_own_count() -> None:
    assert calls_until_refused("192.0.2.1") == 2
    assert calls_until_refused("192.0.2.1") == 0
    assert calls_until_refused("192.0.2.2") == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"),
        ("fe80::1%eth0", "fe80::2"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("", "unknown"),
    ],
)
def test_addresses_of_one_caller_are_counted_together(one: str, other: str) -> None:
    assert calls_until_refused(one) == 2
    assert calls_until_refused(other) == 0


def test_neighbours_are_not() -> None:
    assert calls_until_refused("2001:db8:0:1::1") == 2
    assert calls_until_refused("2001:db8:0:2::1") == 2


def test_a_refusal_says_when_to_come_back() -> None:
    for _ in range(2):
        ratelimits.count_call_of_token(1)
    with pytest.raises(TooManyRequests) as caught:
        ratelimits.count_call_of_token(1)
    assert 1 <= caught.value.retry_after <= 60
    assert f"{caught.value.retry_after} s" in caught.value.message
    ratelimits.count_call_of_token(2)


def test_bad_tokens_are_counted_apart_from_calls() -> None:
    for _ in range(ratelimits.FAILURES.amount):
        ratelimits.check_bad_tokens("192.0.2.1")
        ratelimits.count_bad_token("192.0.2.1")
    with pytest.raises(TooManyRequests):
        ratelimits.check_bad_tokens("192.0.2.1")
    ratelimits.check_bad_tokens("192.0.2.2")
    assert calls_until_refused("192.0.2.1") == 2
