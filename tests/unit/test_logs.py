"""No log line carries a session token, wherever the token came from."""

from __future__ import annotations

import logging
import sys

import pytest

from controlplane import crypto
from controlplane.logs import RedactingFormatter

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
