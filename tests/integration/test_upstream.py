"""Dialling real desktops in every way there is, and what is said when it fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controlplane import upstream
from controlplane.destinations import parse_destinations, parse_url
from controlplane.exceptions import CredentialsRefused, UpstreamError, UpstreamTimeout
from controlplane.rfb.handshake import ServerInit
from controlplane.rfb.messages import encode_update_request
from controlplane.upstream import Dialling, Target
from tests.support.desktop import PASSWORD, LiveDesktop
from tests.support.processes import free_port
from tests.support.silence import silent_address
from tests.support.timing import limit
from tests.support.vnc_server import FakeVnc
from tests.support.websockify import Websockify, make_certificate
from tests.support.xvnc import Xvnc

Dial = Callable[..., Awaitable[tuple[upstream.Upstream, ServerInit]]]
StartWebsockify = Callable[..., Websockify]


@pytest.fixture(scope="module")
def start_websockify(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWebsockify]:
    started: list[Websockify] = []

    def start(target: str = "", *options: str | Path) -> Websockify:
        started.append(Websockify(tmp_path_factory.mktemp("websockify"), target, *options))
        return started[-1].wait()

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def ways(
    desktop: LiveDesktop,
    xvnc: Xvnc,
    start_websockify: StartWebsockify,
    certificate: tuple[Path, Path],
) -> dict[str, str]:
    """The address of each real desktop, by how it is reached."""
    before_xvnc = start_websockify(f"127.0.0.1:{xvnc.port}")
    encrypted = start_websockify(
        f"127.0.0.1:{xvnc.port}",
        *("--ssl-only", "--cert", certificate[0], "--key", certificate[1]),
    )
    return {
        "x11vnc": f"tcp://127.0.0.1:{desktop.vnc_port}",
        "x11vnc by name": f"tcp://localhost:{desktop.vnc_port}",
        "x11vnc behind websockify": f"ws://127.0.0.1:{desktop.websockify_port}/",
        "Xvnc": xvnc.url,
        "Xvnc at a unix socket": f"unix://{xvnc.socket}",
        "Xvnc behind websockify": f"ws://127.0.0.1:{before_xvnc.port}/websockify",
        "Xvnc behind websockify with TLS": f"wss://127.0.0.1:{encrypted.port}/",
    }


WAYS = [
    *("x11vnc", "x11vnc by name", "x11vnc behind websockify"),
    *("Xvnc", "Xvnc at a unix socket"),
    *("Xvnc behind websockify", "Xvnc behind websockify with TLS"),
]


class Collector:
    """A Receiver that keeps what comes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.arrived = asyncio.Event()
        self.lost: asyncio.Future[UpstreamError] = asyncio.get_running_loop().create_future()

    def upstream_data(self, data: bytes) -> None:
        self.data += data
        self.arrived.set()

    def upstream_writable(self) -> None:
        """Nothing waits."""

    def upstream_lost(self, error: UpstreamError) -> None:
        self.lost.set_result(error)


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    opened: list[upstream.Upstream] = []

    async def dial(
        url: str, password: str = PASSWORD, query: str = "", **how: object
    ) -> tuple[upstream.Upstream, ServerInit]:
        target = Target(parse_url(url), password, query)
        connected = await upstream.dial(target, Dialling(**{"connect_seconds": limit(1), **how}))  # type: ignore[arg-type]  # a test's shorthand
        opened.append(connected[0])
        return connected

    yield dial
    for each in opened:
        await each.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_real_desktop_is_dialled_and_shows_a_picture(
    way: str, ways: dict[str, str], dial: Dial, certificate: tuple[Path, Path]
) -> None:
    connected, found = await dial(ways[way], ca_file=certificate[0])
    collector = Collector()
    connected.attach(collector)
    connected.write(encode_update_request(False, 0, 0, 8, 8))
    async with asyncio.timeout(limit(1)):
        await collector.arrived.wait()
    assert (found.width, found.height) == ((640, 480) if "Xvnc" in way else (800, 600))
    assert collector.data[0] == 0, "a FramebufferUpdate"


@pytest.mark.parametrize("way", WAYS)
async def test_a_wrong_password_is_refused_however_the_desktop_is_reached(
    way: str, ways: dict[str, str], dial: Dial, certificate: tuple[Path, Path]
) -> None:
    with pytest.raises(CredentialsRefused) as caught:
        await dial(ways[way], "geheim12", ca_file=certificate[0])
    assert caught.value.step == "authentication"
    assert "geheim12" not in str(caught.value)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    ways: dict[str, str], dial: Dial
) -> None:
    with pytest.raises(UpstreamError, match="certificate does not count") as caught:
        await dial(ways["Xvnc behind websockify with TLS"])
    assert caught.value.step == "connect"


async def test_a_certificate_for_another_address_is_refused(
    ways: dict[str, str], dial: Dial, certificate: tuple[Path, Path]
) -> None:
    url = ways["Xvnc behind websockify with TLS"].replace("127.0.0.1", "localhost")
    with pytest.raises(UpstreamError, match="certificate does not count"):
        await dial(url, ca_file=certificate[0])


async def test_a_query_chooses_the_desktop_and_is_never_told(
    xvnc: Xvnc, start_websockify: StartWebsockify, dial: Dial, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"geheim: 127.0.0.1:{xvnc.port}\n")
    proxy = start_websockify("", "--token-plugin", "TokenFile", "--token-source", tokens)
    url = f"ws://127.0.0.1:{proxy.port}/"
    _, found = await dial(url, query="token=geheim")
    assert found.width == 640
    with pytest.raises(UpstreamError) as caught:
        await dial(url, query="token=vertan")
    assert caught.value.step in {"connect", "banner"}
    assert "vertan" not in str(caught.value)
    assert "vertan" not in repr(Target(parse_url(url), query="token=vertan"))


async def test_headers_reach_whatever_stands_before_the_desktop(
    dial: Dial,
) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", free_port())
    async with server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/desk"
        target = Target(parse_url(url), query="token=abc", headers=(("X-Key", "geheim"),))
        with pytest.raises(CredentialsRefused) as caught:
            await upstream.dial(target, Dialling(connect_seconds=limit(1)))
    assert b"GET /desk?token=abc HTTP/1.1\r\n" in heard[0]
    assert b"X-Key: geheim\r\n" in heard[0]
    assert "geheim" not in str(caught.value) + repr(target)


async def test_nobody_listening_is_a_failure_to_connect(dial: Dial) -> None:
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1 port \d+: connection refused") as caught:
        await dial(f"tcp://127.0.0.1:{free_port()}")
    assert caught.value.step == "connect"


async def test_a_socket_that_is_not_there_is_named(dial: Dial, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"nowhere\.sock: no such file") as caught:
        await dial(f"unix://{tmp_path}/nowhere.sock")
    assert caught.value.step == "connect"


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_name_that_cannot_be_one_is_a_failure_to_resolve(host: str, dial: Dial) -> None:
    with pytest.raises(UpstreamError) as caught:
        await dial(f"tcp://{host}")
    assert caught.value.step == "resolve"


async def test_a_query_that_makes_no_address_is_not_repeated(desktop: LiveDesktop) -> None:
    url = parse_url(f"ws://127.0.0.1:{desktop.websockify_port}/")
    with pytest.raises(UpstreamError) as caught:
        await upstream.dial(Target(url, query="token=geheim#1"), Dialling(connect_seconds=limit(1)))
    assert "geheim" not in str(caught.value)


async def test_a_name_that_is_not_known_is_a_failure_to_resolve(
    dial: Dial,
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await dial("tcp://nobody.invalid")
    assert caught.value.step == "resolve"


async def test_a_place_that_is_not_allowed_is_never_connected_to(
    dial: Dial,
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        elsewhere = parse_destinations("", ["192.0.2.0/24"])
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(UpstreamError, match="DISPLAY_UPSTREAM_ALLOW") as caught:
                await dial(f"tcp://{host}:{port}", destinations=elsewhere)
            assert caught.value.step == "resolve"
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_place_that_stays_silent_leaves_time_for_the_next(
    dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeVnc() as desktop, silent_address() as silent:
        places = [
            (socket.AF_INET, silent),
            (socket.AF_INET, ("127.0.0.1", desktop.port)),
        ]

        async def both(*_: object) -> object:
            return places

        monkeypatch.setattr(upstream, "_places", both)
        _, found = await dial("tcp://two-places", connect_seconds=1)
        assert found.name == "fake"
        del places[1]
        with pytest.raises(UpstreamTimeout) as caught:
            await dial("tcp://one-place", connect_seconds=0.2)
        assert caught.value.step == "connect"
