"""Log lines carry no session token, wherever it came from, and the ids of what they are about."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane import background, crypto, logs
from controlplane.logs import IdsFilter, JsonFormatter, NoQueryFilter, RedactingFormatter

TOKEN = crypto.encrypt("session token", "a login and a client_id").rstrip("=")
FORMAT = "{levelname} {name}: {message}"


def line(message: str, *args: object, raised: bool = False) -> str:
    """Return what is written for a record."""
    record = logging.LogRecord(
        "uvicorn", logging.INFO, __file__, 1, message, args, sys.exc_info() if raised else None
    )
    return RedactingFormatter(FORMAT, style="{").format(record)


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/workspaces/desk/display/session/websockify?token={} HTTP/1.1",
        "?a=1&token={}&b=2",
        "GET /api/events?client_id={} HTTP/1.1",
        "wss://desk.example/websockify#token={}",
        "desktopctl.v1, desktopctl.token.{}, binary",
        "['desktopctl.v1', 'desktopctl.token.{}']",
        '{{"subprotocols": ["desktopctl.token.{}"]}}',
        "b'token={}'",
        "(token={})",
        "token={}",
    ],
)
def test_a_token_is_hidden_and_the_rest_of_the_line_is_kept(text: str) -> None:
    written = line("%s", text.format(TOKEN))
    assert TOKEN not in written
    assert TOKEN[:20] not in written
    assert TOKEN[-20:] not in written
    assert "[hidden]" in written
    head, _, tail = text.format("…").partition("…")
    assert written.startswith(f"INFO uvicorn: {head}")
    assert written.endswith(tail)


def test_every_token_of_a_line_is_hidden() -> None:
    written = line("token=%s token=%s", TOKEN, TOKEN)
    assert written == "INFO uvicorn: token=[hidden] token=[hidden]"


def test_a_token_in_a_traceback_is_hidden() -> None:
    try:
        raise ValueError(f"cannot parse ?token={TOKEN}")
    except ValueError:
        written = line("failed", raised=True)
    assert "Traceback" in written
    assert "cannot parse ?token=[hidden]" in written
    assert TOKEN not in written


def test_a_line_without_a_token_is_left_alone() -> None:
    assert line("stream %d of %s closed", 5, "desk") == "INFO uvicorn: stream 5 of desk closed"


# --- JSON -----------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    token = logs._ids.set(None)
    yield
    logs._ids.reset(token)


def json_line(message: str, *args: object, raised: bool = False) -> dict[str, Any]:
    """Return what is written for a record as JSON; it must be one line."""
    record = logging.LogRecord(
        "uvicorn", logging.ERROR, __file__, 1, message, args, sys.exc_info() if raised else None
    )
    assert IdsFilter().filter(record)
    written = JsonFormatter().format(record)
    assert "\n" not in written
    return dict(json.loads(written))


def test_a_json_line_says_what_when_and_how_grave() -> None:
    found = json_line("stream %d of %s closed", 5, "“desk”")
    assert (found["level"], found["logger"]) == ("ERROR", "uvicorn")
    assert found["message"] == "stream 5 of “desk” closed"
    assert found["time"].endswith("+00:00")
    assert found.keys() == {"time", "level", "logger", "process", "message"}


def test_a_token_before_a_quote_is_hidden_and_the_line_stays_json() -> None:
    found = json_line('{"q": "?token=%s", "b": 1}', TOKEN)
    assert found["message"] == '{"q": "?token=[hidden]", "b": 1}'


def test_a_traceback_is_a_field_of_its_line_without_tokens() -> None:
    try:
        raise ValueError(f"cannot parse ?token={TOKEN}")
    except ValueError:
        found = json_line("failed", raised=True)
    assert found["message"] == "failed"
    assert "Traceback" in found["exception"]
    assert TOKEN not in found["exception"]


# --- Ids ------------------------------------------------------------------------------------------
def test_what_a_request_has_noted_is_in_its_lines() -> None:
    logs.begin("4711")
    logs.note(workspace="desk", user_id=3)
    found = json_line("x")
    assert (found["request_id"], found["workspace"], found["user_id"]) == ("4711", "desk", 3)


def test_outside_of_requests_nothing_is_noted() -> None:
    logs.note(workspace="desk")
    assert logs.ids() == {}


async def test_tasks_and_threads_of_a_request_share_what_is_noted() -> None:
    logs.begin("4711")
    await asyncio.gather(asyncio.to_thread(logs.note, user_id=3))
    assert logs.ids() == {"request_id": "4711", "user_id": 3}


async def test_a_task_that_serves_all_has_nobodys_ids() -> None:
    logs.begin("4711")

    async def look() -> dict[str, object]:
        return dict(logs.ids())

    assert await background.start(look(), "look") == {}


def test_people_see_the_requests_id_at_the_end_of_the_line() -> None:
    logs.begin("4711")
    record = logging.LogRecord("uvicorn", logging.INFO, __file__, 1, "said", (), None)
    IdsFilter().filter(record)
    written = RedactingFormatter(FORMAT, style="{").format(record)
    assert written == "INFO uvicorn: said [4711]"


def test_lines_of_a_server_lose_their_queries() -> None:
    message = '%s - "%s %s HTTP/%s" %d'
    args = ("127.0.0.1:5", "GET", "/sign-in/callback?code=geheim&state=x", "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, __file__, 1, message, args, None)
    assert NoQueryFilter().filter(record)
    assert record.getMessage() == '127.0.0.1:5 - "GET /sign-in/callback HTTP/1.1" 200'
