"""People with real browser tabs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from tests.support.server import LiveServer
from tests.support.timing import limit
from tests.support.trust import trusted

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP *.test 127.0.0.1",  # pages of other sites, and not of other ports
]

GUEST = "Gesine Guest"

# Records the subprotocols of every websocket that a page dials; a proxy keeps what noVNC checks.
RECORD_DIALS = """
window.dialled = [];
window.WebSocket = new Proxy(window.WebSocket, {
  construct(target, [url, protocols]) {
    const socket = new target(url, protocols);
    window.dialled.push({ url, protocols: [].concat(protocols ?? []) });
    (window.sockets ??= []).push(socket);
    return socket;
  },
});
"""


# It is cut off after a number of lines.
IS_STATUS_WHOLE = """(({ scrollWidth, scrollHeight, clientWidth, clientHeight }) =>
  scrollWidth <= clientWidth && scrollHeight <= clientHeight)(document.getElementById("status"))"""


class Person:
    """Somebody with a browser of their own; everything that goes wrong in it is kept."""

    def __init__(
        self,
        browser: Browser,
        name: str,
        base: str,
        elsewhere: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        self.name = name
        self.base = base
        self._expected = (base, "data:", "blob:", *elsewhere)  # where requests may go
        self.complaints: list[str] = []
        self.context: BrowserContext = browser.new_context(base_url=base, **options)
        self.context.set_default_timeout(limit(1.5) * 1000)
        self.context.add_init_script(RECORD_DIALS)
        self.context.on("console", self._console)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"warning", "error"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self._expected):
            self.complaints.append(f"a request to {request.url}")

    def log_in(self) -> Page:
        """Open the list with the login that everybody has from the start, and return the tab."""
        page = self._logged_in()
        page.goto("/")
        return page

    def _logged_in(self) -> Page:
        if not any(cookie["name"] == "sessionid" for cookie in self.context.cookies()):
            self.context.add_cookies(
                [{"name": "sessionid", "value": f"session-of-{self.name}", "url": self.base}]
            )
        return self.context.new_page()

    def log_in_by_form(self) -> Page:
        """Make a login of one's own, and return the tab."""
        page = self.context.new_page()
        page.goto("/accounts/login/")
        page.get_by_label("Username").fill(self.name)
        page.get_by_label("Password").fill(f"{self.name}-pass")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.base}/")
        return page

    def open(self, slug: str) -> Tab:
        """Open a workspace in a new tab, logged in."""
        page = self._logged_in()
        page.goto(f"/workspaces/{slug}/")
        return Tab(page).until_live()


class Tab:
    """One tab with a workspace's page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.display = page.locator("#display")
        self.status = page.get_by_role("status")

    @property
    def is_status_whole(self) -> bool:
        """Whether all that the status line says can be read."""
        return bool(self.page.evaluate(IS_STATUS_WHOLE))

    def button(self, name: str) -> Any:
        """Return the button with this accessible name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def until_live(self) -> Self:
        """Wait for the picture."""
        expect(self.display).to_have_attribute("data-state", "live", timeout=limit(2) * 1000)
        return self

    def take_control(self) -> Self:
        """Press the button and wait until the desktop is ours."""
        self.button("Take control").click()
        expect(self.display).to_have_attribute("data-mode", "control")
        expect(self.status).to_have_text("You have control.")
        return self

    def type(self, text: str) -> None:
        """Type on the desktop, as a person does: into whatever has the focus."""
        self.page.keyboard.type(text, delay=5)

    @property
    def dialled_tokens(self) -> list[str]:
        """The token of every websocket that the page has opened since it was loaded."""
        dials = self.page.evaluate("window.dialled")
        found = [re.findall(r"desktopctl\.token\.(\S+)", " ".join(d["protocols"])) for d in dials]
        return [token for tokens in found for token in tokens]

    @property
    def client_id(self) -> str:
        """Who this tab is, as it keeps it over a reload."""
        kept = self.page.evaluate("sessionStorage[`desktopctl:${display.dataset.workspace}`]")
        return str(json.loads(kept)["client_id"])

    @property
    def epoch(self) -> int:
        """The epoch of the lease, as the server tells this tab's person."""
        answer = self.page.request.get(f"{self._api}/control")
        return int(answer.json()["epoch"])

    @property
    def control(self) -> dict[str, Any]:
        """Control, as the server tells this tab's person."""
        answer = self.page.request.get(f"{self._api}/control")
        assert answer.ok, answer.text()
        return dict(answer.json())

    @property
    def slug(self) -> str:
        """The id of the workspace that the tab shows."""
        return self.page.url.rstrip("/").rpartition("/")[2]

    @property
    def _api(self) -> str:
        return f"/api/workspaces/{self.slug}/display"


class LinkMaker:
    """The platform's server, which makes links with an API token."""

    def __init__(self, server: LiveServer, slug: str = "desk-1") -> None:
        text = server.manage("add_token", "platform", "--scope", "manage", "--all-workspaces")
        self._base = f"{server.url}/api/workspaces/{slug}"
        self._headers = {"Authorization": f"Bearer {text.strip()}"}

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return httpx.request(
            method, self._base + path, json=body, headers=self._headers, verify=trusted()
        )

    def make(self, role: str = "operator") -> dict[str, Any]:
        """Make a link; return what the API tells of it."""
        body = {"name": GUEST, "role": role, "ttl_seconds": 600}
        answer = self._call("POST", "/links", body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def revoke(self, link: dict[str, Any]) -> None:
        assert self._call("DELETE", f"/links/{link['id']}").status_code == 204

    @property
    def states(self) -> list[str]:
        return [link["state"] for link in self._call("GET", "/links").json()["links"]]

    @property
    def control(self) -> dict[str, Any]:
        return dict(self._call("GET", "/display/control").json())


class Robot:
    """An agent that holds control of desk-1, and calls the API."""

    def __init__(self, server: LiveServer) -> None:
        text = server.manage("add_token", "robot", "--scope", "control", "--all-workspaces")
        self._http = httpx.Client(
            base_url=f"{server.url}/api/workspaces/desk-1/display",
            headers={"Authorization": f"Bearer {text.strip()}"},
            timeout=limit(1),
            verify=trusted(),
        )

    def call(self, name: str, **body: Any) -> httpx.Response:
        return self._http.post(f"/control/{name}", json={"client_id": "robots-process", **body})

    def acquire(self) -> dict[str, Any]:
        answer = self.call("acquire", ttl_seconds=60)  # longer than a person needs to come
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @property
    def refusal(self) -> str:
        """Why it may not have control now; "" where it gets it."""
        answer = self.call("acquire")
        return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])

    def close(self) -> None:
        self._http.close()


def file_appears(path: Path) -> Callable[[], bool]:
    """Return a condition: something has been written to ``path``."""
    return lambda: path.exists() and bool(path.read_text())
