"""Input methods compose a text before it is one: dead keys, Japanese, phones' keyboards."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab, file_appears
from tests.support.timing import wait_until


def compose(tab: Tab, *steps: str) -> None:
    """Go through the steps of a composition, of which the last one stays."""
    keys = tab.page.context.new_cdp_session(tab.page)
    for step in steps:
        keys.send(
            "Input.imeSetComposition",
            {"text": step, "selectionStart": len(step), "selectionEnd": len(step)},
        )
    keys.send("Input.insertText", {"text": steps[-1]})


def composed_line(tab: Tab, steps: tuple[str, ...], path: Path) -> str:
    """Compose the text twice in one command, and return what the desktop has made of it."""
    path.unlink(missing_ok=True)
    tab.type("echo ")
    compose(tab, *steps)
    compose(tab, *steps)
    tab.type(f" > {path}")
    tab.page.keyboard.press("Enter")
    wait_until(file_appears(path), "the file is typed into being")
    return path.read_text()


@pytest.mark.parametrize(
    "steps",
    [("´", "é"), ("h", "he", "hel", "held"), ("k", "か", "かn", "かん", "漢")],
    ids=lambda steps: steps[-1],
)
def test_composed_text_reaches_the_desktop(
    steps: tuple[str, ...], start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    tab = person("operator", start_server()).open("desk-1").take_control()
    tab.button("Keyboard").click()
    expect(tab.page.get_by_label("Keys for the desktop")).to_be_focused()
    line = f"{steps[-1]}{steps[-1]}\n"
    # x11vnc adds a key that the keyboard does not have when it is pressed first; programs on the
    # desktop may miss that press, until they have heard of the new keyboard.
    wait_until(
        lambda: composed_line(tab, steps, tmp_path / "learnt") == line,
        "the desktop has its keys",
        2,
    )
    assert composed_line(tab, steps, tmp_path / "typed") == line
