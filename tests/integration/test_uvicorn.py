"""uvicorn's workers, as ``serve --workers`` starts them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from controlplane.management.commands._uvicorn import Worker
from tests.support.timing import limit


async def nothing(*_: object) -> None:
    """An application that nobody calls."""


def test_a_worker_that_dies_while_it_is_asked_whether_it_lives_is_not_waited_for() -> None:
    config = uvicorn.Config(f"{__name__}:nothing", port=0, lifespan="off")
    with config.bind_socket() as listener, ThreadPoolExecutor(1) as executor:
        worker = Worker(config, sockets=[listener])
        worker.start()
        assert worker.wait_until_ready(limit(3))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)  # so it does not answer
        os.waitpid(worker.pid, os.WUNTRACED)  # a thread of its own may still do so until then
        answer = executor.submit(worker.ping, limit(3))
        os.kill(worker.pid, signal.SIGKILL)
        assert not answer.result(limit(1))
        worker.join()
        worker.parent_conn.close()
