"""What time alone brings about: limits, requests, and rows that dead processes leave."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError, connections
from django.db.models.functions import Now
from django.utils import timezone

from controlplane import handovers, housekeeping, leases, leasestate
from controlplane.exceptions import ControlRefused
from controlplane.housekeeping import Housekeeping, due_for_limits, due_for_requests, tidy
from controlplane.models import DisplayControlLease, DisplayStream, Workspace
from tests.integration.people import (
    OTHER_TAB,
    age,
    assert_free,
    assert_held_by,
    lease_of,
    open_stream,
    refusal,
    tab,
    transitions,
    view_of,
)
from tests.support.timing import await_until

IDLE, LONGEST = 120, 3600


@pytest.fixture
def limited(desk: Workspace, operator: User) -> Workspace:
    """The workspace with both limits; the operator has control."""
    Workspace.objects.update(idle_seconds=IDLE, max_hold_seconds=LONGEST)
    leases.acquire(desk, tab(operator), ttl=300)
    return Workspace.objects.get()


def renew(desk: Workspace, user: User) -> None:
    leases.acquire(desk, tab(user), ttl=300, epoch=lease_of(desk).epoch)


def renew_soon(desk: Workspace, user: User) -> None:
    """Renew a lease that time has not ended, however old it was made."""
    DisplayControlLease.objects.update(expires_at=Now() + timedelta(seconds=100))
    renew(desk, user)


def hold_for(desk: Workspace, user: User, seconds: float) -> None:
    """Let so much time go by, during which the lease is renewed and input comes."""
    age(desk, seconds)
    DisplayControlLease.objects.update(expires_at=Now() + timedelta(seconds=100))
    DisplayStream.objects.filter(user=user).update(last_input_at=Now(), stamped_at=Now())


# --- Idle -----------------------------------------------------------------------------------------
def test_control_ends_without_input(limited: Workspace, operator: User) -> None:
    stream = open_stream(limited, operator)
    age(limited, IDLE + 1)
    DisplayStream.objects.filter(pk=stream.pk).update(stamped_at=Now())
    assert due_for_limits() == [limited.pk]
    leases.end_overdue(limited)
    assert_free(limited, reason="idle", epoch=1)
    assert transitions(limited) == [("acquired", 1), ("idle", 1)]
    assert refusal(renew, limited, operator) == "idle"


def test_input_puts_the_end_off(limited: Workspace, operator: User) -> None:
    open_stream(limited, operator)
    age(limited, IDLE + 1)
    DisplayStream.objects.update(last_input_at=Now(), stamped_at=Now())
    assert due_for_limits() == []
    leases.end_overdue(limited)
    assert_held_by(limited, tab(operator), epoch=1)


@pytest.mark.parametrize("whose", ["another tab", "another person", "another desktop"])
def test_input_of_others_puts_no_end_off(
    whose: str, limited: Workspace, operator: User, colleague: User
) -> None:
    other = Workspace.objects.create(slug="desk-2", name="Desk 13")
    streams = {
        "another tab": (limited, operator, OTHER_TAB),
        "another person": (limited, colleague),
        "another desktop": (other, operator),
    }
    age(limited, IDLE + 1)
    open_stream(*streams[whose])
    DisplayStream.objects.update(last_input_at=Now(), stamped_at=Now())
    leases.end_overdue(limited)
    assert_free(limited, reason="idle", epoch=1)


def test_what_was_never_taken_is_over_at_no_time(desk: Workspace) -> None:
    desk.idle_seconds, desk.max_hold_seconds = IDLE, LONGEST
    assert leasestate.hold_ends_at(lease_of(desk), desk) is None
    assert leasestate.idle_ends_at(lease_of(desk), desk, None) is None


def test_renewing_is_not_being_active(limited: Workspace, operator: User) -> None:
    age(limited, IDLE / 2)
    renew(limited, operator)
    age(limited, IDLE / 2 + 1)
    assert refusal(renew, limited, operator) == "idle"


@pytest.mark.parametrize("has_reconnected", [True, False])
def test_a_holder_who_reconnects_has_not_been_idle(
    has_reconnected: bool, limited: Workspace, operator: User
) -> None:
    stream = open_stream(limited, operator)
    age(limited, IDLE + 1)
    DisplayStream.objects.filter(pk=stream.pk).update(last_input_at=Now(), closed_at=Now())
    if has_reconnected:
        open_stream(limited, operator)
    assert due_for_limits() == []
    renew_soon(limited, operator)
    assert_held_by(limited, tab(operator), epoch=1)


def test_a_holder_without_a_stream_is_idle(limited: Workspace) -> None:
    age(limited, IDLE + 1)
    leases.end_overdue(limited)
    assert_free(limited, reason="idle", epoch=1)


def test_input_that_may_not_have_been_told_of_yet_counts(
    limited: Workspace, operator: User
) -> None:
    open_stream(limited, operator)
    age(limited, IDLE + 1)
    DisplayStream.objects.update(stamped_at=Now() - timedelta(seconds=3))
    leases.end_overdue(limited)
    assert_held_by(limited, tab(operator), epoch=1)


def test_all_input_is_known_from_the_moment_of_a_poll_on_or_once_the_process_is_silent(
    limited: Workspace, operator: User, settings: Any
) -> None:
    stream = open_stream(limited, operator)
    polled, instant = stream.stamped_at, timedelta(microseconds=1)
    silent = polled + timedelta(seconds=settings.DISPLAY.fence_seconds)
    assert leasestate.has_reported_since(stream, polled, polled)
    assert not leasestate.has_reported_since(stream, polled + instant, silent)
    assert leasestate.has_reported_since(stream, polled + instant, silent + instant)


# --- The longest hold -----------------------------------------------------------------------------
def test_no_lease_is_extended_beyond_the_longest_hold(limited: Workspace, operator: User) -> None:
    open_stream(limited, operator)
    hold_for(limited, operator, LONGEST - 50)
    renew(limited, operator)
    assert 49 <= view_of(limited).remaining <= 50


def test_the_longest_hold_ends_it_with_its_reason_and_cannot_be_resumed(
    limited: Workspace, operator: User
) -> None:
    open_stream(limited, operator)
    hold_for(limited, operator, LONGEST - 50)
    renew(limited, operator)
    age(limited, 51)
    view = view_of(limited)
    assert (view.is_held, view.last_end and view.last_end.reason) == (False, "max_hold")
    assert refusal(renew, limited, operator) == "max_hold"
    assert transitions(limited)[-1] == ("max_hold", 1)


def test_a_limit_that_is_set_later_counts_at_once(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    hold_for(desk, operator, 1000)
    Workspace.objects.update(max_hold_seconds=900)
    assert due_for_limits() == [desk.pk]
    leases.end_overdue(desk)
    assert_free(desk, reason="max_hold", epoch=1)


def test_resuming_does_not_begin_the_longest_hold_anew(limited: Workspace, operator: User) -> None:
    Workspace.objects.update(idle_seconds=None)
    age(limited, 310)
    renew(limited, operator)
    lease = lease_of(limited)
    assert lease.epoch == 2
    assert lease.kept_at is not None
    assert (view_of(limited).now - lease.kept_at).total_seconds() > 300


# --- Warning and keeping --------------------------------------------------------------------------
def test_the_last_seconds_are_warned_of(limited: Workspace) -> None:
    age(limited, IDLE - 31)
    assert view_of(limited).warns is None
    age(limited, 2)
    assert view_of(limited).warns == "idle"


def test_keeping_control_puts_both_limits_off(limited: Workspace, operator: User) -> None:
    age(limited, IDLE - 1)
    leases.keep(limited, tab(operator), epoch=1, ttl=300)
    limit = view_of(limited).limit
    assert limit is not None
    assert (limit[0] - view_of(limited).now).total_seconds() > IDLE - 1
    assert transitions(limited)[-1] == ("kept", 1)


def test_only_the_holder_keeps_control(limited: Workspace, colleague: User, operator: User) -> None:
    for holder in (tab(colleague), tab(operator, OTHER_TAB)):
        with pytest.raises(ControlRefused):
            leases.keep(limited, holder, epoch=1, ttl=300)
    with pytest.raises(ControlRefused):
        leases.keep(limited, tab(operator), epoch=2, ttl=300)


def test_without_limits_nothing_ends_and_nothing_is_warned_of(
    desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    age(desk, 299)
    assert (view_of(desk).limit, view_of(desk).warns, due_for_limits()) == (None, None, [])


# --- Rows -----------------------------------------------------------------------------------------
def silent_for(stream: DisplayStream, seconds: float) -> None:
    DisplayStream.objects.filter(pk=stream.pk).update(stamped_at=Now() - timedelta(seconds=seconds))


def test_rows_of_a_process_that_is_gone_are_closed(desk: Workspace, operator: User) -> None:
    gone, alive = open_stream(desk, operator), open_stream(desk, operator, OTHER_TAB)
    silent_for(gone, 31)
    silent_for(alive, 20)
    tidy()
    assert list(DisplayStream.objects.filter(closed_at=None)) == [alive]
    closed = DisplayStream.objects.get(pk=gone.pk)
    assert (closed.closed_at, closed.close_code) == (closed.stamped_at, 1006)


def test_rows_that_nobody_has_stamped_for_a_day_are_removed(
    desk: Workspace, operator: User
) -> None:
    old, young = open_stream(desk, operator), open_stream(desk, operator, OTHER_TAB)
    silent_for(old, 25 * 3600)
    silent_for(young, 23 * 3600)
    tidy()
    assert list(DisplayStream.objects.all()) == [young]


def test_rows_that_are_still_driving_are_left_to_the_sweep(desk: Workspace, operator: User) -> None:
    driver = open_stream(desk, operator)
    DisplayStream.objects.update(driving_epoch=1)
    silent_for(driver, 25 * 3600)
    tidy()
    assert DisplayStream.objects.get().closed_at is None


def test_logins_that_expired_a_day_ago_are_removed(db: None) -> None:
    for hours in (25, 23, -1):
        at = timezone.now() - timedelta(hours=hours)
        Session.objects.create(pk=f"expired {hours} h ago", session_data="", expire_date=at)
    tidy()
    left = set(Session.objects.values_list("pk", flat=True))
    assert left == {"expired 23 h ago", "expired -1 h ago"}


# --- The task -------------------------------------------------------------------------------------
@pytest.fixture
def house(settings: Any) -> Any:
    """A housekeeping that looks often."""
    settings.DISPLAY = type(settings.DISPLAY)(watch_seconds=0.02)
    return Housekeeping()


def reason_of(desk: Workspace) -> str:
    return lease_of(desk).ended_reason


async def stop(house: Housekeeping) -> None:
    assert house._task is not None
    house._task.cancel()
    await asyncio.gather(house._task, return_exceptions=True)
    house._threads.release()


@pytest.fixture
def overdue(limited: Workspace) -> Workspace:
    """The workspace, whose holder has been idle for too long."""
    age(limited, IDLE + 1)
    return limited


@pytest.mark.django_db(transaction=True)
async def test_the_task_does_what_is_due(overdue: Workspace, house: Housekeeping) -> None:
    house.start()
    house.start()
    with ThreadPoolExecutor(1) as pool:  # a loop may not ask the database itself
        await await_until(lambda: pool.submit(reason_of, overdue).result() == "idle", "it ends")
        pool.submit(connections.close_all).result()
    await stop(house)


async def test_an_outage_is_told_once_and_its_end_once(
    house: Housekeeping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0
    is_away = True

    def look() -> list[int]:
        nonlocal calls
        calls += 1
        if is_away:
            raise OperationalError("gone")
        return []

    for name in ("due_for_limits", "due_for_requests"):
        monkeypatch.setattr(housekeeping, name, look)
    monkeypatch.setattr(housekeeping.driving, "abandoned", lambda: [7])
    touched: list[object] = []
    monkeypatch.setattr(housekeeping, "tidy", lambda: touched.append("tidied"))
    monkeypatch.setattr(housekeeping.sweeping, "sweep", touched.append)
    house._recovered = time.monotonic()  # there has been an outage just before
    house._tidied = -housekeeping.TIDY_SECONDS  # long ago
    house.start()
    await await_until(lambda: calls > 5, "it tries again and again")
    is_away = False
    await await_until(lambda: calls > 12, "it goes on")
    await stop(house)
    told = [record.message for record in caplog.records if "housekeeping" in record.message]
    assert told == [
        "housekeeping rests: the database is away: gone",
        "housekeeping goes on",
    ]
    assert touched == [], "streams that live have yet to stamp their rows"


async def test_a_chore_that_fails_keeps_none_of_the_others_from_being_done(
    house: Housekeeping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked: list[None] = []

    def fail() -> list[int]:
        raise RuntimeError("a bug")

    def look() -> list[int]:
        looked.append(None)
        return []

    monkeypatch.setattr(housekeeping, "due_for_limits", fail)
    monkeypatch.setattr(housekeeping, "due_for_requests", list)
    monkeypatch.setattr(housekeeping.driving, "abandoned", look)
    house.start()
    await await_until(lambda: len(looked) > 2, "the others go on")
    await stop(house)
    assert "_end_what_is_over failed" in caplog.text


def test_workspaces_with_requests_are_looked_at(
    desk: Workspace, operator: User, colleague: User
) -> None:
    assert due_for_requests() == []
    leases.acquire(desk, tab(operator), ttl=300)
    handovers.ask(desk, tab(colleague), "please")
    assert due_for_requests() == [desk.pk]


def test_a_workspace_that_is_removed_before_its_limits_are_looked_at_is_no_error(
    desk: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(found: Workspace) -> None:
        """It has been found, and its lease is gone before it is locked."""
        Workspace.objects.filter(pk=desk.pk).delete()
        seen.append(found)
        end_overdue(found)

    seen: list[Workspace] = []
    end_overdue = leases.end_overdue
    monkeypatch.setattr(leases, "end_overdue", too_late)
    housekeeping._end_overdue(desk.pk)
    assert seen == [desk]
    housekeeping._end_overdue(desk.pk)  # nor is it found any more
    assert seen == [desk]
