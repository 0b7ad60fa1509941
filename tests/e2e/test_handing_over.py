"""Asking for control in the browser, and what the holder, the asker and time make of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from queue import Queue

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Person, Tab, file_appears
from tests.support.server import LiveServer
from tests.support.timing import limit, wait_until

IDLE = {"DISPLAY_REQUEST_IDLE_SECONDS": 2, "DISPLAY_REQUEST_COUNTDOWN_SECONDS": 3}
ADD_MANAGER = """
from django.contrib.auth.models import User
User.objects.create_superuser("mary", password="mary-pass")
"""


def another_manager(person: MakePerson, server: LiveServer) -> Person:
    server.manage("shell", "-c", ADD_MANAGER)
    mary = person("mary", server)
    mary.log_in_by_form().close()
    return mary


def ask(tab: Tab, message: str = "") -> None:
    tab.button("Ask for control").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(message)
    dialog.get_by_role("button", name="Ask").click()
    expect(tab.status).to_have_text("Asked operator for control. Waiting for an answer…")


def bar_of(tab: Tab) -> Locator:
    return tab.page.get_by_role("region", name="Needs an answer")


def bottom_of_picture(tab: Tab) -> float:
    picture = tab.page.locator("#screen canvas").bounding_box()
    assert picture
    return picture["y"] + picture["height"]


def record_what_is_told(tab: Tab) -> None:
    tab.page.evaluate(
        "window.told = []; new MutationObserver(() => told.push(document.getElementById('told')"
        ".textContent)).observe(document.getElementById('told'), {childList: true})"
    )


def assert_types(tab: Tab, path: Path) -> None:
    tab.type(f"echo typed > {path}\n")
    wait_until(file_appears(path), f"{path.name} is typed into being")


@pytest.fixture
def server(start_server: StartServer) -> LiveServer:
    return start_server()


@pytest.fixture
def holder(server: LiveServer, person: MakePerson) -> Tab:
    return person("operator", server).open("desk-1").take_control()


@pytest.fixture
def asker(server: LiveServer, holder: Tab, person: MakePerson) -> Tab:
    tab = person("admin", server).open("desk-1")
    expect(tab.button("Take control")).to_be_disabled()
    return tab


def test_control_is_handed_over_by_mouse_and_the_asker_types_at_once(
    holder: Tab, asker: Tab, tmp_path: Path
) -> None:
    dialled = len(asker.dialled_tokens)
    ask(asker, "may I?")
    expect(bar_of(holder)).to_contain_text("admin asks for control: “may I?”.")
    holder.button("Hand over").click()
    expect(holder.status).to_have_text("Your control was handed over to admin. You are watching.")
    expect(asker.status).to_have_text("You have control.")
    expect(asker.page.locator("#screen canvas")).to_be_focused()
    assert_types(asker, tmp_path / "typed")
    assert asker.epoch == 2
    assert len(asker.dialled_tokens) == dialled, "the picture stays on its stream"


def test_control_is_handed_over_by_keyboard_alone(holder: Tab, asker: Tab, tmp_path: Path) -> None:
    asker.button("Ask for control").focus()
    asker.page.keyboard.press("Enter")
    expect(asker.page.get_by_role("dialog")).to_be_visible()
    asker.page.keyboard.type("please")
    asker.page.keyboard.press("Enter")
    expect(bar_of(holder)).to_contain_text("admin asks for control: “please”.")
    expect(holder.page.locator("#screen canvas")).to_be_focused()  # it takes no focus
    assert_types(holder, tmp_path / "before")

    for key in ("Control", "Alt", "Shift"):
        holder.page.keyboard.down(key)
    for key in ("Control", "Alt", "Shift"):
        holder.page.keyboard.up(key)
    expect(holder.button("Release control")).to_be_focused()
    holder.page.keyboard.press("Tab")
    expect(holder.button("Hand over")).to_be_focused()
    holder.page.keyboard.press("Enter")
    expect(asker.status).to_have_text("You have control.")
    assert_types(asker, tmp_path / "after")


def test_the_bar_neither_moves_the_picture_nor_is_told_twice(holder: Tab, asker: Tab) -> None:
    before = holder.page.locator("#screen canvas").bounding_box()
    record_what_is_told(holder)
    ask(asker, "may I?")
    expect(bar_of(holder)).to_be_visible()
    assert holder.page.locator("#screen canvas").bounding_box() == before
    holder.page.wait_for_timeout(2500)  # two ticks of the page's clock
    assert holder.page.evaluate("told") == ["admin asks for control: “may I?”."]
    expect(holder.status).to_have_text("You have control.")


def test_on_a_phone_the_bar_covers_neither_the_picture_nor_the_buttons(
    holder: Tab, asker: Tab
) -> None:
    holder.page.set_viewport_size({"width": 400, "height": 800})
    ask(asker, "may I? " * 28)  # as long as a message may be
    expect(bar_of(holder)).to_be_visible()
    bar = bar_of(holder).bounding_box()
    release = holder.button("Release control").bounding_box()
    assert bar
    assert release
    # the picture is fitted to what the bar leaves in the frame after the bar's
    wait_until(lambda: bottom_of_picture(holder) <= bar["y"], "a picture above the bar")
    assert bar["y"] + bar["height"] <= release["y"]
    assert bar["x"] >= 0
    assert bar["x"] + bar["width"] <= 400


def test_control_is_kept_and_the_asker_is_told(holder: Tab, asker: Tab, tmp_path: Path) -> None:
    ask(asker)
    holder.button("Keep control").click()
    expect(asker.status).to_have_text("operator keeps control.")
    expect(bar_of(holder)).to_be_hidden()
    expect(holder.status).to_have_text("You have control.")
    assert_types(holder, tmp_path / "typed")
    assert holder.epoch == 1

    holder.button("Release control").click()
    expect(asker.status).to_have_text("You are watching. Nobody has control.")


def test_who_asks_again_at_once_is_told_to_wait(
    holder: Tab, server: LiveServer, person: MakePerson
) -> None:
    someone = person("admin", server)
    tab = someone.open("desk-1")
    ask(tab)
    tab.button("Withdraw").click()
    expect(tab.status).to_have_text("You are watching. operator has control.")
    expect(bar_of(holder)).to_be_hidden()
    tab.button("Ask for control").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Ask").click()
    expect(tab.status).to_have_text(
        "Your last request has only just ended. Wait a moment before you ask again."
    )
    forgive_refusal(someone, 429)


def forgive_refusal(someone: Person, status: int) -> None:
    """Remove what the browser itself says of an answer that the test provokes; it must be there."""
    (complaint,) = someone.complaints
    assert f"status of {status}" in complaint
    someone.complaints.clear()


def test_who_leaves_asks_no_more(holder: Tab, asker: Tab) -> None:
    ask(asker)
    expect(bar_of(holder)).to_be_visible()
    asker.page.goto("/")
    # Sooner than the ten seconds after which the server itself takes them to have left.
    expect(bar_of(holder)).to_be_hidden(timeout=limit(0.5) * 1000)
    assert holder.control["requests"] == []
    expect(holder.status).to_have_text("You have control.")


def test_several_ask_and_the_first_is_answered_first(
    holder: Tab, asker: Tab, server: LiveServer, person: MakePerson
) -> None:
    ask(asker)
    mary = another_manager(person, server).open("desk-1")
    ask(mary, "me too")
    expect(bar_of(holder)).to_contain_text("admin asks for control. 1 more asks for it.")
    holder.button("Keep control").click()
    expect(bar_of(holder)).to_contain_text("mary asks for control: “me too”.")
    expect(asker.status).to_have_text("operator keeps control.")
    holder.button("Hand over").click()
    expect(mary.status).to_have_text("You have control.")
    expect(asker.status).to_have_text("You are watching. mary has control.")


def test_a_click_that_was_meant_for_who_has_just_gone_hands_control_to_nobody(
    holder: Tab, asker: Tab, server: LiveServer, person: MakePerson
) -> None:
    ask(asker)
    mary = another_manager(person, server).open("desk-1")
    ask(mary)
    expect(bar_of(holder)).to_contain_text("1 more asks for it.")
    answers: list[str] = []
    holder.page.on("request", lambda each: answers.append(each.url) if "answer" in each.url else 0)
    holder.page.evaluate(  # a click at the very moment in which the bar names somebody else
        "() => { window.clicked = new Promise((done) => new MutationObserver((_, own) => {"
        " if (!asks.textContent.startsWith('mary')) return;"
        " own.disconnect(); document.querySelector('[data-act=hand]').click();"
        " done(performance.now());"
        "}).observe(asks, {childList: true})) }"
    )
    asker.button("Withdraw").click()
    clicked_at = holder.page.evaluate("window.clicked")
    with holder.page.expect_request("**/healthz"):
        holder.page.evaluate("fetch('/healthz')")
    assert answers == [], "an answer would have been sent before that"
    holder.page.wait_for_function("(at) => performance.now() > at + 1000", arg=clicked_at)
    holder.button("Hand over").click()
    expect(mary.status).to_have_text("You have control.")


def test_who_has_answered_one_may_answer_the_next_at_once(
    holder: Tab, asker: Tab, server: LiveServer, person: MakePerson
) -> None:
    ask(asker)
    mary = another_manager(person, server).open("desk-1")
    ask(mary)
    expect(bar_of(holder)).to_contain_text("1 more asks for it.")
    answers: Queue[Route] = Queue()
    holder.page.route("**/answer", answers.put)
    holder.button("Keep control").click()
    with holder.page.expect_response("**/display/control*"):  # drawn once more before the answer
        holder.page.evaluate("dispatchEvent(new Event('online'))")
    answers.get_nowait().continue_()
    holder.page.unroute("**/answer")
    expect(bar_of(holder)).to_contain_text("mary asks for control")
    holder.button("Hand over").click()
    expect(mary.status).to_have_text("You have control.")


def test_two_tabs_of_the_asker_and_only_the_one_that_asked_gets_control(
    holder: Tab, server: LiveServer, person: MakePerson
) -> None:
    someone = person("admin", server)
    asking, other = someone.open("desk-1"), someone.open("desk-1")
    ask(asking)
    expect(other.button("Withdraw")).to_be_hidden()
    holder.button("Hand over").click()
    expect(asking.status).to_have_text("You have control.")
    expect(other.status).to_have_text("You have control in another tab.")


# --- A holder who gives no input ------------------------------------------------------------------
def test_a_holder_who_is_idle_is_warned_and_any_key_stops_it(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server(**IDLE | {"DISPLAY_REQUEST_COUNTDOWN_SECONDS": 8})
    holder = person("operator", server).open("desk-1").take_control()
    asker = person("admin", server).open("desk-1")
    ask(asker)
    expect(bar_of(holder)).to_contain_text("You have given no input: control goes to admin in")
    expect(bar_of(asker)).to_contain_text("operator is away. Control comes to you in")
    expect(asker.status).to_have_text("Asked operator for control. Waiting for an answer…")
    # Two idle seconds later it begins anew: what was told in between is recorded.
    record_what_is_told(holder)
    record_what_is_told(asker)
    holder.page.keyboard.press("Shift")
    for tab, words in ((holder, "admin asks for control."), (asker, "")):
        is_told = partial(tab.page.evaluate, "(words) => told.includes(words)", words)
        wait_until(is_told, f"“{words}” is told", expected=3)
    assert holder.epoch == 1


def test_a_holder_who_lets_the_countdown_pass_loses_control_to_the_asker(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    server = start_server(**IDLE)
    holder = person("operator", server).open("desk-1").take_control()
    asker = person("admin", server).open("desk-1")
    ask(asker)
    expect(bar_of(asker)).to_contain_text("operator is away. Control comes to you in")
    expect(asker.status).to_have_text("You have control.", timeout=limit(2) * 1000)
    expect(holder.status).to_have_text("Your control was handed over to admin. You are watching.")
    assert_types(asker, tmp_path / "typed")
