"""A display stream without a browser: what a page does, and what a hostile one would do."""

from __future__ import annotations

import json
import ssl
from contextlib import ExitStack
from datetime import datetime
from socket import SHUT_RDWR
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.support.event_stream import EventStream
from tests.support.timing import limit
from tests.support.trust import trusted

V1 = "desktopctl.v1"
CLIENT_ID = "tab-0123456789"
CSRF = "c" * 32


def _cookie_domain(base: str) -> str:
    host = str(urlsplit(base).hostname)
    return host if "." in host else f"{host}.local"  # as Python's cookie jar calls it


class ApiClient:
    """A person who calls the API, with the login that everybody has from the start."""

    def __init__(self, base: str, name: str) -> None:
        self.base = base
        self._http = httpx.Client(base_url=base, timeout=limit(1), verify=trusted())
        for cookie, value in {"sessionid": f"session-of-{name}", "csrftoken": CSRF}.items():
            # Of the server's own place, or there are two once it sets them.
            self._http.cookies.set(cookie, value, domain=_cookie_domain(base))

    @classmethod
    def by_form(cls, base: str, name: str, password: str = "") -> Self:
        """Make a login of one's own, which may be ended."""
        client = cls(base, name)
        client._http.cookies.clear()
        client._http.get("/accounts/login/")
        form = {"username": name, "password": password or f"{name}-pass"}
        client.post("/accounts/login/", data=form).raise_for_status_is(302)
        return client

    def post(self, path: str, **options: Any) -> Answer:
        """Send a POST with the CSRF token."""
        headers = {"X-CSRFToken": self._http.cookies["csrftoken"], "Referer": self.base}
        return Answer(self._http.post(path, headers=headers, **options))

    def call(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request of any method with the CSRF token."""
        headers = {"X-CSRFToken": self._http.cookies["csrftoken"], "Referer": self.base}
        return Answer(self._http.request(method, path, headers=headers, **options))

    @property
    def session_key(self) -> str:
        """The secret of this login."""
        return str(self._http.cookies["sessionid"])

    def close(self) -> None:
        """Close the connections, without logging out."""
        self._http.close()

    def log_out(self) -> None:
        """End the session: one that was made by the form, or everybody of that name is out."""
        self.post("/accounts/logout/").raise_for_status_is(302)

    def acquire(self, slug: str, client_id: str = CLIENT_ID, **body: Any) -> dict[str, Any]:
        """Take control and return the answer."""
        path = f"/api/workspaces/{slug}/display/control/acquire"
        return self.post(path, json={"client_id": client_id, **body}).raise_for_status_is(200)

    def release(self, slug: str, client_id: str = CLIENT_ID, **body: Any) -> dict[str, Any]:
        """Give control back, or end somebody else's."""
        path = f"/api/workspaces/{slug}/display/control/release"
        return self.post(path, json={"client_id": client_id, **body}).raise_for_status_is(200)

    def hide(self, slug: str, hidden: bool) -> None:
        """Hide the desktop that one controls from all who watch, or show it again."""
        control = f"/api/workspaces/{slug}/display/control"
        body = {"client_id": CLIENT_ID, "epoch": self._get(control)["epoch"], "hidden": hidden}
        answer = self.post(f"{control}/hide", json=body)
        assert bool(answer.raise_for_status_is(200)["hidden"]) is hidden

    def session_url(self, slug: str, client_id: str = CLIENT_ID) -> str:
        """Return an address with which to watch, once."""
        path = f"/api/workspaces/{slug}/display/session"
        answer = self.post(path, json={"client_id": client_id}).raise_for_status_is(200)
        return str(answer["session_url"])

    def display(self, slug: str) -> dict[str, Any]:
        """What is known of the display."""
        return self._get(f"/api/workspaces/{slug}/display")

    def slugs(self) -> list[str]:
        """The workspaces that this person may watch."""
        return [str(each["id"]) for each in self._get("/api/workspaces")["workspaces"]]

    def viewers(self) -> int:
        """How many watch any of the workspaces."""
        return sum(int(each["viewers"]) for each in self._get("/api/workspaces")["workspaces"])

    def server_time(self) -> float:
        """The database's time, in seconds."""
        return datetime.fromisoformat(self.control("desk")["server_time"]).timestamp()

    def control(self, slug: str) -> dict[str, Any]:
        """Who has control."""
        return self._get(f"/api/workspaces/{slug}/display/control")

    def events(self, *, last_event_id: str = "", client_id: str = CLIENT_ID) -> EventStream:
        """Open the stream of all that happens, or resume it."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        return EventStream(self._http, f"/api/events?client_id={client_id}", **headers)

    def _get(self, path: str) -> dict[str, Any]:
        return Answer(self._http.get(path)).raise_for_status_is(200)

    def open(self, slug: str, client_id: str = CLIENT_ID, **options: Any) -> StreamClient:
        """Open a stream and complete the RFB handshake, as a page does."""
        return StreamClient(self.session_url(slug, client_id), **options).shake_hands()


class Answer:
    """An answer of the API."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    def raise_for_status_is(self, status: int) -> dict[str, Any]:
        """Return the JSON; AssertionError unless the status is the expected one."""
        assert self.response.status_code == status, self.response.text
        is_json = self.response.headers.get("Content-Type", "").startswith("application/json")
        return dict(self.response.json()) if is_json else {}


class StreamClient:
    """One websocket to the display route. ``subprotocols`` are offered beside the token's.

    ``close_all`` closes every one that has been opened.
    """

    all_opened: ClassVar[list[ExitStack]] = []

    def __init__(
        self,
        session_url: str,
        *,
        subprotocols: tuple[str, ...] = (V1,),
        token_in_query: bool = False,
        origin: str | None = None,
    ) -> None:
        url, _, token = session_url.partition("#token=")
        offered = list(subprotocols)
        if token_in_query:
            url += f"?token={token}"
        elif token:
            offered.append(f"desktopctl.token.{token}")
        self._opened = ExitStack()
        self.all_opened.append(self._opened)
        connecting = connect(
            url,
            subprotocols=[Subprotocol(name) for name in offered] or None,
            origin=Origin(origin) if origin else None,
            ssl=_tls() if url.startswith("wss:") else None,
            open_timeout=limit(1),
            compression=None,
            max_size=None,
            proxy=None,
        )
        self._socket: ClientConnection = self._opened.enter_context(connecting)
        self.texts: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self._buffer = bytearray()

    @classmethod
    def close_all(cls) -> None:
        """Close every stream there is."""
        while cls.all_opened:
            cls.all_opened.pop().close()

    @property
    def subprotocol(self) -> str | None:
        """What the server has chosen."""
        return self._socket.subprotocol

    def shake_hands(self) -> Self:
        """Do what a VNC client does until ServerInit."""
        assert self.read(12) == b"RFB 003.008\n"
        assert self.frames == [b"RFB 003.008\n"], "the banner comes alone in its frame"
        self.send(b"RFB 003.008\n")
        assert self.read(2) == b"\x01\x01"
        self.send(b"\x01")
        assert self.read(4) == bytes(4)
        self.send(b"\x01")
        size = self.read(24)
        self.read(int.from_bytes(size[20:24], "big"))
        return self

    def send(self, *messages: bytes | str) -> None:
        """Send each as a frame."""
        for message in messages:
            self._socket.send(message)

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes of RFB; texts that come in between are kept."""
        while len(self._buffer) < count:
            self._receive()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def out_of_control(self) -> dict[str, Any]:
        """Wait until the server says that this stream's input passes no more; return its words."""
        while (told := self.text("control"))["mode"] == "control":
            pass
        return told

    def text(self, kind: str) -> dict[str, Any]:
        """Return the next text of this type; those before it are dropped."""
        while True:
            while self.texts:
                message = self.texts.pop(0)
                if message["type"] == kind:
                    return message
            self._receive()

    def in_control(self) -> Self:
        """Wait until the server says that this stream's input passes."""
        while True:
            while self.texts:
                if self.texts.pop(0).get("mode") == "control":
                    return self
            self._receive()

    def closed(self) -> tuple[int, str]:
        """Wait for the end, and return its code and reason."""
        try:
            while True:
                self._receive()
        except ConnectionClosed as end:
            if end.rcvd is None:
                raise AssertionError("the connection ended without a close frame") from end
            return end.rcvd.code, end.rcvd.reason

    def close(self) -> None:
        """Close as a page does."""
        self._socket.close(1000)

    def vanish(self) -> None:
        """Be gone without a word, as when a laptop's lid closes on a reset."""
        self._socket.socket.shutdown(SHUT_RDWR)

    def _take_text(self, text: dict[str, Any]) -> None:
        """Keep it; answer a ping, as a page does."""
        self.texts.append(text)
        if text["type"] == "ping":
            self.send(json.dumps({"type": "pong", "id": text["id"]}))

    def _receive(self) -> None:
        message = self._socket.recv(timeout=limit(3))
        if isinstance(message, str):
            self._take_text(json.loads(message))
        else:
            self.frames.append(message)
            self._buffer += message


def _tls() -> ssl.SSLContext:
    """Return what verifies a server's certificate; of TLS 1.2.

    The client reads in one thread and writes in another, which OpenSSL does not forgive while it
    takes in a session ticket. Only TLS 1.3 sends those after its handshake.
    """
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
