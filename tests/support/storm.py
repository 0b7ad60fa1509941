"""One of the storm's processes: it calls leases.py, without a pause, and writes down each answer.

    python -m tests.support.storm SEED CALLS < go > history

It prints a line when it is ready, waits for one, and then prints its calls, each a line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desktopctl.settings")
django.setup()

# Django must be set up before its models can be imported.
from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402

from controlplane import access, leases, presenters  # noqa: E402
from controlplane.api.control import refused  # noqa: E402
from controlplane.exceptions import ControlRefused  # noqa: E402
from controlplane.leases import Holder  # noqa: E402
from controlplane.models import Controller, Workspace  # noqa: E402

TABS = 2
TTLS = (0.02, 0.2, 5.0)  # so that many leases run out, and some are resumed


class Storm:
    """Random calls of random people; what they were and what came of them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._desks = list(Workspace.objects.order_by("id"))
        self._users = list(User.objects.select_related("api_token").order_by("id"))
        self._epochs = {desk.pk: 0 for desk in self._desks}  # the newest that was heard of
        self._calls: list[tuple[Callable[[Workspace, Holder], Any], int]] = [
            (self._acquire, 6),
            (self._renew, 6),
            (self._move, 2),
            (self._release, 4),
            (self._force, 1),
            (self._hand_over, 3),
        ]

    def once(self) -> dict[str, Any]:
        """Make one call, and return its history."""
        desk, holder = self._random.choice(self._desks), self._holder()
        call = self._random.choices(*zip(*self._calls, strict=True))[0]
        told: dict[str, Any] = {
            "call": call.__name__.strip("_"),
            "desk": desk.slug,
            "who": holder.name,
            "client_id": holder.client_id,
            "start": time.monotonic(),
        }
        try:
            told["result"] = call(desk, holder)
        except ControlRefused as refusal:
            told["refused"] = refusal.code
            told["answer"] = _answer(refusal, desk, holder)
        return {**told, "end": time.monotonic()}

    def _holder(self) -> Holder:
        user = self._random.choice(self._users)
        kind = Controller.AGENT if hasattr(user, "api_token") else Controller.USER
        client_id = f"tab-{self._random.randrange(TABS)}-of-user-{user.pk}"
        return Holder(user, client_id, kind)

    def _ttl(self) -> float:
        return self._random.choice(TTLS)

    def _epoch(self, desk: Workspace) -> int:
        """Mostly the newest that this process knows of."""
        return max(0, self._epochs[desk.pk] - self._random.choice([0, 0, 0, 1, 2]))

    def _acquire(self, desk: Workspace, holder: Holder, **more: Any) -> int:
        epoch = leases.acquire(desk, holder, ttl=self._ttl(), **more).epoch
        self._epochs[desk.pk] = max(epoch, self._epochs[desk.pk])
        return epoch

    def _renew(self, desk: Workspace, holder: Holder) -> int:
        return self._acquire(desk, holder, epoch=self._epoch(desk))

    def _move(self, desk: Workspace, holder: Holder) -> int:
        return self._acquire(desk, holder, move=True)

    def _release(self, desk: Workspace, holder: Holder) -> None:
        epoch = self._random.choice([None, self._epoch(desk)])
        self._epochs[desk.pk] = leases.release(desk, holder, epoch=epoch).epoch

    def _force(self, desk: Workspace, holder: Holder) -> bool:
        return leases.force_release(desk, by="Mary Manager", note="storm") is not None

    def _hand_over(self, desk: Workspace, holder: Holder) -> bool:
        """Nobody is asked, as after the countdown of a request."""
        epoch = self._epoch(desk)
        return leases.hand_over(desk, None, holder, epoch=epoch, ttl=self._ttl())


def _answer(refusal: ControlRefused, desk: Workspace, holder: Holder) -> str:
    """What the API would say to who was refused."""
    viewer = presenters.Viewer(holder.user, holder.client_id, access.NONE)
    answer = refused(refusal, desk, viewer)
    return f"{refusal!r} {refusal.by} {answer.message} {json.dumps(answer.current)}"


def main() -> None:
    """Make the calls."""
    storm, calls = Storm(int(sys.argv[1])), int(sys.argv[2])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for _ in range(calls):
        sys.stdout.write(json.dumps(storm.once()) + "\n")
    connection.close()


if __name__ == "__main__":
    main()
