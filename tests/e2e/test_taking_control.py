"""A person takes control of a real desktop in a real browser, types, and hands it back."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from playwright.sync_api import Route, ViewportSize, expect

from tests.e2e.conftest import SLUGS, MakePerson, StartServer
from tests.e2e.rig import Tab, file_appears
from tests.support.desktop import LiveDesktop
from tests.support.timing import limit, wait_until


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
@pytest.mark.parametrize("way", list(SLUGS))
def test_the_operator_types_a_file_into_being_and_the_observer_can_not(
    kind: str, way: str, start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    server = start_server(kind)
    people = [person(name, server) for name in ("operator", "observer")]
    for someone in people:
        someone.log_in_by_form().close()
    operator, observer = (someone.open(SLUGS[way]) for someone in people)
    expect(operator.status).to_have_text("You are watching. Nobody has control.")
    expect(observer.button("Take control")).to_have_count(0)

    operator.take_control()
    expect(observer.status).to_have_text("You are watching. operator has control.")
    # The observer's page would not send keys; a changed page would.
    observer.page.locator("#screen canvas").click()
    observer.type(f"echo observer > {tmp_path}/observer\n")
    operator.type(f"echo operator > {tmp_path}/operator\n")

    wait_until(file_appears(tmp_path / "operator"), "the operator's file is there")
    assert (tmp_path / "operator").read_text() == "operator\n"
    assert not (tmp_path / "observer").exists()

    operator.button("Release control").click()
    expect(operator.status).to_have_text("You are watching. Nobody has control.")
    assert operator.dialled_tokens == operator.dialled_tokens[:1], "a release dials nothing"
    assert operator.control["controller"] == "none"
    assert "desktopctl.token" not in server.log


def test_while_the_page_connects_the_empty_frame_says_what_it_waits_for(
    start_server: StartServer, person: MakePerson
) -> None:
    page = person("operator", start_server()).log_in()
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route("**/display/session", hold)
    page.goto("/workspaces/desk-1/")
    tab, stage, words = Tab(page), page.locator(".stage"), page.locator("#waits")
    expect(words).to_have_text("Connecting to Desk 1…")
    expect(words).to_have_attribute("aria-hidden", "true")  # the status line announces it
    expect(words).to_have_text(
        "Connecting to Desk 1… Waiting for the server’s permission.", timeout=limit(1) * 1000
    )
    expect(words).to_be_visible()
    before = stage.bounding_box()
    waiting[0].continue_()
    tab.until_live()
    expect(words).to_be_hidden()
    assert stage.bounding_box() == before


@pytest.mark.parametrize("size", [{"width": 400, "height": 750}, {"width": 1000, "height": 650}])
def test_taking_control_moves_no_button_and_the_page_says_where_keys_go(
    size: ViewportSize, start_server: StartServer, person: MakePerson
) -> None:
    tab = person("operator", start_server(), viewport=size).open("desk-1")
    view, take = tab.button("View"), tab.button("Take control")
    top, height = view.bounding_box()["y"], take.bounding_box()["height"]
    tab.take_control()
    assert view.bounding_box()["y"] == top
    assert tab.button("Release control").bounding_box()["height"] == height
    to_desktop = tab.page.get_by_text("Keys go to the desktop.")
    to_page = tab.page.get_by_text("Keys stay on this page.")
    expect(to_desktop).to_be_visible()
    expect(to_page).to_be_hidden()
    tab.page.keyboard.press("Control+Alt+Shift")
    expect(tab.button("Release control")).to_be_focused()
    expect(to_page).to_be_visible()
    expect(to_desktop).to_be_hidden()
    tab.button("Keyboard").click()
    expect(to_desktop).to_be_visible()
    tab.page.keyboard.press("Control+Alt+Shift")
    expect(tab.button("Release control")).to_be_focused()


def test_a_reload_resumes_control(start_server: StartServer, person: MakePerson) -> None:
    server = start_server()
    tab = person("operator", server).open("desk-1").take_control()
    epoch = tab.epoch
    tab.page.reload()
    expect(tab.display).to_have_attribute("data-mode", "control")
    expect(tab.status).to_have_text("You have control.")
    assert tab.epoch == epoch


def test_paste_reaches_the_desktop_and_a_copy_there_reaches_the_panel(
    start_server: StartServer, person: MakePerson, desktop: LiveDesktop, tmp_path: Path
) -> None:
    server = start_server()
    tab = person("operator", server, permissions=["clipboard-read", "clipboard-write"]).open(
        "desk-1"
    )
    tab.take_control()
    # x11vnc takes and tells no clipboard in a client's first seconds, and never tells unchanged
    # text again: so each try has a text of its own.
    tries = itertools.count(1)

    def paste_arrives() -> bool:
        text = f"from the browser {next(tries)}"
        tab.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        tab.page.keyboard.press("Control+v")
        tab.page.wait_for_timeout(300)
        return desktop.clipboard == text

    def copy_arrives() -> bool:
        text = f"from the desktop {next(tries)}"
        desktop.copy(text)
        tab.page.wait_for_timeout(300)
        return panel.input_value() == text

    try:
        wait_until(paste_arrives, "the text is on the desktop", expected=4)
    finally:
        # To the shell, Ctrl+V means: take the next key as it is. Leave it an empty line.
        tab.page.keyboard.press("Enter")
        tab.page.keyboard.press("Enter")
    tab.button("Clipboard").click()
    panel = tab.page.get_by_role("textbox", name="Clipboard")
    wait_until(copy_arrives, "the text is in the panel", expected=4)


def test_a_manager_ends_control_and_the_holder_reads_who_and_why(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    holder = person("operator", server).open("desk-1").take_control()
    admin = person("admin", server).open("desk-1")
    admin.button("End control…").click()
    dialog = admin.page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("maintenance")
    dialog.get_by_role("button", name="End control").click()
    expect(holder.status).to_have_text("admin ended your control: “maintenance”. You are watching.")
    expect(holder.display).to_have_attribute("data-state", "live")
    assert len(holder.dialled_tokens) == 1, "it keeps watching on the same stream"


def test_a_modifier_is_held_down_until_it_is_pressed_again_or_control_ends(
    start_server: StartServer, person: MakePerson, desktop: LiveDesktop
) -> None:
    tab = person("operator", start_server()).open("desk-1").until_live()
    expect(tab.button("More keys")).to_be_disabled()
    tab.take_control().button("More keys").click()
    ctrl = tab.button("Ctrl")
    ctrl.click()
    expect(ctrl).to_have_attribute("aria-pressed", "true")
    wait_until(lambda: desktop.held()["keys"] == ["Control_L"], "Ctrl is down")
    ctrl.click()
    wait_until(lambda: not desktop.held()["keys"], "Ctrl is up")

    ctrl.click()
    wait_until(lambda: desktop.held()["keys"] == ["Control_L"], "Ctrl is down again")
    tab.button("Release control").click()
    wait_until(lambda: not desktop.held()["keys"], "the server lets go of it")
    expect(tab.page.get_by_role("complementary", name="More keys")).to_be_hidden()
    tab.take_control().button("More keys").click()
    expect(ctrl).to_have_attribute("aria-pressed", "false")
    tab.page.keyboard.press("Escape")
    expect(tab.button("More keys")).to_be_focused()


def test_ctrl_alt_del_reaches_the_desktop_and_the_keys_come_up_again(
    start_server: StartServer, person: MakePerson, desktop: LiveDesktop, tmp_path: Path
) -> None:
    tab = person("operator", start_server()).open("desk-1").take_control()
    reading, read = tmp_path / "reading", tmp_path / "read"
    tab.type(f"stty -icanon; touch {reading}; head -c 6 > {read}; stty icanon; touch {read}.done\n")
    wait_until(reading.exists, "the terminal waits for keys")
    tab.button("Send Ctrl+Alt+Del").click()
    wait_until((tmp_path / "read.done").exists, "the terminal has them")
    assert read.read_text() == "\x1b[3;7~", "what xterm says for Ctrl+Alt+Del"
    wait_until(lambda: not desktop.held()["keys"], "nothing is held down")


def test_a_text_is_typed_key_by_key(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    tab = person("operator", start_server()).open("desk-1").take_control()
    tab.button("Clipboard").click()
    tab.page.get_by_role("textbox", name="Clipboard").fill(f"echo 'grüß' > {tmp_path}/typed\n")
    tab.button("Type it").click()
    wait_until(file_appears(tmp_path / "typed"), "what was typed has run")
    assert (tmp_path / "typed").read_text() == "grüß\n"
