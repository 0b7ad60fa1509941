"""Screenshots of real desktops, from a real server: the colours are right, and nobody waits."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.databases import Databases
from tests.support.desktop import LiveDesktop
from tests.support.processes import Process, program
from tests.support.server import LiveServer
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit, wait_until
from tests.support.trust import trusted
from tests.support.vnc_server import FakeVnc
from tests.support.xvnc import Xvnc

CONNECT_SECONDS = 5  # fifty callers on a busy machine may need two
COLOUR, PIXEL = "#cc3311", (0xCC, 0x33, 0x11)
SLUGS = ["x11vnc", "websockify", "tigervnc"]


@pytest.fixture(scope="module")
def link(own_desktop: LiveDesktop) -> Iterator[TcpProxy]:
    """Counts who dials the desktop."""
    with TcpProxy(own_desktop.vnc_port) as link:
        yield link


@pytest.fixture(scope="module")
def hung() -> Iterator[FakeVnc]:
    """Accepts, and says nothing."""
    with FakeVnc("silent") as hung:
        yield hung


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    own_desktop: LiveDesktop,
    xvnc: Xvnc,
    link: TcpProxy,
    hung: FakeVnc,
) -> Iterator[LiveServer]:
    server = LiveServer(
        tmp_path_factory.mktemp("server"),
        databases.fresh().url,
        DISPLAY_CONNECT_SECONDS=CONNECT_SECONDS,
    )
    upstreams = {"x11vnc": f"tcp://127.0.0.1:{link.port}", "tigervnc": xvnc.url, "hung": hung.url}
    upstreams["websockify"] = f"ws://127.0.0.1:{own_desktop.websockify_port}/"
    server.populate(upstreams, own_desktop.password_file)
    yield server.start(request.param)
    server.stop()


def screenshot(server: LiveServer, slug: str, query: str = "") -> httpx.Response:
    url = f"{server.url}/api/workspaces/{slug}/desktop/screenshot{query}"
    cookies = {"sessionid": "session-of-observer"}
    return httpx.get(url, cookies=cookies, timeout=limit(3), verify=trusted())


def image(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content)).convert("RGB")


def colour_of(picture: Image.Image) -> Any:
    """Away from the pointer, which stands in the middle."""
    return picture.getpixel((picture.width // 4, picture.height // 4))


def paint(environment: dict[str, str], colour: str, log: Path) -> Process:
    """Cover the desktop with a terminal of this colour, in front of all else."""
    return Process(
        [
            program("xterm", "xterm"),
            *("-fn", "fixed", "-geometry", "240x70+0+0", "-bg", colour, "-fg", colour, "+sb"),
            *("-e", "sleep", "60"),
        ],
        log=log,
        env=environment,
    )


@pytest.mark.parametrize("slug", SLUGS)
def test_the_colours_of_a_real_desktop_are_right(
    slug: str,
    server: LiveServer,
    own_desktop: LiveDesktop,
    xvnc: Xvnc,
    tmp_path: Path,
) -> None:
    desktop = xvnc if slug == "tigervnc" else own_desktop
    window = paint(desktop.environment, COLOUR, tmp_path / "xterm.log")
    try:
        wait_until(
            lambda: colour_of(image(screenshot(server, slug))) == PIXEL,
            "the desktop is of this colour",
            expected=2,
        )
        answer = screenshot(server, slug, "?format=jpeg&quality=95&width=160")
        found = image(answer)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert all(abs(a - b) < 8 for a, b in zip(colour_of(found), PIXEL, strict=True))
        width, height = (int(answer.headers[f"X-Desktop-{side}"]) for side in ("Width", "Height"))
        assert (width, height) == ((640, 480) if slug == "tigervnc" else (800, 600))
        assert found.size == (160, 120)
    finally:
        window.stop()


def test_the_first_picture_after_a_change_shows_it(
    server: LiveServer, own_desktop: LiveDesktop, tmp_path: Path
) -> None:
    """x11vnc often answers a new connection with what it showed at the one before."""

    for colour in ("#cc3311", "#11cc33", "#3311cc", "#cccc11"):
        window = paint(own_desktop.environment, colour, tmp_path / "xterm.log")
        try:
            own_desktop.run(
                "xdotool", "search", "--sync", "--onlyvisible", "--pid", str(window.pid)
            )
            time.sleep(1.1)  # it is painted, and the picture before is shared no more
            found = colour_of(image(screenshot(server, "x11vnc")))
            assert "#{:02x}{:02x}{:02x}".format(*found) == colour
        finally:
            window.stop()


def test_fifty_callers_at_once_cost_a_real_desktop_one_connection(
    server: LiveServer, link: TcpProxy
) -> None:
    image(screenshot(server, "x11vnc"))
    time.sleep(1.1)  # until that one is shared no more
    before = link.accepted
    with ThreadPoolExecutor(50) as executor:
        began = time.monotonic()
        answers = list(executor.map(lambda _: screenshot(server, "x11vnc"), range(50)))
        took = time.monotonic() - began
    assert {image(answer).size for answer in answers} == {(800, 600)}
    # One a second and process, however many ask: of a slow machine more than one second.
    assert link.accepted - before <= 1 + int(took)
    link.wait_for_open(0)


def test_nobody_else_waits_for_a_desktop_that_hangs(server: LiveServer, hung: FakeVnc) -> None:
    before = len(hung.connections)
    with ThreadPoolExecutor(30) as executor:
        began = time.monotonic()
        waiting = [executor.submit(screenshot, server, "hung") for _ in range(30)]
        wait_until(lambda: len(hung.connections) > before, "the hung desktop is dialled")
        for slug in SLUGS:
            image(screenshot(server, slug))
        answers = [each.result(limit(CONNECT_SECONDS)) for each in waiting]
    assert time.monotonic() - began < limit(CONNECT_SECONDS)
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"display_unreachable"}
    assert len(hung.connections) == before + 1
