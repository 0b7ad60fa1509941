"""What only real VNC servers show: what stays pressed on them, and how they hang."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.databases import Databases
from tests.support.desktop import LiveDesktop
from tests.support.rfb import RAW_ONLY, SHIFT, key, pointer, request
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient, StreamClient
from tests.support.timing import limit, wait_until
from tests.support.xvnc import Xvnc

BUTTON_1 = 1
NOTHING = {"keys": [], "buttons": []}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    own_desktop: LiveDesktop,
    xvnc: Xvnc,
) -> Iterator[LiveServer]:
    server = LiveServer(
        tmp_path_factory.mktemp("server"), databases.fresh().url, DISPLAY_CONNECT_SECONDS=2
    )
    upstreams = {"x11vnc": f"tcp://127.0.0.1:{own_desktop.vnc_port}", "tigervnc": xvnc.url}
    upstreams["websockify"] = f"ws://127.0.0.1:{own_desktop.websockify_port}/"
    server.populate(upstreams, own_desktop.password_file)
    yield server.start()
    server.stop()


@pytest.fixture
def operator(server: LiveServer) -> Iterator[ApiClient]:
    with closing(ApiClient(server.url, "operator")) as operator:
        yield operator
    StreamClient.close_all()
    server.manage_quietly("force_release", "--all", "--note", "the test is over")


@pytest.mark.parametrize("slug", ["x11vnc", "websockify", "tigervnc"])
def test_nothing_stays_pressed_on_a_real_desktop_when_the_browser_vanishes(
    slug: str, operator: ApiClient, own_desktop: LiveDesktop, xvnc: Xvnc
) -> None:
    desktop = xvnc if slug == "tigervnc" else own_desktop
    stream = operator.open(slug)
    operator.acquire(slug)
    stream.in_control()
    stream.send(key(True, SHIFT), pointer(BUTTON_1))
    held = {"keys": ["Shift_L"], "buttons": [1]}
    wait_until(lambda: desktop.held() == held, "Shift and a button are down")

    stream.vanish()
    wait_until(lambda: desktop.held() == NOTHING, "all is let go", expected=2)


def test_a_desktop_that_hangs_at_connect_is_a_readable_end(
    operator: ApiClient, own_desktop: LiveDesktop
) -> None:
    url = operator.session_url("x11vnc")
    own_desktop.pause()
    try:
        assert StreamClient(url).closed()[0] == 4504
    finally:
        own_desktop.resume()
    operator.open("x11vnc")


def test_a_desktop_that_hangs_for_a_moment_is_live_again_by_itself(
    operator: ApiClient, own_desktop: LiveDesktop
) -> None:
    stream = operator.open("x11vnc")
    operator.acquire("x11vnc")
    stream.in_control()
    own_desktop.pause()
    try:
        stream.send(key(True, SHIFT))
        stream.send('{"type": "ping", "id": 1}')
        assert stream.text("pong")["id"] == 1, "the stream lives on"
    finally:
        own_desktop.resume()
    wait_until(lambda: own_desktop.held()["keys"] == ["Shift_L"], "the key arrived late")
    stream.send(key(False, SHIFT))
    wait_until(lambda: own_desktop.held() == NOTHING, "and is let go")


def test_a_desktop_that_hangs_ends_its_streams_although_its_connection_stays(
    operator: ApiClient, own_desktop: LiveDesktop
) -> None:
    stream = operator.open("x11vnc")
    stream.send(RAW_ONLY, request(8, 8))
    stream.read(16 + 8 * 8 * 4)
    own_desktop.pause()
    try:
        code, _ = stream.closed()
    finally:
        own_desktop.resume()
    assert (code, stream.text("closing")["reason"]) == (4504, "stream: the desktop does not answer")
    operator.open("x11vnc")


def test_a_viewer_that_stops_reading_does_not_slow_another(operator: ApiClient) -> None:
    stalled = operator.open("x11vnc", "a-stalled-one")
    stalled.send(RAW_ONLY, *[request(800, 600)] * 40)
    other = operator.open("x11vnc", "another-one-1")
    other.send(RAW_ONLY)
    for _ in range(20):
        began = time.monotonic()
        other.send(request(800, 600))
        other.read(16 + 800 * 600 * 4)
        assert time.monotonic() - began < limit(0.5), "x11vnc serves nobody while one stalls it"


def test_a_wrong_password_is_tried_once_and_the_right_one_works_at_once(
    server: LiveServer, operator: ApiClient, xvnc: Xvnc, tmp_path: Path
) -> None:
    """TigerVNC locks an address out after five refusals, also with the right password."""
    wrong = tmp_path / "wrong"
    wrong.write_text("geheim12")
    failures = xvnc.log().count("AuthFailureException")
    server.manage("add_workspace", "locked", "--upstream", xvnc.url, "--password-file", wrong)
    server.manage("grant", "locked", "operator", "operator")
    for _ in range(10):
        assert StreamClient(operator.session_url("locked")).closed()[0] == 4511
    assert xvnc.log().count("AuthFailureException") == failures + 1
    right = xvnc.password_file
    server.manage("add_workspace", "locked", "--upstream", xvnc.url, "--password-file", right)
    operator.open("locked")
