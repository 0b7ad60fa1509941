"""A full disk under SQLite: nobody gets or keeps control by mistake, and all goes on with room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.databases import Databases
from tests.support.rfb import SHIFT, key
from tests.support.server import LiveServer
from tests.support.stream_client import CLIENT_ID, ApiClient
from tests.support.timing import wait_until
from tests.support.vnc_server import FakeVnc

LEASE_SECONDS = 3
ACQUIRE = "/api/workspaces/desk/display/control/acquire"


class Disk:
    """The room that a server has for its files: as much as it has used already, or all."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def fill(self) -> None:
        """No file grows any more: to the server, each write fails as on a full disk."""
        # Of what is open for writing only the database and its journals are of interest; the
        # server's own log is a file too, and is not written any more either.
        self._limit(0)

    def clear(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        hard = resource.RLIM_INFINITY
        resource.prlimit(self._server.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture
def desk() -> Iterator[FakeVnc]:
    with FakeVnc() as desk:
        desk.answers_updates = True
        yield desk


@pytest.fixture
def server(tmp_path: Path, databases: Databases, desk: FakeVnc) -> Iterator[LiveServer]:
    url = databases.fresh("sqlite").url
    server = LiveServer(tmp_path, url, DISPLAY_LEASE_SECONDS=LEASE_SECONDS)
    (tmp_path / "password").write_text("not asked for\n")
    server.populate({"desk": desk.url}, tmp_path / "password")
    yield server.start()
    server.stop()


def test_with_a_full_disk_control_ends_with_its_lease_and_with_room_again_all_goes_on(
    server: LiveServer, desk: FakeVnc
) -> None:
    disk = Disk(server)
    with closing(ApiClient(server.url, "operator")) as operator:
        epoch = operator.acquire("desk")["epoch"]
        stream = operator.open("desk").in_control()
        stream.send(key(True, SHIFT))
        desk.wait_for(key(True, SHIFT))
        disk.fill()
        body = {"client_id": CLIENT_ID, "epoch": epoch}
        answer = operator.post(ACQUIRE, json=body)
        assert answer.raise_for_status_is(503)["error"]["code"] == "unavailable"
        assert answer.response.headers["Retry-After"]
        # It is not renewed, so it ends, for the gate and for the desktop.
        assert stream.out_of_control()["reason"] == "expired"
        desk.wait_for(key(False, SHIFT))
        operator.post(ACQUIRE, json={"client_id": CLIENT_ID}).raise_for_status_is(503)

        disk.clear()
        wait_until(
            lambda: operator.post(ACQUIRE, json=body).response.status_code == 200,
            "control is resumed",
        )
        stream.in_control().send(key(True, SHIFT))
        desk.wait_for(key(True, SHIFT))
        stream.close()
        desk.wait_for(key(False, SHIFT))
