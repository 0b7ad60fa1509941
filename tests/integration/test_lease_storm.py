"""Eight processes, thousands of calls, one PostgreSQL: what they did is checked afterwards.

The events, in the order in which they were written under each lease's lock, are replayed; what the
callers were told must fit them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import commands
from tests.support.databases import Database, Databases
from tests.support.processes import ROOT
from tests.support.timing import limit

PROCESSES, CALLS, SEED = 8, 400, 20_260_101
DESKS = ["storm-1", "storm-2", "storm-3"]
BEGINNINGS = {"acquired", "resumed", "preempted", "moved", "handed_over"}
BESIDES = {"refused", "parked"}

_POPULATE = f"""
from django.contrib.auth.models import User
from controlplane import apitokens
from controlplane.models import Scope, Workspace
for number in range(3):
    User.objects.create(username=f"person-{{number}}", is_superuser=True)
for slug in {DESKS!r}:
    Workspace.objects.create(slug=slug, name=slug, upstream_url="tcp://127.0.0.1:5999")
apitokens.create("robot", [Scope.CONTROL], workspaces=None)
"""


@dataclass(frozen=True)
class Event:
    """A row of ControlEvent."""

    what: str
    who: str
    client_id: str
    epoch: int
    ended_epoch: int | None
    reason: str
    count: int
    at: Any


@dataclass(frozen=True)
class Aftermath:
    """All that was told to the callers, and all that the database knows."""

    calls: list[dict[str, Any]]
    events: dict[str, list[Event]]  # by workspace, in the order of their writing
    rows: dict[str, tuple[int, str]]  # by workspace: epoch, controller

    def told(self, *names: str) -> list[dict[str, Any]]:
        """Return the calls of these names that were not refused."""
        return [call for call in self.calls if call["call"] in names and "result" in call]


@pytest.fixture(scope="module")
def aftermath(databases: Databases) -> Aftermath:
    """The storm itself."""
    database = databases.fresh("postgres")
    env = {**os.environ, "DATABASE_URL": database.url}
    commands.run(["shell", "-v", "0", "-c", _POPULATE], env, "", limit(10))
    return Aftermath(_all_at_once(env), _events(database), _rows(database))


def _all_at_once(env: dict[str, str]) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.support.storm", str(SEED + number), str(CALLS)],
                    cwd=ROOT,
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(PROCESSES)
        ]
        for worker in workers:
            stack.callback(worker.kill)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(line) for worker in workers for line in _output(worker)]


def _output(worker: subprocess.Popen[str]) -> list[str]:
    output, _ = worker.communicate(timeout=limit(10))
    assert worker.returncode == 0
    return output.splitlines()


def _events(database: Database) -> dict[str, list[Event]]:
    found = defaultdict(list)
    for slug, *rest in database.rows(
        "SELECT workspace_slug, what, who, client_id, epoch, ended_epoch, reason, count, at"
        " FROM controlplane_controlevent ORDER BY id"
    ):
        found[slug].append(Event(*rest))
    return found


def _rows(database: Database) -> dict[str, tuple[int, str]]:
    rows = database.rows(
        "SELECT slug, epoch, controller FROM controlplane_displaycontrollease l"
        " JOIN controlplane_workspace w ON w.id = l.workspace_id"
    )
    return {slug: (epoch, controller) for slug, epoch, controller in rows}


def transitions(aftermath: Aftermath, desk: str) -> list[Event]:
    return [event for event in aftermath.events[desk] if event.what not in BESIDES]


def beginnings(aftermath: Aftermath, desk: str) -> dict[int, Event]:
    return {e.epoch: e for e in transitions(aftermath, desk) if e.what in BEGINNINGS}


def test_the_storm_was_one(aftermath: Aftermath) -> None:
    """All kinds of calls and transitions were there, and many of them."""
    assert len(aftermath.calls) == PROCESSES * CALLS
    whats = Counter(e.what for desk in DESKS for e in aftermath.events[desk])
    ends = {"released", "expired", "forced"}
    assert set(whats) == BEGINNINGS | ends | BESIDES
    assert sum(aftermath.rows[desk][0] for desk in DESKS) > CALLS


@pytest.mark.parametrize("desk", DESKS)
def test_there_are_never_two_holders_and_each_transition_has_one_event(
    desk: str, aftermath: Aftermath
) -> None:
    """Replayed: nobody begins while another holds, nothing ends twice, epochs grow by one."""
    holder: str | None = None
    epoch, seen = 0, None
    for event in transitions(aftermath, desk):
        assert seen is None or event.at >= seen
        seen = event.at
        if event.ended_epoch is not None:
            assert holder is not None, event
            assert event.ended_epoch == epoch, event
            holder = None
        if event.what in BEGINNINGS:
            assert holder is None, event
            assert event.epoch == epoch + 1, event
            holder, epoch = event.client_id, event.epoch
        assert event.epoch == epoch
    assert aftermath.rows[desk][0] == epoch
    assert (aftermath.rows[desk][1] == "none") == (holder is None)


@pytest.mark.parametrize("desk", DESKS)
def test_who_resumes_is_who_had_it_and_nobody_was_in_between(
    desk: str, aftermath: Aftermath
) -> None:
    begun = beginnings(aftermath, desk)
    ends = {e.ended_epoch: e.reason for e in transitions(aftermath, desk)}
    for epoch, event in begun.items():
        if event.what == "resumed":
            before = begun[epoch - 1]
            assert (before.who, before.client_id) == (event.who, event.client_id)
            assert ends[epoch - 1] == "expired"


def test_every_winners_epoch_is_its_own(aftermath: Aftermath) -> None:
    for call in aftermath.told("acquire", "renew", "move"):
        event = beginnings(aftermath, call["desk"])[call["result"]]
        assert (event.who, event.client_id) == (call["who"], call["client_id"])


def test_no_answer_is_older_than_one_that_was_complete_before_its_call(
    aftermath: Aftermath,
) -> None:
    """Real time counts: who asks later is never told of an earlier epoch."""
    for desk in DESKS:
        calls = [c for c in aftermath.told("acquire", "renew", "move") if c["desk"] == desk]
        by_end = iter(sorted(calls, key=lambda call: call["end"]))
        complete, newest = next(by_end, None), 0
        for call in sorted(calls, key=lambda call: call["start"]):
            while complete is not None and complete["end"] < call["start"]:
                newest = max(newest, complete["result"])
                complete = next(by_end, None)
            assert call["result"] >= newest, call


def test_no_loser_is_told_anybody_elses_client_id(aftermath: Aftermath) -> None:
    clients = {call["client_id"] for call in aftermath.calls}
    refused = [call for call in aftermath.calls if "refused" in call]
    assert len(refused) > CALLS
    for call in refused:
        assert not [client for client in clients if client in call["answer"]]


@pytest.mark.parametrize(("name", "what"), [("force", "forced"), ("hand_over", "handed_over")])
def test_whoever_was_told_that_it_was_done_has_done_it(
    name: str, what: str, aftermath: Aftermath
) -> None:
    for desk in DESKS:
        done = [call for call in aftermath.told(name) if call["result"] and call["desk"] == desk]
        assert len(done) == [event.what for event in aftermath.events[desk]].count(what)


@pytest.mark.parametrize("desk", DESKS)
def test_refusals_add_up_and_have_one_row_a_minute(desk: str, aftermath: Aftermath) -> None:
    told = Counter(
        (call["who"], call["client_id"], call["refused"])
        for call in aftermath.calls
        if "refused" in call and call["desk"] == desk
    )
    counted: Counter[tuple[str, str, str]] = Counter()
    rows: Counter[tuple[Any, ...]] = Counter()
    for event in aftermath.events[desk]:
        if event.what == "refused":
            key = (event.who, event.client_id, event.reason)
            counted[key] += event.count
            rows[*key, event.at.replace(second=0, microsecond=0)] += 1
    assert counted == told
    assert set(rows.values()) == {1}
