"""A pytest plugin that runs the collected tests against each mutant of a module.

Started afresh for every mutant, Python, Django and pytest would take ten times as long as the
tests. So all is prepared once, and each mutant is tried in a fork: the changed source takes the
place of the module's, then the tests that come by the changed lines run until one fails. In the
first fork the source is as it was: it tells which test comes by which line, and that the tests
pass when all is put in place in this way.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import coverage
import pytest
from django.db import connections
from hypothesis import Phase, settings

from tests.mutation.mutants import Mutant, mutants_of
from tests.support.processes import ROOT

DOCUMENT = ROOT / "docs/mutation.md"
MEMORY = 4 * 2**30
KILLED, HUNG, SURVIVED, NAMED = "killed", "hung", "survived", "named as equivalent"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--mutate`` and ``--results``."""
    group = parser.getgroup("mutation")
    group.addoption("--mutate", help="the module to change")
    group.addoption("--results", type=Path, help="what has been tried is written to, and read from")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Let Hypothesis find the same examples each time; that it finds one is enough."""
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile(
        "mutation", deadline=None, derandomize=True, database=None, phases=phases
    )
    settings.load_profile("mutation")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try all mutants instead of running the tests."""
    if session.testsfailed:
        raise session.Interrupted("there are tests that cannot be collected")
    session.testsfailed = Trials(session).run()
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show why a test fails: without a mutant none may, and in a fork that has one all is muted."""
    if report.failed:
        print(report.longreprtext)


class Trials:
    """All mutants of one module, against all tests of one session."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._module = importlib.import_module(session.config.getoption("--mutate"))
        self._source = Path(str(self._module.__file__)).read_text(encoding="utf-8")
        self._results = Results(session.config.getoption("--results"), self._source)
        self._named = DOCUMENT.read_text(encoding="utf-8")

    def run(self) -> int:
        """Return how many mutants neither a test has noticed nor the document names."""
        quickest = self._session.items[-1]  # tests/support/plugin.py has put the long ones first
        run_one(quickest)  # it sets up what lives as long as the session
        connections.close_all()  # no connection survives a fork
        started = time.monotonic()
        report = self._results.directory / "covered.json"
        if in_fork(lambda: self._run_unchanged(report), limit=1800) != SURVIVED:
            raise pytest.UsageError(f"tests of {self._module.__name__} fail without any mutant")
        limit = 10 + 5 * (time.monotonic() - started)
        covered = Covered(json.loads(report.read_text()), self._session.items)
        counts = dict.fromkeys((KILLED, HUNG, SURVIVED, NAMED), 0)
        for mutant in mutants_of(self._source):
            counts[self._outcome(mutant, covered.by(mutant.lines), limit)] += 1
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        print(f"\n{self._module.__name__}: {sum(counts.values())} mutants: {told}")
        return counts[SURVIVED]

    def _outcome(self, mutant: Mutant, items: list[pytest.Item], limit: float) -> str:
        if f"| {mutant.row} |" in self._named:
            return NAMED
        if known := self._results.get(mutant):
            return known
        outcome = in_fork(lambda: self._run_mutant(mutant.source, items), limit)
        self._results.add(mutant, outcome)
        if outcome == SURVIVED:
            print(f"\n{len(items)} tests have not noticed\n| {mutant.row} |", flush=True)
        return outcome

    def _run_mutant(self, source: str, items: list[pytest.Item]) -> bool:
        with muted(), own_database():
            put_in_place(self._module, source)
            return all_pass(self._session, items)

    def _run_unchanged(self, report: Path) -> bool:
        measure = coverage.Coverage(
            data_file=None, include=[str(self._module.__file__)], config_file=False
        )
        seconds = {}
        with own_database():
            measure.start()
            put_in_place(self._module, self._source)
            for item in self._session.items:
                measure.switch_context(item.nodeid)
                started = time.monotonic()
                if not all_pass(self._session, [item]):
                    return False
                seconds[item.nodeid] = time.monotonic() - started
            measure.stop()
        lines = measure.get_data().contexts_by_lineno(str(self._module.__file__))
        report.write_text(json.dumps({"lines": lines, "seconds": seconds}))
        return True


class Covered:
    """Which tests come by which lines, the quickest first."""

    def __init__(self, report: dict[str, Any], items: list[pytest.Item]) -> None:
        self._contexts = {int(line): set(names) for line, names in report["lines"].items()}
        self._items = sorted(items, key=lambda item: report["seconds"][item.nodeid])

    def by(self, lines: frozenset[int]) -> list[pytest.Item]:
        """Return them; all, where the lines run when the module is imported."""
        names = set().union(*(self._contexts.get(line, set()) for line in lines))
        return [item for item in self._items if "" in names or item.nodeid in names]


class Results:
    """What has been tried. Survivors are forgotten: a test may have been written for them."""

    def __init__(self, directory: Path, source: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "killed.jsonl"
        self._known: set[str] = set()
        if self._file.exists():
            first, *rows = self._file.read_text(encoding="utf-8").splitlines()
            self._known = set(rows) if json.loads(first) == source else set()
        if not self._known:
            self._file.write_text(json.dumps(source) + "\n", encoding="utf-8")

    def get(self, mutant: Mutant) -> str | None:
        """Return how it ended, if it did."""
        return next((o for o in (KILLED, HUNG) if self._line(mutant, o) in self._known), None)

    def add(self, mutant: Mutant, outcome: str) -> None:
        """Keep how it ended."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(self._line(mutant, outcome) + "\n")

    @staticmethod
    def _line(mutant: Mutant, outcome: str) -> str:
        return json.dumps([outcome, sorted(mutant.lines), mutant.row])


# --- In the fork ----------------------------------------------------------------------------------
def in_fork(passes: Callable[[], bool], limit: float) -> str:
    """Return SURVIVED if ``passes()`` in a process of its own, HUNG after ``limit`` seconds."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # a loop without end may grow
        status = 1
        try:
            status = 0 if passes() else 1
        finally:
            os._exit(status)
    status = HUNG
    try:
        status = _outcome_of(child, time.monotonic() + limit)
    finally:
        if status == HUNG:  # or somebody has pressed Ctrl+C
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return status


def _outcome_of(child: int, deadline: float) -> str:
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return KILLED if status else SURVIVED
        time.sleep(0.01)
    return HUNG


def put_in_place(module: ModuleType, source: str) -> None:
    """Run ``source`` as ``module``, and let all who have imported from it have the new things."""
    old = {id(each): name for name, each in _own_things(module)}
    exec(compile(source, str(module.__file__), "exec", dont_inherit=True), vars(module))
    others = [sys.modules[n] for n in sys.modules if n.startswith(("controlplane.", "tests."))]
    for other in others:
        for name, each in list(vars(other).items()):
            if other is not module and id(each) in old:
                setattr(other, name, getattr(module, old[id(each)]))


def _own_things(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, each in list(vars(module).items()):
        if isinstance(each, type | FunctionType) and each.__module__ == module.__name__:
            yield name, each


def all_pass(session: pytest.Session, items: list[pytest.Item]) -> bool:
    """Run tests until one fails."""
    for item in items:
        run_one(item)
        if session.testsfailed:
            return False
    return True


def run_one(item: Any) -> None:
    """Run a test, and leave standing what lives as long as the session: the database."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=item.session)


@contextmanager
def muted() -> Iterator[None]:
    """Say nothing of what fails: it shall."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        yield


@contextmanager
def own_database() -> Iterator[None]:
    """Use a copy: who is killed in the middle leaves nothing behind to others."""
    connection = connections["default"]
    name = connection.settings_dict["NAME"]
    copy = Path(f"{name}-{os.getpid()}")
    if Path(name).exists():
        copy.write_bytes(Path(name).read_bytes())
        connection.settings_dict["NAME"] = str(copy)
    try:
        yield
    finally:
        copy.unlink(missing_ok=True)
