"""A platform's page on another site frames a desktop: the example of docs/embedding.md."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.e2e.conftest import MakePerson, StartServer
from tests.e2e.rig import GUEST, LinkMaker, Person, Robot, file_appears
from tests.support.desktop import LiveDesktop
from tests.support.processes import ROOT
from tests.support.server import LiveServer
from tests.support.timing import limit, wait_until
from tests.support.websockify import make_certificate

USED = "This link has been used or has expired. Ask for a new one."
EXAMPLE = re.findall(r"```html\n(.*?)```", (ROOT / "docs/embedding.md").read_text(), re.DOTALL)[0]

# In the framed page: what it has heard, after it has dealt with it, and what was pressed there.
RECORD = """
window.heard = []; window.presses = 0;
addEventListener("message", ({ origin, data }) => heard.push(`${origin} ${data?.type ?? data}`));
document.getElementById("display").addEventListener("click", () => presses++, true);
"""
# What a page has stored; nothing, where browsers keep frames of other sites from storing at all.
KEPT = """() => {
  try { return sessionStorage.length + localStorage.length; }
  catch (error) { return error.name === "SecurityError" ? 0 : error.name; }
}"""
# What the document's allow= is for.
ALLOWED = """isSecureContext && document.fullscreenEnabled &&
  ["clipboard-read", "clipboard-write"].every((it) => document.featurePolicy.allowsFeature(it))"""
KEEP_MESSAGES = """<link rel="icon" href="data:,">
<script>
window.states = [];
addEventListener("message", ({ origin, data }) => states.push({ origin, ...data }));
</script>"""


@dataclass
class Platform:
    """Serves pages by https, under every name that ends in ``.test``."""

    certificate: tuple[Path, Path]
    pages: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path)
                self.send_response(200 if page else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write((page or "").encode())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def origin(self, site: str) -> str:
        """Return the origin of its pages on ``site``."""
        return f"https://{site}.test:{self._server.server_port}"

    def put(self, path: str, page: str) -> str:
        """Serve a page; return its path."""
        self.pages[path] = page
        return path

    def example(self, server: LiveServer, url: str) -> str:
        """Serve the page of the document, about this link."""
        page = re.sub(r'(LINK = )"[^"]*"', rf'\1"{url}"', EXAMPLE)
        page = re.sub(r'(DESKTOPCTL = )"[^"]*"', rf'\1"{server.url}"', page)
        assert url in page
        assert server.url in page
        return self.put("/example", KEEP_MESSAGES + page)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """Somebody else's web server."""
    platform = Platform(make_certificate(tmp_path))
    platform.start()
    yield platform
    platform.stop()


@dataclass
class Framed:
    """A tab of the platform, with the desktop in its frame."""

    page: Page

    def __post_init__(self) -> None:
        inside = self.page.frame_locator("#desktop")
        self.display = inside.locator("#display")
        self.status = inside.get_by_role("status")
        self.inside = inside

    @property
    def frame(self) -> Frame:
        """The framed document itself."""
        element = self.page.locator("#desktop").element_handle()
        frame = element.content_frame() if element else None
        assert frame is not None
        return frame

    @property
    def states(self) -> list[dict[str, Any]]:
        """All that the platform's page has been told."""
        return list(self.page.evaluate("states"))

    def until_live(self) -> Framed:
        expect(self.display).to_have_attribute("data-state", "live", timeout=limit(2) * 1000)
        return self

    def until_told(self, **expected: str | list[str]) -> None:
        """Wait until the newest message says so."""
        wait_until(
            lambda: self.states and expected.items() <= self.states[-1].items(),
            f"the page is told {expected}, not {self.states[-1:]}",
        )


Visit = Callable[..., Framed]


@pytest.fixture
def visit(person: MakePerson, platform: Platform) -> Visit:
    """Return a function that shows a link in the platform's page to somebody."""

    def show(server: LiveServer, link: dict[str, Any], name: str = "guest") -> Framed:
        path = platform.example(server, link["url"])
        return Framed(open_page(guest(person, server, platform, name), platform, path))

    return show


def guest(person: MakePerson, server: LiveServer, platform: Platform, name: str) -> Person:
    """Return somebody without an account, who may go to the platform's sites."""
    sites = (platform.origin("platform"), platform.origin("stranger"))
    return person(name, server, elsewhere=sites, ignore_https_errors=True)


def open_page(visitor: Person, platform: Platform, path: str, site: str = "platform") -> Page:
    page = visitor.context.new_page()
    page.goto(platform.origin(site) + path)
    return page


@pytest.fixture
def server(start_server: StartServer, platform: Platform) -> LiveServer:
    """A server that lets the platform frame it."""
    return start_server(EMBED_ORIGINS=platform.origin("platform"))


@pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
def test_a_guest_takes_control_in_the_frame_of_another_site_and_types(
    kind: str, start_server: StartServer, platform: Platform, visit: Visit, tmp_path: Path
) -> None:
    server = start_server(kind, EMBED_ORIGINS=platform.origin("platform"))
    maker = LinkMaker(server)
    link = maker.make()
    tab = visit(server, link).until_live()
    expect(tab.status).to_have_text("You are watching. Nobody has control.")
    assert "ticket" not in tab.frame.url
    assert tab.page.evaluate("isSecureContext && origin") == platform.origin("platform")
    assert tab.frame.evaluate(ALLOWED)
    tab.until_told(state="live", mode="observe", controller="none", can=["take"])

    tab.inside.get_by_role("button", name="Take control", exact=True).click()
    expect(tab.status).to_have_text("You have control.")
    tab.until_told(mode="control", controller="user", can=["release"], status="You have control.")
    assert (maker.control["controlled_by"], maker.control["controller"]) == (GUEST, "user")
    tab.page.keyboard.type(f"echo clicked > {tmp_path}/clicked\n", delay=5)
    wait_until(file_appears(tmp_path / "clicked"), "what was typed after the click has run")

    tab.page.get_by_role("button", name="Give back").click()
    tab.until_told(state="live", mode="observe", controller="none")
    tab.page.get_by_role("button", name="Take over").click()
    tab.until_told(state="live", mode="control", controller="user")
    tab.inside.locator("#screen canvas").click()
    tab.page.keyboard.type(f"echo asked > {tmp_path}/asked\n", delay=5)
    wait_until(file_appears(tmp_path / "asked"), "what was typed after the message has run")
    assert (tmp_path / "asked").read_text() == "asked\n"

    assert {message["origin"] for message in tab.states} == {server.url}
    assert {message["type"] for message in tab.states} == {"state"}
    assert not tab.page.context.cookies()
    assert not tab.frame.evaluate(KEPT)
    for secret in (link["url"].partition("=")[2], "dctl_link_", "desktopctl.token"):
        assert secret not in server.log


def test_what_is_pasted_in_the_frame_reaches_the_desktop(
    server: LiveServer, visit: Visit, desktop: LiveDesktop
) -> None:
    tab = visit(server, LinkMaker(server).make()).until_live()
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.inside.get_by_role("button", name="Take control", exact=True).click()
    expect(tab.status).to_have_text("You have control.")
    tries = count(1)

    def paste_arrives() -> bool:
        text = f"from the platform {next(tries)}"  # x11vnc misses what comes in its first seconds
        tab.frame.evaluate("text => navigator.clipboard.writeText(text)", text)
        tab.page.keyboard.press("Control+v")
        tab.page.wait_for_timeout(300)
        return desktop.clipboard == text

    try:
        wait_until(paste_arrives, "the text is on the desktop", expected=4)
    finally:
        for _ in range(2):  # to the shell, Ctrl+V means: take the next key as it is
            tab.page.keyboard.press("Enter")


def test_who_leaves_the_page_gives_control_back(server: LiveServer, visit: Visit) -> None:
    maker = LinkMaker(server)
    tab = visit(server, maker.make()).until_live()
    tab.page.get_by_role("button", name="Take over").click()
    tab.until_told(mode="control")
    tab.page.evaluate("frame.remove()")
    wait_until(lambda: maker.control["controller"] == "none", "control is free")
    assert maker.control["last_end"]["reason"] == "released"


def test_what_an_agent_waits_for_is_given_back_by_the_page_around_it(
    server: LiveServer, visit: Visit
) -> None:
    robot = Robot(server)
    robot.acquire()
    tab = visit(server, LinkMaker(server).make()).until_live()
    tab.page.get_by_role("button", name="Take over").click()
    tab.until_told(mode="control", can=["handback"])
    tab.frame.evaluate(RECORD)
    for message in ("release", "handback"):  # an outcome is missing
        tab.page.evaluate("type => send(type)", message)
    tab.frame.wait_for_function("heard.length === 2")
    tab.page.get_by_role("button", name="Give back").click()
    tab.until_told(mode="observe", controller="none", can=["take"])
    told = robot.acquire()["handed_back"]
    assert (told["by"], told["outcome"], told["epoch"]) == (GUEST, "done", 2)
    robot.close()


@pytest.mark.parametrize("site", ["stranger", "platform"])
def test_messages_from_elsewhere_than_the_page_around_it_are_ignored(
    site: str, server: LiveServer, visit: Visit, platform: Platform
) -> None:
    platform.put("/neighbour", KEEP_MESSAGES)
    maker = LinkMaker(server)
    tab = visit(server, maker.make()).until_live()
    tab.frame.evaluate(RECORD)
    tab.page.evaluate(
        "src => document.body.append(Object.assign(document.createElement('iframe'),"
        " { id: 'next', src }))",
        platform.origin(site) + "/neighbour",
    )
    next_to_it = tab.page.locator("#next").element_handle().content_frame()
    next_to_it.wait_for_function("window.states !== undefined")
    for kind in ("listen", "take", "release"):
        next_to_it.evaluate(
            "([type, target]) => parent.frames[0].postMessage({ desktopctl: 1, type }, target)",
            [kind, server.url],
        )
    origin = platform.origin(site)
    tab.frame.wait_for_function("heard.length === 3")
    assert tab.frame.evaluate("heard") == [f"{origin} {k}" for k in ("listen", "take", "release")]
    # The page around it may; but not in any other words.
    for message in ("'take'", "null", "{ type: 'take' }", "{ desktopctl: 1, type: 'force' }"):
        tab.page.evaluate(f"frame.contentWindow.postMessage({message}, DESKTOPCTL)")
    tab.frame.wait_for_function("heard.length === 7")
    assert tab.frame.evaluate("presses") == 0
    tab.page.get_by_role("button", name="Take over").click()
    tab.until_told(mode="control")
    assert tab.frame.evaluate("presses") == 1
    assert next_to_it.evaluate("states") == []


def test_a_page_around_it_that_is_not_listed_is_neither_told_nor_heard(
    server: LiveServer, person: MakePerson
) -> None:
    """One of desktopctl's own may frame it, but is nobody's platform."""
    url = LinkMaker(server).make()["url"]
    page = person("guest", server).context.new_page()
    body = f'{KEEP_MESSAGES}<iframe id="desktop" src="{url}"></iframe>'
    page.route("**/around", lambda route: route.fulfill(body=body, content_type="text/html"))
    page.goto("/around")
    tab = Framed(page).until_live()
    tab.frame.evaluate(RECORD)
    for kind in ("listen", "take", "release"):
        page.evaluate(
            "type => desktop.contentWindow.postMessage({ desktopctl: 1, type }, origin)", kind
        )
    tab.frame.wait_for_function("heard.length === 3")
    assert tab.frame.evaluate("presses") == 0
    tab.inside.get_by_role("button", name="Take control", exact=True).click()
    expect(tab.status).to_have_text("You have control.")
    assert tab.states == []


def test_nothing_is_told_before_the_page_asks(
    server: LiveServer, person: MakePerson, platform: Platform
) -> None:
    url = LinkMaker(server).make()["url"]
    path = platform.put("/silent", f'{KEEP_MESSAGES}<iframe id="desktop" src="{url}"></iframe>')
    tab = Framed(open_page(guest(person, server, platform, "guest"), platform, path)).until_live()
    tab.frame.evaluate(RECORD)
    ask = "target => desktop.contentWindow.postMessage({ desktopctl: 1, type: 'listen' }, target)"
    tab.page.evaluate(ask, server.url)
    tab.until_told(state="live")
    assert len(tab.states) == 1


def test_a_site_that_is_not_listed_cannot_frame_it(
    server: LiveServer, person: MakePerson, platform: Platform
) -> None:
    maker = LinkMaker(server)
    path = platform.example(server, maker.make()["url"])
    visitor = guest(person, server, platform, "stranger")
    page = open_page(visitor, platform, path, site="stranger")
    wait_until(lambda: visitor.complaints, "the browser says why")
    assert "frame-ancestors" in visitor.complaints[0]
    expect(page.frame_locator("#desktop").locator("#display")).to_have_count(0)
    assert maker.states == ["unopened"]
    visitor.complaints.clear()


def test_a_link_that_is_sent_to_somebody_opens_in_a_tab_of_its_own_and_once(
    server: LiveServer, person: MakePerson, platform: Platform, tmp_path: Path
) -> None:
    maker = LinkMaker(server)
    url = maker.make()["url"]
    first, second = (person(name, server) for name in ("first", "second"))
    page = first.context.new_page()
    page.goto(url)
    expect(page.locator("#display")).to_have_attribute("data-state", "live", timeout=20_000)
    expect(page).to_have_title("Desk 1")
    assert page.url == url.partition("#")[0]
    page.get_by_role("button", name="Take control", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("You have control.")
    page.keyboard.type(f"echo sent > {tmp_path}/sent\n", delay=5)
    wait_until(file_appears(tmp_path / "sent"), "what was typed has run")
    expect(page.get_by_role("link", name="Desktops")).to_have_count(0)
    assert not page.evaluate(KEPT)
    assert not first.context.cookies()

    late = second.context.new_page()
    late.goto(url)
    expect(late.get_by_role("status")).to_have_text(USED)
    expect(late.locator("#display")).to_have_attribute("data-state", "ended")
    assert [each for each in second.complaints if "410" not in each] == []
    second.complaints.clear()

    page.reload()
    expect(page.get_by_role("status")).to_have_text(USED)
    assert maker.states == ["opened"]
    wait_until(lambda: maker.control["controller"] == "none", "control is free")


def test_an_observers_link_offers_no_control(server: LiveServer, visit: Visit) -> None:
    maker = LinkMaker(server)
    tab = visit(server, maker.make("observer")).until_live()
    expect(tab.inside.get_by_role("button", name="Take control", exact=True)).to_have_count(0)
    tab.frame.evaluate(RECORD)
    tab.page.get_by_role("button", name="Take over").click()
    tab.frame.wait_for_function("heard.length === 1")
    assert tab.frame.evaluate("presses") == 0


def test_a_revoked_link_ends_within_seconds_and_says_so(
    server: LiveServer, person: MakePerson, platform: Platform
) -> None:
    maker = LinkMaker(server)
    link = maker.make()
    visitor = guest(person, server, platform, "guest")
    path = platform.example(server, link["url"])
    tab = Framed(open_page(visitor, platform, path)).until_live()
    tab.page.get_by_role("button", name="Take over").click()
    tab.until_told(mode="control")
    maker.revoke(link)
    expect(tab.status).to_have_text(
        "This link has ended. Ask for a new one.", timeout=limit(1) * 1000
    )
    expect(tab.display).to_have_attribute("data-mode", "observe")
    expect(tab.inside.get_by_role("button", name="Sign in")).to_be_hidden()
    tab.until_told(state="ended", status="This link has ended. Ask for a new one.")
    assert maker.control["last_end"]["reason"] == "access_ended"
    assert [each for each in visitor.complaints if "401" not in each] == []
    visitor.complaints.clear()


def test_without_an_answer_the_page_waits_for_try_now(
    server: LiveServer, person: MakePerson
) -> None:
    visitor = person("guest", server)
    page = visitor.context.new_page()
    page.route("**/api/links/exchange", lambda route: route.abort())
    page.goto(LinkMaker(server).make()["url"])
    expect(page.get_by_role("status")).to_have_text("No connection to the server.")
    page.unroute("**/api/links/exchange")
    page.route("**/main.*.js", lambda route: route.abort())
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("status")).to_have_text("The display program could not be loaded.")
    page.unroute("**/main.*.js")
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#display")).to_have_attribute("data-state", "live", timeout=20_000)
    assert [each for each in visitor.complaints if "ERR_FAILED" not in each] == []
    visitor.complaints.clear()
