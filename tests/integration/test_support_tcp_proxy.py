"""The proxy under the tests' control does what tests rely on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import limit


class Echo:
    """A server that echoes, and remembers how its connections ended."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ends: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=[connection], daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
                self.ends.append("FIN")
            except ConnectionError:
                self.ends.append("RST")


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy(echo.port) as proxy:
        yield proxy


@contextmanager
def client(proxy: TcpProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=limit(0.5)) as connection:
        yield connection


def echoes(connection: socket.socket, text: bytes = b"hello") -> bool:
    connection.sendall(text)
    received = b""
    while len(received) < len(text):
        received += connection.recv(65536)
    return received == text


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(1) is None
    except TimeoutError:
        return True
    finally:
        connection.settimeout(limit(0.5))


def test_it_passes_on_and_counts(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoes(connection, b"x" * 3_000_000)
        assert (proxy.accepted, proxy.open) == (1, 1)
        assert proxy.bytes_up == proxy.bytes_down == 3_000_000
    proxy.wait_for_open(0)


def test_a_cut_resets_both_sides(proxy: TcpProxy, echo: Echo) -> None:
    with client(proxy) as connection:
        assert echoes(connection)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with client(proxy) as connection:
        assert echoes(connection)
    proxy.wait_for_open(0)
    assert echo.ends[0] == "RST"


def test_a_close_ends_both_sides_in_order(proxy: TcpProxy, echo: Echo) -> None:
    with client(proxy) as connection:
        assert echoes(connection)
        proxy.close()
        assert connection.recv(1) == b""
    proxy.wait_for_open(0)
    assert echo.ends == ["FIN"]


def test_it_refuses_and_listens_again_on_the_same_port(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), client(proxy):
            pass
        assert echoes(connection)
        proxy.heal()
    with client(proxy) as connection:
        assert echoes(connection)


def test_what_was_stalled_flows_on_after_healing(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoes(connection)
        proxy.stall()
        connection.sendall(b"late")
        assert is_silent(connection)
        proxy.heal()
        assert connection.recv(4) == b"late"


def test_a_blackhole_swallows_bytes_and_ends_and_new_connections(
    proxy: TcpProxy, echo: Echo
) -> None:
    with client(proxy) as first, client(proxy) as second:
        assert echoes(first)
        assert echoes(second)
        proxy.blackhole()
        first.sendall(b"lost")
        assert is_silent(first)
        second.close()
        with client(proxy) as third:
            third.sendall(b"lost")
            assert is_silent(third)
        assert echo.ends == []
        proxy.cut()
        proxy.heal()
    with client(proxy) as connection:
        assert echoes(connection)


def test_a_stalled_sender_blocks_when_the_buffers_are_full(echo: Echo) -> None:
    with TcpProxy(echo.port, buffer_bytes=16_384) as proxy, client(proxy) as connection:
        proxy.stall("up")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.sendall(b"x" * 20_000_000)


def test_a_slow_link_is_slow_and_late_and_loses_nothing(proxy: TcpProxy) -> None:
    with client(proxy) as connection:
        assert echoes(connection)
        proxy.slow(latency=0.1)
        start = time.monotonic()
        assert echoes(connection)
        assert 0.2 <= time.monotonic() - start < limit(0.2)
        proxy.slow(bytes_per_second=200_000, direction="down")
        proxy.slow(direction="up")
        start = time.monotonic()
        assert echoes(connection, b"x" * 60_000)
        assert 0.25 <= time.monotonic() - start < limit(0.3)


def test_an_unreachable_target_resets_the_client() -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    nobody.close()
    with TcpProxy(port) as proxy:
        # The reset may come while we still look at whether we are connected.
        with pytest.raises(ConnectionResetError), client(proxy) as connection:
            connection.recv(1)
        proxy.wait_for_open(0)
