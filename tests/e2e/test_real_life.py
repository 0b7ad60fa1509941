"""What machines and networks do to a page that has control: sleep, restarts, other networks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, WebSocket, expect

from tests.e2e.browsers import Sleeper, UnwatchedTab
from tests.e2e.conftest import BehindProxy, MakePerson, StartServer
from tests.e2e.rig import Person, Tab, file_appears
from tests.e2e.test_reconnecting import assert_types, forgive_broken_links, until_dialled
from tests.support.desktop import LiveDesktop, SpareVnc
from tests.support.timing import limit, wait_until

# A page takes a gap of 10 s between two ticks of its clock for a sleep.
SLEEP_SECONDS = 11.0
# ... and ten seconds out of sight for an absence.
AWAY_SECONDS = 11.0


def open_with_clock(someone: Person, slug: str) -> Tab:
    """Open a workspace in a tab whose clock and timers are the test's."""
    page = someone.log_in()
    page.clock.install()
    page.goto(f"/workspaces/{slug}/")
    return Tab(page).until_live()


def note_calls(page: Page) -> list[str]:
    """Return a list that grows with the page's renewals, other calls, and dials."""
    calls: list[str] = []

    def note(request: Request) -> None:
        calls.append("renewal" if '"epoch"' in (request.post_data or "") else request.url)

    def note_dial(_: WebSocket) -> None:
        calls.append("dial")

    page.on("request", note)
    page.on("websocket", note_dial)
    return calls


def assert_came_back(tab: Tab, epoch: int, first_tokens: list[str], path: Path) -> None:
    """It has control of the same epoch, on a stream with a new token, and types."""
    expect(tab.display).to_have_attribute("data-mode", "control", timeout=limit(2) * 1000)
    expect(tab.status).to_have_text("You have control.")
    assert tab.epoch == epoch
    tokens = tab.dialled_tokens
    assert len(tokens) > len(first_tokens)
    assert len(set(tokens)) == len(tokens), "each dial has a token of its own"
    assert_types(tab, path)


def test_on_another_network_it_dials_at_once(
    start_server: StartServer, behind_proxy: BehindProxy, person: MakePerson, tmp_path: Path
) -> None:
    server = start_server()
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port)
    tab = open_with_clock(someone, "desk-1").take_control()
    epoch, tokens = tab.epoch, tab.dialled_tokens
    someone.context.set_offline(True)
    proxy.cut()
    expect(tab.status).to_have_text(re.compile(r"^No connection to the server\. Control stays"))

    # No timer runs any more: whatever is dialled now is dialled because of the network's return.
    tab.page.clock.pause_at(tab.page.evaluate("Date.now()") / 1000 + 1)
    assert tab.dialled_tokens == tokens
    someone.context.set_offline(False)
    tab.until_live()
    assert_came_back(tab, epoch, tokens, tmp_path / "typed")
    forgive_broken_links(someone)


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
def test_a_rolling_restart_moves_it_to_the_other_server_with_its_control(
    kind: str,
    start_server: StartServer,
    behind_proxy: BehindProxy,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    first = start_server(kind)
    second = first.twin(tmp_path / "second").start(kind)
    try:
        proxy = behind_proxy(first)
        someone = person("operator", first, proxy.port)
        tab = someone.open("desk-1").take_control()
        epoch, tokens = tab.epoch, tab.dialled_tokens
        proxy.target = ("127.0.0.1", second.port)
        first.stop()
        wait_until(lambda: tab.dialled_tokens != tokens, "the other server is dialled")
        tab.until_live()
        assert_came_back(tab, epoch, tokens, tmp_path / "typed")
        forgive_broken_links(someone)
    finally:
        second.stop()


@pytest.fixture
def spare(desktop: LiveDesktop, tmp_path: Path) -> Iterator[SpareVnc]:
    vnc = SpareVnc(desktop, tmp_path).start()
    yield vnc
    vnc.kill()


def test_who_has_control_is_known_again_as_soon_as_the_stream_tells(
    start_server: StartServer, person: MakePerson
) -> None:
    server = start_server()
    someone = person("observer", server)
    tab = someone.open("desk-1")
    facts = tab.page.locator("#facts")
    tab.page.route("**/display/control", lambda route: route.abort())
    tab.page.evaluate("window.dispatchEvent(new Event('online'))")  # it asks at once
    expect(facts).to_have_text("Who has control could not be checked just now.")
    person("operator", server).open("desk-1").take_control()
    expect(facts).to_contain_text("since")
    forgive_broken_links(someone)


def test_a_desktop_whose_vnc_server_is_killed_and_started_again_comes_back(
    spare: SpareVnc,
    desktop: LiveDesktop,
    start_server: StartServer,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    server = start_server()
    upstream = ("--upstream", f"tcp://127.0.0.1:{spare.port}")
    server.manage("add_workspace", "spare", *upstream, "--password-file", desktop.password_file)
    server.manage("grant", "spare", "operator", "operator")
    someone = person("operator", server)
    tab = someone.open("spare").take_control()
    epoch, tokens = tab.epoch, tab.dialled_tokens
    spare.kill()
    expect(tab.status).to_have_text(
        re.compile(r"^The desktop cannot be reached: .*\. Reconnecting… \(attempt \d+ of 10\)$")
    )
    spare.start()
    tab.until_live()
    assert_came_back(tab, epoch, tokens, tmp_path / "typed")
    forgive_broken_links(someone)


def test_a_server_away_for_longer_than_ten_dials_is_asked_for_on_and_on(
    start_server: StartServer, person: MakePerson, tmp_path: Path
) -> None:
    server = start_server()
    someone = person("operator", server)
    tab = open_with_clock(someone, "desk-1").take_control()
    epoch, tokens = tab.epoch, tab.dialled_tokens
    failed: list[str] = []

    def note(request: Request) -> None:
        failed.append(request.url)

    tab.page.on("requestfailed", note)
    server.kill()
    for probes in range(1, 16):
        tab.page.clock.run_for(15_000)  # the longest pause between two
        wait_until(lambda n=probes: tab.page.evaluate("1") and len(failed) >= n, f"probe {probes}")
    expect(tab.status).to_have_text(
        re.compile(r"^No connection to the server\. Control stays yours until \d.*\.$")
    )
    expect(tab.display).to_have_attribute("data-state", "reconnecting")
    assert tab.dialled_tokens == tokens, "without a renewal nothing is dialled"

    server.start()
    tab.page.clock.run_for(15_000)
    tab.until_live()
    assert_came_back(tab, epoch, tokens, tmp_path / "typed")
    forgive_broken_links(someone)


@pytest.fixture
def sleeper(browser: Browser) -> Iterator[Sleeper]:
    """A browser of its own that can be put to sleep."""
    sleeper = Sleeper(browser)
    yield sleeper
    sleeper.browser.close()


@pytest.mark.waits("a page takes ten seconds without a tick for a sleep")
@pytest.mark.parametrize("is_dead", [False, True], ids=["stream lives", "stream is dead"])
def test_after_a_sleep_control_is_renewed_first_and_only_then_a_dead_stream_is_dialled(
    is_dead: bool,
    sleeper: Sleeper,
    start_server: StartServer,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    """Every process of the browser is stopped, for longer than the lease lasts."""
    server = start_server(
        DISPLAY_LEASE_SECONDS=3,
        DISPLAY_RENEW_SECONDS=1,
        DISPLAY_PING_SECONDS=1 if is_dead else 10,
    )
    someone = person("operator", server, browser=sleeper.browser)
    tab = someone.open("desk-1").take_control()
    epoch, tokens = tab.epoch, tab.dialled_tokens
    watcher = person("observer", server).open("desk-1")
    calls = note_calls(tab.page)
    sleeper.sleep()
    try:
        asleep_since = time.monotonic()
        expect(watcher.status).to_have_text("You are watching. Nobody has control.")
        if is_dead:
            wait_until(lambda: "closed: 4413" in server.log, "the stream is given up")
        wait_until(lambda: time.monotonic() - asleep_since > SLEEP_SECONDS, "the night is over", 2)
        tab.page.wait_for_timeout(0)  # what it had called before is told by now
        calls.clear()
    finally:
        sleeper.wake()

    if is_dead:
        until_dialled(tab, len(tokens) + 1)
    expect(tab.display).to_have_attribute("data-state", "live", timeout=limit(2) * 1000)
    expect(tab.display).to_have_attribute("data-mode", "control")
    expect(watcher.status).to_have_text("You are watching. operator has control.")
    assert calls[0] == "renewal"
    assert ("dial" in calls) == is_dead
    assert len(set(tab.dialled_tokens) - set(tokens)) == calls.count("dial")
    # It ran out in the night, and nobody has had it since: it is resumed.
    assert tab.epoch == epoch + 1
    assert_types(tab, tmp_path / "typed")
    forgive_broken_links(someone)


@pytest.mark.waits("the same; then Chromium tries each kept connection for ten")
def test_after_a_sleep_a_link_that_is_dead_without_an_end_is_given_up_and_dialled_again(
    sleeper: Sleeper,
    start_server: StartServer,
    behind_proxy: BehindProxy,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    """A laptop is opened on another network: nothing tells either end that the other is gone."""
    server = start_server()
    link = behind_proxy(server)
    someone = person("operator", server, link.port, browser=sleeper.browser)
    tab = someone.open("desk-1").take_control()
    tokens = tab.dialled_tokens
    sleeper.sleep()
    try:
        link.sever()
        asleep_since = time.monotonic()
        wait_until(lambda: time.monotonic() - asleep_since > SLEEP_SECONDS, "the night is over", 2)
    finally:
        sleeper.wake()
    # Each connection that the browser has kept for calls is tried for ten seconds.
    wait_until(lambda: len(tab.dialled_tokens) > len(tokens), "it dials", expected=6)
    tab.until_live()
    # Its first epoch: the test has asked for none before, for its own connections are severed too.
    assert_came_back(tab, 1, tokens, tmp_path / "typed")
    forgive_broken_links(someone)


def test_a_clock_that_jumps_while_timers_stand_still_means_a_sleep(
    start_server: StartServer, person: MakePerson
) -> None:
    tab = open_with_clock(person("operator", start_server()), "desk-1").take_control()
    calls = note_calls(tab.page)
    tab.page.clock.set_system_time(tab.page.evaluate("Date.now()") / 1000 + 3600)
    wait_until(lambda: tab.page.evaluate("1") and calls, "it calls")
    assert calls[0] == "renewal"
    expect(tab.status).to_have_text("You have control.")
    assert len(tab.dialled_tokens) == 1


def in_control_where_it_can_be_hidden(
    sleeper: Sleeper, someone: Person, slug: str = "desk-1"
) -> UnwatchedTab:
    """Take control in a tab of somebody who has logged in."""
    tab = UnwatchedTab(sleeper.browser, someone)
    tab.goto(f"{someone.base}/workspaces/{slug}/")
    tab.until("display.dataset.state === 'live'")
    tab.evaluate("document.querySelector('[data-act=take]').click()")
    tab.until("display.dataset.mode === 'control'")
    return tab


@pytest.mark.waits("five leases pass, each as long as slow timers need to renew it in time")
def test_a_hidden_tab_with_slow_timers_keeps_control_beyond_its_lease(
    sleeper: Sleeper,
    start_server: StartServer,
    person: MakePerson,
    tmp_path: Path,
) -> None:
    server = start_server(
        DISPLAY_LEASE_SECONDS=4, DISPLAY_RENEW_SECONDS=1.5, DISPLAY_PING_SECONDS=1
    )
    someone = person("operator", server, browser=sleeper.browser)
    home = Tab(someone.log_in())
    hidden = in_control_where_it_can_be_hidden(sleeper, someone)
    control = "/api/workspaces/desk-1/display/control"
    before = home.page.request.get(control).json()

    hidden.evaluate("window.ticks = 0; setInterval(() => window.ticks++, 10)")
    hidden.hide()
    hidden.evaluate("window.ticks = 0")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        home.page.wait_for_timeout(500)
        now = home.page.request.get(control).json()
        assert now["controller"] == "user"
        assert now["epoch"] == before["epoch"]
    # Once a second, and not a hundred times.
    assert hidden.evaluate("window.ticks") <= 200, "its timers are slow"
    assert hidden.evaluate("document.visibilityState") == "hidden"
    assert now["expires_at"] > before["expires_at"]

    hidden.show()
    hidden.evaluate("document.querySelector('[data-act=clipboard]').click()")
    hidden.evaluate(f"document.getElementById('text').value = 'echo back > {tmp_path}/typed\\n'")
    hidden.evaluate("document.querySelector('[data-act=typed]').click()")
    wait_until(file_appears(tmp_path / "typed"), "the file is typed into being")


@pytest.mark.waits("twice, ten seconds out of sight are an absence")
def test_who_comes_back_reads_in_one_line_what_has_happened(
    sleeper: Sleeper, start_server: StartServer, behind_proxy: BehindProxy, person: MakePerson
) -> None:
    server = start_server()
    proxy = behind_proxy(server)
    someone = person("operator", server, proxy.port, browser=sleeper.browser)
    someone.log_in()
    tab = in_control_where_it_can_be_hidden(sleeper, someone)

    def says(pattern: str) -> bool:
        return bool(
            re.fullmatch(pattern, tab.evaluate("document.getElementById('status').textContent"))
        )

    def away_while(happens: Callable[[], object]) -> None:
        tab.hide()
        happens()
        since = time.monotonic()
        wait_until(lambda: time.monotonic() - since > AWAY_SECONDS, "time has passed", 2)
        tab.show()

    away_while(proxy.cut)
    back = r"While you were away \(\d+ s\), the picture was reconnected\. You have control\."
    wait_until(lambda: says(back), "it tells of the cut", 2)
    wait_until(lambda: says(r"You have control\."), "it is told for a while", 4)

    note = ("--note", "lunch")
    away_while(lambda: server.manage("force_release", "desk-1", *note))
    lost = r"While you were away \(\d+ s\): .+ ended your control: “lunch”\. You are watching\."
    wait_until(lambda: says(lost), "it tells of the loss", 2)
    forgive_broken_links(someone)
