"""A server's whole life with secrets that are known, and all that could be seen of it meanwhile."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.timing import limit
from tests.support.trust import trusted


class Secrets:
    """Values by the name of what they are; each is made, or noted when the server has made it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def make(self, name: str, size: int = 12) -> str:
        """Return a new one."""
        return self.note(name, f"S{secrets.token_hex(size)}"[: size * 2])

    def note(self, name: str, value: str) -> str:
        """Keep one in mind; what is empty would be found everywhere."""
        assert len(value) >= 6, name
        self.values[name] = value
        return value

    def found_in(self, text: str) -> list[str]:
        """The names of those that stand in a text."""
        return [name for name, value in self.values.items() if value in text]


class Onlooker:
    """Reads the command lines of all processes, again and again: what ``ps`` shows to everybody."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._ends = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch during the block."""
        thread = threading.Thread(target=self._watch, name="onlooker")
        thread.start()
        try:
            yield
        finally:
            self._ends.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ends.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # it has ended meanwhile


class Caller:
    """Somebody who calls the server; what it answers to its mistakes is kept in ``errors``."""

    def __init__(self, base: str, errors: list[str], **headers: str) -> None:
        self._base = base
        self.http = httpx.Client(
            base_url=base,
            timeout=limit(1),
            headers=headers,
            event_hooks={"response": [self._keep]},
            verify=trusted(),
        )
        self._errors = errors

    def _keep(self, response: httpx.Response) -> None:
        response.read()
        if response.status_code >= 400:
            self._errors.append(f"{response.request.url}: {response.headers} {response.text}")

    def sign_in(self, username: str, password: str) -> httpx.Response:
        """Send the form."""
        self.http.get("/accounts/login/")
        form = {"username": username, "password": password}
        return self.call("POST", "/accounts/login/", data=form)

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the CSRF token, if there is one."""
        csrf = self.http.cookies.get("csrftoken", "")
        headers = {"X-CSRFToken": csrf, "Referer": self._base}
        return self.http.request(method, path, headers=headers, **options)

    def post(self, path: str, body: object) -> httpx.Response:
        """Send JSON."""
        return self.call("POST", path, json=body)

    def pages_of_the_admin(self) -> dict[str, str]:
        """Every page that can be come to by following links that change nothing."""
        pages: dict[str, str] = {}
        waiting = ["/admin/"]
        while waiting:
            path = waiting.pop()
            if path in pages:
                continue
            answer = self.http.get(path)
            pages[path] = answer.text
            links = re.findall(r'href="(/admin/[\w/-]*)"', answer.text)
            waiting += [link for link in links if "logout" not in link]
        return pages
