"""What the browser tests stand on: a real desktop, a real server, people with real browser tabs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from tests.support.processes import ROOT, Process, free_port, program
from tests.support.timing import limit, wait_until

PASSWORD = "deskpass"
CHROMIUM_OPTIONS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()

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


class LiveDesktop:
    """Xvfb, openbox, xterm, x11vnc and websockify, as the demo starts them."""

    def __init__(self, directory: Path, title: str) -> None:
        self.directory = directory
        self.vnc_port, self.websockify_port = free_port(), free_port()
        self.password_file = directory / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self._process = Process(
            [
                program("bash", "bash"),
                ROOT / "deploy/desktop/start-desktop",
                *("--port", str(self.vnc_port), "--websockify-port", str(self.websockify_port)),
                *("--password-file", self.password_file, "--state-dir", directory / "state"),
                *("--title", title, "--geometry", "800x600"),
            ],
            log=directory / "log",
        )

    def wait(self) -> Self:
        """Return when the desktop answers."""
        wait_until(self._is_ready, f"the desktop is ready: {self._process.log()}", expected=5)
        return self

    def _is_ready(self) -> bool:
        assert self._process.is_running, self._process.log()
        return "ready: DISPLAY=" in self._process.log()

    def stop(self) -> None:
        """End it and all its parts."""
        self._process.stop(expected=3)

    @property
    def environment(self) -> dict[str, str]:
        """What an X program on this desktop needs."""
        state = self.directory / "state"
        return {
            **os.environ,
            "DISPLAY": (state / "display").read_text().strip(),
            "XAUTHORITY": str(state / "Xauthority"),
        }

    def run(self, *argv: str, text: str = "") -> str:
        """Run a program on the desktop and return what it printed."""
        done = subprocess.run(
            [program(argv[0], argv[0]), *argv[1:]],
            env=self.environment,
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit(2),
            check=True,
        )
        return done.stdout

    @property
    def clipboard(self) -> str:
        """What a paste on the desktop would insert."""
        # xclip fails while nobody owns the selection: then there is nothing to paste.
        done = subprocess.run(
            [program("xclip", "xclip"), "-o", "-selection", "clipboard"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit(2),
            check=False,
        )
        return done.stdout

    def copy(self, text: str) -> None:
        """Copy on the desktop, as a program there would."""
        # xclip stays to serve the selection: its output must not be waited for.
        subprocess.run(
            [program("xclip", "xclip"), "-i", "-selection", "clipboard"],
            env=self.environment,
            input=text,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=limit(2),
            check=True,
        )


_POPULATE = """
import json, sys
from pathlib import Path
from django.contrib.auth.models import User
from django.core.management import call_command
facts = json.load(sys.stdin)
for name in ("operator", "observer"):
    User.objects.create_user(name, password=f"{name}-pass")
User.objects.create_superuser("admin", password="admin-pass")
for slug, upstream in facts["upstreams"].items():
    call_command("add_workspace", slug, upstream=upstream, name=slug.title().replace("-", " "),
                 password_file=Path(facts["password_file"]))
    for name in ("operator", "observer"):
        call_command("grant", slug, name, name)
"""


class LiveServer:
    """``manage.py serve`` with a database of its own; ``port`` may be shown behind a proxy."""

    def __init__(self, directory: Path, database_url: str, **env: object) -> None:
        self.port = free_port()
        self._directory = directory
        self._env = {
            **os.environ,
            "DATABASE_URL": database_url,
            "PUBLIC_URL": f"http://localhost:{self.port}",
            "STATIC_ROOT": str(directory / "static"),
            "PYTHONWARNINGS": "error",
            **{name: str(value) for name, value in env.items()},
        }
        self._process: Process | None = None

    def manage(self, *argv: str | Path, text: str = "") -> str:
        """Run a management command and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *map(str, argv)],
            cwd=ROOT,
            env=self._env,
            input=text,
            capture_output=True,
            text=True,
            timeout=limit(10),
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def populate(self, upstreams: dict[str, str], password_file: Path) -> None:
        """Add an operator, an observer and an admin, and workspaces that they may use.

        Their passwords are ``<name>-pass``. All in one process: each start of Django takes a second.
        """
        facts = {"upstreams": upstreams, "password_file": str(password_file)}
        self.manage("shell", "-c", _POPULATE, text=json.dumps(facts))

    def start(self, kind: str = "uvicorn") -> Self:
        """Serve; returns when it answers. After ``stop`` or ``kill``, on the same port."""
        self._process = Process(
            [sys.executable, "manage.py", "serve", "--port", str(self.port), "--server", kind],
            log=self._directory / "server.log",
            env=self._env,
        )
        wait_until(self._answers, "the server answers", expected=5)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.is_running, self.log
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/healthz", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def log(self) -> str:
        """All that the server has printed."""
        return (self._directory / "server.log").read_text()

    def stop(self) -> None:
        """End it in order."""
        if self._process:
            self._process.stop(expected=3)

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        if self._process:
            self._process.kill()


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
