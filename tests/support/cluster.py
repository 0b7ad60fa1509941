"""Several nodes on one PostgreSQL and one Redis, behind a real reverse proxy that speaks TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.databases import Database
from tests.support.processes import free_port
from tests.support.reverse_proxies import NAME, ReverseProxy
from tests.support.server import LiveServer
from tests.support.services import Redis


@dataclass
class Cluster:
    """Nodes that know nothing of each other, and what people see of them: ``proxy.url``."""

    proxy: ReverseProxy
    nodes: list[LiveServer]
    database: Database

    def open_streams(self) -> list[int]:
        """Return the rows of streams that have not ended."""
        query = "SELECT id FROM controlplane_displaystream WHERE closed_at IS NULL"
        return [row[0] for row in self.database.rows(query)]


@contextmanager
def running(
    directory: Path,
    database: Database,
    redis: Redis,
    kind: type[ReverseProxy],
    upstreams: dict[str, str],
    *,
    nodes: int = 2,
    start: Callable[[LiveServer], object] = LiveServer.start_as_typed,
    changes: dict[str, str] | None = None,
    **env: object,
) -> Iterator[Cluster]:
    """Run nodes with people and ``upstreams`` behind a proxy whose certificate is believed."""
    ports = [free_port() for _ in range(nodes)]
    proxy = kind(directory / "proxy", ports, changes)
    env = {"PUBLIC_URL": proxy.url, "REDIS_URL": redis.url, **env}
    env = {"TRUSTED_PROXIES": NAME, "TRUST_REQUEST_ID": "on", **env}
    servers = [_node(directory / str(port), port, database, env) for port in ports]
    (directory / "password").write_text("secret")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(proxy.certificate))
        servers[0].populate(upstreams, directory / "password")
        for server in servers:
            stack.callback(server.stop)
            start(server)
        stack.callback(proxy.stop)
        proxy.start()
        yield Cluster(proxy, servers, database)


def _node(directory: Path, port: int, database: Database, env: dict[str, object]) -> LiveServer:
    directory.mkdir()
    server = LiveServer(directory, database.url, **env)
    server.port = port
    return server
