"""leases.py against the model of it, in calls that Hypothesis makes up: late, twice, out of turn.

Time goes by in whole minutes: the row is aged, and the model's clock advances. The seconds that
really pass meanwhile make no difference, for nothing is decided within a minute.

LEASE_MACHINE_EXAMPLES=5000 looks at so many sequences, other ones each time; without it, at the
same few.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from controlplane import access, apitokens, leases, leasestate, presenters
from controlplane.api.control import refused
from controlplane.exceptions import ControlRefused
from controlplane.leases import Holder
from controlplane.models import (
    ControlEvent,
    Controller,
    DisplayControlLease,
    DisplayStream,
    EndReason,
    HandBack,
    Role,
    Scope,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.lease_model import (
    OK,
    Closing,
    HandedBack,
    Happened,
    LeaseModel,
    Parked,
    Seat,
)
from tests.integration.people import UPSTREAM, age, person

MINUTE = 60
RESUME_SECONDS = 10 * MINUTE + 30  # never reached to the second
EXAMPLES, STEPS = 45, 60
MANAGER = "Mary Manager"

SEATS = [
    Seat("Anna", "first-tab-of-anna"),
    Seat("Anna", "second-tab-of-anna"),
    Seat("Ben", "first-tab-of-ben"),
    Seat("Ben", "second-tab-of-ben"),
    Seat("Olga Observer", "only-tab-of-olga"),
    Seat("robot", "robots-process-1", "agent"),
    Seat("robot", "robots-process-2", "agent"),
    Seat("other robot", "other-robots-process", "agent"),
]
NAMES = sorted({seat.name for seat in SEATS})
CONTROLLERS = {seat.name for seat in SEATS} - {"Olga Observer"}

HOLDER, HOLDERS_OTHER_TAB = "the holder", "the holder's other tab"  # of the newest epoch
seats = st.just(HOLDER) | st.sampled_from([HOLDERS_OTHER_TAB, *SEATS])
ttls = st.sampled_from([5, 10, 2, 1]).map(lambda minutes: minutes * MINUTE)
epochs = st.just(0) | st.sampled_from([-1, -2, 1])  # beside the newest
limits = st.sampled_from([None, 3 * MINUTE, 7 * MINUTE])


@dataclass(frozen=True)
class Call:
    """A call as it was sent: it may arrive later, or twice."""

    what: str
    seat: Seat
    ttl: int = 0
    epoch: int | None = None
    move: bool = False
    to: Seat | None = None


class World:
    """The people and tokens of all sequences; each sequence has a workspace of its own."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.seen: Counter[str] = Counter()  # what happened, and what calls came to
        for name in NAMES:
            kind = next(seat.kind for seat in SEATS if seat.name == name)
            self.users[name] = _token(name) if kind == "agent" else person(name.lower(), name)

    def holder(self, seat: Seat) -> Holder:
        return Holder(self.users[seat.name], seat.client_id, Controller(seat.kind), seat.login)


def _token(name: str) -> User:
    token, _ = apitokens.create(name, [Scope.CONTROL], workspaces=[])
    return token.account


class LeaseMachine(RuleBasedStateMachine):
    """Each call is made of the real lease and of the model; then both must be the same."""

    calls = Bundle("calls")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = LeaseModel(RESUME_SECONDS, may_control=set(CONTROLLERS))
        number = Workspace.objects.count()
        self.desk = Workspace.objects.create(slug=f"desk-{number}", upstream_url=UPSTREAM)
        self.before = self._row()
        for name in NAMES:
            self._grant(name, name in CONTROLLERS)

    def teardown(self) -> None:
        self.world.seen.update(event.what for event in self.model.happened)
        ControlEvent.objects.filter(workspace=self.desk).delete()
        self.desk.delete()

    # --- Calls --------------------------------------------------------------------------------
    @initialize(target=calls, seat=st.sampled_from(SEATS), ttl=ttls)
    def begin(self, seat: Seat, ttl: int) -> Call:
        return self._make(Call("acquire", seat, ttl))

    @rule(target=calls, seat=st.sampled_from(SEATS), ttl=ttls, move=st.booleans())
    def click(self, seat: Seat, ttl: int, move: bool) -> Call:
        return self._make(Call("acquire", seat, ttl, move=move))

    @rule(target=calls, seat=st.sampled_from([HOLDERS_OTHER_TAB, HOLDER]), move=st.booleans())
    def click_as_the_holder(self, seat: str, move: bool) -> Call:
        return self._make(Call("acquire", self._seat(seat), 5 * MINUTE, move=move))

    @rule(target=calls, seat=seats, ttl=ttls, beside=epochs)
    def renew(self, seat: Any, ttl: int, beside: int) -> Call:
        return self._make(Call("acquire", self._seat(seat), ttl, self._epoch(beside)))

    @rule(target=calls, minutes=st.sampled_from([1, 2, 4, 8, 10, 11]), ttl=ttls)
    def sleep_and_renew(self, minutes: int, ttl: int) -> Call:
        """A laptop wakes: it renews the epoch that it had."""
        call = Call("acquire", self._seat(HOLDER), ttl, self.model.epoch)
        self.wait(minutes, is_noticed=False)
        return self._make(call)

    @rule(target=calls, seat=seats, beside=epochs | st.none())
    def release(self, seat: Any, beside: int | None) -> Call:
        return self._make(Call("release", self._seat(seat), epoch=self._epoch(beside)))

    @rule(target=calls, seat=seats, ttl=ttls, beside=epochs)
    def keep(self, seat: Any, ttl: int, beside: int) -> Call:
        return self._make(Call("keep", self._seat(seat), ttl, self._epoch(beside)))

    @rule(target=calls, seat=seats, beside=epochs, hidden=st.booleans())
    def hide(self, seat: Any, beside: int, hidden: bool) -> Call:
        what = "hide" if hidden else "show"
        return self._make(Call(what, self._seat(seat), epoch=self._epoch(beside)))

    @rule(target=calls, seat=seats, beside=epochs | st.none())
    def hand_back(self, seat: Any, beside: int | None) -> Call:
        return self._make(Call("hand_back", self._seat(seat), epoch=self._epoch(beside)))

    @rule(target=calls, seat=st.sampled_from(SEATS[5:]), asks=st.booleans())
    def ask_for_help(self, seat: Seat, asks: bool) -> Call:
        return self._make(Call("ask_for_help" if asks else "withdraw_help", seat))

    @rule()
    def free(self) -> None:
        assert leases.free(self.desk, by=MANAGER) is self.model.free(MANAGER)

    @rule(target=calls, is_asked=st.booleans(), giver=seats, to=seats, ttl=ttls, beside=epochs)
    def hand_over(self, is_asked: bool, giver: Any, to: Any, ttl: int, beside: int) -> Call:
        what = "hand_over" if is_asked else "hand_over_unanswered"
        epoch = self._epoch(beside)
        return self._make(Call(what, self._seat(giver), ttl, epoch, to=self._seat(to)))

    @rule(call=calls)
    def again(self, call: Call) -> None:
        self._make(call)

    @rule(
        target=calls,
        what=st.sampled_from(["acquire", "release", "keep", "hand_over"]),
        seat=seats,
        to=st.sampled_from(SEATS),
        has_epoch=st.booleans(),
        move=st.booleans(),
    )
    def send_and_let_wait(
        self, what: str, seat: Any, to: Seat, has_epoch: bool, move: bool
    ) -> Call:
        epoch = self.model.epoch if has_epoch or what not in {"acquire", "release"} else None
        return Call(what, self._seat(seat), 5 * MINUTE, epoch, move=move, to=to)

    @rule(call=calls, types=st.booleans())
    def go_away_for_lunch(self, call: Call, types: bool) -> None:
        """The page renews, and nobody sits before it."""
        self.set_limits(3 * MINUTE, None)
        self.click_as_the_holder(HOLDER, False)
        self.wait(2, is_noticed=True)
        if types:
            self.type_something()
        self.wait(2, is_noticed=False)
        self._make(call)

    # --- Administrators -----------------------------------------------------------------------
    @rule(target=calls, beside=epochs | st.none())
    def force(self, beside: int | None) -> Call:
        return self._make(Call("force", SEATS[0], epoch=self._epoch(beside)))

    @rule(minutes=st.sampled_from([0, 6]), call=calls)
    def call_while_closed(self, minutes: int, call: Call) -> None:
        self.click_as_the_holder(HOLDER, False)
        self.wait(minutes, is_noticed=False)
        done = leases.close(self.desk, by=MANAGER, note="cleaning")
        assert done.is_closed
        assert (done.ended is not None) is self.model.close(MANAGER, "cleaning")
        self._counts_its_writes()
        self._make(call)
        self.renew(HOLDER, 5 * MINUTE, 0)
        self.open_again()

    @rule()
    def open_again(self) -> None:
        assert leases.open_again(self.desk, by=MANAGER) is self.model.open_again(MANAGER)

    @rule(call=calls)
    def call_while_disabled(self, call: Call) -> None:
        self._enable(False)
        self._make(call)
        self._enable(True)

    @rule(seat=seats, may=st.booleans(), is_noticed=st.booleans(), call=calls)
    def change_access_and_call(self, seat: Any, may: bool, is_noticed: bool, call: Call) -> None:
        """Past the signals: the row is as it was until somebody looks at access."""
        name = self._seat(seat).name
        self._grant(name, may)
        (self.model.may_control.add if may else self.model.may_control.discard)(name)
        if is_noticed:
            self.look_at_access("")
        self.keep(HOLDER, 5 * MINUTE, 0)
        self._make(call)

    @rule(login=st.sampled_from(["", SEATS[0].login, SEATS[2].login]))
    def look_at_access(self, login: str) -> None:
        candidates = leasestate.held().filter(workspace=self.desk)
        ended = leases.end_lost_access(candidates, logins_ended=frozenset({login} - {""}))
        assert ended == self.model.end_lost_access(login)
        self._counts_its_writes()

    @rule(idle=limits, longest=limits)
    def set_limits(self, idle: int | None, longest: int | None) -> None:
        self.model.idle, self.model.longest = idle, longest
        self._update_desk(idle_seconds=idle, max_hold_seconds=longest)

    # --- Time and input -----------------------------------------------------------------------
    @rule(minutes=st.sampled_from([1, 1, 2, 3, 5, 11]), is_noticed=st.booleans())
    def wait(self, minutes: int, is_noticed: bool) -> None:
        self.model.now += minutes * MINUTE
        age(self.desk, minutes * MINUTE)
        shift = timedelta(minutes=minutes)
        DisplayStream.objects.filter(workspace=self.desk).update(
            stamped_at=F("stamped_at") - shift, last_input_at=F("last_input_at") - shift
        )
        ControlEvent.objects.filter(workspace=self.desk).update(at=F("at") - shift)
        if is_noticed:
            leases.end_overdue(self.desk)
            self.model.end_overdue()
            self._counts_its_writes()

    @rule()
    def type_something(self) -> None:
        """The holder does, and its process tells of it."""
        seat = self._seat(HOLDER)
        self.model.inputs[seat] = self.model.now
        values = {"last_input_at": Now(), "stamped_at": Now()}
        DisplayStream.objects.update_or_create(
            workspace=self.desk,
            user=self.world.users[seat.name],
            client_id=seat.client_id,
            defaults=values,
            create_defaults={
                **values,
                "token_id": f"{self.desk.pk} {seat.client_id}",
                "process": "tests",
            },
        )

    # --- What must hold -----------------------------------------------------------------------
    @invariant()
    def the_row_is_as_the_model_says(self) -> None:
        row, model = self._counts_its_writes(), self.model
        seat = model.seat or Seat("", "")
        holder = self.world.users[seat.name].pk if model.seat else None
        assert (row["epoch"], row["version"]) == (model.epoch, model.version)
        assert (row["controller"], row["holder_id"], row["client_id"], row["login"]) == (
            model.controller,
            holder,
            seat.client_id,
            seat.login if model.seat else "",
        )
        assert (row["hidden_at"] is not None) == model.is_hidden
        assert (row["ended_reason"], row["ended_by"], row["ended_note"]) == (
            model.reason,
            model.by,
            model.note,
        )
        self._the_agent_waits_as_the_model_says(row)
        closing = Closing(row["closed_by"], row["closed_note"]) if row["closed_at"] else None
        assert closing == model.closing
        for name in ("acquired_at", "kept_at", "expires_at", "ended_at"):
            self._is_same_time(name, row, getattr(model, name))

    def _the_agent_waits_as_the_model_says(self, row: dict[str, Any]) -> None:
        model = self.model
        agent = self.world.users[model.agent].pk if model.agent else None
        assert (row["agent_id"], row["help_reason"]) == (agent, model.wants_help)
        assert (row["help_at"] is not None) == bool(model.wants_help)
        parked = Parked(row["parked_by"], row["parked_reason"]) if row["parked_at"] else None
        assert parked == model.parked
        told = (row["handed_back_by"], row["handed_back_outcome"], row["handed_back_epoch"])
        handed_back = HandedBack(*told) if row["handed_back_at"] else None
        assert handed_back == model.handed_back

    def _row(self) -> dict[str, Any]:
        rows = DisplayControlLease.objects.annotate(db_now=Now())
        return rows.values().get(workspace=self.desk)

    def _counts_its_writes(self) -> dict[str, Any]:
        """After each call, by the row alone: a write is counted, and an epoch never comes back."""
        before, row = self.before, self._row()
        self.before = row
        is_written = any(
            row[name] != before[name]
            for name in row
            if not name.endswith("_at") and name != "db_now"
        )
        assert row["version"] - before["version"] == is_written
        assert row["epoch"] - before["epoch"] in {0, 1}
        return row

    def _is_same_time(self, name: str, row: dict[str, Any], expected: int | None) -> None:
        assert (row[name] is None) == (expected is None), name
        if expected is not None:
            ago = (row["db_now"] - row[name]).total_seconds()
            assert abs(ago - (self.model.now - expected)) < MINUTE / 2, name

    @invariant()
    def each_transition_has_one_event(self) -> None:
        rows = list(ControlEvent.objects.filter(workspace=self.desk).order_by("id"))
        told = [
            Happened(e.what, e.who, e.client_id, e.epoch, e.ended_epoch, e.reason, e.note)
            for e in rows
            if e.what != "refused"
        ]
        assert told == self.model.happened
        self._refusals_are_counted([e for e in rows if e.what == "refused"])

    def _refusals_are_counted(self, rows: list[ControlEvent]) -> None:
        counted: Counter[tuple[str, str, str]] = Counter()
        for row in rows:
            counted[row.who, row.client_id, row.reason] += row.count
        assert counted == self.model.refusals
        minutes = Counter(
            (row.who, row.client_id, row.reason, row.at.replace(second=0, microsecond=0))
            for row in rows
        )
        assert set(minutes.values()) <= {1}
        # A real minute may have begun in one of the model's.
        assert len(rows) <= 2 * len(self.model.refused_in)

    # --- Making calls -------------------------------------------------------------------------
    def _seat(self, seat: Any) -> Seat:
        if isinstance(seat, Seat):
            return seat
        holder = self.model.seat or SEATS[0]
        others = [each for each in SEATS if each.name == holder.name and each != holder]
        return (others or [holder])[0] if seat == HOLDERS_OTHER_TAB else holder

    def _enable(self, is_enabled: bool) -> None:
        self.model.is_enabled = is_enabled
        self._update_desk(enabled=is_enabled)

    def _epoch(self, beside: int | None) -> int | None:
        return None if beside is None else self.model.epoch + beside

    def _grant(self, name: str, may: bool) -> None:
        user = self.world.users[name]
        if hasattr(user, "api_token"):
            through = type(user.api_token).workspaces.through.objects
            if may:
                through.get_or_create(apitoken=user.api_token, workspace=self.desk)
            else:
                through.filter(apitoken=user.api_token, workspace=self.desk).delete()
            return
        role = Role.OPERATOR if may else Role.OBSERVER
        if not WorkspaceGrant.objects.filter(workspace=self.desk, user=user).update(role=role):
            WorkspaceGrant.objects.create(workspace=self.desk, user=user, role=role)

    def _update_desk(self, **values: object) -> None:
        Workspace.objects.filter(pk=self.desk.pk).update(**values)

    def _make(self, call: Call) -> Call:
        expected = MODELLED[call.what](self.model, call)
        try:
            result = REAL[call.what](self, call)
        except ControlRefused as refusal:
            self._told_no_secret(call, refusal)
            result = refusal.code
        self.world.seen[str(result)] += 1
        assert result == expected, (call, result, expected)
        self._counts_its_writes()
        if call.what == "acquire" and call.epoch is not None and result == OK:
            self._was_not_evicted(call.epoch)
        return call

    def _was_not_evicted(self, epoch: int) -> None:
        """Who renews has had control without anybody in between: by the events alone."""
        events = ControlEvent.objects.filter(workspace=self.desk, epoch__gte=epoch)
        ends = {e.reason for e in events if e.ended_epoch is not None and e.ended_epoch >= epoch}
        begun = [e for e in events if e.what in BEGINNINGS]
        assert ends <= {"expired"}
        assert {e.what for e in begun if e.epoch > epoch} <= {"resumed"}
        assert len({(e.who, e.client_id) for e in begun}) == 1

    def _told_no_secret(self, call: Call, refusal: ControlRefused) -> None:
        """Neither the error nor the API's answer names anybody's client_id."""
        told = f"{refusal!r} {refusal.by}"
        if refusal.code != "forbidden":
            user = self.world.users[call.seat.name]
            viewer = presenters.Viewer(user, call.seat.client_id, access.NONE)
            answer = refused(refusal, self.desk, viewer)
            told += f" {answer.message} {json.dumps(answer.current)}"
        assert not [seat.client_id for seat in SEATS if seat.client_id in told]

    def holder(self, seat: Seat) -> Holder:
        return self.world.holder(seat)


BEGINNINGS = {"acquired", "resumed", "preempted", "moved", "handed_over"}


def _acquire(machine: LeaseMachine, call: Call) -> str:
    holder = machine.holder(call.seat)
    leases.acquire(machine.desk, holder, ttl=call.ttl, epoch=call.epoch, move=call.move)
    return OK


def _release(machine: LeaseMachine, call: Call) -> str:
    leases.release(machine.desk, machine.holder(call.seat), epoch=call.epoch)
    return OK


def _keep(machine: LeaseMachine, call: Call) -> str:
    assert call.epoch is not None
    leases.keep(machine.desk, machine.holder(call.seat), epoch=call.epoch, ttl=call.ttl)
    return OK


def _hide(machine: LeaseMachine, call: Call) -> str:
    assert call.epoch is not None
    holder, hidden = machine.holder(call.seat), call.what == "hide"
    leases.hide(machine.desk, holder, epoch=call.epoch, hidden=hidden)
    return OK


def _hand_over(machine: LeaseMachine, call: Call) -> bool:
    assert call.to is not None
    assert call.epoch is not None
    giver = machine.holder(call.seat) if call.what == "hand_over" else None
    to = machine.holder(call.to)
    return leases.hand_over(machine.desk, giver, to, epoch=call.epoch, ttl=call.ttl)


def _force(machine: LeaseMachine, call: Call) -> bool:
    ended = leases.force_release(machine.desk, by=MANAGER, note="lunch", epoch=call.epoch)
    return ended is not None


def _hand_back(machine: LeaseMachine, call: Call) -> str:
    leases.hand_back(machine.desk, machine.holder(call.seat), HandBack.DONE, epoch=call.epoch)
    return OK


def _ask_for_help(machine: LeaseMachine, call: Call) -> str:
    leases.ask_for_help(machine.desk, machine.holder(call.seat), "captcha")
    return OK


def _withdraw_help(machine: LeaseMachine, call: Call) -> str:
    leases.withdraw_help(machine.desk, machine.holder(call.seat))
    return OK


REAL: dict[str, Callable[[LeaseMachine, Call], object]] = {
    "acquire": _acquire,
    "release": _release,
    "keep": _keep,
    "hide": _hide,
    "show": _hide,
    "hand_over": _hand_over,
    "hand_over_unanswered": _hand_over,
    "force": _force,
    "hand_back": _hand_back,
    "ask_for_help": _ask_for_help,
    "withdraw_help": _withdraw_help,
}
MODELLED: dict[str, Callable[[LeaseModel, Any], object]] = {
    "acquire": lambda model, c: model.acquire(c.seat, c.ttl, c.epoch, move=c.move),
    "release": lambda model, c: model.release(c.seat, c.epoch),
    "keep": lambda model, c: model.keep(c.seat, c.ttl, c.epoch),
    "hide": lambda model, c: model.hide(c.seat, c.epoch, True),
    "show": lambda model, c: model.hide(c.seat, c.epoch, False),
    "hand_over": lambda model, c: model.hand_over(c.seat, c.to, c.ttl, c.epoch),
    "hand_over_unanswered": lambda model, c: model.hand_over(None, c.to, c.ttl, c.epoch),
    "force": lambda model, c: model.force_release(MANAGER, "lunch", c.epoch),
    "hand_back": lambda model, c: model.hand_back(c.seat, "done", c.epoch),
    "ask_for_help": lambda model, c: model.ask_for_help(c.seat, "captcha"),
    "withdraw_help": lambda model, c: model.withdraw_help(c.seat),
}


def examine(machine: LeaseMachine) -> None:
    """Hold the real lease against the model, as Hypothesis does after each step."""
    machine.the_row_is_as_the_model_says()
    machine.each_transition_has_one_event()


@pytest.fixture
def world(db: None, settings: Any) -> World:
    """Everybody there is, and a limit of resuming that is never reached to the second."""
    settings.DISPLAY = replace(settings.DISPLAY, resume_seconds=RESUME_SECONDS)
    return World()


@pytest.mark.timeout(3600 if "LEASE_MACHINE_EXAMPLES" in os.environ else 120)
def test_the_lease_behaves_as_its_model_whatever_is_called_when(world: World) -> None:
    wanted = int(os.environ.get("LEASE_MACHINE_EXAMPLES", "0"))
    run_state_machine_as_test(
        lambda: LeaseMachine(world),
        settings=profile(
            max_examples=wanted or EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not wanted,
            print_blob=bool(wanted),
            phases=list(Phase) if wanted else [Phase.generate],  # shrinking takes minutes
            report_multiple_bugs=False,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_each_transition_and_each_refusal_is_as_the_model_says(world: World) -> None:
    """All there are, by hand: which of them Hypothesis comes to is a matter of its luck."""
    machine = LeaseMachine(world)
    anna, ben, robot = SEATS[0], SEATS[2], SEATS[5]
    five = 5 * MINUTE
    steps: list[Callable[[], object]] = [
        lambda: machine.begin(anna, five),
        lambda: machine.click(ben, five, False),
        lambda: machine.click_as_the_holder(HOLDERS_OTHER_TAB, False),
        lambda: machine.click_as_the_holder(HOLDERS_OTHER_TAB, True),
        lambda: machine.keep(HOLDER, five, 0),
        lambda: machine.hide(HOLDER, 0, True),
        lambda: machine.hide(HOLDER, 0, False),
        lambda: machine.hide(HOLDER, 0, True),
        lambda: machine.hand_over(False, HOLDER, ben, five, 0),
        lambda: machine.release(HOLDER, 0),
        lambda: machine.click(robot, five, False),
        lambda: machine.click(anna, five, False),
        lambda: machine.click(robot, five, False),
        lambda: machine.ask_for_help(robot, True),
        lambda: machine.ask_for_help(robot, False),
        lambda: machine.sleep_and_renew(8, five),
        lambda: machine.wait(11, False),
        lambda: machine.click(robot, five, False),
        machine.free,
        lambda: machine.hand_back(anna, None),
        lambda: machine.click(robot, five, False),
        lambda: machine.release(HOLDER, 0),
        lambda: machine.hand_back(anna, None),
        lambda: machine.click(ben, five, False),
        lambda: machine.renew(anna, five, -2),
        lambda: machine.force(None),
        lambda: machine.call_while_closed(0, Call("acquire", ben, five)),
        lambda: machine.call_while_disabled(Call("acquire", ben, five)),
        lambda: machine.click(anna, five, False),
        lambda: machine.change_access_and_call(HOLDER, False, True, Call("acquire", anna, five)),
        lambda: machine.click(ben, 2 * five, False),
        lambda: machine.go_away_for_lunch(Call("acquire", ben, five), False),
        lambda: machine.set_limits(None, 3 * MINUTE),
        lambda: machine.click(ben, five, False),
        lambda: machine.wait(5, True),
    ]
    for step in steps:
        step()
        examine(machine)
    machine.teardown()
    assert sorted(EVERYTHING - set(world.seen)) == []


REFUSALS = {
    *("held", "held_elsewhere", "forbidden", "display_not_enabled", "closed", "taken"),
    *("human_in_control", "parked", "nothing_to_hand_back"),
}
BESIDES = {
    *("kept", "opened", "hidden", "shown"),
    *("help_asked", "help_withdrawn", "parked", "freed", "handed_back"),
}
EVERYTHING = BEGINNINGS | REFUSALS | set(EndReason.values) | BESIDES
