"""The display websocket of a real server: admission, the gate, every close code from its cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from controlplane import crypto
from tests.support.databases import Databases
from tests.support.desktop import LiveDesktop
from tests.support.rfb import BELL, REQUEST, SHIFT, key, pointer
from tests.support.server import LiveServer
from tests.support.stream_client import V1, ApiClient, StreamClient
from tests.support.timing import wait_until
from tests.support.vnc_server import FakeVnc


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    databases: Databases,
    module_desktops: dict[str, FakeVnc],
    desktop: LiveDesktop,
) -> Iterator[LiveServer]:
    """A server with short times and small limits, in front of fake desktops and a real one."""
    server = LiveServer(
        tmp_path_factory.mktemp("server"),
        databases.fresh().url,
        DISPLAY_CONNECT_SECONDS=2,
        DISPLAY_BACKLOG_BYTES=100_000,
        DISPLAY_BACKLOG_CAP_BYTES=1_000_000,
        DISPLAY_MAX_STREAMS_PER_USER=4,
        DISPLAY_CLIPBOARD_BYTES=1000,
    )
    upstreams = {name: fake.url for name, fake in module_desktops.items()}
    upstreams |= {
        "nobody": "tcp://127.0.0.1:9",
        "real": f"tcp://127.0.0.1:{desktop.vnc_port}",
        "behind-websockify": f"ws://127.0.0.1:{desktop.websockify_port}/",
    }
    server.populate(upstreams, desktop.password_file)
    yield server.start(request.param)
    server.stop()


@pytest.fixture(scope="module")
def module_desktops() -> Iterator[dict[str, FakeVnc]]:
    """Fake desktops by the name of their workspace."""
    desks = {
        "desk": FakeVnc(),
        "half-open": FakeVnc(),
        "garbage": FakeVnc("garbage"),
        "silent": FakeVnc("silent"),
    }
    desks |= {"half": FakeVnc("no_server_init"), "locked": FakeVnc("wrong_password")}
    for desk in desks.values():
        desk.start()
    yield desks
    for desk in desks.values():
        desk.stop()


@pytest.fixture(autouse=True)
def _close_streams() -> Iterator[None]:
    yield
    StreamClient.close_all()


@pytest.fixture
def desk(module_desktops: dict[str, FakeVnc]) -> FakeVnc:
    """The well-behaved desktop."""
    return module_desktops["desk"]


@pytest.fixture(scope="module")
def people(server: LiveServer) -> Iterator[dict[str, ApiClient]]:
    """Everybody, logged in once; tests that log out have a login of their own."""
    with ExitStack() as logins:
        yield {
            name: logins.enter_context(closing(ApiClient(server.url, name)))
            for name in ("operator", "observer", "admin")
        }


@pytest.fixture
def operator(people: dict[str, ApiClient]) -> Iterator[ApiClient]:
    """Somebody who may take control, and has let go of it at the end."""
    yield people["operator"]
    for slug in people["admin"].slugs():
        people["admin"].release(slug, force=True, note="the test is over")


@pytest.fixture
def observer(people: dict[str, ApiClient]) -> ApiClient:
    """Somebody who may only watch."""
    return people["observer"]


def driving(operator: ApiClient, slug: str = "desk") -> StreamClient:
    """Open a stream and take control on it."""
    stream = operator.open(slug)
    operator.acquire(slug)
    return stream.in_control()


# --- Opening --------------------------------------------------------------------------------------
def test_our_page_is_told_its_mode_first(operator: ApiClient) -> None:
    stream = operator.open("desk")
    assert stream.subprotocol == V1
    hello = stream.text("hello")
    assert hello["mode"] == "observe"
    assert hello["control"]["can"] == {"observe": True, "control": True, "force": False}


@pytest.mark.parametrize("subprotocols", [("binary",), ()], ids=["binary", "none"])
def test_a_stock_client_gets_binary_frames_only(
    operator: ApiClient, desk: FakeVnc, subprotocols: tuple[str, ...]
) -> None:
    operator.acquire("desk")
    url = operator.session_url("desk")
    stream = StreamClient(url, subprotocols=subprotocols, token_in_query=True).shake_hands()
    assert stream.subprotocol == (subprotocols[0] if subprotocols else None)
    stream.send(key(True), key(False), REQUEST)
    desk.wait_for(key(True), key(False))
    desk.send(BELL)
    assert stream.read(1) == BELL
    assert stream.texts == []
    assert operator.viewers() == 1
    stream.close()
    wait_until(lambda: operator.viewers() == 0, "its row is closed with it")


def test_a_ping_is_answered_with_its_id(operator: ApiClient) -> None:
    stream = operator.open("desk")
    stream.send(json.dumps({"type": "ping", "id": "here"}))
    assert stream.text("pong") == {"type": "pong", "id": "here"}


@pytest.mark.parametrize("slug", ["real", "behind-websockify"])
def test_real_desktops_send_pictures(operator: ApiClient, slug: str) -> None:
    stream = operator.open(slug)
    stream.send(b"\x02\0\0\x01\0\0\0\0", b"\x03\0" + bytes(4) + b"\0\x08\0\x08")
    header = stream.read(16)
    assert header[0] == 0, "a FramebufferUpdate"
    assert header[8:12] == b"\0\x08\0\x08"
    assert len(stream.read(8 * 8 * 4)) == 256


# --- The gate -------------------------------------------------------------------------------------
def test_a_watcher_types_in_vain(operator: ApiClient, observer: ApiClient, desk: FakeVnc) -> None:
    watcher = observer.open("desk", client_id="a-watcher-01")
    watched = desk.newest
    watcher.send(REQUEST + key(True) + pointer(1) + REQUEST)
    for byte in key(True) + b"\x06\0\0\0\0\0\0\x01x" + REQUEST:
        watcher.send(bytes([byte]))
    wait_until(lambda: len(watched.of_type(3)) == 3, "the requests arrive")
    assert watched.of_type(4, 5, 6) == []


def test_control_moves_on_a_living_stream(operator: ApiClient, desk: FakeVnc) -> None:
    stream = operator.open("desk")
    dials = len(desk.connections)
    stream.send(key(True))
    operator.acquire("desk")
    stream.in_control().send(key(True), key(False))
    desk.wait_for(key(True), key(False))
    assert len(desk.newest.of_type(4)) == 2, "what was typed before does not count"
    epoch = operator.acquire("desk")["epoch"]
    operator.release("desk", epoch=epoch)
    told = stream.text("control")
    while told["mode"] == "control":
        told = stream.text("control")
    assert told["reason"] == "released"
    stream.send(key(True), REQUEST)
    wait_until(lambda: desk.newest.of_type(3), "the request arrives")
    assert len(desk.newest.of_type(4)) == 2
    assert len(desk.connections) == dials


def test_a_force_release_in_mid_drag_lets_go_of_everything(
    server: LiveServer, operator: ApiClient, desk: FakeVnc
) -> None:
    stream = driving(operator)
    stream.send(key(True, SHIFT), pointer(1, 10, 20))
    desk.wait_for(key(True, SHIFT), pointer(1, 10, 20))
    server.manage("force_release", "desk", "--note", "lunch")
    desk.wait_for(key(False, SHIFT), pointer(0, 10, 20))
    told = stream.text("control")
    while told["mode"] == "control":
        told = stream.text("control")
    assert (told["reason"], told["note"]) == ("forced", "lunch")


def test_a_token_minted_before_a_forced_release_and_dialled_after_it_only_watches(
    server: LiveServer, operator: ApiClient, desk: FakeVnc
) -> None:
    session_url = operator.acquire("desk")["session_url"]
    server.manage("force_release", "desk", "--note", "lunch")
    stream = StreamClient(session_url).shake_hands()
    hello = stream.text("hello")
    assert (hello["mode"], hello["control"]["last_end"]["reason"]) == ("observe", "forced")
    stream.send(key(True), REQUEST)
    wait_until(lambda: desk.newest.of_type(3), "the request arrives")
    assert desk.newest.of_type(4) == []


@pytest.mark.parametrize("end", ["close", "vanish"])
def test_keys_are_let_go_when_the_stream_ends(operator: ApiClient, desk: FakeVnc, end: str) -> None:
    stream = driving(operator)
    stream.send(key(True), pointer(4))
    desk.wait_for(key(True), pointer(4))
    getattr(stream, end)()
    desk.wait_for(key(False), pointer(0))
    assert operator.acquire("desk")["this_client"], "a dropped link is not consent"


def test_an_expired_lease_shuts_the_gate_of_a_living_stream(
    server: LiveServer, operator: ApiClient, desk: FakeVnc
) -> None:
    stream = driving(operator)
    stream.send(key(True))
    desk.wait_for(key(True))
    server.manage(
        "shell",
        "-c",
        "from django.db.models.functions import Now\n"
        "from controlplane.models import DisplayControlLease\n"
        "DisplayControlLease.objects.filter(workspace__slug='desk').update(expires_at=Now())",
    )
    desk.wait_for(key(False))
    told = stream.text("control")
    while told["mode"] == "control":
        told = stream.text("control")
    assert told["reason"] == "expired"


def test_a_clipboard_that_is_too_large_is_skipped(operator: ApiClient, desk: FakeVnc) -> None:
    stream = driving(operator)
    stream.send(b"\x06\0\0\0" + (1001).to_bytes(4, "big") + bytes(1001), key(True), key(False))
    assert stream.text("clipboard_too_large")["length"] == 1001
    desk.wait_for(key(True), key(False))
    assert desk.newest.of_type(6) == []


def test_a_desktop_set_to_take_no_texts_takes_none_from_a_stream_that_is_open(
    server: LiveServer, operator: ApiClient, desk: FakeVnc
) -> None:
    stream = driving(operator)
    accept_clipboard(server, False)
    try:
        assert stream.text("control")["control"]["accepts_clipboard"] is False
        stream.send(b"\x06\0\0\0\0\0\0\x04text", key(True), key(False))
        assert stream.text("clipboard_refused")
        desk.wait_for(key(True), key(False))
        assert desk.newest.of_type(6) == []
    finally:
        accept_clipboard(server, True)
    assert stream.text("control")["control"]["accepts_clipboard"] is True
    stream.send(b"\x06\0\0\0\0\0\0\x04text")
    wait_until(lambda: desk.newest.of_type(6), "the text")


def accept_clipboard(server: LiveServer, accepts: bool) -> None:
    server.manage(
        "shell",
        "-c",
        "from controlplane.models import Workspace\n"
        f"Workspace.objects.filter(slug='desk').update(accepts_clipboard={accepts})",
    )


# --- 4400 -----------------------------------------------------------------------------------------
VIOLATIONS: dict[str, bytes | str] = {
    "an unknown message": b"\x63",
    "a clipboard of two gigabytes": b"\x06\0\0\0\x7f\xff\xff\xff",
    "text that is not JSON": "hello",
    "JSON of an unknown type": '{"type": "acquire", "id": 1}',
    "too long a text": json.dumps({"type": "ping", "id": "x" * 5000}),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_4400_for(operator: ApiClient, name: str) -> None:
    stream = operator.open("desk")
    stream.send(VIOLATIONS[name])
    assert stream.closed()[0] == 4400
    assert stream.text("closing")["code"] == 4400


def test_4400_for_pings_that_come_too_often(operator: ApiClient) -> None:
    stream = operator.open("desk")
    with suppress(ConnectionClosed):  # it may end before all are sent
        for number in range(500):
            stream.send(json.dumps({"type": "ping", "id": number}))
    assert stream.closed()[0] == 4400


def test_4400_for_a_browser_that_does_not_finish_its_handshake(operator: ApiClient) -> None:
    stream = StreamClient(operator.session_url("desk"))
    assert stream.read(12) == b"RFB 003.008\n"
    assert stream.closed()[0] == 4400
    assert "did not finish" in stream.text("closing")["reason"]


def test_4400_for_text_from_a_stock_client(operator: ApiClient) -> None:
    stream = StreamClient(operator.session_url("desk"), subprotocols=("binary",)).shake_hands()
    stream.send('{"type": "ping", "id": 1}')
    assert stream.closed()[0] == 4400
    assert stream.texts == []


# --- 4401 -----------------------------------------------------------------------------------------
def test_4401_for_a_token_that_was_used_before(operator: ApiClient) -> None:
    url = operator.session_url("desk")
    StreamClient(url).shake_hands()
    assert StreamClient(url).closed()[0] == 4401


def test_4401_for_no_token(operator: ApiClient) -> None:
    url = operator.session_url("desk").partition("#")[0]
    assert StreamClient(url).closed()[0] == 4401


def test_4401_for_a_forged_token(operator: ApiClient) -> None:
    url = operator.session_url("desk")
    forged = url[:-5] + ("AAAAA" if not url.endswith("AAAAA") else "BBBBB")
    assert StreamClient(forged).closed()[0] == 4401


def test_4401_for_the_token_of_another_workspace(operator: ApiClient) -> None:
    url = operator.session_url("real").replace("/real/", "/desk/")
    assert StreamClient(url).closed()[0] == 4401


def test_4401_for_an_expired_token(operator: ApiClient) -> None:
    url, now = operator.session_url("desk"), operator.server_time()
    assert StreamClient(ending(url, now - 0.001)).closed()[0] == 4401
    StreamClient(ending(url, now + 30)).shake_hands()


def ending(session_url: str, at: float) -> str:
    """Return the address with a token that differs in its end alone, in seconds since the epoch."""
    url, _, token = session_url.partition("#token=")
    padded = token + "=" * (-len(token) % 4)
    content = json.loads(crypto.decrypt("session token", padded))
    assert 0 < content["expires"] - at < 100
    changed = crypto.encrypt("session token", json.dumps({**content, "expires": at}))
    return f"{url}#token={changed.rstrip('=')}"


# --- 4403, 4404 -----------------------------------------------------------------------------------
def test_4403_after_logging_out_with_a_token_that_is_still_good(server: LiveServer) -> None:
    with closing(ApiClient.by_form(server.url, "operator")) as operator:
        url = operator.session_url("desk")
        operator.log_out()
    assert StreamClient(url).closed()[0] == 4403


def test_4403_ends_the_open_streams_of_a_login_that_ended(
    server: LiveServer, desk: FakeVnc
) -> None:
    with closing(ApiClient.by_form(server.url, "operator")) as operator:
        stream = driving(operator)
        stream.send(key(True))
        desk.wait_for(key(True))
        operator.log_out()
    desk.wait_for(key(False))
    assert stream.closed()[0] == 4403


def test_4403_for_a_page_from_another_address(operator: ApiClient) -> None:
    for origin in ("http://evil.example", operator.base.replace("http:", "https:"), "null"):
        stream = StreamClient(operator.session_url("desk"), origin=origin)
        assert stream.closed()[0] == 4403
    StreamClient(operator.session_url("desk"), origin=operator.base).shake_hands()


def test_4403_for_a_grant_that_is_taken_away(server: LiveServer, observer: ApiClient) -> None:
    stream, url = observer.open("half-open"), observer.session_url("half-open")
    server.manage("revoke", "half-open", "observer")
    try:
        assert stream.closed()[0] == 4403
        assert StreamClient(url).closed()[0] == 4403
    finally:
        server.manage("grant", "half-open", "observer", "observer")


def test_4404_for_a_workspace_that_is_disabled(server: LiveServer, operator: ApiClient) -> None:
    stream, url = operator.open("half-open"), operator.session_url("half-open")
    enable(server, "half-open", False)
    try:
        assert stream.closed()[0] == 4404
        assert StreamClient(url).closed()[0] == 4404
    finally:
        enable(server, "half-open", True)


def enable(server: LiveServer, slug: str, enabled: bool) -> None:
    server.manage(
        "shell",
        "-c",
        "from controlplane.models import Workspace\n"
        f"workspace = Workspace.objects.get(slug={slug!r})\n"
        f"workspace.enabled = {enabled}\n"
        "workspace.save()",
    )


# --- 4410, 4413, 4429 -----------------------------------------------------------------------------
def test_4410_when_the_same_tab_opens_a_newer_stream(operator: ApiClient, desk: FakeVnc) -> None:
    old = driving(operator)
    old.send(key(True))
    desk.wait_for(key(True))
    first = desk.newest
    new = operator.open("desk").in_control()
    assert old.closed()[0] == 4410
    wait_until(lambda: first.of_type(4)[-1:] == [key(False)], "the old one lets go")
    new.send(key(True), key(False))
    desk.wait_for(key(True), key(False))


def test_4413_for_a_browser_that_does_not_read(operator: ApiClient, desk: FakeVnc) -> None:
    stream = operator.open("desk")
    for _ in range(40):
        desk.send(bytes(100_000))
    assert stream.closed()[0] == 4413


def test_4429_for_one_stream_too_many(operator: ApiClient) -> None:
    # Should a row of an earlier test have stayed open, it stops counting 30 s after its last stamp.
    wait_until(lambda: operator.viewers() == 0, "earlier streams count no more", expected=4)
    streams = [operator.open("desk", client_id=f"tab-number-{n}") for n in range(4)]
    url = operator.session_url("desk", client_id="tab-number-5")
    assert StreamClient(url).closed()[0] == 4429
    for stream in streams:
        stream.close()
    wait_until(lambda: operator.viewers() == 0, "the streams that were closed count no more")


# --- 4502, 4504, 4511 -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("slug", "code", "step"),
    [
        ("nobody", 4502, "connect"),
        ("garbage", 4502, "banner"),
        ("silent", 4504, "banner"),
        ("half", 4504, "ServerInit"),
    ],
)
def test_a_desktop_that_does_not_work_is_a_readable_end(
    operator: ApiClient, slug: str, code: int, step: str
) -> None:
    stream = StreamClient(operator.session_url(slug))
    assert stream.closed()[0] == code
    assert stream.text("closing")["reason"].startswith(f"{step}: ")
    assert operator.display(slug)["status"] == "unreachable"


def test_4502_when_the_desktop_closes(operator: ApiClient, desk: FakeVnc) -> None:
    stream = operator.open("desk")
    desk.hang_up()
    assert stream.closed()[0] == 4502


def test_4511_for_a_refused_password_and_one_attempt_only(
    server: LiveServer,
    operator: ApiClient,
    module_desktops: dict[str, FakeVnc],
    desktop: LiveDesktop,
) -> None:
    locked = module_desktops["locked"]
    before = len(locked.connections)
    for _ in range(3):
        stream = StreamClient(operator.session_url("locked"))
        assert stream.closed()[0] == 4511
        assert "authentication failed" in stream.text("closing")["reason"]
    # Both servers of this module ask the same desktop; the refusal is kept in each's database.
    assert len(locked.connections) == before + 1
    assert "authentication failed" in server.log
    assert desktop.password not in server.log


def test_no_token_is_ever_logged(server: LiveServer, operator: ApiClient) -> None:
    url = operator.session_url("desk")
    StreamClient(url, token_in_query=True).shake_hands().close()
    token = url.partition("#token=")[2]
    assert token not in server.log


def test_the_server_lets_go_of_keys_when_it_is_stopped(
    tmp_path: Path, databases: Databases, desktop: LiveDesktop
) -> None:
    for kind in ("uvicorn", "daphne"):
        directory = tmp_path / kind
        directory.mkdir()
        desk = FakeVnc().start()
        server = LiveServer(directory, databases.fresh().url)
        server.populate({"desk": desk.url}, desktop.password_file)
        server.start(kind)
        with closing(ApiClient(server.url, "operator")) as operator:
            stream = driving(operator)
        stream.send(key(True), pointer(1))
        desk.wait_for(key(True), pointer(1))
        server.stop()
        desk.wait_for(key(False), pointer(0))
        assert stream.closed()[0] in {1012, 4503}, "a code after which pages come back at once"
        desk.stop()


# --- 4411 -----------------------------------------------------------------------------------------
HIDES = "operator hides this desktop from watchers."


def test_4411_for_all_but_the_holders_own_tab_while_it_is_hidden(
    operator: ApiClient, observer: ApiClient, people: dict[str, ApiClient], desk: FakeVnc
) -> None:
    own = driving(operator)
    others = {
        "a watcher": observer.open("desk"),
        "a superuser": people["admin"].open("desk"),
        "another tab of the holder": operator.open("desk", "another-tab-0001"),
    }
    early = observer.session_url("desk")
    operator.hide("desk", True)
    for who, stream in others.items():
        assert stream.text("closing")["reason"] == HIDES, who
        assert stream.closed()[0] == 4411
    assert StreamClient(early).closed()[0] == 4411
    own.send(key(True, ord("h")))
    wait_until(lambda: key(True, ord("h")) in [each for _, each in desk.order], "it drives")
    operator.hide("desk", False)
    observer.open("desk")
