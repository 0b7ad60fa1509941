"""People with real browser tabs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from tests.support.timing import limit

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

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


class Person:
    """Somebody with a browser of their own; everything that goes wrong in it is kept."""

    def __init__(self, browser: Browser, name: str, base: str, **options: Any) -> None:
        self.name = name
        self.base = base
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
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.complaints.append(f"a request to {request.url}")

    def log_in(self) -> Page:
        """Log in by the form, and return the tab."""
        page = self.context.new_page()
        page.goto("/accounts/login/")
        page.get_by_label("Username").fill(self.name)
        page.get_by_label("Password").fill(f"{self.name}-pass")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.base}/")
        return page

    def open(self, slug: str) -> Tab:
        """Log in if need be and open a workspace in a new tab."""
        has_session = any(cookie["name"] == "sessionid" for cookie in self.context.cookies())
        page = self.context.new_page() if has_session else self.log_in()
        page.goto(f"/workspaces/{slug}/")
        return Tab(page).until_live()


class Tab:
    """One tab with a workspace's page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.display = page.locator("#display")
        self.status = page.get_by_role("status")

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
    def _api(self) -> str:
        return f"/api/workspaces/{self.page.url.rstrip('/').rpartition('/')[2]}/display"


def file_appears(path: Path) -> Callable[[], bool]:
    """Return a condition: something has been written to ``path``."""
    return lambda: path.exists() and bool(path.read_text())
