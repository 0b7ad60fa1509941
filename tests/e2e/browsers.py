"""Browsers that sleep, and tabs that can be hidden: what Playwright's own never are."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from tests.e2e.rig import CHROMIUM_OPTIONS, Person
from tests.support.processes import program
from tests.support.timing import wait_until

# With these, Playwright keeps timers of hidden tabs from being slowed down.
KEEPERS_OF_SPEED = [
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
]


def launch(beside: Browser) -> Browser:
    """Return another Chromium, in which hidden tabs have slow timers."""
    return beside.browser_type.launch(
        executable_path=program("chromium", "chromium"),
        args=CHROMIUM_OPTIONS,
        ignore_default_args=KEEPERS_OF_SPEED,
    )


class Sleeper:
    """A browser of its own, all of whose processes can be stopped or killed at once."""

    def __init__(self, browser: Browser) -> None:
        before = descendants(os.getpid())
        self.browser = launch(browser)
        self._launched = descendants(os.getpid()) - before
        self._asleep: set[int] = set()

    def sleep(self) -> None:
        """Stop it, as a machine that sleeps does."""
        self._asleep = self._processes
        self._send(self._asleep, signal.SIGSTOP)

    def wake(self) -> None:
        """Let them go on. Waking twice is harmless."""
        self._send(self._asleep, signal.SIGCONT)
        self._asleep = set()

    def die(self) -> None:
        """End it at once: it says goodbye to nobody."""
        self._send(self._processes, signal.SIGKILL)

    @property
    def _processes(self) -> set[int]:
        return self._launched.union(*map(descendants, self._launched))

    def _send(self, processes: set[int], number: signal.Signals) -> None:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def descendants(pid: int) -> set[int]:
    """Return the processes that ``pid`` has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found


class UnwatchedTab:
    """A tab that Playwright does not attach to, for whatever it attaches to is never hidden."""

    def __init__(self, browser: Browser, someone: Person) -> None:
        self._browser = browser.new_browser_cdp_session()
        self._answers: dict[int, Any] = {}
        self._numbers = itertools.count(1)
        self._browser.on("Target.receivedMessageFromTarget", self._receive)
        context = self._browser.send("Target.createBrowserContext")["browserContextId"]
        cookies = [
            {"name": each["name"], "value": each["value"], "url": someone.base}
            for each in someone.context.cookies()
        ]
        self._browser.send("Storage.setCookies", {"cookies": cookies, "browserContextId": context})
        self._target, self._other = (
            self._browser.send(
                "Target.createTarget", {"url": "about:blank", "browserContextId": context}
            )["targetId"]
            for _ in range(2)
        )
        attached = {"targetId": self._target, "flatten": False}
        self._session = self._browser.send("Target.attachToTarget", attached)["sessionId"]
        self.show()

    def goto(self, url: str) -> None:
        """Load a page."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def hide(self) -> None:
        """Bring the other tab of the window to the front."""
        self._browser.send("Target.activateTarget", {"targetId": self._other})
        self.until("document.visibilityState === 'hidden'")

    def show(self) -> None:
        """Bring this tab to the front."""
        self._browser.send("Target.activateTarget", {"targetId": self._target})
        self.until("document.visibilityState === 'visible'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def until(self, expression: str, expected: float = 2) -> None:
        """Wait until an expression is true."""
        wait_until(lambda: self.evaluate(expression), expression, expected)

    def send(self, method: str, **params: Any) -> Any:
        """Send a command to the tab and return the answer."""
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params})
        self._browser.send(
            "Target.sendMessageToTarget", {"sessionId": self._session, "message": message}
        )
        # Events arrive while a call is under way.
        wait_until(
            lambda: self._browser.send("Browser.getVersion") and number in self._answers, method
        )
        return self._answers.pop(number)

    def _receive(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            assert "error" not in message, message
            self._answers[message["id"]] = message["result"]
