"""An address that answers nothing, not even with a refusal, as one behind a black hole does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

FILLERS = 4


@contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """Yield the address of a listener whose queue is full: who connects gets no answer."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(FILLERS):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()
