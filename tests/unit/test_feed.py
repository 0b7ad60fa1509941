"""The feed's streams: what waits for a slow listener, how they end, and when the reader looks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.db import OperationalError

from controlplane import events, notices
from controlplane.exceptions import TooManyRequests
from controlplane.feed import eventstreams
from controlplane.feed.eventstreams import MAX_WAITING, Feed, Listener
from controlplane.feed.reader import Caller, Listening, Message, Outcome
from tests.support.timing import await_until, limit

OLIVE, OSCAR = Caller(1, "", "login-1"), Caller(2, "", "login-2")


def message(slug: str = "desk", number: int = 0, event: str = "control") -> Message:
    return Message(event, slug, {"number": number}, resume=number)


# --- What is sent ---------------------------------------------------------------------------------
def test_a_message_is_written_as_an_event_stream_wants_it() -> None:
    assert str(message(number=7)) == 'event: control\nid: 7\ndata: {"number": 7}\n\n'
    assert "id:" not in str(Message("viewers", "desk", {}))


def test_a_note_with_line_breaks_cannot_become_an_event_of_its_own() -> None:
    text = str(Message("control", "desk", {"note": "a\n\nevent: gone\r\ndata: {}\u2028"}))
    assert text.count("\n") == 3
    assert len(text.splitlines()) == 3


async def test_what_waits_is_sent_together_and_once() -> None:
    listener = Listener(OLIVE)
    listener.put([message(number=1), message(number=2)])
    listener.put([message(number=3)])
    assert await listener.take() == "".join(str(message(number=n)) for n in (1, 2, 3))
    listener.put([message(number=4)])
    assert await listener.take() == str(message(number=4))


async def test_of_what_waits_for_a_slow_listener_the_newest_of_each_is_kept_in_order() -> None:
    listener = Listener(OLIVE)
    for number in range(MAX_WAITING * 20):
        slug = "desk" if number % 3 else "desk-2"
        listener.put([message(slug, number), message(slug, number, "viewers")])
        assert len(listener._waiting) <= MAX_WAITING + 4
    listener.put([message("gone", 1, "gone")])
    text = await listener.take()
    assert str(message("desk", MAX_WAITING * 20 - 1)) in text
    assert text.endswith(str(message("gone", 1, "gone")))
    numbers = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert numbers[:-1] == sorted(numbers[:-1])


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstreams, "KEEPALIVE_SECONDS", 0.01)
    listener = Listener(OLIVE)
    assert await listener.take() == ": \n\n"
    listener.put([])
    assert await listener.take() == ": \n\n"


def test_comments_come_more_often_than_proxies_lose_patience() -> None:
    assert eventstreams.KEEPALIVE_SECONDS == 15


def test_who_has_signed_out_is_noticed_within_five_seconds() -> None:
    assert eventstreams.ACCESS_SECONDS + 1 < 5


# --- The streams of a process ---------------------------------------------------------------------
class FakeReader:
    """Tells everybody one thing at each look; it can fail, and it remembers what was asked."""

    looks: list[tuple[int, bool]]
    failure: Exception | None = None
    over: set[int]
    made = failures = 0

    def look(self, listeners: Sequence[Listening], checks_access: bool) -> dict[Any, Outcome]:
        if self.failure:
            self.failures += 1
            raise self.failure
        self.looks.append((len(listeners), checks_access))
        number = len(self.looks)
        return {
            each: Outcome([message(number=number)], is_over=each.caller.user_id in self.over)
            for each in listeners
        }


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    """Stands in for the reader of the feed."""
    fake = FakeReader()
    fake.looks, fake.over = [], set()

    def make() -> FakeReader:
        fake.made += 1
        return fake

    monkeypatch.setattr(eventstreams, "Reader", make)
    return fake


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    """A channel layer of this test's own, and with it a part that listens to it."""
    own = InMemoryChannelLayer()
    listening = notices.Notices()
    monkeypatch.setattr(events, "channel_layer", lambda: own)
    monkeypatch.setattr(notices, "current", lambda: listening)
    return own


@pytest.fixture
async def the_feed(
    reader: FakeReader, layer: InMemoryChannelLayer, settings: Any
) -> AsyncIterator[Feed]:
    """A feed that polls often, and is stopped at the end."""
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=0.02, max_streams_per_user=3)
    the_feed = Feed()
    yield the_feed
    await the_feed.end_all()
    for listener in list(the_feed._listeners):
        the_feed._leave(listener)


class Reading:
    """A client that reads all of its stream."""

    def __init__(self, the_feed: Feed, caller: Caller = OLIVE) -> None:
        self.parts: list[str] = []
        self.listener = the_feed.admit(caller)
        self.task = asyncio.create_task(self._read(the_feed))

    async def _read(self, the_feed: Feed) -> None:
        try:
            async for part in the_feed.stream(self.listener):
                self.parts.append(part)
        finally:
            self.listener.note_closed()  # as the response does

    async def until(self, count: int) -> Reading:
        """Wait for so many parts; the first one is the delay before coming back."""
        await await_until(lambda: len(self.parts) >= count, f"{count} parts")
        return self

    async def end(self) -> None:
        """Wait until the server has ended it."""
        async with asyncio.timeout(limit(1)):
            await self.task

    async def vanish(self) -> None:
        """Go away: the server's task is cancelled then."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_a_stream_begins_with_the_delay_before_coming_back(the_feed: Feed) -> None:
    reading = await Reading(the_feed).until(2)
    assert reading.parts[0].startswith("retry: ")
    assert reading.parts[1].startswith("event: control\n")


async def test_one_look_serves_all_and_the_first_look_comes_at_once(
    the_feed: Feed, reader: FakeReader, settings: Any
) -> None:
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=3600, fence_seconds=7200)
    readings = [Reading(the_feed, Caller(number, "", "")) for number in range(50)]
    for reading in readings:
        await reading.until(2)
    assert len(reader.looks) <= 2


async def test_the_feed_looks_again_and_again(the_feed: Feed) -> None:
    await Reading(the_feed).until(6)


async def test_a_notice_is_looked_into_at_once(
    the_feed: Feed, reader: FakeReader, layer: InMemoryChannelLayer, settings: Any
) -> None:
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=3600, fence_seconds=7200)
    reading = await Reading(the_feed).until(2)
    await await_until(lambda: layer.groups.get(events.GROUP), "it listens")
    await layer.group_send(events.GROUP, {"type": "lease", "workspace_id": 1, "version": 2})
    await reading.until(3)
    assert reader.looks[-1] == (1, False)
    await layer.group_send(events.GROUP, {"type": "access"})
    await reading.until(4)
    assert reader.looks[-1] == (1, True)


async def test_access_is_checked_every_few_seconds(
    the_feed: Feed, reader: FakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = await Reading(the_feed).until(5)
    assert [checks for _, checks in reader.looks][:4] == [True, False, False, False]
    monkeypatch.setattr(eventstreams, "ACCESS_SECONDS", 0.0)
    count = len(reading.parts)
    await reading.until(count + 3)
    assert reader.looks[-1] == (1, True)


async def test_whose_login_has_ended_is_sent_away_and_others_stay(
    the_feed: Feed, reader: FakeReader
) -> None:
    leaving, staying = Reading(the_feed, OLIVE), Reading(the_feed, OSCAR)
    await leaving.until(2)
    reader.over = {OLIVE.user_id}
    await leaving.end()
    await staying.until(len(staying.parts) + 2)


async def test_who_vanishes_is_forgotten_and_the_last_one_stops_the_reader(
    the_feed: Feed, reader: FakeReader
) -> None:
    first, second = await Reading(the_feed).until(2), await Reading(the_feed).until(2)
    await first.vanish()
    assert the_feed._listeners == {second.listener}
    task = the_feed._poll._task
    assert task is not None
    await second.vanish()
    await asyncio.wait([task])
    assert task.cancelled()
    made = reader.made
    await Reading(the_feed).until(2)
    assert reader.made == made + 1, "what was known before may be long outdated"


async def test_a_person_may_have_so_many_streams_and_others_are_not_concerned(
    the_feed: Feed,
) -> None:
    readings = [await Reading(the_feed).until(2) for _ in range(3)]
    with pytest.raises(TooManyRequests) as caught:
        the_feed.admit(OLIVE)
    assert caught.value.retry_after
    await Reading(the_feed, OSCAR).until(2)
    await readings[0].vanish()
    await Reading(the_feed).until(2)


async def test_who_is_let_in_and_never_starts_takes_no_place(the_feed: Feed) -> None:
    for _ in range(10):
        the_feed.admit(OLIVE)
        gc.collect()


async def test_a_stream_that_has_sent_a_lot_ends_and_can_be_resumed(
    the_feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstreams, "MAX_STREAM_BYTES", 200)
    await Reading(the_feed).end()


async def test_at_shutdown_all_streams_end_and_new_ones_too(the_feed: Feed) -> None:
    readings = [await Reading(the_feed, Caller(n, "", "")).until(2) for n in range(5)]
    await the_feed.end_all()
    for reading in readings:
        await reading.end()
    assert not the_feed._poll.is_running
    late = Reading(the_feed)
    await late.end()
    assert len(late.parts) == 1
    await the_feed.end_all()


async def test_shutdown_does_not_wait_for_who_does_not_read(
    the_feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstreams, "END_SECONDS", 0.01)
    stuck = the_feed.stream(the_feed.admit(OLIVE))
    await anext(stuck)
    async with asyncio.timeout(limit(1)):
        await the_feed.end_all()
    await stuck.aclose()  # type: ignore[attr-defined]  # it is a generator


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == eventstreams.__name__]


@pytest.mark.parametrize("error", [OperationalError("gone"), ZeroDivisionError("a bug")])
async def test_while_nothing_can_be_read_streams_stay_and_the_log_has_two_lines(
    error: Exception, the_feed: Feed, reader: FakeReader, caplog: pytest.LogCaptureFixture
) -> None:
    reading = await Reading(the_feed).until(2)
    made, count = reader.made, len(reading.parts)
    reader.failure = error
    await await_until(lambda: reader.failures > 3, "reads fail again and again")
    looks = len(reader.looks)
    reader.failure = None
    await reading.until(count + 2)
    assert texts(caplog) == [f"event streams stand still: {error}", "event streams go on"]
    assert reader.looks[looks] == (1, True), "access is the first thing to be looked at"
    is_bug = not isinstance(error, OperationalError)
    assert (reader.made > made) == is_bug, "after a bug, everybody is told anew"
