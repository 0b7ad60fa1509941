"""``manage.py serve``: run the server, after checking that it can work."""

from __future__ import annotations

import argparse
import asyncio
import socket
from contextlib import nullcontext
from typing import Any

import uvicorn
from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server as DaphneServer
from daphne.server import twisted_loop
from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.core.management.base import SystemCheckError
from django.db import connection
from django.utils.module_loading import import_string
from twisted.internet import reactor  # after daphne.server, which chooses asyncio's
from twisted.internet.defer import Deferred

from controlplane import longpoll, metrics
from controlplane.feed import eventstreams
from controlplane.management.commands import _starting, _uvicorn
from controlplane.management.commands._websocket import WebSocket
from controlplane.streams import open_streams

APPLICATION = "desktopctl.asgi:application"
PING_SECONDS = 20
MAX_FRAME_BYTES = 1 << 20  # from the browser; the same as Daphne's fixed limit
DAPHNE_PING_TIMEOUT_SECONDS = 30
WORKER_SECONDS = 30  # to start in, and to answer: a busy machine takes more than uvicorn's 5
SHUTDOWN_SECONDS = 5
BACKLOG = 2048
UNSENT_BYTES = 512 * 1024
"""How much a slow link may leave unsent in the kernel: pings wait behind it (docs/decisions.md)."""


class Command(BaseCommand):
    """Serves pages, API and displays until it is told to stop."""

    help = "Run the server."
    requires_system_checks = ()  # run below, with the answer in one line

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of the contract."""
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
        parser.add_argument("--port", type=int, default=8000, help="the port to listen on")
        parser.add_argument(
            "--workers", type=int, default=1, help="processes; several need uvicorn and PostgreSQL"
        )
        parser.add_argument(
            "--server",
            choices=["uvicorn", "daphne"],
            default="uvicorn",
            help="what speaks HTTP; docs/how-it-works.md tells why uvicorn",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, then serve."""
        check_ready(options["server"], options["workers"])
        listener = listen(options["host"], options["port"])
        if options["server"] == "daphne":
            _run_daphne(listener)
        else:
            _run_uvicorn(listener, options["workers"])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket whose connections keep little unsent data in the kernel (they inherit it)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose with --host and --port."
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    listener.set_inheritable(True)  # by the workers
    return listener


def check_ready(server: str, workers: int) -> None:
    """Raise CommandError where the server could not work; each names what mends it."""
    _starting.check_secret_key()
    try:
        BaseCommand().check()  # the command of that name also says, on stdout, that all is well
    except SystemCheckError as error:
        raise CommandError(str(error)) from None
    if workers > 1 and server == "daphne":
        raise CommandError("Daphne has one process; use: manage.py serve --server uvicorn")
    if workers > 1 and connection.vendor == "sqlite":
        raise CommandError(
            "Several workers need PostgreSQL: set DATABASE_URL=postgres://…, "
            "then run: manage.py migrate"
        )
    _starting.check_migrations()


def _run_uvicorn(listener: socket.socket, workers: int) -> None:
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        APPLICATION,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        ws=WebSocket,  # of websockets-sansio: backpressure, close reasons (docs/decisions.md)
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,  # pictures are compressed already
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_worker_healthcheck=WORKER_SECONDS,
        lifespan="off",
        proxy_headers=False,  # controlplane.proxies believes TRUSTED_PROXIES only
        server_header=False,
        log_config=None,  # settings.LOGGING
    )
    is_shared = workers > 1 and settings.METRICS_TOKEN
    with metrics.shared_by_workers() if is_shared else nullcontext():
        _uvicorn.run(config, listener)


async def _end_streams() -> None:
    await longpoll.end_all()
    await eventstreams.current().end_all()
    await open_streams.end_all()


def _before_shutdown() -> Deferred[None]:
    return Deferred.fromFuture(asyncio.ensure_future(_end_streams()))


def _run_daphne(listener: socket.socket) -> None:
    # Daphne only cancels its tasks: our streams end first, with a code that pages understand.
    reactor.addSystemEventTrigger("before", "shutdown", _before_shutdown)  # type: ignore[arg-type]  # stubs lack "self"
    DaphneServer(
        application=import_string(APPLICATION.replace(":", ".")),
        endpoints=build_endpoint_description_strings(file_descriptor=listener.fileno()),
        ping_interval=PING_SECONDS,
        ping_timeout=DAPHNE_PING_TIMEOUT_SECONDS,
        websocket_timeout=-1,
        server_name="",
    ).run()
    _end_tasks(twisted_loop)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Do what asyncio.run does at its end and Daphne omits: threads wait for these tasks."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
