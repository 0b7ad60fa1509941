"""The admin's own pages, on a small screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import StartServer
from tests.e2e.rig import Person

NARROW = {"width": 400, "height": 800}


@pytest.fixture
def office(browser: Browser, start_server: StartServer) -> Iterator[Page]:
    """The admin's, 400 pixels wide; nothing in it may have gone wrong."""
    admin = Person(browser, "admin", start_server().url, viewport=NARROW)
    yield admin.log_in()
    assert admin.complaints == []
    admin.context.close()


def assert_fits(page: Page) -> None:
    """Fail where the page has to be moved sideways to be read, once its styles have come."""
    page.wait_for_load_state()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def press(page: Page, model: str, action: str) -> None:
    """Choose all rows of a list, and an action."""
    page.goto(f"/admin/controlplane/{model}/")
    assert_fits(page)
    page.locator("#action-toggle").check()
    page.get_by_label("Action:").select_option(label=action)
    page.get_by_role("button", name="Go").click()


def test_leases_are_closed_and_opened_on_a_small_screen(office: Page) -> None:
    press(office, "displaycontrollease", "Force-release and close")
    assert_fits(office)
    office.get_by_label("Note").fill("maintenance")
    office.get_by_role("button", name="Force-release and close").click()
    expect(office.get_by_text("2 closed; 0 had a holder.")).to_be_visible()
    press(office, "displaycontrollease", "Open to control again")
    expect(office.get_by_text("2 opened; 0 had not been closed.")).to_be_visible()


def test_registration_tokens_are_made_on_a_small_screen(office: Page) -> None:
    press(office, "workspace", "New registration token")
    assert_fits(office)
    office.get_by_role("button", name="Make and show").click()
    expect(office.get_by_text("dreg_")).to_have_count(2)
    assert_fits(office)


def test_a_file_is_exported_changed_looked_at_and_imported_on_a_small_screen(
    office: Page, tmp_path: Path
) -> None:
    with office.expect_download() as download:
        press(office, "workspace", "Export as a file")
    file = tmp_path / "workspaces.yaml"
    file.write_text(download.value.path().read_text().replace("Desk 1", "Renamed " * 20))
    office.get_by_role("link", name="Import").click()
    assert_fits(office)
    office.get_by_label("File").set_input_files(file)
    office.get_by_role("button", name="Look at the changes").click()
    expect(office.get_by_text("desk-1: changed name")).to_be_visible()
    assert_fits(office)
    office.get_by_role("button", name="Apply").click()
    expect(office.get_by_text("1 change(s) made.")).to_be_visible()
    expect(office.get_by_role("link", name="Renamed")).to_be_visible()
