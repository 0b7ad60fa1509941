"""Takes a picture of every state in the table of docs/page.md: ``make screenshots``.

``make test`` leaves this out. Servers, desktops and browsers are real, and so is what happens to
them; a picture is taken once the status line says what the table promises, and fails where other
buttons can be pressed than those of the table. One state can be had by no page of today: only a
person has a page, and a person's control is preempted by nobody. For that picture the reason of a
real loss is changed on its way to the page.
"""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Route, WebSocketRoute, expect

from tests.e2e.browsers import Sleeper, UnwatchedTab
from tests.e2e.conftest import BehindProxy, MakePerson, StartServer
from tests.e2e.rig import IS_STATUS_WHOLE, LinkMaker, Person, Tab
from tests.e2e.test_handing_over import bar_of
from tests.e2e.test_limits_and_closing import end_control
from tests.e2e.test_real_life import AWAY_SECONDS, in_control_where_it_can_be_hidden
from tests.e2e.test_signing_in_again import (
    EXPIRE,
    sign_in,
    window_of_sign_in,
)
from tests.support.databases import Database, Databases
from tests.support.desktop import LiveDesktop
from tests.support.page_states import PICTURES, buttons, is_said, picture_of, states
from tests.support.server import LiveServer
from tests.support.services import Postgres
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until

DESK = "desk-12"
STATUS = states()
BUTTONS = buttons()
VIEWPORT = {"width": 900, "height": 600}
LOOK = {"viewport": VIEWPORT, "locale": "en-GB"}
SHOT = {"format": "webp", "quality": 75}
SETTLE_MS = 500  # transitions, and buttons whose offers follow the status
# Those of the table: it leaves out “View” and “Fullscreen”, and what panels and dialogs add.
SHOWN = ":is(.bar, .call, .rescue) [data-act], [data-act=typed]"
PRESSABLE = f"""[...document.querySelectorAll("{SHOWN}")]
  .filter((each) => !each.hidden && !each.disabled)
  .map((each) => each.dataset.act)
  .filter((act) => act !== "view" && act !== "fullscreen")"""

# The people of the table, with the logins of everybody's.
OLIVE, ANNA, ROOT_USER = "operator", "observer", "admin"
NAME_PEOPLE = """
from django.contrib.auth.models import User
from django.core.management import call_command
names = {"operator": ("Olive", ""), "observer": ("Anna", ""), "admin": ("Root", "User")}
for username, (first, last) in names.items():
    User.objects.filter(username=username).update(first_name=first, last_name=last)
call_command("grant", "desk-12", "observer", "operator")
"""
# The API asks for at least a minute.
SET = "from controlplane.models import Workspace; Workspace.objects.update({})"
# A second stream with this tab's own identity.
DIAL_AGAIN = """async () => {
  const { client_id } = JSON.parse(sessionStorage[`desktopctl:${display.dataset.workspace}`]);
  const csrf = /csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "";
  const answer = await fetch(`${display.dataset.api}/session`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": csrf },
    body: JSON.stringify({ client_id, mode: "observe" }),
  });
  const { session_url } = await answer.json();
  const [url, token] = session_url.split("#token=");
  new WebSocket(url, ["desktopctl.v1", `desktopctl.token.${token}`]);
}"""


# --- What is needed -------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDesktop]:
    """The desktop in the pictures."""
    desktop = LiveDesktop(tmp_path_factory.mktemp("desktop"), "Desk 12").wait()
    desktop.run("xdotool", "type", "--delay", "20", "echo An agent works here")
    desktop.run("xdotool", "key", "Return")
    yield desktop
    desktop.stop()


@pytest.fixture(scope="session")
def populated(
    tmp_path_factory: pytest.TempPathFactory, desktop: LiveDesktop, databases: Databases
) -> Database:
    """A database with the people of the table and Desk 12."""
    database = databases.fresh()
    populate(LiveServer(tmp_path_factory.mktemp("populating"), database.url), desktop)
    return database


def populate(server: LiveServer, desktop: LiveDesktop) -> None:
    server.populate({DESK: f"tcp://127.0.0.1:{desktop.vnc_port}"}, desktop.password_file)
    server.manage("shell", "-c", NAME_PEOPLE)


Visit = Callable[..., Tab]


@pytest.fixture
def visit(person: MakePerson) -> Iterator[Visit]:
    """Return a function that opens the page as somebody; ``live=False`` waits for no picture.

    With ``clock``, its time can be stopped. What the browser says of broken links is expected here.
    """
    people: list[Person] = []

    def open_page(
        name: str,
        server: LiveServer,
        proxy: TcpProxy | None = None,
        *,
        live: bool = True,
        clock: bool = False,
    ) -> Tab:
        people.append(person(name, server, proxy and proxy.port, **LOOK))
        page = people[-1].log_in()
        if clock:
            page.clock.install()
        page.goto(f"/workspaces/{DESK}/")
        return Tab(page).until_live() if live else Tab(page)

    yield open_page
    for each in people:
        each.complaints.clear()


@pytest.fixture
def server(start_server: StartServer) -> LiveServer:
    """A server as it is in production."""
    return start_server()


@pytest.fixture
def desktop_link(desktop: LiveDesktop) -> Iterator[TcpProxy]:
    """The link between a server and the desktop."""
    proxy = TcpProxy(desktop.vnc_port).start()
    yield proxy
    proxy.stop()


@pytest.fixture
def sleeper(browser: Browser) -> Iterator[Sleeper]:
    """A browser whose tabs can be hidden."""
    sleeper = Sleeper(browser)
    yield sleeper
    sleeper.browser.close()


def picture(tab: Tab | UnwatchedTab, state: str, expected: float = 4) -> None:
    """Take the picture of a state once the page is in it; AssertionError if it does not stay so."""
    deadline = time.monotonic() + limit(expected)
    while not is_said(said := status_of(tab), STATUS[state]):
        assert time.monotonic() < deadline, f"{state}: the page says “{said}”"
    if isinstance(tab, Tab):
        tab.page.wait_for_timeout(SETTLE_MS)
        shot = tab.page.context.new_cdp_session(tab.page).send("Page.captureScreenshot", SHOT)
    else:
        tab.until("document.getAnimations().length === 0")
        shot = tab.send("Page.captureScreenshot", **SHOT)
    assert is_said(status_of(tab), STATUS[state]), f"{state}: the picture came too late"
    assert evaluate(tab, IS_STATUS_WHOLE), f"{state}: the status line is cut off"
    assert set(evaluate(tab, PRESSABLE)) == BUTTONS[state], f"{state}: other buttons"
    PICTURES.mkdir(exist_ok=True)
    picture_of(state).write_bytes(base64.b64decode(shot["data"]))


def status_of(tab: Tab | UnwatchedTab) -> str:
    return str(evaluate(tab, "document.getElementById('status').textContent"))


def evaluate(tab: Tab | UnwatchedTab, expression: str) -> Any:
    return tab.page.evaluate(expression) if isinstance(tab, Tab) else tab.evaluate(expression)


def stop_clock(tab: Tab) -> None:
    """Let no timer of the page run any more: what happens next stays to be seen."""
    tab.page.clock.pause_at(tab.page.evaluate("Date.now()") / 1000 + 1)


def cut_off(proxy: TcpProxy) -> None:
    proxy.refuse()
    proxy.cut()


def ask(tab: Tab) -> None:
    tab.button("Ask for control").click()
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("May I? It takes two minutes")
    dialog.get_by_role("button", name="Ask").click()
    expect(tab.button("Withdraw")).to_be_visible()


AgentCall = Callable[..., None]


def agent_of(server: LiveServer) -> AgentCall:
    """Return a function with which an agent makes one of control's calls."""
    token = server.manage("add_token", "builder", "--scope", "control", "--workspace", DESK)

    def call(name: str, **body: object) -> None:
        answer = httpx.post(
            f"{server.url}/api/workspaces/{DESK}/display/control/{name}",
            json={"client_id": "builder-process", **body},
            headers={"Authorization": f"Bearer {token.strip()}"},
        )
        assert answer.is_success, answer.text

    return call


def move_desktop(server: LiveServer, *options: str | Path) -> None:
    server.manage("add_workspace", DESK, "--name", "Desk 12", *options)


# --- Opening, watching, asking --------------------------------------------------------------------
def test_opening(server: LiveServer, desktop: LiveDesktop, visit: Visit) -> None:
    desktop.pause()
    try:
        tab = visit(OLIVE, server, live=False)
        picture(tab, "opening the page")
        picture(tab, "the same, for more than 3 s")
    finally:
        desktop.resume()


def test_watching(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server)
    picture(tab, "nobody has control")
    agent_of(server)("acquire")
    picture(tab, "an agent has control")


def test_an_agent_waits(server: LiveServer, visit: Visit) -> None:
    agent = agent_of(server)
    agent("request-human", reason="captcha")
    olive = visit(OLIVE, server)
    picture(olive, "an agent asks for a person")
    agent("acquire")
    picture(olive, "the agent in control asks for a person")
    agent("request-human/withdraw")
    picture(visit(ANNA, server).take_control(), "in control, and an agent waits")
    server.manage("force_release", DESK, "--note", "lunch")
    picture(olive, "parked")


def test_watching_a_person_and_asking(server: LiveServer, visit: Visit) -> None:
    anna = visit(ANNA, server).take_control()
    olive = visit(OLIVE, server)
    picture(olive, "a person has control")
    ask(olive)
    picture(olive, "asking for control")
    anna.button("Keep control").click()
    anna.button("Hide from watchers").click()
    picture(olive, "a person hides the desktop")


def test_another_tab_and_moving(server: LiveServer, visit: Visit) -> None:
    first = visit(OLIVE, server).take_control()
    page = first.page.context.new_page()
    page.goto(f"/workspaces/{DESK}/")
    second = Tab(page).until_live()
    picture(second, "another tab of one's own has it")
    second.button("Move control here").click()
    picture(first, "lost: moved")


def test_in_control(server: LiveServer, visit: Visit) -> None:
    olive = visit(OLIVE, server).take_control()
    picture(olive, "in control")
    olive.button("Hide from watchers").click()
    picture(olive, "in control, hidden from watchers")
    olive.button("Hide from watchers").click()
    root_user = visit(ROOT_USER, server)
    ask(root_user)
    expect(bar_of(olive)).to_be_visible()
    picture(olive, "in control, and somebody asks for it")
    olive.button("Hand over").click()
    picture(olive, "lost: handed_over")


# --- Taking control -------------------------------------------------------------------------------
def test_taking(server: LiveServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy)
    proxy.stall("down")
    tab.button("Take control").click()
    picture(tab, "taking control")
    proxy.heal()


def test_waiting_for_a_server_that_hangs(server: LiveServer, visit: Visit, tmp_path: Path) -> None:
    other = server.twin(tmp_path / "other").start()
    try:
        visit(ANNA, server).take_control()
        olive, root_user = visit(OLIVE, other), visit(ROOT_USER, other)
        os.kill(server.pid, signal.SIGSTOP)
        end_control(root_user, "lunch")
        olive.button("Take control").click()
        picture(olive, "waiting for the previous controller")
    finally:
        os.kill(server.pid, signal.SIGCONT)
        other.stop()


def test_refused(server: LiveServer, visit: Visit) -> None:
    anna, olive = visit(ANNA, server), visit(OLIVE, server)
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    olive.page.route("**/control/acquire", hold)
    olive.button("Take control").click()
    wait_until(lambda: olive.page.evaluate("1") and waiting, "the request is under way")
    anna.take_control()
    waiting[0].continue_()
    picture(olive, "refused: held")


# --- Losing it ------------------------------------------------------------------------------------
def test_not_renewed(start_server: StartServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    """The stream lives on, and nothing new gets through."""
    server = start_server(DISPLAY_LEASE_SECONDS=20, DISPLAY_RENEW_SECONDS=8)
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy).take_control()
    tab.page.wait_for_timeout(1000)  # what is loaded with control
    proxy.refuse()
    picture(tab, "in control, but not renewed")
    picture(tab, "control has run out", expected=6)
    visit(ROOT_USER, server).take_control()
    picture(tab, "lost: taken")


def test_forced_and_closed(server: LiveServer, visit: Visit) -> None:
    olive, root_user = visit(OLIVE, server).take_control(), visit(ROOT_USER, server)
    end_control(root_user, "lunch")
    picture(olive, "lost: forced")
    olive.take_control()
    end_control(root_user, "repairs", close=True)
    olive.button("Dismiss").click()
    picture(olive, "the desktop is closed to control")


def test_preempted(start_server: StartServer, visit: Visit) -> None:
    """Control is handed over while its holder is away; the page is told of another reason."""
    idle = {"DISPLAY_REQUEST_IDLE_SECONDS": 2, "DISPLAY_REQUEST_COUNTDOWN_SECONDS": 3}
    server = start_server(**idle)

    def pass_on(route: WebSocketRoute) -> None:
        def change(message: str | bytes) -> None:
            is_text = isinstance(message, str)
            route.send(message.replace('"handed_over"', '"preempted"') if is_text else message)

        route.connect_to_server().on_message(change)

    olive = visit(OLIVE, server, live=False)
    olive.page.route_web_socket("**/websockify**", pass_on)
    olive.page.reload()
    olive.until_live().take_control()
    ask(visit(ROOT_USER, server))
    picture(olive, "lost: preempted")


@pytest.mark.parametrize("what", ["idle", "max_hold"])
def test_limits(what: str, server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server).take_control()
    server.manage("shell", "-c", SET.format(f"{what}_seconds=1"))
    picture(tab, f"lost: {what}")


def test_signed_out(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server).take_control()
    server.manage("shell", "-c", EXPIRE)
    picture(tab, "signed out")
    sign_in(window_of_sign_in(tab), OLIVE)
    picture(tab, "lost: access_ended")


def test_away(
    server: LiveServer,
    behind_proxy: BehindProxy,
    person: MakePerson,
    visit: Visit,
    sleeper: Sleeper,
) -> None:
    proxy = behind_proxy(server)
    root_user = visit(ROOT_USER, server)
    someone = person(OLIVE, server, proxy.port, browser=sleeper.browser)
    someone.log_in()
    tab = in_control_where_it_can_be_hidden(sleeper, someone, DESK)
    tab.send("Emulation.setDeviceMetricsOverride", **VIEWPORT, deviceScaleFactor=1, mobile=False)
    tab.send("Emulation.setLocaleOverride", locale="en-GB")

    def take_while_away(state: str, happens: Callable[[], object]) -> None:
        tab.hide()
        happens()
        root_user.page.wait_for_timeout(AWAY_SECONDS * 1000)
        tab.show()
        picture(tab, state)

    take_while_away("reconnected while the page was hidden", proxy.cut)
    take_while_away("lost while the page was hidden", lambda: end_control(root_user, "lunch"))
    someone.complaints.clear()


# --- No connection, no permission -----------------------------------------------------------------
def test_no_network(server: LiveServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy)
    cut_off(proxy)
    picture(tab, "no network")


def test_no_network_in_control(server: LiveServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy).take_control()
    cut_off(proxy)
    picture(tab, "no network, in control")


def test_ten_dials(server: LiveServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    """Whatever stands between lets calls pass, and no websocket live."""
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy, clock=True)
    cut = 0
    while (state := tab.display.get_attribute("data-state")) != "disconnected":
        if len(tab.dialled_tokens) > cut or state == "live":  # the cut came before the connection
            cut = len(tab.dialled_tokens)
            proxy.cut()
        tab.page.clock.run_for(1000)  # of the pauses; calls are under way in real time
        tab.page.wait_for_timeout(50)
    picture(tab, "ten dials in a row have failed")


def test_the_link_has_ended(server: LiveServer, visit: Visit, person: MakePerson) -> None:
    maker = LinkMaker(server, DESK)
    link = maker.make()
    guest = person("guest", server, **LOOK)
    page = guest.context.new_page()
    page.goto(link["url"])
    tab = Tab(page).until_live()
    maker.revoke(link)
    picture(tab, "the control link has ended")
    guest.complaints.clear()


def test_the_server_cannot_read_leases(
    desktop: LiveDesktop, static_root: Path, visit: Visit, tmp_path: Path
) -> None:
    postgres = Postgres().start()
    url = Databases("postgres", postgres, tmp_path).fresh().url
    server = LiveServer(tmp_path, url, STATIC_ROOT=static_root, DISPLAY_FENCE_SECONDS=3)
    try:
        populate(server, desktop)
        tab = visit(OLIVE, server.start()).take_control()
        postgres.stop()
        picture(tab, "the server cannot read leases")
    finally:
        server.kill()
        postgres.close()


# --- Close codes ----------------------------------------------------------------------------------
def test_4400(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server)
    tab.page.evaluate("sockets.at(-1).send('no JSON')")
    picture(tab, "closed with 4400")


def test_4401(start_server: StartServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    """On a slow link, a token has expired before it arrives."""
    server = start_server(DISPLAY_TOKEN_SECONDS=1)
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy, clock=True)
    proxy.slow(latency=1.5)
    proxy.cut()
    wait_until(lambda: len(tab.dialled_tokens) > 1, "it dials again", expected=3)
    tab.page.evaluate(
        "sockets.at(-1).addEventListener('close', ({ code }) => (window.code = code))"
    )
    stop_clock(tab)
    wait_until(lambda: tab.page.evaluate("window.code") == 4401, "4401", expected=3)
    picture(tab, "closed with 4401")


def test_4403(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server)
    server.manage("revoke", DESK, OLIVE)
    picture(tab, "closed with 4403")


def test_4404(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server)
    server.manage("shell", "-c", SET.format("enabled=False"))
    picture(tab, "closed with 4404")


def test_4410(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server)
    tab.page.evaluate(DIAL_AGAIN)
    picture(tab, "closed with 4410")


def test_4411(server: LiveServer, visit: Visit) -> None:
    """Just opened: who hides it has been asked, and not been answered yet."""
    anna = visit(ANNA, server).take_control()
    anna.button("Hide from watchers").click()
    expect(anna.status).to_have_text(STATUS["in control, hidden from watchers"])
    tab = visit(OLIVE, server, live=False)
    tab.page.route("**/display/control", lambda _: None)
    tab.page.reload()
    picture(tab, "closed with 4411")


def test_4413(start_server: StartServer, behind_proxy: BehindProxy, visit: Visit) -> None:
    """What the page answers does not arrive any more; the server's reason does, and then an end."""
    server = start_server(DISPLAY_PING_SECONDS=1)
    proxy = behind_proxy(server)
    tab = visit(OLIVE, server, proxy, clock=True)
    wait_until(lambda: "/news." in server.log, "the words for it, which could not come later")
    tab.take_control()
    tab.button("Release control").click()
    expect(tab.status).to_have_text(STATUS["nobody has control"])
    stop_clock(tab)
    proxy.blackhole("up")
    wait_until(lambda: tab.page.evaluate("1") and "closed: 4413" in server.log, "4413", expected=2)
    proxy.cut()
    picture(tab, "closed with 4413")


def test_4429(start_server: StartServer, visit: Visit) -> None:
    server = start_server(DISPLAY_MAX_STREAMS_PER_USER=1)
    visit(OLIVE, server)
    tab = visit(OLIVE, server, live=False)
    picture(tab, "closed with 4429")


def test_4502(server: LiveServer, desktop_link: TcpProxy, visit: Visit) -> None:
    move_desktop(server, "--upstream", f"tcp://127.0.0.1:{desktop_link.port}")
    tab = visit(OLIVE, server, clock=True)
    stop_clock(tab)
    desktop_link.close()
    picture(tab, "closed with 4502")


def test_4503(server: LiveServer, visit: Visit) -> None:
    tab = visit(OLIVE, server, clock=True)
    stop_clock(tab)
    server.ask_to_stop()
    picture(tab, "closed with 4503")


def test_4504(server: LiveServer, desktop: LiveDesktop, visit: Visit) -> None:
    tab = visit(OLIVE, server, clock=True)
    stop_clock(tab)
    desktop.pause()
    try:
        picture(tab, "closed with 4504")
    finally:
        desktop.resume()


def test_4511(server: LiveServer, visit: Visit, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    tab = visit(OLIVE, server)
    move_desktop(server, "--password-file", wrong)
    picture(tab, "closed with 4511")
