"""``python -m bench.restart``: how soon pages are live again when their node is restarted.

Two nodes behind nginx or Caddy with many pages, one of them in control; each node is told to stop
in turn. The pages, their TLS included, are on this machine as well.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from bench import nodes
from bench.__main__ import raise_file_limit
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.pages import Page, open_pages, stop_under
from tests.support.reverse_proxies import Caddy, Nginx, ReverseProxy
from tests.support.server import LiveServer
from tests.support.stream_client import ApiClient
from tests.support.vnc_server import FakeVnc

PROXIES: dict[str, type[ReverseProxy]] = {"nginx": Nginx, "caddy": Caddy}
BAR_SECONDS = 3


def main() -> int:
    """Restart each node so many times, print a line for each; 1 where a page took too long."""
    parser = argparse.ArgumentParser(prog="python -m bench.restart", description=__doc__)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--proxy", choices=PROXIES, default="nginx")
    options = parser.parse_args()
    raise_file_limit()
    slowest = 0.0
    with _running(PROXIES[options.proxy]) as cluster, _open(cluster, options.pages) as pages:
        for node in cluster.nodes * options.rounds:
            times = _restart(node, pages)
            slowest = max(slowest, *times)
            print(
                f"{options.proxy}: {len(times)} of {options.pages} pages lost their node; "
                f"live again after {statistics.median(times):.2f} s (median), "
                f"{max(times):.2f} s (the last)",
                flush=True,
            )
    return int(slowest > BAR_SECONDS)


def _restart(node: LiveServer, pages: list[Page]) -> list[float]:
    """Return the seconds from SIGTERM to a picture, of each page that was on this node."""
    began = time.monotonic()
    lost = stop_under(pages, node)
    node.start_as_typed()
    return [page.live_at[-1] - began for page in lost]


@contextmanager
def _running(proxy: type[ReverseProxy]) -> Iterator[Cluster]:
    with nodes.services() as (directory, database, redis), FakeVnc() as desk:
        desk.answers_updates = True
        place, upstreams = directory / "cluster", {"desk": desk.url}
        with clusters.running(
            place, database, redis, proxy, upstreams, **nodes.MANY_STREAMS
        ) as cluster:
            yield cluster


@contextmanager
def _open(cluster: Cluster, count: int) -> Iterator[list[Page]]:
    url = cluster.proxy.url
    with (
        closing(ApiClient(url, "operator")) as holder,
        closing(ApiClient(url, "observer")) as watching,
        open_pages(holder, watching, "desk", count) as pages,
    ):
        yield pages


if __name__ == "__main__":
    sys.exit(main())
