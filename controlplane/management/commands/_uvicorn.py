"""uvicorn, ending event streams first: it waits for every response, and theirs end with the page.

Workers unpickle their class before Django is set up: at its top, nothing here imports the app.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import uvicorn
from uvicorn.supervisors import multiprocess


class Server(uvicorn.Server):
    """uvicorn's server in one process."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer who waits, end event streams, then close down as uvicorn does."""
        # The application is loaded by now.
        from controlplane import longpoll  # noqa: PLC0415
        from controlplane.feed import eventstreams  # noqa: PLC0415

        await longpoll.end_all()
        await eventstreams.current().end_all()
        await super().shutdown(sockets)


class Worker(multiprocess.Process):
    """One of several processes, with our server."""

    @property
    def server(self) -> Server:
        """The server that this process runs."""
        if not isinstance(self._server, Server):
            self._server = Server(config=self.config)
        return self._server

    def start(self) -> None:
        """Start it, and leave it the only one at its end of the pipe, which so ends with it.

        Otherwise, who dies while asked whether it lives is waited for as one that is busy.
        """
        super().start()
        self.child_conn.close()

    def join(self) -> None:
        """Wait for its end, however that comes about; its gauges end with it."""
        from controlplane import metrics  # noqa: PLC0415  (called in the parent: it is loaded)

        super().join()
        if self.pid is not None:
            metrics.forget(self.pid)


def run(config: uvicorn.Config, listener: socket.socket) -> None:
    """Serve until told to stop, with as many processes as ``config`` says."""
    if config.workers > 1:
        # Multiprocess starts workers in three places and asks nobody of which class.
        multiprocess.Process = Worker  # type: ignore[misc]  # on purpose: see above
        return multiprocess.Multiprocess(config, sockets=[listener]).run()
    with suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listener])
    return None
