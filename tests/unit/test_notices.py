"""Hearing notices: handed to all who subscribed, and one line for each change of state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from controlplane import events, notices
from controlplane.notices import Json, Notices
from tests.support.timing import await_until


class Broker(InMemoryChannelLayer):
    """A channel layer that can be away, lose what it is given, or forget who has joined."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = self.loses = False
        self.joins = 0

    def _answer(self) -> None:
        if self.is_away:
            raise OSError("connection refused")

    async def new_channel(self, prefix: str = "specific.") -> str:
        self._answer()
        return str(await super().new_channel(prefix))

    async def group_add(self, group: str, channel: str) -> None:
        self._answer()
        self.joins += 1
        await super().group_add(group, channel)

    async def send(self, channel: str, message: Json) -> None:
        self._answer()
        if not self.loses:
            await super().send(channel, message)

    @property
    def has_members(self) -> bool:
        return bool(self.groups.get(events.GROUP))

    async def tell(self, **message: Any) -> None:
        await self.group_send(events.GROUP, message)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """The channel layer of these tests."""
    layer = Broker()
    monkeypatch.setattr(events, "channel_layer", lambda: layer)
    monkeypatch.setattr(notices, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(notices, "ECHO_SECONDS", 0.01)
    monkeypatch.setattr(notices, "ANSWER_SECONDS", 0.2)
    return layer


@pytest.fixture
async def heard(broker: Broker) -> AsyncIterator[list[Json]]:
    """What a subscriber hears, who listens already."""
    messages: list[Json] = []
    listening = Notices()
    listening.subscribe(messages.append)
    await await_until(lambda: broker.has_members, "it listens")
    yield messages
    listening.unsubscribe(messages.append)


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "controlplane.notices"]


async def test_a_notice_is_heard_and_our_own_echo_is_not(broker: Broker, heard: list[Json]) -> None:
    await broker.tell(type="look", workspace_id=7)
    await await_until(lambda: heard, "the notice")
    assert heard == [{"type": "look", "workspace_id": 7}]


async def test_all_subscribers_share_one_membership(broker: Broker) -> None:
    first: list[Json] = []
    second: list[Json] = []
    listening = Notices()
    listening.subscribe(first.append)
    listening.subscribe(second.append)
    await await_until(lambda: broker.has_members, "it listens")
    assert len(broker.groups[events.GROUP]) == 1
    await broker.tell(type="access")
    await await_until(lambda: first and second, "both have heard")
    listening.unsubscribe(first.append)
    await broker.tell(type="access")
    await await_until(lambda: len(second) == 2, "who stays hears on")
    assert len(first) == 1
    listening.unsubscribe(second.append)
    await await_until(lambda: not broker.has_members, "nobody listens any more")


async def test_a_subscriber_that_fails_does_not_keep_others_from_hearing(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Json) -> None:
        raise ZeroDivisionError

    messages: list[Json] = []
    listening = Notices()
    listening.subscribe(fail)
    listening.subscribe(messages.append)
    await await_until(lambda: broker.has_members, "it listens")
    await broker.tell(type="access")
    await await_until(lambda: messages, "the notice")
    assert "could not be taken in" in caplog.text
    listening.unsubscribe(fail)
    listening.unsubscribe(messages.append)


async def test_a_broker_that_goes_and_comes_back_is_two_lines(
    broker: Broker, heard: list[Json], caplog: pytest.LogCaptureFixture
) -> None:
    broker.is_away = True
    await await_until(lambda: texts(caplog), "the first line")
    joins = broker.joins
    await asyncio.wait_for(_several_tries(broker), 5)
    broker.is_away = False
    await await_until(lambda: len(texts(caplog)) > 1, "the second line")
    assert texts(caplog) == [
        "no notices (connection refused): polling every second instead",
        "notices arrive again",
    ]
    assert broker.joins > joins
    await broker.tell(type="access")
    await await_until(lambda: heard, "notices are heard again")


async def _several_tries(broker: Broker) -> None:
    tries = 0

    def count() -> None:
        nonlocal tries
        tries += 1
        raise OSError("connection refused")

    broker._answer = count  # type: ignore[method-assign]  # to see that it goes on trying
    await await_until(lambda: tries > 5, "more tries")
    del broker._answer


async def test_a_broker_that_is_away_from_the_start_is_one_line(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.is_away = True
    messages: list[Json] = []
    listening = Notices()
    listening.subscribe(messages.append)
    await await_until(lambda: texts(caplog), "a line")
    await _several_tries(broker)
    assert len(texts(caplog)) == 1
    broker.is_away = False
    await await_until(lambda: broker.has_members, "it listens")
    listening.unsubscribe(messages.append)


async def test_messages_that_vanish_without_an_error_are_noticed(
    broker: Broker, heard: list[Json], caplog: pytest.LogCaptureFixture
) -> None:
    broker.loses = True
    await await_until(lambda: texts(caplog), "a line")
    assert texts(caplog) == [
        "no notices (the broker does not answer): polling every second instead"
    ]
    broker.loses = False
    await await_until(lambda: len(texts(caplog)) == 2, "another line")


async def test_the_group_is_joined_again_before_it_forgets_us(
    broker: Broker, heard: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    joins = broker.joins
    monkeypatch.setattr(notices, "REJOIN_SECONDS", 0.0)
    await await_until(lambda: broker.joins > joins + 2, "it joins again and again")
    assert len(broker.groups[events.GROUP]) == 1


def test_the_group_is_joined_again_in_good_time() -> None:
    assert InMemoryChannelLayer().group_expiry > notices.REJOIN_SECONDS * 10
