"""_websocket.py: uvicorn's websocket, as it is served: with a transport that remembers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from bench.client import upgrade_request
from controlplane.management.commands._websocket import Inbox, WebSocket
from tests.support.timing import limit


class Transport:
    """Keeps what is written, and whether it is read from."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_read = True
        self.stops = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.written += b"".join(pieces)

    def pause_reading(self) -> None:
        self.is_read = False
        self.stops += 1

    def resume_reading(self) -> None:
        self.is_read = True

    def get_extra_info(self, name: str) -> None:
        """It has no addresses."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """It stays, to be looked at."""


class Connection:
    """A websocket that an application has accepted, which hands on nothing by itself."""

    def __init__(self) -> None:
        self.transport = Transport()
        config = uvicorn.Config(
            self._application, ws=WebSocket, interface="asgi3", proxy_headers=False, log_config=None
        )
        config.load()
        self.websocket = WebSocket(config=config, server_state=ServerState(), app_state={})
        self._is_over = asyncio.Event()
        self.accepted = asyncio.Event()
        self.websocket.connection_made(self.transport)  # type: ignore[arg-type]  # the part it uses
        self.websocket.data_received(upgrade_request("localhost", "/", "binary"))

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.transport.written.clear()
        self.accepted.set()
        await self._is_over.wait()

    def arrive(self, *payloads: bytes) -> None:
        """All of these come in one piece."""
        frames = [Frame(Opcode.BINARY, each).serialize(mask=True) for each in payloads]
        self.websocket.data_received(b"".join(frames))

    async def take(self) -> bytes:
        """Return the next message, as the application does."""
        async with asyncio.timeout(limit(1)):
            message: Any = await self.websocket.receive()
        return bytes(message["bytes"])

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(limit(1)):
            await self.websocket.send({"type": "websocket.send", "bytes": data})

    async def end(self) -> None:
        self._is_over.set()
        await asyncio.gather(*self.websocket.tasks)


async def accepted() -> Connection:
    connection = Connection()
    async with asyncio.timeout(limit(1)):
        await connection.accepted.wait()
    return connection


async def test_an_application_that_keeps_up_is_read_for_without_a_stop() -> None:
    connection = await accepted()
    for number in range(10):
        connection.arrive(b"%d" % number)
        assert await connection.take() == b"%d" % number
    assert connection.transport.stops == 0
    await connection.end()


async def test_reading_stops_while_a_message_waits_and_goes_on_when_all_are_taken() -> None:
    connection = await accepted()
    connection.arrive(b"first")
    assert connection.transport.is_read
    connection.arrive(b"second")
    assert not connection.transport.is_read
    assert await connection.take() == b"first"
    assert not connection.transport.is_read
    assert await connection.take() == b"second"
    assert connection.transport.is_read
    await connection.end()


async def test_messages_that_come_in_one_piece_stop_reading_once_and_keep_their_order() -> None:
    connection = await accepted()
    connection.arrive(b"1", b"2", b"3")
    assert await connection.take() == b"1"
    connection.arrive(b"4", b"5")
    assert [await connection.take() for _ in range(4)] == [b"2", b"3", b"4", b"5"]
    assert (connection.transport.is_read, connection.transport.stops) == (True, 1)
    await connection.end()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 512 * 1024])
async def test_what_is_sent_is_the_frame_that_websockets_would_send(size: int) -> None:
    connection = await accepted()
    data = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    await connection.send(data)
    assert connection.transport.written == Frame(Opcode.BINARY, data).serialize(mask=False)
    await connection.end()


async def test_sending_waits_while_the_browser_does_not_read() -> None:
    connection = await accepted()
    connection.websocket.pause_writing()
    sending = asyncio.create_task(connection.send(b"late"))
    await asyncio.sleep(0)
    assert not connection.transport.written
    connection.websocket.resume_writing()
    await sending
    assert connection.transport.written == Frame(Opcode.BINARY, b"late").serialize(mask=False)
    await connection.end()


async def test_nothing_is_sent_to_who_has_left() -> None:
    connection = await accepted()
    connection.websocket.connection_lost(None)
    with pytest.raises(ClientDisconnected):
        await connection.send(b"into the void")
    assert not connection.transport.written
    await connection.end()


async def test_nothing_is_sent_after_the_close() -> None:
    connection = await accepted()
    await connection.websocket.send({"type": "websocket.close", "code": 4401, "reason": ""})
    said = bytes(connection.transport.written)
    with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
        await connection.send(b"too late")
    assert connection.transport.written == said
    connection.websocket.connection_lost(None)  # ends the wait for the browser's own close
    await connection.end()


async def test_the_request_is_forgotten_once_it_is_answered() -> None:
    connection = await accepted()
    kept = vars(connection.websocket)
    assert not {"request", "response", "scope"} & kept.keys()
    await connection.end()


async def test_an_inbox_hands_out_in_order_to_one_who_waits() -> None:
    inbox = Inbox()
    taking = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    for number in range(3):
        inbox.put_nowait({"number": number})
    assert [(await each)["number"] for each in (taking, inbox.get(), inbox.get())] == [0, 1, 2]
    assert inbox.empty()
