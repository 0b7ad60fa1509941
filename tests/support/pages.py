"""Pages that stay open without a browser: whenever its stream ends, a page dials again.

By the rules of static/controlplane/display.js: a fresh token before each dial, for which the holder
renews its control; a wait of backoff.js before each try, short again after each live picture; an
answer that the server is busy, or none, is no end.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Self

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support import rfb
from tests.support.processes import ROOT
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.timing import limit, wait_until
from tests.support.vnc_server import HEIGHT, WIDTH

LIVE_AGAIN_SECONDS = 3  # of 50 pages, when the node of half of them ends
_BACKOFF = (ROOT / "static/controlplane/backoff.js").read_text().replace("_000", "000")


def _milliseconds(name: str) -> float:
    [text] = re.findall(rf"const {name} = (\d+);", _BACKOFF)
    return float(text)


FIRST_SECONDS = _milliseconds("FIRST_MS") / 1000
CAP_SECONDS = _milliseconds("CAP_MS") / 1000


def backoff(failures: int) -> float:
    """Return how many seconds a page waits after so many failures in a row."""
    return random.uniform(0, min(CAP_SECONDS, FIRST_SECONDS * 2.0**failures))


class Page:
    """One tab of ``person`` that watches a workspace, or drives it if it is ``in_control``."""

    def __init__(
        self, person: ApiClient, slug: str, client_id: str, *, in_control: bool = False
    ) -> None:
        self.client_id = client_id
        self.in_control = in_control
        self.epochs: list[int] = []  # of each renewal
        self.live_at: list[float] = []  # when each stream had a picture, on the monotonic clock
        self.endings: list[int] = []  # the close code of each stream that has ended
        self.servers: list[str] = []  # which node each stream was on
        self.troubles: list[str] = []  # calls and dials that came to nothing
        self.failure: Exception | None = None
        self._person, self._slug = person, slug
        self._stream: StreamClient | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=client_id, daemon=True)

    def start(self) -> Self:
        """Open it."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close it, as a person does who leaves."""
        self._over.set()
        if self._stream:
            self._stream.close()
        self._thread.join(limit(2))

    @property
    def is_live(self) -> bool:
        """Whether there is a picture now; raises what went wrong where no page may go on."""
        if self.failure:
            raise self.failure
        return len(self.live_at) > len(self.endings)

    def is_on(self, node: LiveServer) -> bool:
        """Whether its newest picture came from this node, which names itself by its process."""
        return self.servers[-1].endswith(f":{node.pid}")

    def _run(self) -> None:
        failures = 0
        try:
            while not self._over.is_set():
                url = self._session_url()
                if url and self._live(url):
                    failures = 0
                self._over.wait(backoff(failures))
                failures += 1
        except Exception as error:  # told to whoever asks whether it lives
            self.failure = error

    def _session_url(self) -> str | None:
        """Return an address for one dial; None where the servers do not answer, or are busy."""
        path = "control/acquire" if self.in_control else "session"
        body: dict[str, object] = {"client_id": self.client_id}
        if self.epochs:
            body["epoch"] = self.epochs[-1]
        try:
            answer = self._person.post(f"/api/workspaces/{self._slug}/display/{path}", json=body)
        except httpx.TransportError as error:
            self.troubles.append(repr(error))
            return None
        if answer.response.status_code == 429 or answer.response.status_code >= 500:
            self.troubles.append(str(answer.response))
            return None
        told = answer.raise_for_status_is(200)
        if self.in_control:
            self.epochs.append(int(told["epoch"]))
        return str(told["session_url"])

    def _live(self, url: str) -> bool:
        """Keep one stream until it ends; return whether there was a picture."""
        try:
            self._stream = StreamClient(url)
        except (InvalidHandshake, OSError) as error:
            self.troubles.append(repr(error))
            return False
        with closing(self._stream):
            if self._over.is_set():
                return False
            try:
                self._wait_for_picture(self._stream)
            except (ConnectionClosed, OSError) as error:
                self.troubles.append(repr(error))
                return False
            self.live_at.append(time.monotonic())
            self.endings.append(_end_of(self._stream))
        return True

    def _wait_for_picture(self, stream: StreamClient) -> None:
        hello = stream.text("hello")
        stream.shake_hands()
        if self.in_control and hello["mode"] != "control":
            stream.in_control()
        stream.send(rfb.request(WIDTH, HEIGHT))
        stream.read(4)
        self.servers.append(hello["server"])


def _end_of(stream: StreamClient) -> int:
    """Read on until the stream ends; return its close code."""
    try:
        while True:
            stream.read(1)
    except ConnectionClosed as end:
        return end.rcvd.code if end.rcvd else 1006


@contextmanager
def open_pages(
    holder: ApiClient, watching: ApiClient, slug: str, count: int
) -> Iterator[list[Page]]:
    """Open so many pages, the first one in control, and wait until all are live; close them."""
    pages = [Page(holder, slug, "page-0000", in_control=True)]
    pages += [Page(watching, slug, f"page-{number:04}") for number in range(1, count)]
    try:
        for page in pages:
            page.start()
        _await(pages, lambda page: page.is_live)
        yield pages
    finally:
        for page in pages:
            page.stop()
        holder.release(slug, pages[0].client_id)


def stop_under(pages: list[Page], node: LiveServer) -> list[Page]:
    """Stop a node; return the pages that were on it, once all are live on others."""
    lost = [page for page in pages if page.is_on(node)]
    node.ask_to_stop()
    _await(pages, lambda page: page.is_live and not page.is_on(node))
    node.stop()
    return lost


def _await(pages: list[Page], is_well: Callable[[Page], bool]) -> None:
    """Return when all are; otherwise AssertionError tells what is in their way."""
    wait_until(
        lambda: not [page.troubles[-3:] for page in pages if not is_well(page)],
        "all pages are live",
        LIVE_AGAIN_SECONDS,
    )
