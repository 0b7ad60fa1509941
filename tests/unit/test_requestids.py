"""Every request has an id, in its lines and in its answer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from controlplane import logs
from controlplane.proxies import REQUEST_ID
from controlplane.requestids import RequestIds


async def answer_of(**scope: Any) -> tuple[Any, dict[str, Any]]:
    """Return the id in the application, and the first message of its answer."""
    found: list[Any] = []
    sent: list[dict[str, Any]] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        found.append(logs.ids().get("request_id"))
        await send({"type": f"{scope['type']}.response.start", "headers": [(b"a", b"b")]})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await RequestIds(application)({"type": "http", **scope}, None, send)
    return found[0], sent[0]


async def test_the_proxys_id_is_kept_and_answered() -> None:
    request_id, answer = await answer_of(**{REQUEST_ID: "4711-abc.d_e:f"})
    assert request_id == "4711-abc.d_e:f"
    assert answer["headers"] == [(b"a", b"b"), (b"x-request-id", b"4711-abc.d_e:f")]


@pytest.mark.parametrize("unfit", ["", "a b", "a\nb", "a\n", "x" * 65, "é", '"'])
async def test_one_that_does_not_fit_into_a_line_is_replaced(unfit: str) -> None:
    request_id, answer = await answer_of(**{REQUEST_ID: unfit})
    assert re.fullmatch(r"[0-9a-f]{16}", request_id)
    assert answer["headers"][-1] == (b"x-request-id", request_id.encode())


async def test_no_two_requests_have_the_same() -> None:
    assert len({(await answer_of())[0] for _ in range(50)}) == 50


async def test_a_websocket_has_one_too_and_its_messages_are_left_alone() -> None:
    request_id, first = await answer_of(type="websocket")
    assert request_id
    assert first["headers"] == [(b"a", b"b")]


async def test_what_is_no_request_has_none() -> None:
    logs._ids.set(None)
    request_id, _ = await answer_of(type="lifespan")
    assert request_id is None
