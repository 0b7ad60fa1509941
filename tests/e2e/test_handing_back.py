"""An agent asks for a person, who takes over, does it, and hands back; or goes away instead."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browsers import Sleeper
from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Person, Robot
from tests.support.server import LiveServer
from tests.support.timing import wait_until

LEASE_SECONDS = 4


@pytest.fixture
def server(start_server: StartServer) -> LiveServer:
    return start_server(DISPLAY_LEASE_SECONDS=LEASE_SECONDS, DISPLAY_RENEW_SECONDS=1)


@pytest.fixture
def robot(server: LiveServer) -> Iterator[Robot]:
    robot = Robot(server)
    yield robot
    robot.close()


def test_what_the_agent_waits_for_is_done_and_handed_back_with_a_note(
    server: LiveServer, robot: Robot, person: MakePerson
) -> None:
    robot.acquire()
    tab = person("operator", server).open("desk-1")
    expect(tab.status).to_have_text("An agent has control. You can take over.")
    assert robot.call("request-human", reason="captcha").status_code == 200
    expect(tab.status).to_have_text("robot asks for you: “captcha”. You can take over.")

    tab.take_control()
    assert robot.refusal == "human_in_control"
    expect(tab.page.locator("#facts")).to_have_text("robot waits: “captcha”.")
    expect(tab.button("Release control")).to_be_hidden()
    tab.button("Hand back to robot").click()
    dialog = tab.page.get_by_role("dialog", name="Hand back to the agent")
    expect(dialog.get_by_label("done", exact=True)).to_be_checked()
    dialog.get_by_label("could not be done").check()
    dialog.get_by_label("Note for the agent").fill("the site is down")
    dialog.get_by_role("button", name="Hand back").click()

    expect(tab.status).to_have_text("You are watching. Nobody has control.")
    told = robot.acquire()["handed_back"]
    assert (told["outcome"], told["note"]) == ("could_not", "the site is down")
    assert (told["by"], told["epoch"]) == ("operator", 2)
    expect(tab.status).to_have_text("An agent has control. You can take over.")


def test_a_dialog_that_is_cancelled_hands_nothing_back(
    server: LiveServer, robot: Robot, person: MakePerson
) -> None:
    robot.acquire()
    tab = person("operator", server).open("desk-1").take_control()
    tab.button("Hand back to robot").click()
    tab.page.keyboard.press("Escape")
    expect(tab.status).to_have_text("You have control.")
    assert robot.refusal == "human_in_control"


def test_the_keys_that_leave_the_desktop_lead_to_handing_back(
    server: LiveServer, robot: Robot, person: MakePerson
) -> None:
    robot.acquire()
    tab = person("operator", server).open("desk-1").take_control()
    for key in ("Control", "Alt", "Shift"):
        tab.page.keyboard.down(key)
    for key in ("Control", "Alt", "Shift"):
        tab.page.keyboard.up(key)
    expect(tab.button("Hand back to robot")).to_be_focused()


def test_a_person_whose_browser_dies_leaves_the_desktop_parked_until_somebody_hands_it_back(
    server: LiveServer, robot: Robot, person: MakePerson, browser: Browser
) -> None:
    robot.acquire()
    mortal = Sleeper(browser)
    operator = Person(mortal.browser, "operator", server.url)
    operator.open("desk-1").take_control()
    assert not operator.complaints
    mortal.die()
    assert robot.refusal == "human_in_control"
    wait_until(lambda: robot.refusal == "parked", "the lease has ended", LEASE_SECONDS)

    manager = person("admin", server)
    page = manager.log_in()
    first = page.locator(".card").first
    expect(first).to_have_attribute("data-workspace", "desk-1")
    expect(first.locator(".facts")).to_have_text("operator’s control ended without handing back")
    tab = manager.open("desk-1")
    expect(tab.status).to_have_text(
        "operator’s control ended without handing back. Until somebody does, robot waits."
    )
    tab.button("Hand back to robot").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Hand back").click()
    expect(tab.status).to_have_text("You are watching. Nobody has control.")
    assert robot.acquire()["handed_back"]["by"] == "admin"
    lines = server.manage("events", "--workspace", "desk-1").splitlines()
    happened = [json.loads(line)["what"] for line in lines]
    assert [what for what in happened if what != "refused"] == [
        *("acquired", "preempted", "expired", "parked", "handed_back", "acquired"),
    ]


def test_an_observer_is_offered_nothing_to_hand_back(
    server: LiveServer, robot: Robot, person: MakePerson
) -> None:
    observer: Person = person("observer", server)
    tab = observer.open("desk-1")
    robot.call("request-human", reason="captcha")
    expect(tab.status).to_have_text("robot asks for you: “captcha”. Nobody has control.")
    expect(tab.page.locator("[data-act=handback]")).to_be_hidden()
