"""Management commands in processes that are forked from one with Django's libraries loaded.

By itself a command takes a second of the processor, nearly all of it to import what is the same
for each. Here only that is shared, by Python's own fork server: settings, models and ``manage.py``
are loaded anew, from the environment that is given.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.support.processes import ROOT, ForkedProcess

# What takes longest, and neither reads settings when it is imported nor makes an event loop, as
# daphne.server does.
_LIBRARIES = (
    *("django.contrib.admin", "django.core.management", "django.db.models", "django.test"),
    *("daphne.endpoints", "daphne.http_protocol", "daphne.ws_protocol"),
    "twisted.internet.asyncioreactor",
    *("channels_redis.core", "cryptography.hazmat.primitives.ciphers.aead", "environs", "limits"),
    *("PIL.Image", "procrastinate", "psycopg", "pydantic.json_schema", "pydantic.types"),
    *("requests", "uvicorn.main", "websockets.sync.client", "yaml"),
)
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))

_PR_SET_PDEATHSIG = 1  # prctl(2): what this process gets when the fork server, its parent, ends

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__, *_LIBRARIES])


class CommandFailed(AssertionError):
    """A command has ended with another exit code than 0; the message is all that it printed."""


def run(argv: Sequence[str], env: Mapping[str, str], text: str, seconds: float) -> str:
    """Run ``manage.py`` with ``text`` as its input, and return what it printed.

    Raises CommandFailed for a bad end, and for one that has not come within ``seconds``.
    """
    with tempfile.TemporaryDirectory(prefix="desktopctl-command-") as name:
        directory = Path(name)
        for stream, _ in _STREAMS:
            (directory / stream).write_text(text if stream == "stdin" else "")
        process = _forks.Process(target=_manage, args=(argv, env, directory), daemon=True)
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        printed, complaints = ((directory / each).read_text() for each in ("stdout", "stderr"))
        if process.exitcode != 0:
            raise CommandFailed(f"{argv} ended with {process.exitcode}:\n{printed}{complaints}")
        return printed


def start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> ForkedProcess:
    """Start ``manage.py``, which goes on until it is stopped, or until the tests end."""
    child = _forks.Process(target=_manage_on, args=(argv, env, log), daemon=True)
    return ForkedProcess(child, f"manage.py {argv[0]}", log)


def _manage_on(argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
    """Be ``manage.py`` in a new process, with all its output in one file."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    files = ((Path(os.devnull), "r"), (log, "a"), (log, "a"))
    _be_manage(argv, env, [path.open(mode) for path, mode in files])


def _manage(argv: Sequence[str], env: Mapping[str, str], directory: Path) -> None:
    """Be ``manage.py`` in a new process, with its streams in three files."""
    _be_manage(argv, env, [(directory / stream).open(mode) for stream, mode in _STREAMS])


def _be_manage(argv: Sequence[str], env: Mapping[str, str], streams: Iterable[IO[str]]) -> None:
    gc.freeze()  # what is shared is not garbage: it need not be looked through again and again
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    for number, (file, (stream, _)) in enumerate(zip(streams, _STREAMS, strict=True)):
        os.dup2(file.fileno(), number)
        setattr(sys, stream, file)
    warnings.simplefilter("error")
    sys.argv = ["manage.py", *argv]
    runpy.run_path("manage.py", run_name="__main__")
