"""Who has control hides the desktop from watchers, for example to type a password."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.conftest import BehindProxy, MakePerson, StartServer
from tests.e2e.rig import Tab
from tests.e2e.test_reconnecting import forgive_broken_links


def test_watchers_see_nothing_while_it_is_hidden_and_come_back_by_themselves(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    holder = person("operator", server).open("desk-1").take_control()
    watchers = [person(name, server).open("desk-1") for name in ("observer", "admin")]
    hide = holder.button("Hide from watchers")
    expect(hide).to_have_attribute("aria-pressed", "false")
    expect(watchers[0].button("Hide from watchers")).to_be_hidden()

    hide.click()
    expect(hide).to_have_attribute("aria-pressed", "true")
    expect(holder.status).to_have_text("You have control. Nobody else sees the desktop.")
    for tab in watchers:
        expect(tab.status).to_have_text(
            "operator hides the desktop from watchers. It comes back by itself."
        )
        expect(tab.page.locator("#screen canvas")).to_have_count(0)
        expect(tab.page.locator("#display")).to_have_attribute("data-state", "unavailable")
    late = Tab(person("observer", server).log_in())
    late.page.goto("/workspaces/desk-1/")
    expect(late.page.locator("#display")).to_have_attribute("data-state", "unavailable")

    hide.click()
    for tab in [*watchers, late]:
        tab.until_live()
        expect(tab.status).to_have_text("You are watching. operator has control.")


def test_the_end_of_control_shows_the_desktop_again(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    holder = person("operator", server).open("desk-1").take_control()
    watcher = person("observer", server).open("desk-1")
    holder.button("Hide from watchers").click()
    expect(watcher.page.locator("#display")).to_have_attribute("data-state", "unavailable")
    holder.button("Release control").click()
    watcher.until_live()
    expect(watcher.status).to_have_text("You are watching. Nobody has control.")


def test_without_a_connection_nothing_can_be_hidden_and_the_button_says_why(
    start_server: StartServer, behind_proxy: BehindProxy, person: MakePerson
) -> None:
    server = start_server()
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port)
    tab = someone.open("desk-1").take_control()
    hide = tab.button("Hide from watchers")
    expect(hide).to_be_enabled()
    proxy.refuse()
    proxy.cut()
    expect(hide).to_be_disabled()
    expect(hide).to_have_accessible_description("Wait for the connection.")
    forgive_broken_links(someone)
