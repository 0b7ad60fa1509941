"""The commands about control: who has it, ending and closing it, and what happened."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from controlplane import leases, leaseviews
from controlplane.models import (
    ControlEvent,
    DisplayControlLease,
    DisplayStream,
    Role,
    Workspace,
    WorkspaceGrant,
)
from tests.integration.people import (
    UPSTREAM,
    agent,
    assert_free,
    assert_held_by,
    lease_of,
    let_expire,
    open_stream,
    refusal,
    tab,
    view_of,
)
from tests.integration.test_commands import fails, run


# --- leases ---------------------------------------------------------------------------------------
def listed(*options: str) -> list[dict[str, Any]]:
    rows = json.loads(run("leases", "--json", *options))
    assert isinstance(rows, list)
    return rows


def test_held_leases_are_listed(desk: Workspace, operator: User) -> None:
    Workspace.objects.create(slug="another", name="Another")
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    (row,) = listed()
    assert {"workspace", "controller", "controlled_by", "epoch", "expires_at", "state"} <= set(row)
    assert (row["workspace"], row["controller"], row["state"]) == ("desk", "user", "held")
    assert (row["controlled_by"], row["epoch"]) == ("Olive Operator", 1)
    assert (row["holder_connected"], 290 < row["remaining_seconds"] <= 300) == (True, True)
    assert tab(operator).client_id not in json.dumps(row)
    assert "held by Olive Operator (user, connected)" in run("leases")


def test_the_states_of_all_leases_are_listed_by_slug(
    desk: Workspace, operator: User, colleague: User
) -> None:
    for slug in ("a-free", "b-expired", "c-forced"):
        workspace = Workspace.objects.create(slug=slug, name=slug, upstream_url=UPSTREAM)
        WorkspaceGrant.objects.create(workspace=workspace, user=operator, role=Role.OPERATOR)
    by_slug = {workspace.slug: workspace for workspace in Workspace.objects.all()}
    for slug in ("b-expired", "c-forced"):
        leases.acquire(by_slug[slug], tab(operator), ttl=300)
    let_expire(by_slug["b-expired"])
    leases.force_release(by_slug["c-forced"], by="Mary Manager", note="why")
    leases.acquire(desk, agent(colleague), ttl=300)
    rows = listed("--all")
    assert [(row["workspace"], row["state"], row["controller"]) for row in rows] == [
        ("a-free", "free", "none"),
        ("b-expired", "expired", "none"),
        ("c-forced", "ended: forced", "none"),
        ("desk", "held", "agent"),
    ]
    assert [row["controlled_by"] for row in rows] == [None, None, None, "colleague"]
    assert [row["workspace"] for row in listed()] == ["desk"]
    text = run("leases", "--all")
    assert "c-forced: ended: forced, epoch 1" in text
    assert "held by colleague (agent, not connected)" in text


def test_nothing_held_is_said_in_words_and_as_an_empty_list(desk: Workspace) -> None:
    assert run("leases") == "Nobody has control of anything.\n"
    assert listed() == []
    assert len(listed("--all")) == 1


def test_streams_that_are_closed_do_not_make_a_holder_connected(
    desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    DisplayStream.objects.update(closed_at=Now())
    assert listed()[0]["holder_connected"] is False


# --- force_release --------------------------------------------------------------------------------
@pytest.fixture
def other(operator: User, colleague: User) -> Workspace:
    """A second desk, which the colleague controls."""
    workspace = Workspace.objects.create(slug="other", name="Other", upstream_url=UPSTREAM)
    for user in (operator, colleague):
        WorkspaceGrant.objects.create(workspace=workspace, user=user, role=Role.OPERATOR)
    leases.acquire(workspace, tab(colleague), ttl=300)
    return workspace


def test_a_named_workspace_is_released_with_the_note(
    desk: Workspace, other: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    output = run("force_release", "desk", "--note", "maintenance")
    assert output.startswith("desk: released, Olive Operator had it for ")
    assert_free(desk, reason="forced", epoch=1)
    end = view_of(desk).last_end
    assert end is not None
    assert (end.by, end.note) == ("the administrator", "maintenance")
    assert_held_by(other, tab(colleague), epoch=1)


def test_all_that_a_user_controls_is_released(
    desk: Workspace, other: Workspace, operator: User, colleague: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    assert "other: released" in run("force_release", "--user", "colleague", "--note", "why")
    assert_free(other, reason="forced", epoch=1)
    assert_held_by(desk, tab(operator), epoch=1)


@pytest.mark.parametrize("more", [[], ["--close"]])
def test_who_has_control_next_is_not_ended_for_the_user_who_was_named(
    more: list[str],
    other: Workspace,
    operator: User,
    colleague: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_one(workspace_id: int) -> Any:
        """In between, control is handed over."""
        leases.release(other, tab(colleague))
        leases.acquire(other, tab(operator), ttl=300)
        return read(workspace_id)

    read = leaseviews.read_one
    monkeypatch.setattr(leaseviews, "read_one", read_one)
    message, output = fails("force_release", "--user", "colleague", "--note", "why", *more)
    assert message == "Nobody had control of any of these."
    assert output == "other: nobody had control\n"
    assert_held_by(other, tab(operator), epoch=2)
    assert lease_of(other).closed_at is None


def test_all_that_anybody_controls_is_released(
    desk: Workspace, other: Workspace, operator: User
) -> None:
    leases.acquire(desk, agent(operator), ttl=300)
    Workspace.objects.create(slug="free", name="Free")
    rows = json.loads(run("force_release", "--all", "--note", "closing time", "--json"))
    assert [(row["workspace"], row["released"], row["epoch"]) for row in rows] == [
        ("desk", True, 1),
        ("other", True, 1),
    ]
    assert [row["controlled_by"] for row in rows] == ["Olive Operator", "colleague"]
    assert all(row["held_seconds"] >= 0 for row in rows)


def test_several_workspaces_are_told_of_in_the_order_asked_for(
    desk: Workspace, other: Workspace
) -> None:
    output = run("force_release", "other", "desk", "--note", "why")
    first, second = output.splitlines()
    assert first.startswith("other: released, colleague had it")
    assert second == "desk: nobody had control"


@pytest.mark.parametrize("form", [["desk"], ["--all"], ["--user", "operator"]])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_when_nobody_had_control_the_exit_code_says_so(
    form: list[str], as_json: list[str], desk: Workspace, operator: User
) -> None:
    message, output = fails("force_release", *form, "--note", "why", *as_json)
    assert message == "Nobody had control of any of these."
    if as_json:
        assert all(not row["released"] for row in json.loads(output))


@pytest.mark.parametrize(
    "form", [[], ["desk", "--all"], ["desk", "--user", "operator"], ["--all", "--user", "operator"]]
)
def test_exactly_one_way_to_choose_is_needed(
    form: list[str], desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    assert "one of the three" in fails("force_release", *form, "--note", "why")[0]
    assert_held_by(desk, tab(operator), epoch=1)


@pytest.mark.parametrize(
    ("note", "problem"),
    [(["--note", " "], "say why"), ([], "--note"), (["--note", "x" * 501], "at most 500")],
)
def test_a_note_is_needed_and_must_fit(
    note: list[str], problem: str, desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    assert problem in fails("force_release", "desk", *note)[0]
    assert_held_by(desk, tab(operator), epoch=1)


def test_nothing_is_released_when_one_name_is_wrong(
    desk: Workspace, other: Workspace, colleague: User
) -> None:
    message, _ = fails("force_release", "other", "nowhere", "--note", "why")
    assert message == "No such workspace: nowhere. There are: desk, other."
    assert_held_by(other, tab(colleague), epoch=1)
    assert "No such user" in fails("force_release", "--user", "nobody", "--note", "why")[0]


# --- force_release --close, --dry-run, and open_control -------------------------------------------
def test_closing_ends_control_and_keeps_it_away_until_it_is_opened(
    desk: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    output = run("force_release", "desk", "--close", "--note", "maintenance")
    assert output.startswith("desk: closed, Olive Operator had it for ")
    assert_free(desk, reason="forced", epoch=1)
    assert refusal(leases.acquire, desk, tab(operator), ttl=300) == "closed"
    assert run("open_control", "desk") == "desk: open again\n"
    leases.acquire(desk, tab(operator), ttl=300)
    assert_held_by(desk, tab(operator), epoch=2)


def test_what_nobody_holds_can_be_closed_too(desk: Workspace, other: Workspace) -> None:
    assert run("force_release", "desk", "--close", "--note", "why") == (
        "desk: closed, nobody had control\n"
    )
    assert lease_of(desk).closed_note == "why"
    output = run("force_release", "--all", "--close", "--note", "all of it").splitlines()
    assert output[0] == "desk: closed, nobody had control"
    assert output[1].startswith("other: closed, colleague had it for ")
    assert lease_of(desk).closed_note == lease_of(other).closed_note == "all of it"
    assert run("open_control", "--all") == "desk: open again\nother: open again\n"
    assert lease_of(desk).closed_at is lease_of(other).closed_at is None


def test_closing_what_a_user_controls_closes_nothing_else(
    desk: Workspace, other: Workspace
) -> None:
    run("force_release", "--user", "colleague", "--close", "--note", "why")
    assert lease_of(other).closed_by == "the administrator"
    assert lease_of(desk).closed_at is None


@pytest.mark.parametrize("closing", [[], ["--close"]])
@pytest.mark.parametrize("form", [["desk", "other"], ["--all"], ["--user", "colleague"]])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    form: list[str], closing: list[str], desk: Workspace, other: Workspace, colleague: User
) -> None:
    before = list(DisplayControlLease.objects.values())
    output = run("force_release", *form, *closing, "--note", "why", "--dry-run")
    verb = "closed" if closing else "released"
    assert f"other: would be {verb}, colleague has had it for " in output
    rows = json.loads(run("force_release", *form, *closing, "--note", "why", "--dry-run", "--json"))
    assert [row["dry_run"] for row in rows] == [True] * len(rows)
    assert list(DisplayControlLease.objects.values()) == before
    assert_held_by(other, tab(colleague), epoch=1)


def test_a_dry_run_ends_as_the_real_one_would(desk: Workspace) -> None:
    message, output = fails("force_release", "desk", "--note", "why", "--dry-run")
    assert (message, output) == (
        "Nobody had control of any of these.",
        "desk: nobody has control\n",
    )
    output = run("force_release", "desk", "--close", "--note", "why", "--dry-run")
    assert output == "desk: would be closed, nobody has control\n"


def test_opening_what_is_open_is_an_error_and_says_so(desk: Workspace) -> None:
    message, output = fails("open_control", "desk")
    assert (message, output) == ("None of these was closed.", "desk: was not closed\n")
    assert fails("open_control", "--all")[0] == "None of these was closed."
    for form in ([], ["desk", "--all"]):
        assert "one of the two" in fails("open_control", *form)[0]
    assert "No such workspace" in fails("open_control", "nowhere")[0]


def test_what_is_closed_is_listed_with_who_closed_it_and_why(desk: Workspace) -> None:
    leases.close(desk, by="Mary Manager", note="fire drill")
    assert run("leases") == "desk: closed by Mary Manager (“fire drill”), epoch 0\n"
    (row,) = listed()
    assert (row["state"], row["closed_by"], row["closed_note"]) == (
        "closed",
        "Mary Manager",
        "fire drill",
    )
    assert row["closed_at"] is not None


# --- events and prune_events ----------------------------------------------------------------------
def told(*options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("events", *options).splitlines()]


def test_events_are_told_as_json_lines_oldest_first_and_without_client_ids(
    desk: Workspace, other: Workspace, operator: User
) -> None:
    leases.acquire(desk, tab(operator, "a-secret-client-id"), ttl=300)
    leases.force_release(desk, by="Mary Manager", note="für „alle“", ip="198.51.100.9")
    output = run("events")
    assert "secret" not in output
    assert "für „alle“" in output
    rows = told("--workspace", "desk")
    assert [(row["what"], row["who"]) for row in rows] == [
        ("acquired", "Olive Operator"),
        ("forced", "Mary Manager"),
    ]
    assert set(rows[1]) == {
        *("id", "at", "workspace", "what", "who", "epoch", "ended_epoch"),
        *("reason", "note", "ip", "count"),
    }
    assert (rows[1]["ended_epoch"], rows[1]["ip"], rows[1]["count"]) == (1, "198.51.100.9", 1)
    assert rows[0]["at"].endswith("Z")
    assert [row["workspace"] for row in told()] == ["other", "desk", "desk"]


def test_events_are_told_from_an_id_or_a_time_on(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    leases.release(desk, tab(operator))
    first, second = ControlEvent.objects.order_by("id")
    ControlEvent.objects.filter(pk=first.pk).update(at=second.at - timedelta(days=2))
    assert [row["id"] for row in told("--since", first.pk)] == [second.pk]
    assert told("--since", second.pk) == told("--since", 10**30) == []
    for moment in (second.at - timedelta(days=1), second.at):
        for text in (moment.isoformat(), moment.replace(tzinfo=None).isoformat()):
            assert [row["id"] for row in told("--since", text)] == [second.pk]
    assert len(told("--since", "2000-01-01")) == 2
    assert "neither the id" in fails("events", "--since", "yesterday")[0]


def test_events_of_a_workspace_that_was_removed_are_told_and_unknown_ones_are_an_error(
    desk: Workspace, operator: User
) -> None:
    assert told("--workspace", "desk") == []
    leases.acquire(desk, tab(operator), ttl=300)
    desk.delete()
    assert len(told("--workspace", "desk")) == 1
    assert "no workspace nowhere" in fails("events", "--workspace", "nowhere")[0]


def test_old_events_are_removed_and_newer_ones_stay(desk: Workspace, operator: User) -> None:
    leases.acquire(desk, tab(operator), ttl=300)
    leases.release(desk, tab(operator))
    first, second = ControlEvent.objects.order_by("id")
    ControlEvent.objects.filter(pk=first.pk).update(at=first.at - timedelta(days=31))
    assert run("prune_events", "--days", 31, "--dry-run") == "1 event(s) would be removed\n"
    assert ControlEvent.objects.count() == 2
    assert run("prune_events", "--days", 32) == "0 event(s) removed\n"
    assert run("prune_events", "--days", 31) == "1 event(s) removed\n"
    assert ControlEvent.objects.get() == second


@pytest.mark.parametrize("days", [["--days", "0"], ["--days", "x"], ["--days", "-1"], []])
def test_how_many_days_are_kept_must_be_said(days: list[str], db: None) -> None:
    assert "--days" in fails("prune_events", *days)[0]
