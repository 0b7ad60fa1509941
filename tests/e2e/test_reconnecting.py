"""Links break; the page comes back by itself, with a fresh token and the same epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.conftest import SLUGS, BehindProxy, MakePerson, StartServer
from tests.e2e.rig import Tab, file_appears
from tests.support.desktop import LiveDesktop
from tests.support.timing import limit, wait_until

# What the browser itself says when a link breaks; everything else is a complaint.
BROKEN_LINK = ("WebSocket connection to", "Failed to load resource")


def forgive_broken_links(someone: Any) -> None:
    someone.complaints[:] = [
        each for each in someone.complaints if not any(known in each for known in BROKEN_LINK)
    ]


def until_dialled(tab: Tab, count: int) -> None:
    wait_until(lambda: len(tab.dialled_tokens) >= count, f"{count} dials", expected=3)


def assert_types(tab: Tab, path: Path) -> None:
    tab.type(f"echo back > {path}\n")
    wait_until(file_appears(path), f"{path.name} is typed into being")


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
@pytest.mark.parametrize("way", list(SLUGS))
@pytest.mark.parametrize("end", ["cut", "close"])
def test_after_a_cut_it_is_live_again_with_another_token_and_the_same_epoch(
    kind: str,
    way: str,
    end: str,
    start_server: StartServer,
    behind_proxy: BehindProxy,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    server = start_server(kind)
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port)
    tab = someone.open(SLUGS[way]).take_control()
    epoch = tab.epoch

    getattr(proxy, end)()
    until_dialled(tab, 2)
    tab.until_live()
    expect(tab.display).to_have_attribute("data-mode", "control")

    first, *others = tab.dialled_tokens
    assert others
    assert first not in others
    assert tab.epoch == epoch
    assert_types(tab, tmp_path / "typed")
    forgive_broken_links(someone)


def test_an_expired_token_is_never_what_is_dialled(
    start_server: StartServer, behind_proxy: BehindProxy, person: MakePerson
) -> None:
    server = start_server(DISPLAY_TOKEN_SECONDS=1)
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port)
    tab = someone.open("desk-1").take_control()
    epoch, first_token = tab.epoch, tab.dialled_tokens[0]

    answered: list[int] = []

    def refuse(route: Route) -> None:
        answered.append(503)
        route.fulfill(status=503, json={"error": {"code": "unavailable", "message": "away"}})

    tab.page.route("**/control/acquire", refuse)
    tab.page.wait_for_timeout(1500)  # the first token's whole life, and half as long again
    proxy.cut()
    expect(tab.display).to_have_attribute("data-state", "reconnecting")
    wait_until(lambda: tab.page.evaluate("1") and len(answered) >= 2, "renewals were refused")
    assert tab.dialled_tokens == [first_token], "without a renewal nothing is dialled"

    tab.page.unroute("**/control/acquire")
    tab.until_live()
    expect(tab.display).to_have_attribute("data-mode", "control")
    assert tab.dialled_tokens[-1] != first_token
    assert tab.epoch == epoch
    forgive_broken_links(someone)


@pytest.mark.waits("five leases of three seconds; of shorter ones a busy machine misses a renewal")
def test_control_outlives_five_leases_on_the_same_socket(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    ttl = 3.0
    server = start_server(DISPLAY_LEASE_SECONDS=ttl, DISPLAY_RENEW_SECONDS=1)
    tab = person("operator", server).open("desk-1").take_control()
    epoch = tab.epoch
    first_end = tab.control["expires_at"]
    tab.page.wait_for_timeout(5 * ttl * 1000)
    expect(tab.display).to_have_attribute("data-mode", "control")
    assert tab.control["expires_at"] > first_end
    assert tab.epoch == epoch
    assert len(tab.dialled_tokens) == 1
    assert_types(tab, tmp_path / "typed")


def test_release_and_leaving_start_no_reconnect(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    tab = person("operator", server).open("desk-1").take_control()
    tab.button("Release control").click()
    expect(tab.status).to_have_text("You are watching. Nobody has control.")
    tab.page.evaluate("window.sockets[0].addEventListener('close', () => { window.ended = true })")
    tab.page.goto("/")
    assert tab.page.url.endswith("/")
    assert tab.page.evaluate("window.dialled.length") == 0
    wait_until(lambda: "closed: 1000" in server.log, "the stream ended cleanly")


def test_a_late_answer_to_an_acquire_after_release_leaves_nothing_held(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    tab = person("operator", server).open("desk-1")
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    tab.page.route("**/control/acquire", hold)
    tab.button("Take control").click()
    wait_until(lambda: tab.page.evaluate("1") and waiting, "the request is under way")
    tab.button("Release control").click()
    waiting[0].continue_()
    wait_until(
        lambda: tab.page.evaluate("1") and tab.control["epoch"] == 1, "the server has granted it"
    )
    wait_until(
        lambda: tab.page.evaluate("1") and tab.control["controller"] == "none",
        "the page has given it back",
    )
    assert tab.control["last_end"]["reason"] == "released"
    expect(tab.display).to_have_attribute("data-mode", "observe")


def test_a_server_that_is_killed_and_started_again_is_found_again(
    start_server: StartServer, behind_proxy: BehindProxy, person: MakePerson, tmp_path: Path
) -> None:
    server = start_server()
    someone = person("operator", server)
    tab = someone.open("desk-1").take_control()
    epoch = tab.epoch
    server.kill()
    expect(tab.display).to_have_attribute("data-state", "reconnecting")
    server.start()
    tab.until_live()
    expect(tab.display).to_have_attribute("data-mode", "control", timeout=limit(3) * 1000)
    assert tab.epoch == epoch
    assert_types(tab, tmp_path / "typed")
    forgive_broken_links(someone)


@pytest.mark.waits("the times of production: a page gives up a silent link after half a minute")
def test_a_link_that_goes_silent_is_noticed_at_both_ends(
    start_server: StartServer, behind_proxy: BehindProxy, person: MakePerson, desktop: LiveDesktop
) -> None:
    """Wi-Fi that is gone: nothing is closed, nothing arrives. With the times of production."""
    server = start_server()
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port)
    tab = someone.open("desk-1").take_control()
    tab.page.keyboard.down("Shift")
    wait_until(lambda: desktop.held()["keys"] == ["Shift_L"], "Shift is down")

    proxy.blackhole()
    wait_until(lambda: desktop.held()["keys"] == [], "Shift is let go", expected=0.8)
    expect(tab.display).to_have_attribute("data-state", "reconnecting", timeout=35_000)
    wait_until(
        lambda: tab.page.evaluate("1") and "closed: 4413" in server.log,
        "the server gives the stream up",
        expected=1,
    )
    proxy.cut()
    proxy.heal()
    tab.until_live()
    expect(tab.display).to_have_attribute("data-mode", "control")
    tab.page.keyboard.up("Shift")
    forgive_broken_links(someone)
