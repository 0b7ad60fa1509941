"""A real HTTP server that takes down what it is told, as the receiver of webhooks."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.processes import free_port


@dataclass(frozen=True)
class Told:
    """One request: its path, its headers with names in small letters, and its body as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """What the body says in its part ``data``."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data


class Receiver:
    """Answers with ``status`` on 127.0.0.1; ``stop`` and ``start`` keep its port.

    ``location`` is where its redirects lead. While ``hangs`` is clear, it answers at once.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.told: list[Told] = []
        self.status = 200
        self.location = ""
        self.hangs = threading.Event()
        self._ends = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it is, with what may be a secret in it."""
        return f"http://127.0.0.1:{self.port}/hooks?key=geheim"

    def start(self) -> Receiver:
        """Listen from now on."""
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on. Stopping twice is harmless."""
        server, self._server = self._server, None
        self._ends.set()
        if server:
            server.shutdown()
            server.server_close()
        self._ends.clear()

    def kinds(self, slug: str = "desk") -> list[str]:
        """Return what it was told of one workspace, in the order in which it was."""
        return [each.data["what"] for each in self.told if each.data["workspace"] == slug]


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.told.append(Told(self.path, headers, self.rfile.read(length)))
        if self.receiver.hangs.is_set():
            self._drip()
            return
        self.send_response(self.receiver.status)
        if self.receiver.location:
            self.send_header("Location", self.receiver.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _drip(self) -> None:
        """Begin an answer and never end it: a byte every now and then."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while self.receiver.hangs.is_set() and not self.receiver._ends.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:  # they have given up
                return

    def log_message(self, *_: object) -> None:
        """Say nothing."""
