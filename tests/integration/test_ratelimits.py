"""Rates of the API: what is counted and answered, over processes, and without Redis."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client
from ninja import NinjaAPI

from controlplane import ratelimits
from controlplane.api import errors
from controlplane.api.auth import ApiTokenBearer
from controlplane.models import Workspace
from controlplane.ratelimits import _Counters, parse_rate
from tests.integration.people import Browser
from tests.integration.programs import Program, token
from tests.support.services import Redis
from tests.support.timing import limit

BASE = "/api/workspaces/desk/display"


def assert_too_many(answer: Any) -> None:
    body = json.loads(answer.content)
    assert (answer.status_code, body["error"]["code"]) == (429, "too_many_requests")
    assert set(body) == {"error"}
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.fixture
def three_of_an_address(settings: Any) -> None:
    settings.API_RATE_PER_ADDRESS = parse_rate("X", "3/minute")


@pytest.fixture
def three_of_a_token(settings: Any) -> None:
    settings.API_RATE_PER_TOKEN = parse_rate("X", "3/minute")


# --- Per address ----------------------------------------------------------------------------------
@pytest.mark.usefixtures("three_of_an_address")
def test_one_call_too_many_from_an_address_is_refused(desk: Workspace, operator: User) -> None:
    browser = Browser(operator)
    assert [browser.get(BASE).status_code for _ in range(3)] == [200] * 3
    assert_too_many(browser.get(BASE))
    assert_too_many(Browser().get(BASE))
    assert Browser(operator, REMOTE_ADDR="192.0.2.9").get(BASE).status_code == 200


@pytest.mark.usefixtures("three_of_an_address")
def test_refused_calls_count_whatever_they_were_refused_for(desk: Workspace) -> None:
    client = Client()
    refused = [client.get(BASE), client.get("/api/nothing"), client.put(BASE)]
    assert [answer.status_code for answer in refused] == [401, 404, 405]
    assert_too_many(client.get("/api/openapi.json"))


@pytest.mark.usefixtures("three_of_an_address")
def test_pages_and_probes_are_not_limited(desk: Workspace, operator: User) -> None:
    browser = Browser(operator)
    for path in ("/healthz", "/readyz", "/", "/accounts/login/", "/workspaces/desk/"):
        statuses = {browser.get(path).status_code for _ in range(5)}
        assert not statuses & {429}, path
    assert browser.get(BASE).status_code == 200


# --- Per token ------------------------------------------------------------------------------------
@pytest.mark.usefixtures("three_of_a_token")
def test_one_call_too_many_with_a_token_is_refused_wherever_it_comes_from(
    desk: Workspace, operator: User
) -> None:
    _, text = token("observe")
    for number in range(3):
        assert Program(text, REMOTE_ADDR=f"192.0.2.{number}").get(BASE).status_code == 200
    assert_too_many(Program(text).get(BASE))
    assert Program(token("observe", name="Other")[1]).get(BASE).status_code == 200
    assert Browser(operator).get(BASE).status_code == 200


@pytest.mark.usefixtures("three_of_a_token")
def test_what_a_token_may_not_do_counts_as_well(desk: Workspace) -> None:
    _, text = token("observe")
    program = Program(text)
    refused = [program.acquire(), program.acquire("short"), program.acquire(slug="nowhere")]
    assert [answer.status_code for answer in refused] == [403, 400, 404]
    assert_too_many(program.acquire())


@pytest.mark.usefixtures("three_of_a_token")
def test_endpoints_that_are_asynchronous_count_as_well(desk: Workspace) -> None:
    """Ours may be; ninja authenticates for those elsewhere than for the others."""
    api = NinjaAPI(auth=[ApiTokenBearer()], urls_namespace="a test's")
    errors.add_handlers(api)

    @api.get("/here")
    async def here(request: HttpRequest) -> HttpResponse:
        return HttpResponse("here")

    view = next(path for path in api.urls[0] if "here" in str(path.pattern)).callback
    _, text = token("observe")
    statuses = []
    for _ in range(4):
        asked = HttpRequest()
        asked.method = "GET"
        asked.META = {"HTTP_AUTHORIZATION": f"Bearer {text}", "REMOTE_ADDR": "192.0.2.1"}
        statuses.append(async_to_sync(view)(asked).status_code)
    assert statuses == [200, 200, 200, 429]


# --- Bad tokens -----------------------------------------------------------------------------------
def test_whoever_guesses_tokens_is_not_listened_to_for_a_while(
    desk: Workspace, operator: User, django_assert_num_queries: Any
) -> None:
    _, text = token("observe")
    for number in range(ratelimits.FAILURES.amount):
        assert Program(f"dctl_{number}").get(BASE).status_code == 401
    with django_assert_num_queries(0):
        assert_too_many(Program("dctl_again").get(BASE))
    assert_too_many(Program(text).get(BASE))
    assert Program(text, REMOTE_ADDR="192.0.2.9").get(BASE).status_code == 200
    assert Browser(operator).get(BASE).status_code == 200, "people there are not kept out"


# --- Redis ----------------------------------------------------------------------------------------
RATE = parse_rate("X", "3/minute")


def hit(counters: _Counters, key: str = "somebody") -> bool:
    return counters.ask(lambda limiter: limiter.hit(RATE, key))


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that a test may stop."""
    server = Redis().start()
    yield server
    server.resume()
    server.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "ratelimits" in record.name]


def test_two_processes_count_together_in_redis(own_redis: Redis) -> None:
    one, other = _Counters(own_redis.url), _Counters(own_redis.url)
    assert [hit(one), hit(other), hit(one), hit(other)] == [True, True, True, False]
    assert hit(other, "somebody else")


def test_the_api_counts_in_redis_and_says_when_to_come_back(
    own_redis: Redis, settings: Any, desk: Workspace
) -> None:
    settings.REDIS_URL, settings.API_RATE_PER_ADDRESS = own_redis.url, RATE
    for _ in range(3):
        Client().get(BASE)
    ratelimits.forget()  # as another process would not know
    assert_too_many(Client().get(BASE))


@pytest.mark.parametrize("failure", ["stop", "pause"])
def test_while_redis_is_away_each_process_counts_and_nobody_waits(
    failure: str,
    own_redis: Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    counters = _Counters(own_redis.url)
    assert hit(counters)
    getattr(own_redis, failure)()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: hit(counters), range(80)))
    # Were Redis asked each time, ten rounds of the time limit would have gone by.
    assert time.monotonic() - began < limit(ratelimits.REDIS_SECONDS)
    assert answers.count(True) == RATE.amount, "counted in memory"
    assert len(warnings(caplog)) == 1
    assert "Redis is away" in warnings(caplog)[0]

    monkeypatch.setattr(ratelimits, "RETRY_SECONDS", 0)
    counters._asked_again_at = 0
    assert not hit(counters)
    assert len(warnings(caplog)) == 1, "it is still away"
    {"stop": own_redis.start, "pause": own_redis.resume}[failure]()
    assert hit(counters), "counted in Redis again"
    assert len(warnings(caplog)) == 2
    assert "by Redis again" in warnings(caplog)[1]


def test_one_call_alone_looks_whether_redis_is_back(
    own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = _Counters(own_redis.url)
    assert hit(counters)
    own_redis.stop()
    hit(counters)
    asked: list[object] = []
    assert counters._redis is not None
    monkeypatch.setattr(
        counters._redis, "hit", lambda *key: asked.append(key) or _away(), raising=True
    )
    for _ in range(20):
        hit(counters)
    assert asked == []
    counters._asked_again_at = 0
    for _ in range(20):
        hit(counters)
    assert len(asked) == 1


def _away() -> bool:
    raise ratelimits.RedisError("away")


def test_a_restart_of_redis_is_hardly_noticed(
    own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    counters = _Counters(own_redis.url)
    assert hit(counters)
    own_redis.restart()
    assert [hit(counters) for _ in range(4)] == [True, True, True, False]
    assert warnings(caplog) == []
