"""A login ends under a page; its person signs in again in a window beside it, and it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import Person, Tab
from tests.e2e.test_reconnecting import assert_types, forgive_broken_links
from tests.support.server import LiveServer
from tests.support.timing import limit, wait_until

EXPIRE = "from django.contrib.sessions.models import Session; Session.objects.all().delete()"
SIGNED_OUT = "You are signed out."


def sign_out_elsewhere(someone: Person, server: LiveServer) -> None:
    page = someone.context.new_page()
    page.goto("/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/**")
    page.close()


def let_login_expire(someone: Person, server: LiveServer) -> None:
    server.manage("shell", "-c", EXPIRE)


def until_signed_out(tab: Tab) -> None:
    # Who looks at it learns of it at once; the server, of an expiry, within three seconds.
    expect(tab.status).to_have_text(SIGNED_OUT, timeout=limit(3) * 1000)
    tab.page.evaluate("window.isSamePage = true")


def until_control_has_ended(server: LiveServer) -> None:
    """Who signs in again sooner than the server has noticed keeps control."""
    wait_until(lambda: "stream 1 of desk-1 closed: 4403" in server.log, "it has noticed", 3)


def window_of_sign_in(tab: Tab) -> Page:
    with tab.page.expect_popup() as popup:
        tab.button("Sign in").click()
    return popup.value


def sign_in(page: Page, name: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(f"{name}-pass")
    with page.expect_event("close"):
        page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def expired(start_server: StartServer, person: MakePerson) -> Iterator[tuple[Person, Tab]]:
    """Somebody who watches, and the page under which the login has expired."""
    server = start_server()
    someone = person("operator", server)
    tab = someone.open("desk-1")
    let_login_expire(someone, server)
    until_signed_out(tab)
    yield someone, tab
    forgive_broken_links(someone)


def test_where_the_window_beside_the_page_cannot_be_opened_the_page_itself_becomes_the_sign_in(
    expired: tuple[Person, Tab],
) -> None:
    _, tab = expired
    tab.page.route("**/signin.*.js", lambda route: route.abort())
    tab.button("Sign in").click()
    tab.page.wait_for_url("**/accounts/login/?next=/workspaces/desk-1/")


@pytest.mark.parametrize(
    ("end", "types_with"), [(sign_out_elsewhere, "the picture"), (let_login_expire, "Keyboard")]
)
def test_who_is_signed_out_signs_in_in_another_window_and_the_page_goes_on_by_itself(
    end: Callable[[Person, LiveServer], None],
    types_with: str,
    start_server: StartServer,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    server = start_server()
    someone = person("operator", server)
    tab = someone.open("desk-1").take_control()
    client = tab.client_id
    if types_with == "Keyboard":
        tab.button("Keyboard").click()
    end(someone, server)
    until_signed_out(tab)
    expect(tab.button("Sign in")).to_be_focused()
    until_control_has_ended(server)
    expect(tab.button("Take control")).to_be_hidden()
    first_tokens = tab.dialled_tokens

    sign_in(window_of_sign_in(tab), "operator")
    tab.until_live()
    # The server ends control with the login: that is not undone, but one click away.
    expect(tab.status).to_have_text(
        "Your sign-in or permission ended, and with it your control. You are watching."
    )
    expect(tab.page.locator("#facts")).not_to_contain_text("could not be checked")
    assert tab.page.evaluate("window.isSamePage"), "it was not loaded again"
    assert tab.client_id == client
    assert not set(tab.dialled_tokens[len(first_tokens) :]) & set(first_tokens)
    assert len(tab.dialled_tokens) > len(first_tokens)
    tab.take_control()
    assert_types(tab, tmp_path / "typed")
    forgive_broken_links(someone)


def test_control_that_outlived_the_login_is_resumed(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    """No server was there to end it: the lease stands, and is this person's in this tab."""
    server = start_server()
    someone = person("operator", server)
    tab = someone.open("desk-1").take_control()
    epoch = tab.epoch
    server.kill()
    expect(tab.display).to_have_attribute("data-state", "reconnecting")
    let_login_expire(someone, server)
    server.start()
    until_signed_out(tab)

    sign_in(window_of_sign_in(tab), "operator")
    tab.until_live()
    expect(tab.status).to_have_text("You have control.")
    assert tab.page.evaluate("window.isSamePage")
    assert tab.epoch == epoch
    assert_types(tab, tmp_path / "typed")
    forgive_broken_links(someone)


def test_signing_in_in_any_other_tab_is_noticed_on_coming_back(
    expired: tuple[Person, Tab],
) -> None:
    someone, tab = expired
    someone.log_in_by_form().close()
    tab.page.evaluate("window.dispatchEvent(new Event('focus'))")  # tests' pages never lose it
    tab.until_live()
    assert tab.page.evaluate("window.isSamePage")


def test_coming_back_while_signed_out_changes_nothing(expired: tuple[Person, Tab]) -> None:
    _, tab = expired
    with tab.page.expect_response("**/accounts/signed-in/") as asked:
        tab.page.evaluate("window.dispatchEvent(new Event('focus'))")
    assert asked.value.status == 302
    expect(tab.status).to_have_text(SIGNED_OUT)


def test_another_persons_sign_in_loads_the_page_anew(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    someone = person("operator", server)
    tab = someone.open("desk-1").take_control()
    let_login_expire(someone, server)
    until_signed_out(tab)
    until_control_has_ended(server)
    with tab.page.expect_navigation():
        sign_in(window_of_sign_in(tab), "observer")
    tab.until_live()
    expect(tab.display).to_have_attribute("data-user", "observer")
    expect(tab.status).to_have_text("You are watching. Nobody has control.")
    expect(tab.button("Take control")).to_have_count(0)
    forgive_broken_links(someone)
