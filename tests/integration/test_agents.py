"""Agents and people: every state of the lease with every call of an agent, and what people do."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now

from controlplane import apitokens, handovers, leases, leasestate
from controlplane.exceptions import ControlForbidden
from controlplane.housekeeping import tidy
from controlplane.models import (
    ApiToken,
    ControlEvent,
    DisplayControlLease,
    EndReason,
    HandBack,
    Workspace,
)
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    Browser,
    age,
    agent,
    lease_of,
    tab,
    transitions,
)
from tests.integration.programs import PROCESS, Program, token

BASE = "/api/workspaces/desk/display"
EVICTED = 1  # the epoch in which the agent had control, where it has had it


@dataclass
class Scene:
    """An agent, one that was there before, a person, a manager, around one desktop."""

    desk: Workspace
    row: ApiToken
    program: Program
    older: Program
    person: User
    manager: User
    colleague: User
    admin: User

    def agent_holds(self) -> None:
        leases.acquire(self.desk, agent(self.row.account, PROCESS), ttl=300)

    def person_holds(self) -> None:
        leases.acquire(self.desk, tab(self.person), ttl=300)

    def person_took_over(self) -> None:
        self.agent_holds()
        self.person_holds()

    def person_let_it_lapse(self) -> None:
        self.person_took_over()
        age(self.desk, 301)

    def person_handed_back(self) -> None:
        self.person_took_over()
        leases.hand_back(self.desk, tab(self.person), HandBack.DONE, note="solved")

    def control(self) -> Any:
        return ok(self.program.get(f"{BASE}/control", **{"X-Client-Id": PROCESS}))


def ok(answer: Any) -> Any:
    body = json.loads(answer.content)
    assert answer.status_code == 200, body
    return body


@pytest.fixture
def scene(desk: Workspace, operator: User, manager: User, colleague: User, admin: User) -> Scene:
    older = Program(token("control", name="Older")[1])
    row, text = token("control", name="Robot")
    return Scene(desk, row, Program(text), older, operator, manager, colleague, admin)


Committed = Callable[[], AbstractContextManager[Any]]


@pytest.fixture
def committed(django_capture_on_commit_callbacks: Any) -> Committed:
    """Return a function: what is done in its block counts as committed at its end."""
    return partial(django_capture_on_commit_callbacks, execute=True)


# --- The states in which an agent finds a desktop -------------------------------------------------
def free(scene: Scene) -> None:
    """Nobody has had control."""


def own(scene: Scene) -> None:
    scene.agent_holds()


def own_lapsed(scene: Scene) -> None:
    scene.agent_holds()
    age(scene.desk, 301)


def own_released(scene: Scene) -> None:
    scene.agent_holds()
    leases.release(scene.desk, agent(scene.row.account, PROCESS))


def own_forced(scene: Scene) -> None:
    scene.agent_holds()
    leases.force_release(scene.desk, by="Mary", note="enough")


def own_elsewhere(scene: Scene) -> None:
    scene.agent_holds()
    leases.acquire(scene.desk, agent(scene.row.account, "its-other-process"), ttl=300, move=True)


def other_agents(scene: Scene) -> None:
    other, _ = token("control", name="Other")
    leases.acquire(scene.desk, agent(other.account), ttl=300)


def persons(scene: Scene) -> None:
    scene.person_holds()


def preempted(scene: Scene) -> None:
    scene.person_took_over()


def given_on(scene: Scene) -> None:
    """Another person has it now, who was handed it over."""
    scene.person_took_over()
    to = tab(scene.colleague, OTHER_TAB)
    leases.hand_over(scene.desk, tab(scene.person), to, epoch=2, ttl=300)


def persons_lapsed(scene: Scene) -> None:
    scene.person_let_it_lapse()


def persons_lapsed_without_an_agent(scene: Scene) -> None:
    scene.person_holds()
    age(scene.desk, 301)


def persons_forced(scene: Scene) -> None:
    scene.person_took_over()
    leases.force_release(scene.desk, by="Mary", note="enough")


def persons_idle(scene: Scene) -> None:
    Workspace.objects.filter(pk=scene.desk.pk).update(idle_seconds=60)
    scene.person_took_over()
    age(scene.desk, 61)


def persons_access_ended(scene: Scene) -> None:
    scene.person_took_over()
    scene.person.is_active = False
    scene.person.save()


def persons_released(scene: Scene) -> None:
    scene.person_took_over()
    leases.release(scene.desk, tab(scene.person))


def handed_back(scene: Scene) -> None:
    scene.person_handed_back()


def handed_back_from_parking(scene: Scene) -> None:
    scene.person_let_it_lapse()
    leases.hand_back(scene.desk, tab(scene.manager), HandBack.SKIPPED)


def freed(scene: Scene) -> None:
    scene.person_let_it_lapse()
    leases.free(scene.desk, by="Mary")


def freed_by_time(scene: Scene) -> None:
    Workspace.objects.filter(pk=scene.desk.pk).update(parked_seconds=60)
    scene.person_let_it_lapse()
    age(scene.desk, 60)


def taken_over_from_parking(scene: Scene) -> None:
    scene.person_let_it_lapse()
    leases.acquire(scene.desk, tab(scene.manager), ttl=300)


def closed(scene: Scene) -> None:
    leases.close(scene.desk, by="Mary", note="repairs")


def revoked(scene: Scene) -> None:
    scene.agent_holds()
    apitokens.revoke(scene.row, by="Mary")


# State: what comes of acquire, of a renewal of EVICTED, of release, and of asking for a person.
TABLE: dict[Callable[[Scene], None], tuple[object, object, object, object]] = {
    free: (200, "expired", 200, 200),
    own: (200, 200, 200, 200),
    own_lapsed: (200, 200, 200, 200),
    own_released: (200, "released", 200, 200),
    own_forced: (200, "forced", 200, 200),
    own_elsewhere: ("held_elsewhere", "moved", "held_elsewhere", 200),
    other_agents: ("held", "held", "held", 200),
    persons: ("human_in_control", "held", "held", 200),
    preempted: ("human_in_control", "preempted", "held", 200),
    given_on: ("human_in_control", "preempted", "held", 200),
    persons_lapsed: ("parked", "preempted", 200, 200),
    persons_lapsed_without_an_agent: (200, "expired", 200, 200),
    persons_forced: ("parked", "preempted", 200, 200),
    persons_idle: ("parked", "preempted", 200, 200),
    persons_access_ended: ("parked", "preempted", 200, 200),
    persons_released: (200, "preempted", 200, 200),
    handed_back: (200, "preempted", 200, 200),
    handed_back_from_parking: (200, "preempted", 200, 200),
    freed: (200, "preempted", 200, 200),
    freed_by_time: (200, "preempted", 200, 200),
    taken_over_from_parking: ("human_in_control", "preempted", "held", 200),
    closed: ("closed", "expired", 200, 200),
    revoked: (401, 401, 401, 401),
}
CALLS: list[tuple[str, dict[str, object]]] = [
    ("acquire", {}),
    ("acquire", {"epoch": EVICTED}),
    ("release", {}),
    ("request-human", {"reason": "captcha"}),
]


@pytest.mark.parametrize("place", range(len(CALLS)), ids=["acquire", "renew", "release", "ask"])
@pytest.mark.parametrize("state", TABLE, ids=lambda state: state.__name__)
def test_every_call_of_an_agent_in_every_state(
    state: Callable[[Scene], None], place: int, scene: Scene
) -> None:
    state(scene)
    name, more = CALLS[place]
    answer = scene.program.send("POST", f"{BASE}/control/{name}", {"client_id": PROCESS, **more})
    body = json.loads(answer.content)
    code = body["error"]["code"] if answer.status_code == 409 else answer.status_code
    assert code == TABLE[state][place], body


# --- What an agent is told ------------------------------------------------------------------------
def test_an_agent_is_told_which_person_has_control_and_since_when(scene: Scene) -> None:
    scene.person_took_over()
    answer = scene.program.acquire()
    body = json.loads(answer.content)
    assert body["error"]["message"].startswith("Olive Operator, a person, has control")
    assert body["current"]["controlled_by"] == "Olive Operator"
    assert body["current"]["acquired_at"]


def test_what_a_person_hands_back_is_read_with_its_epoch_until_a_person_takes_over(
    scene: Scene,
) -> None:
    scene.person_handed_back()
    told = scene.control()["handed_back"]
    assert told.pop("at")
    assert told == {"epoch": 2, "outcome": "done", "by": "Olive Operator", "note": "solved"}
    assert ok(scene.program.acquire())["handed_back"]["note"] == "solved"
    scene.person_holds()
    assert scene.control()["handed_back"] is None
    row = lease_of(scene.desk)
    left = (row.handed_back_by, row.handed_back_outcome, row.handed_back_note)
    assert left == ("", "", ""), "a note is kept by its event alone"


def test_a_parked_desktop_says_whose_control_ended_how(scene: Scene) -> None:
    scene.person_let_it_lapse()
    seen = scene.control()  # nobody has noticed the end yet
    told = seen["parked"]
    assert (seen["controller"], seen["agent"]) == ("none", "Robot")
    assert (told["by"], told["reason"]) == ("Olive Operator", "expired")
    leases.end_overdue(scene.desk)
    assert scene.control()["parked"] == told
    assert transitions(scene.desk)[-2:] == [("expired", 2), ("parked", 2)]


def test_where_no_agent_waits_nothing_is_parked_also_before_anybody_has_noticed_the_end(
    scene: Scene,
) -> None:
    scene.person_holds()
    age(scene.desk, 301)
    assert scene.control()["parked"] is None


def test_freeing_what_is_not_parked_says_so_and_changes_nothing(scene: Scene) -> None:
    scene.person_took_over()
    before = transitions(scene.desk)
    assert not leases.free(scene.desk, by="Mary")
    assert transitions(scene.desk) == before


def test_who_resumes_control_ends_the_parking(scene: Scene) -> None:
    scene.person_let_it_lapse()
    leases.acquire(scene.desk, tab(scene.person), ttl=300, epoch=2)
    assert scene.control()["parked"] is None
    leases.hand_back(scene.desk, tab(scene.person), HandBack.DONE)
    assert ok(scene.program.acquire())["controller"] == "agent"


def test_an_agent_that_lets_go_by_itself_is_waited_for_no_more(scene: Scene) -> None:
    scene.agent_holds()
    ok(
        scene.program.send(
            "POST", f"{BASE}/control/request-human", {"client_id": PROCESS, "reason": "x"}
        )
    )
    ok(scene.program.send("POST", f"{BASE}/control/release", {"client_id": PROCESS}))
    seen = scene.control()
    assert (seen["agent"], seen["help"]) == (None, None)
    scene.person_holds()
    age(scene.desk, 301)
    assert ok(scene.program.acquire())["controller"] == "agent"


def test_what_ends_in_the_moment_in_which_it_began_is_parked(scene: Scene) -> None:
    scene.person_took_over()
    leases.force_release(scene.desk, by="Mary", note="enough")
    DisplayControlLease.objects.update(acquired_at=F("parked_at"))
    assert scene.control()["parked"]


def test_what_an_older_server_has_left_behind_parks_nothing(scene: Scene) -> None:
    scene.person_let_it_lapse()
    leases.end_overdue(scene.desk)
    DisplayControlLease.objects.update(acquired_at=F("parked_at") + timedelta(milliseconds=1))
    assert scene.control()["parked"] is None


def test_a_parking_ends_in_the_moment_in_which_its_time_is_up(scene: Scene) -> None:
    Workspace.objects.filter(pk=scene.desk.pk).update(parked_seconds=60)
    scene.person_let_it_lapse()
    leases.end_overdue(scene.desk)
    lease = lease_of(scene.desk)
    assert lease.parked_at is not None
    end = lease.parked_at + timedelta(seconds=60)
    assert leasestate.parking(lease, end - timedelta(microseconds=1)) is not None
    assert leasestate.parking(lease, end) is None


# --- Asking for a person --------------------------------------------------------------------------
def ask(scene: Scene, reason: str = "captcha") -> Any:
    body = {"client_id": PROCESS, "reason": reason}
    return ok(scene.program.send("POST", f"{BASE}/control/request-human", body))


def test_asking_for_a_person_keeps_control_and_everybody_sees_it(scene: Scene) -> None:
    scene.agent_holds()
    told = ask(scene)
    assert (told["controller"], told["this_client"]) == ("agent", True)
    seen = ok(Browser(scene.person).get(f"{BASE}/control"))
    assert (seen["help"]["by"], seen["help"]["reason"]) == ("Robot", "captcha")
    assert transitions(scene.desk)[-1] == ("help_asked", 1)


def test_asking_twice_is_one_event_and_another_reason_another(scene: Scene) -> None:
    for reason in ("captcha", "captcha", "password", "captcha"):
        ask(scene, reason)
        assert scene.control()["help"]["reason"] == reason
    assert ControlEvent.objects.filter(what="help_asked").count() == 3


def test_who_may_not_control_asks_for_nobody(scene: Scene, observer: User) -> None:
    with pytest.raises(ControlForbidden):
        leases.ask_for_help(scene.desk, agent(observer), "captcha")
    assert scene.control()["help"] is None


def test_an_agent_whose_control_has_lapsed_still_waits_for_the_person_it_asked_for(
    scene: Scene,
) -> None:
    scene.agent_holds()
    ask(scene)
    age(scene.desk, 301)
    leases.end_overdue(scene.desk)
    seen = scene.control()
    assert (seen["agent"], seen["help"]["reason"]) == ("Robot", "captcha")


def test_a_request_stays_until_it_is_withdrawn_or_handed_back(scene: Scene) -> None:
    scene.agent_holds()
    ask(scene)
    scene.person_holds()
    leases.release(scene.desk, tab(scene.person))
    assert scene.control()["help"], "a plain release resolves nothing"
    withdraw = f"{BASE}/control/request-human/withdraw"
    for other in (scene.older, Program(token("control", name="Younger")[1])):
        ok(other.send("POST", withdraw, {"client_id": PROCESS}))
        assert scene.control()["help"], "it is not the other's to withdraw"
    ok(scene.program.send("POST", withdraw, {"client_id": PROCESS}))
    assert scene.control()["help"] is None
    assert transitions(scene.desk)[-1] == ("help_withdrawn", 2)


def test_a_person_answers_without_taking_control(scene: Scene) -> None:
    ask(scene)
    body = {"client_id": OTHER_TAB, "outcome": "could_not", "note": "no account there"}
    ok(Browser(scene.person).post(f"{BASE}/control/release", body))
    seen = scene.control()
    assert seen["help"] is None
    assert (seen["handed_back"]["outcome"], seen["handed_back"]["epoch"]) == ("could_not", 0)


def test_nobody_hands_back_while_another_has_control(scene: Scene) -> None:
    scene.person_took_over()
    body = {"client_id": OTHER_TAB, "outcome": "done"}
    answer = Browser(scene.manager).post(f"{BASE}/control/release", body)
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (409, "held")
    assert scene.control()["controlled_by"] == "Olive Operator"


def test_who_may_not_control_hands_no_parked_desktop_back(scene: Scene, observer: User) -> None:
    scene.person_let_it_lapse()
    with pytest.raises(ControlForbidden):
        leases.hand_back(scene.desk, tab(observer), HandBack.DONE)
    assert scene.control()["parked"]


def test_without_an_agent_there_is_nothing_to_hand_back(scene: Scene) -> None:
    scene.person_holds()
    browser = Browser(scene.person)
    answer = browser.post(
        f"{BASE}/control/release", {"client_id": "this-tab-0001", "outcome": "done"}
    )
    assert json.loads(answer.content)["error"]["code"] == "nothing_to_hand_back"
    assert scene.control()["controller"] == "user"


def test_no_other_epoch_than_the_newest_hands_anything_back(scene: Scene) -> None:
    scene.person_took_over()
    for epoch in (1, 3):
        leases.hand_back(scene.desk, tab(scene.person), HandBack.DONE, epoch=epoch)
    assert scene.control()["controller"] == "user"
    assert scene.control()["handed_back"] is None


def test_an_agent_cannot_speak_for_a_person(scene: Scene) -> None:
    scene.person_let_it_lapse()
    body = {"client_id": PROCESS, "outcome": "done"}
    answer = scene.program.send("POST", f"{BASE}/control/release", body)
    assert json.loads(answer.content)["error"]["code"] == "wrong_controller"
    assert scene.control()["parked"]


def test_who_is_handed_control_over_goes_on_where_the_agent_waits(scene: Scene) -> None:
    scene.person_took_over()
    handovers.ask(scene.desk, tab(scene.colleague, OTHER_TAB), "mine")
    leases.hand_over(
        scene.desk, tab(scene.person), tab(scene.colleague, OTHER_TAB), epoch=2, ttl=300
    )
    leases.hand_back(scene.desk, tab(scene.colleague, OTHER_TAB), HandBack.DONE)
    assert scene.control()["handed_back"]["by"] == "colleague"


def test_a_deleted_agent_is_waited_for_by_nobody(scene: Scene) -> None:
    scene.person_took_over()
    scene.row.account.delete()
    age(scene.desk, 301)
    leases.end_overdue(scene.desk)
    assert ("parked", 2) not in transitions(scene.desk)


def test_control_is_handed_back_to_no_agent_whose_token_was_revoked(
    scene: Scene, committed: Committed
) -> None:
    scene.agent_holds()
    ask(scene)
    scene.person_holds()
    with committed():
        apitokens.revoke(scene.row, by="Mary")
    browser = Browser(scene.person)
    seen = ok(browser.get(f"{BASE}/control"))
    assert (seen["controller"], seen["agent"], seen["help"]) == ("user", None, None)
    assert transitions(scene.desk)[-1] == ("help_withdrawn", 2)
    withdrawn = ControlEvent.objects.latest("id")
    assert (withdrawn.who, withdrawn.reason) == ("Robot", EndReason.ACCESS_ENDED)
    body = {"client_id": THIS_TAB, "outcome": "done"}
    answer = browser.post(f"{BASE}/control/release", body)
    assert json.loads(answer.content)["error"]["code"] == "nothing_to_hand_back"
    leases.release(scene.desk, tab(scene.person))
    assert ok(scene.older.acquire())["controller"] == "agent"


def test_an_agent_that_may_not_control_this_desktop_any_more_is_handed_nothing_back(
    scene: Scene, desk: Workspace, committed: Committed
) -> None:
    row, _ = token("control", name="Narrow", workspaces=[desk])
    leases.acquire(desk, agent(row.account), ttl=300)
    scene.person_holds()
    with committed():
        row.workspaces.remove(desk)
    assert lease_of(desk).agent is None
    assert ("help_withdrawn", 2) not in transitions(desk), "it had not asked for anybody"


def test_whether_an_agent_may_still_control_is_decided_under_the_lock(scene: Scene) -> None:
    scene.person_took_over()
    candidate = lease_of(scene.desk)
    assert leasestate.with_agents_gone(DisplayControlLease.objects.all()) == []
    leases.forget_agents([candidate])
    assert lease_of(scene.desk).agent == scene.row.account
    scene.desk.delete()
    leases.forget_agents([candidate])


def test_an_agent_whose_token_expires_is_forgotten_once_it_has_no_control(scene: Scene) -> None:
    other = Workspace.objects.create(slug="other", name="Other", upstream_url="tcp://127.0.0.1:9")
    leases.acquire(other, agent(scene.row.account, PROCESS), ttl=300)
    leases.acquire(other, tab(scene.admin), ttl=300)
    scene.agent_holds()
    ask(scene)
    tidy()
    assert lease_of(other).agent == scene.row.account
    ApiToken.objects.filter(pk=scene.row.pk).update(expires_at=Now())
    version = lease_of(scene.desk).version
    tidy()
    assert lease_of(other).agent is None
    held = lease_of(scene.desk)
    assert (held.agent, held.help_reason, held.version) == (scene.row.account, "captcha", version)
    age(scene.desk, 301)
    tidy()
    assert (lease_of(scene.desk).agent, lease_of(scene.desk).help_at) == (None, None)


@pytest.mark.parametrize("name", ["Older", "Younger"])
def test_a_revoked_agent_whose_control_another_has_leaves_that_one_to_be_handed_back_to(
    name: str, scene: Scene, committed: Committed
) -> None:
    token("control", name="Younger")
    other = ApiToken.objects.get(name=name).account
    leases.acquire(scene.desk, agent(other), ttl=300)
    leases.ask_for_help(scene.desk, agent(scene.row.account, PROCESS), "captcha")
    with committed():
        apitokens.revoke(scene.row, by="Mary")
    assert lease_of(scene.desk).agent == other


def test_what_is_parked_stays_so_when_its_agent_is_revoked_until_a_person_lets_go_of_it(
    scene: Scene, committed: Committed
) -> None:
    scene.person_let_it_lapse()
    with committed():
        apitokens.revoke(scene.row, by="Mary")
    seen = ok(Browser(scene.person).get(f"{BASE}/control"))
    assert (seen["agent"], bool(seen["parked"])) == (None, True)
    assert json.loads(scene.older.acquire().content)["error"]["code"] == "parked"
    scene.person_holds()
    leases.release(scene.desk, tab(scene.person))
    assert ok(scene.older.acquire())["controller"] == "agent"


# --- The list -------------------------------------------------------------------------------------
def test_an_agent_that_releases_leaves_anothers_request_for_a_person_alone(scene: Scene) -> None:
    scene.agent_holds()
    row, _ = token("control", name="Other")
    leases.ask_for_help(scene.desk, agent(row.account), "captcha")
    leases.release(scene.desk, agent(scene.row.account, PROCESS))
    scene.agent_holds()
    lease = lease_of(scene.desk)
    assert (lease.agent, lease.help_reason) == (row.account, "captcha")
    leases.release(scene.desk, agent(scene.row.account, PROCESS))
    leases.acquire(scene.desk, agent(row.account), ttl=300)
    leases.release(scene.desk, agent(row.account))
    assert (lease_of(scene.desk).agent, lease_of(scene.desk).help_at) == (None, None)


def test_of_two_agents_the_newer_that_releases_leaves_the_olders_request_alone(
    scene: Scene,
) -> None:
    row, _ = token("control", name="Other")
    leases.acquire(scene.desk, agent(row.account), ttl=300)
    leases.ask_for_help(scene.desk, agent(scene.row.account, PROCESS), "captcha")
    leases.release(scene.desk, agent(row.account))
    lease = lease_of(scene.desk)
    assert (lease.agent, lease.help_reason) == (scene.row.account, "captcha")


def test_who_needs_no_person_any_more_leaves_the_agent_that_has_control_to_be_handed_back_to(
    scene: Scene,
) -> None:
    scene.agent_holds()
    row, _ = token("control", name="Other")
    leases.ask_for_help(scene.desk, agent(row.account), "captcha")
    leases.withdraw_help(scene.desk, agent(row.account))
    assert lease_of(scene.desk).agent == scene.row.account


def test_the_list_begins_with_what_waits_for_a_person(scene: Scene) -> None:
    names = ("a", "b", "c", "d", "e")
    others = [
        Workspace.objects.create(slug=name, name=name, upstream_url="tcp://h:1") for name in names
    ]
    row, _ = token("control", name="Other")
    leases.ask_for_help(others[1], agent(row.account), "captcha")
    leases.acquire(others[2], agent(row.account), ttl=300)
    leases.acquire(others[2], tab(scene.admin), ttl=300)
    age(others[2], 301)
    leases.acquire(others[3], tab(scene.admin), ttl=300)
    age(others[3], 301)  # no agent waits there
    leases.acquire(others[4], agent(row.account), ttl=300)
    leases.acquire(others[4], tab(scene.admin), ttl=300)  # and a person is there
    assert _in_order(scene.admin) == ["c", "b", "desk", "a", "d", "e"]


@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "not noticed yet"])
def test_who_was_parked_for_long_enough_waits_for_nobody_any_more(
    scene: Scene, is_noticed: bool
) -> None:
    row, _ = token("control", name="Other")
    other = Workspace.objects.create(slug="z", name="z", upstream_url="tcp://h:1")
    Workspace.objects.filter(pk=other.pk).update(parked_seconds=60)
    leases.acquire(other, agent(row.account), ttl=300)
    leases.acquire(other, tab(scene.admin), ttl=300)
    age(other, 301)
    if is_noticed:
        leases.end_overdue(other)
    assert _in_order(scene.admin) == ["z", "desk"]
    age(other, 60)
    assert _in_order(scene.admin) == ["desk", "z"]


def _in_order(user: User) -> list[str]:
    found = ok(Browser(user).get("/api/workspaces"))["workspaces"]
    return [each["id"] for each in found]
