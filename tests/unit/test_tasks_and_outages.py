"""background.py and outages.py: what is logged of what goes on without anybody waiting for it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from controlplane import background
from controlplane.outages import Outage

logger = logging.getLogger("controlplane.broker")


def broker(level: int = logging.WARNING) -> Outage:
    return Outage(logger, begins="the broker is away: %s", ends="it is back", level=level)


def test_an_outage_is_told_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = broker()
    for outcome in (None, OSError("no route"), OSError("refused"), None, None):
        outage.note(outcome)
    assert caplog.messages == ["the broker is away: no route", "it is back"]
    assert not outage.is_on


def test_an_error_without_words_is_told_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    broker().note(TimeoutError())
    assert caplog.messages == ["the broker is away: TimeoutError"]


@pytest.mark.parametrize(("level", "has_trace"), [(logging.WARNING, False), (logging.ERROR, True)])
def test_only_what_is_an_error_comes_with_its_traceback(
    level: int, has_trace: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker(level).note(OSError("no route"))
    assert [(each.levelno, bool(each.exc_info)) for each in caplog.records] == [(level, has_trace)]


async def test_what_a_task_that_serves_all_dies_of_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ZeroDivisionError("a bug")

    await asyncio.wait([background.start(work(), "poll")])
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("CRITICAL", "poll died")
    assert record.exc_info


async def test_a_task_that_is_stopped_has_not_died(caplog: pytest.LogCaptureFixture) -> None:
    task = background.start(asyncio.sleep(60), "poll")
    task.cancel()
    await asyncio.wait([task])
    assert caplog.messages == []
