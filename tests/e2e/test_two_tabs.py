"""The same person in two tabs: control is in one of them, and moves when it is told to."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Tab
from tests.e2e.test_reconnecting import assert_types

IN_ANOTHER_TAB = "You have control in another tab."


def test_control_moves_to_the_tab_that_asks_for_it_and_the_first_one_types_no_more(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    someone = person("operator", start_server())
    first = someone.open("desk-1").take_control()
    epoch = first.epoch
    second = someone.open("desk-1")
    expect(second.status).to_have_text(IN_ANOTHER_TAB)
    expect(second.button("Take control")).to_be_hidden()

    second.button("Move control here").click()
    expect(second.status).to_have_text("You have control.")
    expect(first.status).to_have_text(
        "Your control moved to another tab of yours. You are watching."
    )
    first.page.locator("#screen canvas").click()
    first.type(f"echo first > {tmp_path}/first\n")
    assert_types(second, tmp_path / "second")
    assert not (tmp_path / "first").exists()
    assert second.epoch == epoch + 1
    assert len(first.dialled_tokens) == len(second.dialled_tokens) == 1, "both stay as they are"

    # And back, as often as one likes.
    first.button("Dismiss").click()
    expect(first.status).to_have_text(IN_ANOTHER_TAB)
    first.button("Move control here").click()
    expect(first.status).to_have_text("You have control.")
    expect(second.status).to_have_text(
        "Your control moved to another tab of yours. You are watching."
    )
    assert_types(first, tmp_path / "back")


def test_a_duplicated_tab_is_somebody_of_its_own_and_leaves_control_where_it_is(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    someone = person("operator", start_server())
    first = someone.open("desk-1").take_control()
    epoch, client = first.epoch, first.client_id
    # A window that a page opens has a copy of its session storage, as a duplicated tab has.
    with first.page.expect_popup() as popup:
        first.page.evaluate("void window.open(location.href)")
    second = Tab(popup.value).until_live()
    expect(second.status).to_have_text(IN_ANOTHER_TAB)
    assert second.client_id != client
    assert first.client_id == client
    expect(first.status).to_have_text("You have control.")
    second.page.locator("#screen canvas").click()
    second.type(f"echo second > {tmp_path}/second\n")
    assert_types(first, tmp_path / "first")
    assert not (tmp_path / "second").exists()
    assert first.epoch == epoch
    assert len(first.dialled_tokens) == 1, "its stream has not been superseded"

    # Both resume what they were, when they are loaded again.
    for tab in (first, second):
        tab.page.reload()
        tab.until_live()
    expect(first.status).to_have_text("You have control.")
    expect(second.status).to_have_text(IN_ANOTHER_TAB)
    assert first.epoch == epoch
