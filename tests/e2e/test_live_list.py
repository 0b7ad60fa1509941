"""The list of desktops stays as things are, without a reload, on one stream for all tabs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.test_signing_in_again import sign_in
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient
from tests.support.timing import wait_until


@pytest.fixture
def server(start_server: StartServer) -> LiveServer:
    """A server with two desktops."""
    return start_server()


@pytest.fixture
def operator(server: LiveServer) -> Iterator[ApiClient]:
    """Somebody elsewhere, who takes control."""
    with closing(ApiClient(server.url, "operator")) as client:
        yield client


def card(page: Page, slug: str = "desk-1") -> Locator:
    return page.locator(f'[data-workspace="{slug}"]')


def holder(page: Page, slug: str = "desk-1") -> Locator:
    return card(page, slug).locator(".holder")


def streams_opened(server: LiveServer) -> int:
    return sum('"GET /api/events' in line for line in server.log.splitlines())


def test_what_happens_elsewhere_shows_in_all_tabs_on_one_stream(
    server: LiveServer, operator: ApiClient, person: MakePerson
) -> None:
    observer = person("observer", server)
    first = observer.log_in()
    wait_until(lambda: streams_opened(server) == 1, "the first tab has opened a stream")
    second = observer.context.new_page()
    second.goto("/")
    tops = card(first, "desk-2").bounding_box()

    operator.acquire("desk-1")
    for page in (first, second):
        expect(holder(page)).to_have_text("operator has control")
        expect(holder(page, "desk-2")).to_have_text("Nobody has control")
        expect(card(page).locator(".facts")).to_contain_text("since")
        expect(page.get_by_role("status")).to_have_text("Desk 1: operator has control.")
    assert card(first, "desk-2").bounding_box() == tops, "nothing has moved"
    stream = operator.open("desk-2")
    expect(card(second, "desk-2").locator(".viewers")).to_contain_text("1 viewer · ")
    stream.close()
    expect(card(second, "desk-2").locator(".viewers")).to_contain_text("Nobody is watching")
    assert streams_opened(server) == 1

    first.close()
    wait_until(lambda: second.evaluate("1") and streams_opened(server) == 2, "the other goes on")
    operator.release("desk-1")
    expect(holder(second)).to_have_text("Nobody has control")


def test_the_live_list_says_what_the_reloaded_one_says(
    server: LiveServer, operator: ApiClient, person: MakePerson
) -> None:
    page = person("observer", server).log_in()
    operator.acquire("desk-1")
    expect(holder(page)).to_have_text("operator has control")
    with closing(ApiClient(server.url, "observer")) as observer:
        stream = observer.open("desk-2")
        expect(card(page, "desk-2").locator(".badge")).to_have_text("Ready")
        expect(card(page, "desk-2").locator(".viewers")).to_contain_text("1 viewer")
        live = page.locator(".cards").inner_text()
        page.reload()
        expect(page.locator(".facts").first).not_to_be_empty()
        assert page.locator(".cards").inner_text() == live
        stream.close()


def test_a_desktop_that_is_taken_away_and_given_back_is_marked_in_place(
    server: LiveServer, person: MakePerson
) -> None:
    page = person("observer", server).log_in()
    server.manage("revoke", "desk-2", "observer")
    expect(holder(page, "desk-2")).to_have_text("Not available any more")
    server.manage("grant", "desk-2", "observer", "observer")
    expect(holder(page, "desk-2")).to_have_text("Nobody has control")
    expect(page.locator("#fresh")).to_be_hidden()


def test_a_new_desktop_is_a_reload_away(server: LiveServer, person: MakePerson) -> None:
    page = person("admin", server).log_in()
    wait_until(lambda: page.evaluate("1") and streams_opened(server), "the page listens")
    server.manage("add_workspace", "desk-3", "--upstream", "tcp://127.0.0.1:9", "--name", "Desk 3")
    page.get_by_role("link", name="Reload to see new desktops").click()
    expect(card(page, "desk-3")).to_be_visible()


def test_a_desktop_is_found_by_keyboard_and_the_page_of_what_was_found_stays_live(
    server: LiveServer, operator: ApiClient, person: MakePerson
) -> None:
    page = person("observer", server).log_in()
    page.keyboard.press("/")
    page.keyboard.type("2 DESK")
    page.keyboard.press("Enter")
    expect(card(page, "desk-2")).to_be_visible()
    expect(card(page, "desk-1")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("2 DESK")
    operator.acquire("desk-2")
    expect(holder(page, "desk-2")).to_have_text("operator has control")
    expect(page.locator("#fresh")).to_be_hidden()

    page.keyboard.press("/")
    page.keyboard.type("<nothing>")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No desktop is called “<nothing>”")).to_be_visible()
    page.get_by_role("link", name="Show all desktops").click()
    expect(card(page, "desk-1")).to_be_visible()


def test_the_list_goes_on_after_the_server_has_been_restarted(
    server: LiveServer, person: MakePerson
) -> None:
    observer = person("observer", server)
    page = observer.log_in()
    wait_until(lambda: page.evaluate("1") and streams_opened(server), "the page listens")
    server.stop()
    server.start()
    with closing(ApiClient(server.url, "operator")) as operator:
        operator.acquire("desk-1")
        expect(holder(page)).to_have_text("operator has control")
    observer.complaints[:] = [
        each for each in observer.complaints if "Failed to load resource" not in each
    ]


def test_signing_out_elsewhere_stops_the_list_which_says_so_and_comes_back_with_a_sign_in(
    server: LiveServer, person: MakePerson
) -> None:
    observer = person("observer", server)
    page = observer.log_in()
    wait_until(lambda: page.evaluate("1") and streams_opened(server), "the page listens")
    other = observer.context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Sign out").click()
    wait_until(lambda: page.evaluate("1") and " 401" in server.log, "it is told so")
    page.wait_for_timeout(2000)  # long enough for several tries, if there were any
    assert server.log.count('"GET /api/events') <= 5
    over = page.get_by_role("link", name="You are signed out. Sign in again")
    expect(over).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    with other.expect_popup() as popup:  # as the page of a desktop opens it
        other.evaluate("open('/accounts/login/?next=/accounts/signed-in/') && null")
    sign_in(popup.value, "observer")
    expect(over).to_be_hidden()
    expect(card(page, "desk-1")).to_be_visible()
    observer.complaints[:] = [each for each in observer.complaints if "401" not in each]
