"""The barrier between one holder's input and the next one's, as the database sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now

from controlplane import driving, leases, streamrows, sweeping
from controlplane.closecodes import CloseCode
from controlplane.dbthreads import DatabaseThreads
from controlplane.driving import Claim, Driver
from controlplane.models import DisplayStream, Workspace
from controlplane.rfb.messages import encode_key, encode_pointer
from controlplane.streamrows import PROCESS
from controlplane.verdicts import Question, examine
from tests.integration.people import OTHER_TAB, THIS_TAB, open_stream, question, tab
from tests.support.desktop import LiveDesktop
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import FakeVnc

GRANTED = Claim(is_granted=True)
OTHER_PROCESS = "another process"


def driver_of(stream: DisplayStream, epoch: int) -> Driver:
    return Driver(stream.pk, stream.workspace_id, stream.user_id, stream.client_id, epoch)


def taken(desk: Workspace, user: User, client_id: str = THIS_TAB, **more: Any) -> Driver:
    """Let this tab have control, with a stream open; return it as one that is about to drive."""
    lease = leases.acquire(desk, tab(user, client_id), ttl=300, **more)
    return driver_of(open_stream(desk, user, client_id), lease.epoch)


def row(driver: Driver) -> DisplayStream:
    return DisplayStream.objects.get(pk=driver.stream_id)


def be_silent(driver: Driver, seconds: float, process: str = OTHER_PROCESS) -> None:
    """Let the stream be one of a process that has not stamped it for so long."""
    DisplayStream.objects.filter(pk=driver.stream_id).update(
        process=process, stamped_at=Now() - timedelta(seconds=seconds)
    )


def hand_over(desk: Workspace, first: Driver, second: User) -> Driver:
    """Force-release, and let the second person take control; the first still drives."""
    leases.force_release(desk, by="Root", note="enough")
    return taken(desk, second, OTHER_TAB)


@pytest.fixture
def first(desk: Workspace, operator: User) -> Driver:
    """The operator's stream, which drives."""
    driver = taken(desk, operator)
    assert driving.claim(driver, PROCESS) == GRANTED
    return driver


# --- Claiming -------------------------------------------------------------------------------------
def test_the_holder_drives_and_says_so(first: Driver) -> None:
    assert row(first).driving_epoch == 1


def test_claiming_twice_is_harmless(first: Driver) -> None:
    assert driving.claim(first, PROCESS) == GRANTED


def test_nobody_drives_without_the_lease(desk: Workspace, operator: User, colleague: User) -> None:
    stream = open_stream(desk, operator)
    assert driving.claim(driver_of(stream, 0), PROCESS) == Claim()
    leases.acquire(desk, tab(colleague), ttl=300)
    assert driving.claim(driver_of(stream, 1), PROCESS) == Claim()
    assert not streamrows.driving().exists()


@pytest.mark.parametrize("change", [{"epoch": 2}, {"client_id": OTHER_TAB}, {"user_id": 0}])
def test_a_claim_has_to_be_of_the_lease_as_it_is(first: Driver, change: dict[str, Any]) -> None:
    assert driving.claim(replace(first, **change), PROCESS) == Claim()


def test_a_claim_for_an_epoch_that_has_ended_comes_too_late(first: Driver, desk: Workspace) -> None:
    leases.force_release(desk, by="Root", note="enough")
    assert driving.claim(first, PROCESS) == Claim()


def test_a_stream_that_another_process_has_adopted_cannot_drive(first: Driver) -> None:
    DisplayStream.objects.update(process=streamrows.sweeper(OTHER_PROCESS), driving_epoch=None)
    assert driving.claim(first, PROCESS) == Claim()


def test_a_closed_stream_cannot_drive(desk: Workspace, operator: User) -> None:
    driver = taken(desk, operator)
    DisplayStream.objects.update(closed_at=Now())
    assert driving.claim(driver, PROCESS) == Claim()


def test_no_claim_comes_between_the_end_of_driving_and_the_end_of_the_stream(
    first: Driver,
) -> None:
    is_claiming = False

    def claim_after_each_write(execute: Callable[..., Any], sql: str, *more: Any) -> Any:
        nonlocal is_claiming
        result = execute(sql, *more)
        if sql.startswith("UPDATE") and not is_claiming:
            is_claiming = True
            driving.claim(first, PROCESS)
            is_claiming = False
        return result

    with connection.execute_wrapper(claim_after_each_write):
        streamrows.close(first.stream_id, CloseCode.DONE, input_age=2.0)
    assert (row(first).closed_at is None, row(first).driving_epoch) == (False, None)


def test_the_next_holder_waits_until_the_one_before_has_let_go(
    first: Driver, desk: Workspace, colleague: User
) -> None:
    second = hand_over(desk, first, colleague)
    assert driving.claim(second, PROCESS) == Claim()
    assert row(second).driving_epoch is None
    driving.clear([first.stream_id], {desk.pk}, PROCESS)
    assert driving.claim(second, PROCESS) == GRANTED


def test_a_silent_process_is_waited_for_until_its_gates_have_shut_by_themselves(
    first: Driver, desk: Workspace, colleague: User, settings: Any
) -> None:
    second = hand_over(desk, first, colleague)
    fence = settings.DISPLAY.fence_seconds
    be_silent(first, fence - 1)
    assert driving.claim(second, PROCESS) == Claim()
    be_silent(first, fence + 1)
    assert driving.claim(second, PROCESS) == Claim(stale=(first.stream_id,))
    assert row(second).driving_epoch is None, "first its keys are to be released"


def test_an_older_stream_of_the_same_tab_is_waited_for_two_polls(
    first: Driver, desk: Workspace, operator: User, settings: Any
) -> None:
    newer = driver_of(open_stream(desk, operator), 1)
    be_silent(first, settings.DISPLAY.watch_seconds)
    assert driving.claim(newer, PROCESS) == Claim()
    be_silent(first, settings.DISPLAY.watch_seconds * 2 + 0.5)
    assert driving.claim(newer, PROCESS) == Claim(stale=(first.stream_id,))


def test_an_older_stream_of_the_same_tab_keeps_others_waiting_until_its_own_fence(
    first: Driver, desk: Workspace, operator: User, colleague: User, settings: Any
) -> None:
    newer = driver_of(open_stream(desk, operator), 1)
    be_silent(first, settings.DISPLAY.watch_seconds * 2 + 0.5)
    adopted = driving.adopt(first.stream_id, PROCESS, newer)
    assert adopted is not None
    assert driving.claim(newer, PROCESS) == Claim(), "its keys have yet to be released"
    driving.finish(adopted, PROCESS)
    assert driving.claim(newer, PROCESS) == GRANTED
    third = hand_over(desk, newer, colleague)
    driving.clear([newer.stream_id], {desk.pk}, PROCESS)
    assert driving.claim(third, PROCESS) == Claim(), "the gate of the first may still be open"
    be_silent(first, settings.DISPLAY.fence_seconds + 0.5, streamrows.SWEPT)
    assert driving.claim(third, PROCESS) == GRANTED
    assert driving.abandoned() == [], "its keys are not released a second time"
    assert row(first).driving_epoch is None


def test_a_stream_that_ends_keeps_nobody_waiting(first: Driver) -> None:
    streamrows.close(first.stream_id, CloseCode.DONE, input_age=2.0)
    closed = row(first)
    assert (closed.driving_epoch, closed.close_code) == (None, 1000)
    assert closed.last_input_at is not None
    assert closed.closed_at is not None
    assert 1.9 < (closed.closed_at - closed.last_input_at).total_seconds() < 2.5


def test_a_stream_that_ends_does_not_disturb_who_releases_its_keys(first: Driver) -> None:
    be_silent(first, 60)
    driving.adopt(first.stream_id, OTHER_PROCESS)
    streamrows.close(first.stream_id, CloseCode.DONE)
    assert row(first).driving_epoch == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_who_has_to_let_go_is_asked_to_look_once(
    is_first: bool,
    first: Driver,
    desk: Workspace,
    colleague: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    second = hand_over(desk, first, colleague)
    monkeypatch.setattr(driving.events, "announce_look", looks.append)
    driving.claim(second, PROCESS, is_first=is_first)
    assert looks == ([desk.pk] if is_first else [])


def test_other_workspaces_do_not_matter(first: Driver, admin: User) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url="tcp://127.0.0.1:9")
    assert driving.claim(taken(other, admin), PROCESS) == GRANTED


# --- What a pass makes of it ----------------------------------------------------------------------
def question_of(driver: Driver, **more: Any) -> Question:
    asked = question(
        driver.stream_id,
        driver.workspace_id,
        driver.user_id,
        client_id=driver.client_id,
        mode="control",
        driven_epoch=driver.epoch,
        has_let_go=False,
    )
    return replace(asked, **more)


def look(asked: Question) -> Any:
    return examine([asked], False)[asked]


def test_a_pass_finds_that_who_drives_may_go_on(first: Driver) -> None:
    verdict = look(question_of(first))
    assert (verdict.may_drive, verdict.wants_to_drive) == (True, None)


def test_a_pass_finds_who_has_yet_to_claim(desk: Workspace, operator: User) -> None:
    driver = taken(desk, operator)
    verdict = look(question_of(driver, driven_epoch=None, has_let_go=True))
    assert (verdict.may_drive, verdict.wants_to_drive) == (False, driver)


def test_a_row_that_another_process_has_adopted_gives_no_leave_to_drive(first: Driver) -> None:
    be_silent(first, 60)
    adopted = driving.adopt(first.stream_id, OTHER_PROCESS)
    assert adopted is not None
    assert not look(question_of(first)).may_drive
    assert row(first).process == streamrows.sweeper(OTHER_PROCESS), "while its keys are released"
    driving.finish(adopted, OTHER_PROCESS)
    verdict = look(question_of(first))
    assert (verdict.end, verdict.may_drive, verdict.wants_to_drive) == (None, False, first)
    assert driving.claim(first, PROCESS) == GRANTED, "then it is ours again"


def test_a_pass_stamps_a_row_before_it_relies_on_it(first: Driver, settings: Any) -> None:
    be_silent(first, settings.DISPLAY.fence_seconds + 5, PROCESS)
    assert look(question_of(first)).may_drive
    assert driving.adopt(first.stream_id, OTHER_PROCESS) is None


@pytest.mark.parametrize("has_let_go", [True, False])
def test_others_may_drive_once_a_stream_has_shut_its_gate_and_let_go(
    has_let_go: bool, first: Driver, desk: Workspace
) -> None:
    leases.force_release(desk, by="Root", note="enough")
    look(question_of(first, has_let_go=has_let_go))
    assert (row(first).driving_epoch is None) == has_let_go


def test_a_gate_that_a_notice_has_shut_for_a_moment_is_no_letting_go(first: Driver) -> None:
    look(question_of(first, has_let_go=True))
    assert row(first).driving_epoch == 1


def test_a_stream_that_a_newer_one_replaces_lets_go_although_the_lease_is_its_own(
    first: Driver, desk: Workspace, operator: User
) -> None:
    open_stream(desk, operator)
    verdict = look(question_of(first, has_let_go=True))
    assert verdict.end is not None
    assert row(first).driving_epoch is None


def test_a_pass_notes_where_the_pointer_is(first: Driver) -> None:
    look(question_of(first, pointer=(12, 34, 1)))
    look(question_of(first, pointer=None))
    noted = row(first)
    assert (noted.pointer_x, noted.pointer_y, noted.pointer_buttons) == (12, 34, 1)


# --- What a dead process leaves -------------------------------------------------------------------
@pytest.fixture
def fake(desk: Workspace) -> Iterator[FakeVnc]:
    """The workspace's desktop."""
    with FakeVnc() as server:
        desk.upstream_url = server.url
        desk.save()
        yield server


def sweep(*stream_ids: int) -> None:
    asyncio.run(
        asyncio.wait_for(
            sweeping.sweep(list(stream_ids), DatabaseThreads("tests", 1), PROCESS), limit(5)
        )
    )


def test_only_rows_that_nobody_stamps_are_abandoned(first: Driver, settings: Any) -> None:
    assert driving.abandoned() == []
    be_silent(first, settings.DISPLAY.fence_seconds + 1)
    assert driving.abandoned() == [first.stream_id]


def test_a_row_is_adopted_by_one_process_alone(first: Driver) -> None:
    be_silent(first, 60)
    assert driving.adopt(first.stream_id, "one")
    assert driving.adopt(first.stream_id, "two") is None
    assert driving.abandoned() == [], "it is in good hands"


@pytest.mark.django_db(transaction=True)
def test_sweeping_lets_go_of_all_keys_and_of_the_buttons_where_the_pointer_was(
    fake: FakeVnc, desk: Workspace, operator: User
) -> None:
    driver = taken(desk, operator)
    driving.claim(driver, PROCESS)
    DisplayStream.objects.update(pointer_x=7, pointer_y=9, pointer_buttons=1)
    be_silent(driver, 60)
    fake.answers_updates = True
    sweep(driver.stream_id)
    messages = fake.newest.of_type(4, 5)
    shift, letter = encode_key(False, 0xFFE1), encode_key(False, ord("a"))
    assert {shift, letter} <= set(messages)
    assert messages.index(letter) < messages.index(shift), "modifiers last"
    assert messages[-2:] == [encode_pointer(1, 7, 9), encode_pointer(0, 7, 9)]
    assert all(message[:2] != b"\x04\x01" for message in messages), "no key is pressed"
    assert row(driver).driving_epoch is None
    wait_until(lambda: fake.newest.ended, "its connection is closed again")


@pytest.mark.django_db(transaction=True)
def test_sweeping_leaves_a_real_desktop_the_keyboard_that_it_had(
    desktop: LiveDesktop, desk: Workspace, operator: User
) -> None:
    """x11vnc adds what it is told of and the keyboard lacks, and soon has no room for more."""

    def keyboard() -> str:
        return desktop.run("xkbcomp", desktop.environment["DISPLAY"], "-")

    desk.upstream_url = f"tcp://127.0.0.1:{desktop.vnc_port}"
    desk.vnc_password = desktop.password
    desk.save()
    driver = taken(desk, operator)
    driving.claim(driver, PROCESS)
    be_silent(driver, 60)
    before = keyboard()
    sweep(driver.stream_id)
    assert row(driver).driving_epoch is None
    assert keyboard() == before


@pytest.mark.django_db(transaction=True)
def test_a_desktop_that_cannot_be_reached_keeps_nobody_waiting(
    desk: Workspace, operator: User, caplog: pytest.LogCaptureFixture
) -> None:
    desk.upstream_url = "tcp://127.0.0.1:9"
    desk.save()
    driver = taken(desk, operator)
    driving.claim(driver, PROCESS)
    be_silent(driver, 60)
    sweep(driver.stream_id)
    assert row(driver).driving_epoch is None
    assert "could not be released" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_one_process_sweeps_a_row_once_at_a_time(
    fake: FakeVnc, desk: Workspace, operator: User, settings: Any
) -> None:
    old = taken(desk, operator)
    driving.claim(old, PROCESS)
    new = driver_of(open_stream(desk, operator), old.epoch)
    be_silent(old, settings.DISPLAY.watch_seconds * driving.MISSED_POLLS + 0.5)
    with ThreadPoolExecutor() as pool:
        threads = DatabaseThreads("tests", 1)
        first = pool.submit(asyncio.run, sweeping.sweep([old.stream_id], threads, PROCESS, new))
        wait_until(lambda: fake.connections and fake.newest.of_type(3), "the first one has asked")
        stale = Now() - timedelta(seconds=settings.DISPLAY.fence_seconds + 1)
        DisplayStream.objects.filter(pk=old.stream_id).update(stamped_at=stale)
        fake.answers_updates = True
        sweep(old.stream_id)
        assert len(fake.connections) == 1, "the second one leaves it to the first"
        fake.send(bytes(4))
        first.result(limit(5))
    assert row(old).process == streamrows.SWEPT


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_released_before_the_fence_is_tried_again_after_it(
    desk: Workspace, operator: User, settings: Any
) -> None:
    desk.upstream_url = "tcp://127.0.0.1:9"
    desk.save()
    old = taken(desk, operator)
    driving.claim(old, PROCESS)
    new = driver_of(open_stream(desk, operator), old.epoch)
    be_silent(old, settings.DISPLAY.watch_seconds * driving.MISSED_POLLS + 0.5)
    threads = DatabaseThreads("tests", 1)
    asyncio.run(sweeping.sweep([old.stream_id], threads, PROCESS, new))
    assert row(old).driving_epoch is not None, "the new one has to wait"
    be_silent(old, settings.DISPLAY.fence_seconds + 1)
    assert driving.abandoned() == [old.stream_id]
    asyncio.run(sweeping.sweep([old.stream_id], threads, PROCESS))
    assert row(old).driving_epoch is None
