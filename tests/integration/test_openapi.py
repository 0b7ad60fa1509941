"""The API keeps what its OpenAPI document promises, whatever it is sent (schemathesis)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection
from hypothesis import HealthCheck, settings
from schemathesis.checks import ignored_auth, positive_data_acceptance

from controlplane import screenshots
from controlplane.models import Workspace
from controlplane.ratelimits import parse_rate
from tests.integration.people import CSRF, Browser
from tests.integration.programs import token

api = schemathesis.openapi.from_wsgi("/api/openapi.json", WSGIHandler())
api = api.exclude(path="/api/events")  # it never ends, and is ASGI's alone: test_event_streams.py
api.config.generation.update(with_security_parameters=False)  # who calls is for us to say

# The same every time; function-scoped fixtures are meant: what one call leaves, the next one finds.
BOUNDED = settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
    ],
)


# Who calls is nothing that the database decides, and who asks for a workspace that there is not
# hardly reaches it: on SQLite, the one who gets furthest is enough.
ON_SQLITE = connection.vendor == "sqlite"
CALLERS = ["a program"] if ON_SQLITE else ["a program", "nobody"]
INSIDERS = ["a program"] if ON_SQLITE else ["a program", "a person"]
anywhere = api.exclude(path_regex="slug") if ON_SQLITE else api


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Calls share the test's transaction, as those of Django's own test client do."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture(autouse=True)
def _no_rates(settings: Any) -> None:
    settings.API_RATE_PER_ADDRESS = settings.API_RATE_PER_TOKEN = parse_rate("X", "1000000/minute")


@pytest.fixture(autouse=True)
def _any_desktop_gives_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none to be dialled; what one says is the matter of test_screenshots.py."""
    picture = screenshots.Picture(32, 24, bytearray(32 * 24 * 4))
    monkeypatch.setattr(screenshots, "take", lambda *_: picture)


@pytest.fixture
def credentials(request: pytest.FixtureRequest, desk: Workspace, admin: User) -> dict[str, Any]:
    """What a caller who may do everything sends along, or a stranger."""
    if request.param == "nobody":
        return {}
    if request.param == "a program":
        text = token("observe", "control", "manage")[1]
        return {"headers": {"Authorization": f"Bearer {text}"}}
    cookies = {"sessionid": Browser(admin).session_key, "csrftoken": CSRF}
    return {"headers": {"X-CSRFToken": CSRF}, "cookies": cookies}


def contradicts_itself(case: schemathesis.Case) -> bool:
    """Whether fields of the body do not go together, of which a document of fields says nothing."""
    body = case.body if isinstance(case.body, dict) else {}
    forces, closes = body.get("force") is True, body.get("close") is True
    if "upstream_url" in body and "port" in body:
        return True
    if (forces and body.get("outcome")) or not str(body.get("reason", "why")).strip():
        return True
    return (forces and not str(body.get("note", "")).strip()) or (closes and not forces)


def is_for_the_models_to_judge(case: schemathesis.Case) -> bool:
    """Whether the body holds an address, or what goes with one: too much for a pattern."""
    body = case.body if isinstance(case.body, dict) else {}
    return any(body.get(name) for name in ("upstream_url", "upstream_query", "upstream_headers"))


def call(case: schemathesis.Case, credentials: dict[str, Any]) -> None:
    """Call, and fail unless the answer is one that the document tells of."""
    excluded = [ignored_auth]  # takes headers away, but no cookies; see test_permissions.py
    is_a_guess = case.path == "/api/links/exchange"  # nobody but a link's maker knows its ticket
    if contradicts_itself(case) or is_for_the_models_to_judge(case) or is_a_guess:
        excluded.append(positive_data_acceptance)
    case.call_and_validate(excluded_checks=excluded, **credentials)


@pytest.mark.parametrize("credentials", CALLERS, indirect=True)
@anywhere.parametrize()
@BOUNDED
def test_every_answer_is_one_that_the_document_tells_of(
    case: schemathesis.Case, credentials: dict[str, Any]
) -> None:
    call(case, credentials)


@pytest.mark.parametrize("credentials", INSIDERS, indirect=True)
@api.include(path_regex="slug").parametrize()
@BOUNDED
def test_so_is_every_answer_about_a_workspace_that_there_is(
    case: schemathesis.Case, credentials: dict[str, Any]
) -> None:
    case.path_parameters["slug"] = "desk"
    call(case, credentials)


@pytest.mark.parametrize(("epoch", "status"), [(1, 200), (1.0, 200), (1.5, 400), ("1", 400)])
def test_a_number_without_a_fraction_is_an_integer_as_in_json(
    epoch: object, status: int, desk: Workspace, operator: User
) -> None:
    browser = Browser(operator)
    browser.acquire()
    assert browser.acquire(epoch=epoch).status_code == status
