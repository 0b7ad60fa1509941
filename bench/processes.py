"""Helper processes that answer questions, and what /proc says about processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT
from tests.support.timing import limit

_TICKS = os.sysconf("SC_CLK_TCK")


class Helper:
    """A Python process that answers lines of JSON with lines of JSON; it ends with its input."""

    def __init__(self, *argv: str, env: Mapping[str, str] | None = None) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, *argv],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._popen.pid

    def ask(self, *question: object) -> Any:
        """Send one question and wait for its answer."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(question) + "\n")
        self._popen.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """Wait for the next line."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"a helper has ended: {self._popen.args!r}")
        return json.loads(line)

    def stop(self) -> None:
        """End its input and wait for its end."""
        try:
            self._popen.communicate(timeout=limit(1))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def tree(pid: int) -> list[int]:
    """Return ``pid`` and all that descend from it; nothing for 0, which is no process."""
    if not pid:
        return []
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid, *(each for child in children for each in tree(child))]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that ``pid`` and its living descendants have used."""
    return sum(_cpu_seconds(each) for each in tree(pid))


def _cpu_seconds(pid: int) -> float:
    # The command's name may contain blanks; fields are counted from its closing bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def apart(bridge: int, others: Sequence[int]) -> Iterator[None]:
    """Keep a bridge on one core, and the processes at both of its ends on another.

    Which cores the kernel chooses makes a factor of three in a round trip, and it chooses anew for
    every connection. On a machine with one core, nothing is done.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        _pin(tree(bridge), {cores[0]})
        _pin(others, {cores[1]})
    try:
        yield
    finally:
        _pin([*tree(bridge), *others], set(cores))


def _pin(pids: Sequence[int], cores: set[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(task.name), cores)


def pss_kib(pid: int) -> int:
    """Return the proportional memory of ``pid`` and its living descendants."""
    return sum(_number(each, "smaps_rollup", "Pss") for each in tree(pid))


def rss_kib(pid: int) -> int:
    """Return the resident memory of ``pid`` alone."""
    return _number(pid, "status", "VmRSS")


def peak_kib(pid: int) -> int:
    """Return the most that ``pid`` has had resident since ``reset_peak``."""
    return _number(pid, "status", "VmHWM")


def reset_peak(pid: int) -> None:
    """Let the peak start from what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def threads(pid: int) -> int:
    """Return how many threads ``pid`` has."""
    return _number(pid, "status", "Threads")


def descriptors(pid: int) -> int:
    """Return how many files and sockets ``pid`` has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _number(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"{file} of process {pid} does not name {name}")
