"""How often the API may be called, by token and address; how often tokens and passwords may be bad.

Counted in Redis where there is one, so for all processes together. Without one, and while it is
away, each process counts for itself: a broker that fails must not let everybody in, or nobody.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TypeVar

from django.conf import settings
from limits import RateLimitItem, RateLimitItemPerMinute, parse_many
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.exceptions import ConfigError, TooManyRequests
from controlplane.outages import Outage

logger = logging.getLogger(__name__)

FAILURES = RateLimitItemPerMinute(60)  # bad tokens, or passwords, from one address: a guesser
BEGINNINGS = RateLimitItemPerMinute(60)  # of sign-ins with the provider, from one address
REDIS_SECONDS = 0.25  # how long a call may wait for Redis
RETRY_SECONDS = 5  # how long Redis is left alone after a failure

_CALLS, _BAD_TOKENS, _BAD_SIGN_INS = "calls", "bad-tokens", "bad-sign-ins"
_BEGINNINGS = "beginnings"

_UNKNOWN = "unknown"  # a unix socket

T = TypeVar("T")


def parse_rate(name: str, text: str) -> RateLimitItem:
    """Return the rate that setting ``name`` gives as ``600/minute``, or raise ConfigError."""
    try:
        (rate,) = parse_many(text)
    except ValueError:  # also where there are several
        rate = None
    if rate is None or rate.amount < 1:
        raise ConfigError(name, "must be a number of calls in a time, such as 600/minute")
    return rate


def count_call(address: str) -> None:
    """Count a call from ``address``; TooManyRequests where it is one too many."""
    _hit(settings.API_RATE_PER_ADDRESS, _CALLS, network_of(address))


def count_call_of_token(token_id: int) -> None:
    """Count a call with this token; TooManyRequests where it is one too many."""
    _hit(settings.API_RATE_PER_TOKEN, _CALLS, f"token-{token_id}")


def check_bad_tokens(address: str) -> None:
    """Raise TooManyRequests where ``address`` sent too many bad tokens; call it before a look."""
    _check(FAILURES, _BAD_TOKENS, network_of(address))


def count_bad_token(address: str) -> None:
    """Count a token from ``address`` that was none."""
    _count(FAILURES, _BAD_TOKENS, network_of(address))


def check_bad_passwords(address: str) -> None:
    """Raise TooManyRequests where too many passwords from ``address`` have been wrong."""
    _check(FAILURES, _BAD_SIGN_INS, network_of(address))


def count_bad_password(address: str) -> None:
    """Count a password from ``address`` that was wrong."""
    _count(FAILURES, _BAD_SIGN_INS, network_of(address))


def count_beginning(address: str) -> None:
    """Count a sign-in that begins; TooManyRequests where it is one too many from ``address``.

    Each leaves a row behind and lets us call the provider, whoever it is that asks.
    """
    _hit(BEGINNINGS, _BEGINNINGS, network_of(address))


def _check(rate: RateLimitItem, *key: str) -> None:
    if not _counters().ask(lambda limiter: limiter.test(rate, *key)):
        raise _refusal(rate, key)


def _count(rate: RateLimitItem, *key: str) -> None:
    _counters().ask(lambda limiter: limiter.hit(rate, *key))


def _hit(rate: RateLimitItem, *key: str) -> None:
    if not _counters().ask(lambda limiter: limiter.hit(rate, *key)):
        raise _refusal(rate, key)


def _refusal(rate: RateLimitItem, key: tuple[str, ...]) -> TooManyRequests:
    window = _counters().ask(lambda limiter: limiter.get_window_stats(rate, *key))
    return TooManyRequests(max(1, math.ceil(window.reset_time - time.time())))


def network_of(address: str) -> str:
    """Whom an address stands for: with IPv6, everybody has 2**64 of them."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return _UNKNOWN
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None:
        return str(ip_network((ip, 64), strict=False))
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def address_of_network(address: str) -> str | None:
    """Return the first address of what ``network_of`` names; None where it is unknown."""
    network = network_of(address)
    return None if network == _UNKNOWN else str(ip_network(network).network_address)


class _Counters:
    """Redis, or the memory of this process; one log line for each change from one to the other."""

    def __init__(self, redis_url: str) -> None:
        self._memory = FixedWindowRateLimiter(MemoryStorage())
        self._redis = _in_redis(redis_url) if redis_url else None
        self._lock = threading.Lock()
        self._outage = Outage(
            logger,
            begins="Redis is away (%s): each process limits API calls by itself",
            ends="API calls are limited by Redis again",
        )
        self._asked_again_at = 0.0  # monotonic

    def ask(self, question: Callable[[FixedWindowRateLimiter], T]) -> T:
        """Return the answer of Redis, or that of our memory where Redis gives none in time."""
        if self._redis is None or not self._may_ask_redis():
            return question(self._memory)
        try:
            answer = question(self._redis)
        except RedisError as error:
            self._note(error)
            return question(self._memory)
        self._note(None)
        return answer

    def _may_ask_redis(self) -> bool:
        """While it is away, let one call in five seconds try; nobody else waits for it."""
        with self._lock:
            if not self._outage.is_on:
                return True
            if time.monotonic() < self._asked_again_at:
                return False
            self._asked_again_at = time.monotonic() + RETRY_SECONDS
            return True

    def _note(self, error: RedisError | None) -> None:
        with self._lock:
            if error and not self._outage.is_on:
                self._asked_again_at = time.monotonic() + RETRY_SECONDS
            self._outage.note(error)


def _in_redis(url: str) -> FixedWindowRateLimiter:
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),  # by default it tries for seconds
    )
    return FixedWindowRateLimiter(RedisStorage(url, pool, key_prefix="desktopctl:rate"))


@cache
def _counters() -> _Counters:
    return _Counters(settings.REDIS_URL)


def forget() -> None:
    """Begin to count anew, in Redis only once its windows are over: for tests."""
    _counters.cache_clear()
