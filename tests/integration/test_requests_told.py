"""What pages are told of requests for control: whose they are, and how they ended."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now

from controlplane import handovers, leases
from controlplane.models import ControlRequest, DisplayStream, Workspace
from controlplane.verdicts import Cause, Seen, examine
from tests.integration.people import (
    OTHER_TAB,
    THIS_TAB,
    Browser,
    open_stream,
    question,
    tab,
    view_of,
)

CONTROL = "/api/workspaces/desk/display/control"


@pytest.fixture
def asked(desk: Workspace, operator: User, colleague: User) -> ControlRequest:
    """The colleague, in another tab than this, asks the operator, who is at work."""
    leases.acquire(desk, tab(operator), ttl=300)
    open_stream(desk, operator)
    DisplayStream.objects.update(last_input_at=Now())
    open_stream(desk, colleague, OTHER_TAB)
    handovers.ask(desk, tab(colleague, OTHER_TAB), "please")
    return ControlRequest.objects.get(workspace=desk)


def shown_to(user: User, client_id: str) -> dict[str, Any]:
    answer = Browser(user).get(CONTROL, **{"X-Client-Id": client_id})
    (request,) = json.loads(answer.content)["requests"]
    return dict(request)


def test_the_tab_that_has_asked_is_told_apart_from_others_and_from_other_people(
    asked: ControlRequest, operator: User, colleague: User
) -> None:
    for user, client_id, yours, this_client in [
        (colleague, OTHER_TAB, True, True),
        (colleague, THIS_TAB, True, False),
        (operator, OTHER_TAB, False, False),
    ]:
        request = shown_to(user, client_id)
        assert (request["yours"], request["this_client"]) == (yours, this_client)
        assert OTHER_TAB not in json.dumps(request)


def cause_for(stream: DisplayStream, seen: Seen) -> Cause:
    """Return why this stream is told what has changed since it saw ``seen``."""
    asked = question(
        stream.pk,
        stream.workspace_id,
        stream.user_id,
        client_id=stream.client_id,
        upstream_version=stream.workspace.upstream_version,
        seen=seen,
    )
    return examine([asked], False)[asked].cause


@pytest.fixture
def askers(asked: ControlRequest, desk: Workspace) -> tuple[DisplayStream, Seen]:
    """The asker's stream, and what it has seen: its open request."""
    return DisplayStream.objects.get(client_id=OTHER_TAB), Seen.of(view_of(desk))


def test_an_asker_is_told_that_nobody_has_answered(
    asked: ControlRequest, askers: tuple[DisplayStream, Seen], settings: Any
) -> None:
    overdue = timedelta(seconds=settings.DISPLAY.request_seconds)
    ControlRequest.objects.update(asked_at=F("asked_at") - overdue)
    handovers.settle(asked.workspace_id)
    assert cause_for(*askers) == Cause("unanswered", "Olive Operator", None)


def test_an_asker_is_told_who_has_declined(
    asked: ControlRequest, askers: tuple[DisplayStream, Seen], operator: User
) -> None:
    handovers.answer(asked.workspace, tab(operator), asked.pk, epoch=1, accept=False, ttl=300)
    assert cause_for(*askers) == Cause("declined", "Olive Operator", None)
