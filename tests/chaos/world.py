"""What can break, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.chaos.crew import Crew
from tests.chaos.people import epochs_at, held_at
from tests.support.databases import Database
from tests.support.server import LiveServer
from tests.support.services import Postgres, Redis
from tests.support.tcp_proxy import TcpProxy
from tests.support.timing import wait_until
from tests.support.vnc_server import FakeVnc

# What a server may have open beyond what it had when it was calm: connections of its pools.
SPARE_DESCRIPTORS = 16
DRIVING = "SELECT count(*) FROM controlplane_displaystream WHERE driving_epoch IS NOT NULL"
LIVING = (
    "SELECT count(*) FROM controlplane_displaystream"
    " WHERE closed_at IS NULL AND stamped_at > now() - interval '2 seconds'"
)


@dataclass
class World:
    """Two servers and all that they need; ``fronts`` and ``desk_link`` are links that can break."""

    postgres: Postgres
    redis: Redis
    database: Database
    servers: Sequence[LiveServer]
    fronts: Sequence[TcpProxy]
    desk: FakeVnc
    desk_link: TcpProxy
    calm_descriptors: int = 0

    def crew(self) -> Crew:
        """Return people who work at both servers, each at whichever answers."""
        return Crew([front.port for front in self.fronts], self.desk)

    def check(self) -> None:
        """After everybody has gone: nothing is out of order, held down, or left behind."""
        self.check_order()
        wait_until(lambda: not held_at(self.desk), "no key or button is down", expected=4)
        wait_until(lambda: self._count(DRIVING) == 0, "no stream drives", expected=4)
        wait_until(lambda: self._count(LIVING) == 0, "no stream lives on", expected=4)
        calm = self.calm_descriptors + SPARE_DESCRIPTORS
        wait_until(
            lambda: max(map(descriptors, self.servers)) <= calm,
            f"sockets and files are closed: {[*map(descriptors, self.servers)]} > {calm}",
            expected=2,
        )
        self.check_order()

    def check_order(self) -> None:
        """No input of an epoch came after that of a later one: there was one holder at a time."""
        epochs = epochs_at(self.desk)
        assert len(set(epochs)) > 1, "several have had control"
        back = [pair for pair in pairwise(epochs) if pair[1] < pair[0]]
        assert not back, f"input of an earlier epoch came after a later one's: {back}"

    def _count(self, query: str) -> int:
        return int(self.database.rows(query)[0][0])


def descriptors(server: LiveServer) -> int:
    """Return how many files and sockets a server has open."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
