"""Screenshots over the API: who gets one, of which moment, and how often a desktop is dialled."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from PIL import Image

from controlplane import leases, links, screenshots
from controlplane.models import Role, Workspace, WorkspaceGrant
from controlplane.workspaces import configuring
from tests.integration.people import OTHER_TAB, THIS_TAB, Browser, agent, let_expire, tab
from tests.integration.programs import Program, token
from tests.integration.test_api import assert_error, assert_invalid
from tests.support.processes import free_port
from tests.support.rfb import update
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import HEIGHT, WIDTH, FakeVnc

pytestmark = pytest.mark.django_db(transaction=True)  # pictures are taken in other threads

PATH = "/api/workspaces/desk/desktop/screenshot"
RED, BLUE = (200, 30, 10), (10, 30, 200)
TTL = 300.0


def picture(colour: tuple[int, int, int]) -> bytes:
    """What a desktop of this colour answers: blue, green, red and a byte of no meaning."""
    return update(WIDTH, HEIGHT, bytes([*reversed(colour), 77]))


@pytest.fixture
def vnc() -> Iterator[FakeVnc]:
    """A desktop that is red all over."""
    with FakeVnc() as vnc:
        vnc.answers_updates, vnc.answer = True, picture(RED)
        yield vnc


@pytest.fixture(autouse=True)
def _at_the_desk(desk: Workspace, vnc: FakeVnc) -> None:
    desk.upstream_url = vnc.url
    desk.save()


@pytest.fixture
def watcher(observer: User) -> Browser:
    """Somebody who may only watch."""
    return Browser(observer)


@pytest.fixture
def program() -> Program:
    """A program that may watch."""
    return Program(token("observe")[1])


def image(answer: HttpResponse, kind: str = "PNG") -> Image.Image:
    """Return the picture in an answer, which must be one of this kind."""
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"] == f"image/{kind.lower()}"
    found = Image.open(io.BytesIO(answer.content))
    assert found.format == kind
    return found


def colours(answer: HttpResponse) -> set[Any]:
    """Return all colours in the answer's PNG."""
    found = image(answer).getcolors()
    assert found is not None
    return {colour for _, colour in found}


def in_thread(call: Callable[[], HttpResponse]) -> HttpResponse:
    """Call, and leave no connection behind."""
    try:
        return call()
    finally:
        connection.close()


@contextmanager
def being_taken(vnc: FakeVnc, call: Callable[[], HttpResponse]) -> Iterator[Future[HttpResponse]]:
    """Call; the block runs while the desktop has been asked for a picture and is silent."""
    vnc.answers_updates = False
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(in_thread, call)
        wait_until(lambda: vnc.connections and vnc.newest.of_type(3), "a picture is asked for")
        yield answer
        vnc.answers_updates = True
        vnc.send(vnc.answer)
        answer.result(limit(2))


def hide(desk: Workspace, operator: User, hidden: bool = True) -> None:
    epoch = leases.acquire(desk, tab(operator), ttl=TTL).epoch
    leases.hide(desk, tab(operator), epoch=epoch, hidden=hidden)


# --- The picture ----------------------------------------------------------------------------------
def test_a_png_shows_each_pixel_of_the_desktop_and_tells_its_size(
    watcher: Browser, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=TTL)
    answer = watcher.get(PATH)
    assert (image(answer).size, colours(answer)) == ((WIDTH, HEIGHT), {RED})
    told = {name: answer.headers[name] for name in ("X-Desktop-Width", "X-Desktop-Height")}
    assert told == {"X-Desktop-Width": str(WIDTH), "X-Desktop-Height": str(HEIGHT)}
    assert (answer.headers["X-Control-Epoch"], answer.headers["Cache-Control"]) == ("1", "no-store")


def test_a_jpeg_shows_the_same_and_is_smaller_the_lower_its_quality(watcher: Browser) -> None:
    answers = [watcher.get(f"{PATH}?format=jpeg&quality={quality}") for quality in (95, 1)]
    found = image(answers[0], "JPEG")
    assert found.size == (WIDTH, HEIGHT)
    pixel = found.getpixel((9, 9))
    assert isinstance(pixel, tuple)
    assert all(abs(a - b) < 8 for a, b in zip(pixel, RED, strict=True))
    assert len(answers[1].content) < len(answers[0].content)


@pytest.mark.parametrize(("width", "expected"), [(16, (16, 12)), (63, (63, 47)), (9999, (64, 48))])
def test_it_is_scaled_down_in_proportion_and_never_up(
    width: int, expected: tuple[int, int], watcher: Browser
) -> None:
    answer = watcher.get(f"{PATH}?width={width}")
    assert (image(answer).size, colours(answer)) == (expected, {RED})
    assert answer.headers["X-Desktop-Width"] == str(WIDTH)


@pytest.mark.parametrize(
    "query", ["format=gif", "width=15", "width=x", "quality=0", "quality=96", "format="]
)
def test_a_wish_that_cannot_be_met_is_named(query: str, watcher: Browser, vnc: FakeVnc) -> None:
    assert_invalid(watcher.get(f"{PATH}?{query}"), query.partition("=")[0])
    assert vnc.connections == []


def test_the_desktop_is_asked_for_a_picture_twice_and_told_nothing_else(
    watcher: Browser, vnc: FakeVnc
) -> None:
    watcher.get(PATH)
    assert [message[0] for message in vnc.newest.messages] == [0, 2, 3] * 2
    wait_until(lambda: vnc.newest.ended, "the connection is closed")


# --- How often ------------------------------------------------------------------------------------
@pytest.fixture
def _pictures_stay_fresh(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """They do for longer than the slowest machine needs, and so long a desktop may be silent."""
    monkeypatch.setattr(screenshots, "FRESH_SECONDS", limit(6))
    settings.DISPLAY = replace(settings.DISPLAY, connect_seconds=limit(6))


@pytest.mark.usefixtures("_pictures_stay_fresh")
def test_fifty_callers_at_once_cost_one_connection(
    vnc: FakeVnc, desk: Workspace, observer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = [Browser(observer) for _ in range(50)]
    waiting: list[Workspace] = []  # of them the pool has connections for sixteen
    take = screenshots.take

    def count(workspace: Workspace, state: screenshots.State) -> screenshots.Picture:
        waiting.append(workspace)
        return take(workspace, state)

    monkeypatch.setattr(screenshots, "take", count)
    with ThreadPoolExecutor(50) as executor, being_taken(vnc, lambda: callers[0].get(PATH)):
        answers = [
            executor.submit(in_thread, lambda browser=browser: browser.get(PATH))
            for browser in callers[1:]
        ]
        wait_until(lambda: len(waiting) == 50, "all wait for the picture", expected=5)
    assert {image(answer.result(limit(2))).size for answer in answers} == {(WIDTH, HEIGHT)}
    assert len(vnc.connections) == 1


@pytest.mark.usefixtures("_pictures_stay_fresh")
def test_a_second_after_it_was_begun_a_picture_is_taken_anew(
    watcher: Browser, vnc: FakeVnc, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert colours(watcher.get(PATH)) == colours(watcher.get(PATH)) == {RED}
    assert len(vnc.connections) == 1
    monkeypatch.setattr(screenshots, "FRESH_SECONDS", 0.0)
    vnc.answer = picture(BLUE)
    assert colours(watcher.get(PATH)) == {BLUE}


def test_nothing_is_kept_of_a_picture_that_nobody_will_be_given_any_more(
    watcher: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screenshots, "FRESH_SECONDS", 0.1)
    image(watcher.get(PATH))
    wait_until(lambda: not screenshots._camera._takings, "it is forgotten")


@pytest.mark.usefixtures("_pictures_stay_fresh")
def test_what_is_wanted_alike_is_encoded_once(
    watcher: Browser, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[screenshots.Encoding] = []
    encode = screenshots._encode

    def count(picture: Image.Image, wanted: screenshots.Encoding) -> bytes:
        encoded.append(wanted)
        return encode(picture, wanted)

    monkeypatch.setattr(screenshots, "_encode", count)
    assert watcher.get(f"{PATH}?width=32").content == program.get(f"{PATH}?width=32").content
    image(watcher.get(PATH))
    assert [each.width for each in encoded] == [32, None]


# --- Who ------------------------------------------------------------------------------------------
def test_who_may_not_watch_learns_nothing(stranger: User, vnc: FakeVnc) -> None:
    assert_error(Browser(stranger).get(PATH), 404, "not_found")
    assert_error(Browser().get(PATH), 401, "unauthenticated")
    assert vnc.connections == []


def test_a_display_that_is_not_enabled_is_not_dialled(
    watcher: Browser, desk: Workspace, vnc: FakeVnc
) -> None:
    configuring.patch("desk", {"enabled": False})
    assert_error(watcher.get(PATH), 409, "display_not_enabled")
    assert vnc.connections == []


def test_a_hidden_desktop_is_shown_to_the_holders_own_tab_alone(
    desk: Workspace, operator: User, admin: User, program: Program, vnc: FakeVnc
) -> None:
    hide(desk, operator)
    for answer in (
        Browser(admin).get(PATH),
        Browser(operator).get(PATH),
        Browser(operator).get(PATH, **{"X-Client-Id": OTHER_TAB}),
        Browser(admin).get(PATH, **{"X-Client-Id": THIS_TAB}),
        program.get(PATH),
    ):
        body = assert_error(answer, 409, "hidden")
        assert body["error"]["message"] == "Olive Operator hides this desktop from watchers."
        assert body["current"]["controlled_by"] == "Olive Operator"
    assert vnc.connections == []
    own = Browser(operator).get(PATH, **{"X-Client-Id": THIS_TAB})
    assert colours(own) == {RED}


def test_a_picture_that_was_taken_while_hidden_is_nobody_elses_a_moment_later(
    desk: Workspace, operator: User, watcher: Browser, vnc: FakeVnc
) -> None:
    hide(desk, operator)
    assert colours(Browser(operator).get(PATH, **{"X-Client-Id": THIS_TAB})) == {RED}
    hide(desk, operator, hidden=False)
    vnc.answer = picture(BLUE)
    assert colours(watcher.get(PATH)) == {BLUE}


def test_nor_is_it_when_time_alone_has_ended_what_hid_it(
    desk: Workspace, operator: User, watcher: Browser, vnc: FakeVnc
) -> None:
    hide(desk, operator)
    assert colours(Browser(operator).get(PATH, **{"X-Client-Id": THIS_TAB})) == {RED}
    let_expire(desk)
    vnc.answer = picture(BLUE)
    assert colours(watcher.get(PATH)) == {BLUE}


def test_what_is_hidden_while_the_picture_is_taken_is_not_shown(
    desk: Workspace, operator: User, watcher: Browser, vnc: FakeVnc
) -> None:
    with being_taken(vnc, lambda: watcher.get(PATH)) as answer:
        hide(desk, operator)
    assert_error(answer.result(), 409, "hidden")


def test_what_was_hidden_for_a_moment_while_the_picture_was_taken_is_taken_anew(
    desk: Workspace, operator: User, watcher: Browser, vnc: FakeVnc
) -> None:
    leases.acquire(desk, tab(operator), ttl=TTL)
    with being_taken(vnc, lambda: watcher.get(PATH)) as answer:
        hide(desk, operator)
        vnc.send(vnc.answer[:-1])  # nearly all of it: what is hidden
        hide(desk, operator, hidden=False)
        last, vnc.answer, vnc.answers_updates = vnc.answer[-1:], picture(BLUE), True
        vnc.send(last)
    assert colours(answer.result()) == {BLUE}
    assert len(vnc.connections) == 2


def test_programs_do_not_see_what_people_do_unless_the_workspace_lets_them(
    desk: Workspace, operator: User, watcher: Browser, program: Program, vnc: FakeVnc
) -> None:
    leases.acquire(desk, tab(operator), ttl=TTL)
    body = assert_error(program.get(PATH), 409, "human_in_control")
    assert "Olive Operator, a person, has control" in body["error"]["message"]
    assert vnc.connections == []
    assert colours(watcher.get(PATH)) == {RED}
    configuring.patch("desk", {"agents_see_people": True})
    assert colours(program.get(PATH)) == {RED}


def test_programs_see_what_programs_do(desk: Workspace, program: Program) -> None:
    row, _ = token("control", name="Another")
    leases.acquire(desk, agent(row.account), ttl=TTL)
    assert colours(program.get(PATH)) == {RED}


def test_a_person_who_takes_control_meanwhile_is_not_seen_by_a_program(
    desk: Workspace, operator: User, program: Program, vnc: FakeVnc
) -> None:
    with being_taken(vnc, lambda: program.get(PATH)) as answer:
        leases.acquire(desk, tab(operator), ttl=TTL)
    assert_error(answer.result(), 409, "human_in_control")


def test_a_person_with_a_control_link_is_a_person(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=TTL)
    made = links.make(desk, "Gesine Guest", Role.OBSERVER, 600, by="x")
    guest = Program(links.exchange(made.ticket, OTHER_TAB).bearer)
    assert colours(guest.get(PATH, **{"X-Client-Id": OTHER_TAB})) == {RED}
    assert_error(guest.get(PATH), 401, "unauthenticated")


def test_who_loses_access_while_the_picture_is_taken_does_not_get_it(
    desk: Workspace, watcher: Browser, vnc: FakeVnc
) -> None:
    with being_taken(vnc, lambda: watcher.get(PATH)) as answer:
        WorkspaceGrant.objects.all().delete()
    assert_error(answer.result(), 404, "not_found")


def test_a_picture_is_of_one_epoch(
    desk: Workspace, operator: User, watcher: Browser, vnc: FakeVnc
) -> None:
    with being_taken(vnc, lambda: watcher.get(PATH)) as answer:
        leases.acquire(desk, tab(operator), ttl=TTL)
    assert answer.result().headers["X-Control-Epoch"] == "1"
    assert len(vnc.connections) == 2


def test_control_that_never_rests_is_told_instead_of_a_picture(
    desk: Workspace, operator: User, watcher: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = screenshots.take

    def take_and_renew(*args: Any) -> screenshots.Picture:
        leases.acquire(desk, tab(operator), ttl=TTL)
        return take(*args)

    monkeypatch.setattr(screenshots, "take", take_and_renew)
    answer = watcher.get(PATH)
    assert_error(answer, 503, "control_unsettled")
    assert answer.headers["Retry-After"] == "1"


# --- Desktops that give none ----------------------------------------------------------------------
def test_a_desktop_that_cannot_be_reached_is_told_with_the_step(
    desk: Workspace, watcher: Browser
) -> None:
    configuring.patch("desk", {"upstream_url": f"tcp://127.0.0.1:{free_port()}"})
    answer = watcher.get(PATH)
    body = assert_error(answer, 503, "display_unreachable")
    assert "connect: 127.0.0.1 port" in body["error"]["message"]
    assert answer.headers["Retry-After"] == "2"
    desk.refresh_from_db()
    assert desk.display_status == "unreachable"


def test_refused_credentials_are_not_tried_again(
    desk: Workspace, watcher: Browser, vnc: FakeVnc
) -> None:
    vnc.behaviour = "wrong_password"
    configuring.patch("desk", {"vnc_password": "geheim12"})
    for _ in range(3):
        answer = watcher.get(PATH)
        assert_error(answer, 503, "display_unreachable")
        assert answer.headers["Retry-After"] == "60"
        assert b"geheim" not in answer.content
        screenshots.forget()
    assert len(vnc.connections) == 1


def test_a_failure_is_shared_like_a_picture(watcher: Browser, vnc: FakeVnc) -> None:
    vnc.behaviour = "garbage"
    for _ in range(3):
        assert_error(watcher.get(PATH), 503, "display_unreachable")
    assert len(vnc.connections) == 1


@pytest.mark.parametrize(
    ("behaviour", "step"),
    [("silent", "banner"), ("no_server_init", "ServerInit"), ("well", "stream")],
)
def test_a_desktop_that_accepts_and_says_nothing_is_given_up_in_time(
    behaviour: Any, step: str, watcher: Browser, vnc: FakeVnc, settings: Any
) -> None:
    settings.DISPLAY = replace(settings.DISPLAY, connect_seconds=0.3)
    vnc.behaviour, vnc.answers_updates = behaviour, False
    began = time.monotonic()
    body = assert_error(watcher.get(PATH), 503, "display_unreachable")
    assert f"{step}: no " in body["error"]["message"]
    assert 0.3 <= time.monotonic() - began < limit(0.3)
    wait_until(lambda: vnc.newest.ended, "the connection is closed")


def test_a_message_that_comes_between_the_two_pictures_is_read_to_its_end(
    watcher: Browser, vnc: FakeVnc
) -> None:
    text = b"\x03\0\0\0" + (8).to_bytes(4, "big") + b"\xff" * 8  # ServerCutText
    vnc.answer = picture(BLUE)
    with being_taken(vnc, lambda: watcher.get(PATH)) as answer:
        vnc.send(picture(RED) + text[:10])
        wait_until(lambda: len(vnc.newest.of_type(3)) == 2, "a second picture is asked for")
        vnc.send(text[10:] + picture(BLUE))
        assert colours(answer.result(limit(2))) == {BLUE}


def test_half_a_picture_is_none(watcher: Browser, vnc: FakeVnc, settings: Any) -> None:
    settings.DISPLAY = replace(settings.DISPLAY, connect_seconds=0.3)
    vnc.answer = vnc.answer[:-1]
    body = assert_error(watcher.get(PATH), 503, "display_unreachable")
    assert "no whole picture within 0.3 s" in body["error"]["message"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"\x4d", "a message of type 77"), (update(WIDTH + 1, 1), "beyond its screen")],
)
def test_what_is_no_picture_is_told_and_ends_the_connection(
    answer: bytes, expected: str, watcher: Browser, vnc: FakeVnc
) -> None:
    vnc.answer = answer
    body = assert_error(watcher.get(PATH), 503, "display_unreachable")
    assert expected in body["error"]["message"]
    wait_until(lambda: vnc.newest.ended, "the connection is closed")


def test_a_desktop_that_hangs_up_is_told(watcher: Browser, vnc: FakeVnc) -> None:
    with being_taken(vnc, lambda: watcher.get(PATH)) as answer:
        vnc.hang_up()
        body = assert_error(answer.result(limit(2)), 503, "display_unreachable")
    assert "the desktop closed" in body["error"]["message"]
