"""Programs that call the API with a token of their own, beside the people of ``people.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django.http import HttpResponse
from django.test import Client

from controlplane import apitokens
from controlplane.models import ApiToken, Workspace
from tests.integration.people import THIS_TAB

PROCESS = "agent-process-1"


def token(
    *scopes: str, name: str = "Builder", workspaces: Iterable[Workspace] | None = None, **more: Any
) -> tuple[ApiToken, str]:
    """Make a token (for all workspaces, unless some are named); return its row and its text."""
    return apitokens.create(name, scopes, workspaces=workspaces, **more)


class Program:
    """A program that sends ``text`` as its token; CSRF checks are on, and it knows of none."""

    def __init__(self, text: str, **options: Any) -> None:
        self.client = Client(enforce_csrf_checks=True, **options)
        self.authorization = f"Bearer {text}"

    def get(self, path: str, **headers: str) -> HttpResponse:
        """GET a path."""
        return self.send("GET", path, None, **headers)

    def send(self, method: str, path: str, body: object, **headers: str) -> HttpResponse:
        """Send JSON, or nothing where ``body`` is None."""
        return self.client.generic(  # type: ignore[return-value]  # a test's response
            method,
            path,
            "" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"Authorization": self.authorization, **headers},
        )

    def acquire(self, client_id: str = PROCESS, slug: str = "desk", **more: Any) -> HttpResponse:
        """Take or renew control."""
        path = f"/api/workspaces/{slug}/display/control/acquire"
        return self.send("POST", path, {"client_id": client_id, **more})

    def release(self, client_id: str = PROCESS, slug: str = "desk", **more: Any) -> HttpResponse:
        """Give control back, or end somebody's."""
        path = f"/api/workspaces/{slug}/display/control/release"
        return self.send("POST", path, {"client_id": client_id, **more})

    def session(self, client_id: str = THIS_TAB, slug: str = "desk", **more: Any) -> HttpResponse:
        """Ask for an address to watch at."""
        path = f"/api/workspaces/{slug}/display/session"
        return self.send("POST", path, {"client_id": client_id, **more})
