"""Child processes that never outlive the tests, however the tests end.

Each child leads a process group of its own, which is killed with it. An interrupted run ends its
children through ``atexit``; a killed one through the kernel (PR_SET_PDEATHSIG, set by setpriv).
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.support.timing import limit

ROOT = Path(__file__).resolve().parents[2]

_FIRST_PORT, _SHARES, _PORTS = 15_000, 10, 1_700  # a share is this many ports
_turns = itertools.count(secrets.randbelow(_PORTS))  # two runs on one machine begin apart

_running: dict[int, Process] = {}


class MissingProgram(RuntimeError):
    """A program that the tests need is not installed; the message names its Debian package."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(
            f"{program} was not found: install the Debian package {package} "
            f"(apt-get install {package}), or run “make setup”"
        )


def program(name: str, package: str, *directories: str) -> str:
    """Return the path of a program on PATH, in /usr/sbin or in ``directories``."""
    path = os.pathsep.join([*directories, os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingProgram(name, package)
    return found


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1, below those that the kernel gives to outgoing sockets.

    So a service that is stopped for a while finds its port free again. Each of pytest's workers
    has ports of its own and takes one after the other: what is found free is listened at only a
    second later, and two that draw lots would now and then both find the same.
    """
    first = _FIRST_PORT + _share() * _PORTS
    for turn in itertools.islice(_turns, _PORTS):
        port = first + turn % _PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free TCP port between {first} and {first + _PORTS}")


def _share() -> int:
    """Return which ports are this process's: 0 outside of pytest's workers."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return (1 + int(worker.removeprefix("gw"))) % _SHARES if worker else 0


class Process:
    """A running child. It must be started by a thread that stays: the kernel watches that thread.

    ``user`` drops root's rights (ignored when we are not root); ``death_signal`` is what the
    child gets when we are killed; output goes to the file ``log``.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        death_signal: str = "TERM",
        cwd: Path = ROOT,
    ) -> None:
        setpriv = [program("setpriv", "util-linux"), f"--pdeathsig={death_signal}"]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*setpriv, *_as_user(user), "--", *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                process_group=0,
            )
        self._follow(Path(argv[0]).name, self._popen.pid, log)

    def _follow(self, name: str, pid: int, log: Path) -> None:
        self.name = name
        self.pid = pid
        self._log = log
        self._handle = os.pidfd_open(pid)
        _running[pid] = self

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.pid in _running and not self._ends_within(0)

    def log(self) -> str:
        """Return all that the process has printed."""
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone (not to its group)."""
        if self.pid in _running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, expected: float = 1) -> int:
        """Ask the process to end, kill what is left of its group, and return its exit code.

        Stopping twice is harmless.
        """
        self.send(number)
        self.send(signal.SIGCONT)
        if self.pid in _running:
            self._ends_within(limit(expected))
        return self.kill()

    def kill(self) -> int:
        """End the whole group at once; return the exit code of its leader."""
        if self.pid in _running:
            self._kill_all()
            del _running[self.pid]
            os.close(self._handle)
        return self._exit_code()

    def _kill_all(self) -> None:
        # Not yet waited for, so its number cannot be anybody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _exit_code(self) -> int:
        return self._popen.wait()

    def wait(self, expected: float) -> int:
        """Return the exit code; AssertionError if the process goes on for too long."""
        if self.pid in _running and not self._ends_within(limit(expected)):
            raise AssertionError(f"{self.name} does not end:\n{self.log()}")
        return self.kill()

    def _ends_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


class ForkedProcess(Process):
    """The same for a child of Python's fork server. It has no children of its own."""

    def __init__(self, child: BaseProcess, name: str, log: Path) -> None:
        self._child = child
        child.start()
        assert child.pid is not None
        self._follow(name, child.pid, log)

    def _kill_all(self) -> None:
        self.send(signal.SIGKILL)

    def _exit_code(self) -> int:
        self._child.join()
        assert self._child.exitcode is not None
        return self._child.exitcode


def _as_user(user: str | None) -> list[str]:
    if user is None or os.geteuid() != 0:
        return []
    group = pwd.getpwnam(user).pw_gid
    return [f"--reuid={user}", f"--regid={group}", "--init-groups"]


def unprivileged_user(*wanted: str) -> str:
    """Return the first of these users that exists, or ``nobody``."""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in wanted if name in known), "nobody")


@contextlib.contextmanager
def stopping(process: Process) -> Iterator[Process]:
    """Stop ``process`` at the end of the block."""
    try:
        yield process
    finally:
        process.stop()


def _stop_all() -> None:
    for process in reversed(list(_running.values())):
        process.stop(expected=0.3)


atexit.register(_stop_all)
